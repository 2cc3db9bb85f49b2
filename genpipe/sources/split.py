"""Train or test by content, for every kind of data: distinct first, near copies together, each class on both sides.

Sides and orders are functions of what the examples hold, never of names, labels or positions, so renaming files or
classes moves nothing, and adding examples moves no other one across unless it joins their groups.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from networkx.utils import UnionFind


class Distinct(NamedTuple):
    """One item for each content, and how many were left out."""

    items: list[int]  # numbers of the items kept, in the order given
    copies: int  # items left out since an earlier one has the same content
    contradicting: int  # items left out since their content stands under two or more labels


def digest(content: bytes) -> bytes:
    """The SHA-256 of an example: what the functions of this file take for its content."""
    return hashlib.sha256(content).digest()


def distinct(digests: Sequence[bytes], labels: Sequence[Hashable] | None = None) -> Distinct:
    """The first item of each content; where there are labels, none of a content that has several."""
    known: dict[bytes, set[Hashable]] = {}
    for number, content in enumerate(digests):
        known.setdefault(content, set()).add(labels[number] if labels else None)
    first: dict[bytes, int] = {}
    for number, content in enumerate(digests):
        if len(known[content]) == 1:
            first.setdefault(content, number)
    contradicting = sum(len(known[content]) > 1 for content in digests)
    return Distinct(list(first.values()), len(digests) - contradicting - len(first), contradicting)


def content_order(digests: Sequence[bytes]) -> list[int]:
    """The numbers of the items in the order of their contents; equal ones stay in the order given."""
    return sorted(range(len(digests)), key=digests.__getitem__)


def groups(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """The group of each item: the number of its first item. Items that share a key, also by way of others, are in one."""
    owners: dict[Hashable, int] = {}
    union = UnionFind(range(len(keys)))
    for number, item in enumerate(keys):
        for key in item:
            union.union(owners.setdefault(key, number), number)
    first: dict[int, int] = {}
    return [first.setdefault(union[number], number) for number in range(len(keys))]


def split_by_group(
    digests: Sequence[bytes],
    test_share: float,
    keys: Sequence[Iterable[Hashable]] | None = None,
    labels: Sequence[Hashable] | None = None,
) -> list[bool]:
    """Which items are for testing: about `test_share` of the groups of those that share a content or a key.

    Each class with two or more groups has some on both sides, and a class with one has it in training; without labels
    all items are one class. A group lies on one side whatever labels it holds.
    """
    own: Sequence[Iterable[Hashable]] = keys or [()] * len(digests)
    group = groups(
        [[("content", d), *(("key", k) for k in more)] for d, more in zip(digests, own, strict=True)]
    )
    places = _places(group, digests)
    classes: dict[Hashable, set[int]] = {}
    for number, label in zip(group, labels or [None] * len(group), strict=True):
        classes.setdefault(label, set()).add(number)
    tested = {number for number, place in places.items() if place < test_share}
    # Both changes look at all classes before they move a group, so the order of the classes does not matter.
    untested = [members for members in classes.values() if len(members) > 1 and not members & tested]
    tested |= {min(members, key=places.__getitem__) for members in untested}
    untrained = [members for members in classes.values() if members <= tested]
    tested -= {max(members, key=places.__getitem__) for members in untrained}
    return [number in tested for number in group]


def _places(group: Sequence[int], digests: Sequence[bytes]) -> dict[int, float]:
    """A number in [0, 1) for each group, uniform whatever its size."""
    smallest: dict[int, bytes] = {}
    for number, content in zip(group, digests, strict=True):
        smallest[number] = min(content, smallest.get(number, content))
    # Hashed once more: the smallest of many digests is small, so large groups would all be for testing.
    return {
        number: int.from_bytes(digest(b"split" + content)[:6], "big") / 2**48
        for number, content in smallest.items()
    }
