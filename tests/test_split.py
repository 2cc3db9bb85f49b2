"""Splitting by content: what is distinct, what belongs together, and which side it is on."""

import random

import pytest

from genpipe.sources.split import content_order, digest, distinct, groups, split_by_group

SHARE = 0.2


def digests_of(*contents: str) -> list[bytes]:
    return [digest(content.encode()) for content in contents]


def numbered(count: int) -> list[bytes]:
    return digests_of(*map(str, range(count)))


def test_copies_are_counted_and_contents_under_two_labels_are_dropped() -> None:
    digests = digests_of("a", "b", "a", "c", "b", "a")
    assert distinct(digests) == ([0, 1, 3], 3, 0)
    assert distinct(digests, ["x", "x", "x", "y", "y", "x"]) == ([0, 3], 2, 2)


def test_items_that_share_keys_through_others_are_one_group() -> None:
    assert groups([["a"], ["b"], ["b", "c"], [], ["c", "a"], ["d"]]) == [0, 0, 0, 3, 0, 5]


def test_a_group_is_on_one_side() -> None:
    keys = [[f"line {number // 3}"] for number in range(600)]
    tested = split_by_group(numbered(600), SHARE, keys)
    assert all(len(set(tested[i : i + 3])) == 1 for i in range(0, 600, 3))
    assert 0 < sum(tested) < 600


def test_equal_contents_are_on_one_side() -> None:
    tested = split_by_group(numbered(300) * 2, SHARE)
    assert tested[:300] == tested[300:]


def test_large_groups_are_tested_as_often_as_small_ones() -> None:
    keys = [[number // 50] for number in range(50 * 2000)]
    tested = split_by_group(numbered(len(keys)), SHARE, keys)
    assert sum(tested[::50]) / 2000 == pytest.approx(SHARE, abs=0.03)


def test_the_side_depends_neither_on_order_nor_on_labels() -> None:
    items = [
        (content, key, f"class {n % 7}")
        for n, (content, key) in enumerate(zip(numbered(200), range(200), strict=True))
    ]
    before = dict(zip((item[0] for item in items), split(items), strict=True))
    random.Random(0).shuffle(items)
    renamed = [(content, key, f"{hash(label)}") for content, key, label in items]
    assert dict(zip((item[0] for item in items), split(renamed), strict=True)) == before


def split(items: list[tuple[bytes, int, str]]) -> list[bool]:
    contents, keys, labels = zip(*items, strict=True)
    return split_by_group(contents, SHARE, [[key // 2] for key in keys], labels)


def test_adding_an_example_moves_no_other_one() -> None:
    digests = numbered(500)
    assert split_by_group(digests, SHARE)[:400] == split_by_group(digests[:400], SHARE)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_each_class_of_two_or_more_is_on_both_sides(share: float) -> None:
    labels = [number // 2 for number in range(200)]
    tested = split_by_group(numbered(200), share, labels=labels)
    assert all(tested[i] != tested[i + 1] for i in range(0, 200, 2))


def test_a_class_of_one_is_in_training() -> None:
    assert not any(split_by_group(numbered(50), 0.99, labels=range(50)))


def test_the_order_of_contents_is_no_order_of_the_items() -> None:
    digests = numbered(100)
    order = content_order(digests)
    assert sorted(order) == list(range(100))
    assert order != sorted(order)
    assert [digests[i] for i in order] == [digests[::-1][i] for i in content_order(digests[::-1])]
