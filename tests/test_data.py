"""Batches: pure functions of (seed, step, batch size) in which every example is seen equally often."""

from collections import Counter
from itertools import count, takewhile

import numpy as np
import pytest

from genpipe.data.loader import shuffled_rows
from genpipe.data.pairs import Pairs
from genpipe.files import write_json

TOKENS = ["<unk>", "\n"]
SIZES = {5: 40, 7: 25, 4: 3}  # pairs of a length


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    """Pairs whose first character names them."""
    directory = tmp_path_factory.mktemp("pairs")
    lines = [[2 + number] * length for length, size in SIZES.items() for number in range(size)]
    documents = [[*line, 1, *line] for line in lines]
    write_json(directory / "vocabulary.json", [*TOKENS, *map(str, range(40))])
    for split in ("train", "test"):
        np.save(directory / f"{split}.ids.npy", np.concatenate(documents).astype(np.uint16))
        np.save(directory / f"{split}.offsets.npy", np.cumsum([0, *map(len, documents)]))
    return Pairs(directory)


def seen(pairs: Pairs, steps: range, batch_size: int, seed: int = 0) -> Counter:
    """How often each pair, (its length, its number), is in the batches of some steps."""
    views: Counter = Counter()
    for step in steps:
        upper = pairs.train_batch(seed, step, batch_size)["upper"]
        assert len(upper) == batch_size
        views.update((upper.shape[1], line[0]) for line in upper.tolist())
    return views


def steps_of(epochs: int, batch_size: int) -> int:
    """The batches of some epochs: each length takes its pairs, and fills its last batch."""
    return sum(-(-epochs * size // batch_size) for size in SIZES.values())


@pytest.mark.parametrize("batch_size", [1, 4, 8, 12, 64])
@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_every_pair_is_seen_once_an_epoch_and_those_that_fill_a_last_batch_once_more(
    pairs, epochs, batch_size
):
    """Drawn with replacement, a quarter of the pairs or more was never seen in an epoch."""
    views = seen(pairs, range(steps_of(epochs, batch_size)), batch_size)
    assert len(views) == sum(SIZES.values())
    for (length, _), times in views.items():
        assert epochs <= times <= epochs + -(-batch_size // SIZES[length])
    for length, size in SIZES.items():
        filled = -epochs * size % batch_size
        assert sum(n for (of, _), n in views.items() if of == length) == epochs * size + filled


def test_where_batches_divide_the_lengths_every_pair_is_seen_equally_often(pairs):
    assert set(seen(pairs, range(steps_of(8, 8)), 8).values()) == {8}


def test_a_batch_of_pairs_is_a_function_of_seed_step_and_size(pairs):
    again = [seen(pairs, range(step, step + 1), 4) for step in reversed(range(20))]
    assert again[::-1] == [seen(pairs, range(step, step + 1), 4) for step in range(20)]
    assert seen(pairs, range(1), 4) != seen(pairs, range(1), 4, seed=1)


def test_the_lengths_of_an_epoch_are_mixed(pairs):
    """Not all of one length and then all of the next, and no two epochs in the same order."""
    lengths = [pairs.train_batch(0, step, 1)["upper"].shape[1] for step in range(2 * sum(SIZES.values()))]
    first, second = lengths[: len(lengths) // 2], lengths[len(lengths) // 2 :]
    assert sorted(first) == sorted(second) == sorted(n for n, size in SIZES.items() for _ in range(size))
    assert first != second
    assert first != sorted(first)


def test_rows_are_seen_equally_often_and_a_last_batch_goes_on_into_the_next_epoch():
    views = Counter(row for step in range(7) for row in shuffled_rows(21, 0, step, 6).tolist())
    assert set(views.values()) == {2}
    epochs = takewhile(lambda step: step < 4, count())
    first = [row for step in epochs for row in shuffled_rows(21, 0, step, 6).tolist()][:21]
    assert sorted(first) == list(range(21))
