"""Batches: pure functions of (seed, step, batch size) in which every example is seen equally often."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import count, product, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genpipe.data.loader import Data, shuffled_rows
from genpipe.data.opening import open_data, require_whole_groups
from genpipe.data.pairs import Pairs
from genpipe.errors import BadInput, BadState
from genpipe.files import write_json

SIZES = {5: 40, 7: 25, 4: 3}  # pairs of a length


def describe(directory: Path, kind: str, splits: Sequence[str] = ("train", "test"), **facts: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "data.json", {"kind": kind, "splits": list(splits), "facts": facts})
    if "num_tokens" in facts:
        write_json(directory / "vocabulary.json", ["<unk>", *map(str, range(1, facts["pad"]))])
        codec = {"tokenizer": "char", "normalise": [], "tokenizer_file": None}
        write_json(directory / "codec.json", codec)
    return directory


def special(number: int) -> dict[str, Any]:
    """Facts of a vocabulary of so many tokens."""
    names = ("pad", "start", "end", "sep", "mask")
    return {"num_tokens": number + 5} | {name: number + i for i, name in enumerate(names)}


def write_texts(directory: Path, split: str, field: str, texts: Sequence[Sequence[int]]) -> None:
    np.save(directory / f"{split}.{field}.ids.npy", np.array([i for t in texts for i in t], np.uint16))
    np.save(directory / f"{split}.{field}.offsets.npy", np.cumsum([0, *map(len, texts)]))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    """Pairs whose first character names them."""
    directory = describe(tmp_path_factory.mktemp("pairs"), "pairs", max_length=7, **special(40))
    lines = [[number] * length for length, size in SIZES.items() for number in range(size)]
    for split, field in product(("train", "test"), ("source", "target")):
        write_texts(directory, split, field, lines)
    found = open_data(directory, {"aligned": True})
    assert isinstance(found, Pairs)
    return found


def seen(pairs: Pairs, steps: range, batch_size: int, seed: int = 0) -> Counter:
    """How often each pair, (its length, its number), is in the batches of some steps."""
    views: Counter = Counter()
    for step in steps:
        source = pairs.train_batch(seed, step, batch_size)["source"]
        assert len(source) == batch_size
        views.update((source.shape[1], line[0]) for line in source.tolist())
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
    lengths = [pairs.train_batch(0, step, 1)["source"].shape[1] for step in range(2 * sum(SIZES.values()))]
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


def images(directory: Path, number: int = 130) -> Path:
    describe(directory, "images", image_shape=[3, 4, 5], num_images=number, num_classes=2)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        np.save(directory / f"{split}_images.npy", rng.integers(0, 256, (number, 3, 4, 5), np.uint8))
        np.save(directory / f"{split}_labels.npy", np.arange(number, dtype=np.uint8) % 2)
    return directory


def points(directory: Path, number: int = 130) -> Path:
    describe(directory, "points", dim=2)
    for split in ("train", "test"):
        np.save(directory / f"{split}_points.npy", np.random.default_rng(1).normal(size=(number, 2)))
    return directory


DOCUMENTS = [[1, 2, 3], [4], [], [5, 6], [7] * 9]


def stream(directory: Path) -> Path:
    describe(directory, "stream", **special(10))
    for split in ("train", "test"):
        write_texts(directory, split, "text", DOCUMENTS)
    return directory


def padded_pairs(directory: Path) -> Path:
    describe(directory, "pairs", max_length=4, **special(10))
    for split in ("train", "test"):
        write_texts(directory, split, "source", [[1, 2], [3], [4, 5, 6]])
        write_texts(directory, split, "target", [[1], [2, 3, 4, 5], [6, 7]])
    return directory


SPLITS = ("train", "test", "unseen")


def groups(directory: Path, sizes: Sequence[int] = (3, 2, 4, 2)) -> Path:
    describe(directory, "groups", SPLITS, num_groups=len(sizes), **special(20))
    numbers = [g for g, size in enumerate(sizes) for _ in range(size)]
    for split in SPLITS:
        write_texts(directory, split, "text", [[i] * (1 + i % 3) for i in range(len(numbers))])
        np.save(directory / f"{split}.group.npy", np.array(numbers))
    return directory


def tagged(directory: Path) -> Path:
    describe(directory, "tagged", num_tags=3, **special(10))
    for split in ("train", "test"):
        write_texts(directory, split, "text", [[1, 2], [3, 4, 5]])
        np.save(directory / f"{split}.tags.npy", np.array([2, 1, 0, 1, 2]))
    return directory


def passages(directory: Path) -> Path:
    describe(directory, "passages", max_length=3, **special(10))
    for split in ("train", "test"):
        write_texts(directory, split, "question", [[1], [2, 3]])
        write_texts(directory, split, "passages", [[4, 5], [6], [7, 8, 9]])
        write_texts(directory, split, "answer", [[4], [7], [8, 9]])
        np.save(directory / f"{split}.passages.items.npy", np.array([0, 2, 3]))
        np.save(directory / f"{split}.answer.items.npy", np.array([0, 1, 3]))
    return directory


def captions(directory: Path) -> Path:
    describe(directory, "captions", vector_dim=2, max_length=3, **special(10))
    for split in ("train", "test"):
        write_texts(directory, split, "text", [[1, 2], [3, 4, 5], [6]])
        np.save(directory / f"{split}.vector.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    return directory


WRITERS = {
    "images": (images, {}),
    "points": (points, {}),
    "stream": (stream, {"time": 5}),
    "pairs": (padded_pairs, {}),
    "groups": (groups, {}),
    "tagged": (tagged, {}),
    "passages": (passages, {}),
    "captions": (captions, {}),
}


@pytest.fixture(params=WRITERS)
def data(request, tmp_path) -> Data:
    write, batches = WRITERS[request.param]
    return open_data(write(tmp_path / request.param), batches)


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_batch_of_any_kind_is_a_function_of_seed_and_step(data: Data) -> None:
    first = [data.train_batch(3, step, 4) for step in range(8)]
    again = [data.train_batch(3, step, 4) for step in reversed(range(8))]
    assert all(map(same, first, reversed(again)))
    assert not all(map(same, first, [data.train_batch(4, step, 4) for step in range(8)]))
    assert {len(tensor) for batch in first for tensor in batch.values()} == {4}


def test_the_chunks_of_a_split_have_the_keys_of_a_batch_and_units_of_each_row(data: Data) -> None:
    keys = set(data.train_batch(0, 0, 2)) - {"aliases"}
    for name in data.splits:
        for chunk in data.split(name):
            assert keys <= set(chunk)
            rows = {len(tensor) for tensor in chunk.values()}
            assert len(rows) == 1
            assert max(rows) <= 100
            assert data.units(chunk).shape == (*rows,)
            assert (data.units(chunk) > 0).all()


def test_a_kind_refuses_an_option_that_it_does_not_have_and_lists_its_own(data: Data, tmp_path) -> None:
    (directory,) = tmp_path.iterdir()
    with pytest.raises(
        BadInput, match=r"train\.batches\.colour: not an option of the kind \w+, which takes: "
    ):
        open_data(directory, {"colour": "grey"})


def test_an_option_of_a_wrong_type_is_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"train\.batches\.time: .*greater than or equal to 1.*, not 0"):
        open_data(stream(tmp_path), {"time": 0})


def test_a_kind_that_nothing_trains_on_is_named_with_those_that_there_are(tmp_path) -> None:
    with pytest.raises(
        BadInput, match=r"kind 'text' cannot be trained on.*images, points, trajectory, stream"
    ):
        open_data(describe(tmp_path, "text"))
    with pytest.raises(BadState, match=r"data\.json: no such file"):
        open_data(tmp_path.parent)


def test_an_empty_split_is_named(tmp_path) -> None:
    with pytest.raises(BadInput, match="the split train is empty"):
        open_data(images(tmp_path, number=0))
    write_texts(stream(tmp_path / "s"), "test", "text", [])
    with pytest.raises(BadInput, match="the split test is empty"):
        open_data(tmp_path / "s", {"time": 5})


def test_a_split_that_there_is_not_is_named_with_those_that_there_are(tmp_path) -> None:
    with pytest.raises(BadInput, match="no split 'unseen', it has: train, test"):
        list(open_data(images(tmp_path)).split("unseen"))


@pytest.mark.parametrize("change", [{"facts": []}, {"splits": "train"}, {"kind": None}])
def test_a_damaged_data_json_is_one_line(tmp_path, change) -> None:
    directory = images(tmp_path)
    described = json.loads((directory / "data.json").read_text())
    write_json(directory / "data.json", {**described, **change})
    with pytest.raises(BadState, match=r"data\.json: must have kind .* splits .* facts"):
        open_data(directory)


def serial(order: Sequence[int], end: int) -> list[tuple[int, int]]:
    """Tokens and their documents of documents laid one after another."""
    return [(token, d) for d in order for token in [*DOCUMENTS[d], end]]


@pytest.mark.parametrize("time", [1, 3, 5, 20])
def test_windows_of_a_stream_are_its_documents_one_after_another(tmp_path, time) -> None:
    data = open_data(stream(tmp_path), {"time": time})
    chunks = list(data.split("test"))
    windows = {key: torch.cat([chunk[key] for chunk in chunks]) for key in chunks[0]}
    flat = windows["ids"].flatten().tolist()
    tokens = serial(range(len(DOCUMENTS)), data.facts["end"])
    assert flat[: len(tokens)] == [token for token, _ in tokens]
    assert set(flat[len(tokens) :]) <= {data.facts["pad"]}
    assert len(flat) - len(tokens) < time
    assert int(torch.cat([data.units(chunk) for chunk in chunks]).sum()) == len(tokens)
    assert_marks(windows, [d for _, d in tokens] + [-1] * (len(flat) - len(tokens)), time)


def assert_marks(windows: dict[str, Tensor], documents: list[int], time: int) -> None:
    """Documents are numbered and positions counted from 0 in each window."""
    for row, start in enumerate(range(0, len(documents), time)):
        own = documents[start : start + time]
        numbers = list(dict.fromkeys(own))
        assert windows["documents"][row].tolist() == [numbers.index(d) for d in own]
        assert windows["positions"][row].tolist() == [i - own.index(d) for i, d in enumerate(own)]


def test_an_epoch_of_a_stream_has_every_document_once_in_an_order_of_its_own(tmp_path) -> None:
    data = open_data(stream(tmp_path), {"time": 4})
    epochs = [data.train_batch(0, step, 5)["ids"].flatten().tolist() for step in range(3)]
    assert [sorted(ids) for ids in epochs] == [sorted(epochs[0])] * 3
    assert len({tuple(ids) for ids in epochs}) > 1
    assert sorted(epochs[0]) == sorted(token for token, _ in serial(range(5), data.facts["end"]))


def test_padding_is_right_of_the_text_and_lengths_say_where_it_begins(tmp_path) -> None:
    data = open_data(padded_pairs(tmp_path))
    (chunk,) = data.split("test")
    assert chunk["source"].tolist() == [[1, 2, 10], [3, 10, 10], [4, 5, 6]]
    assert chunk["source_lengths"].tolist() == [2, 1, 3]
    assert chunk["target_lengths"].tolist() == [1, 4, 2]
    cut = open_data(tmp_path, {"max_length": 2})
    assert next(cut.split("test"))["target"].tolist() == [[1, 10], [2, 3], [6, 7]]
    assert (data.facts["max_length"], cut.facts["max_length"]) == (4, 2)


def test_aligned_pairs_of_unequal_length_are_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="pair 0 has 2 and 1 tokens"):
        open_data(padded_pairs(tmp_path), {"aligned": True})


def test_a_batch_of_groups_has_its_texts_of_a_group_one_after_another(tmp_path) -> None:
    data = open_data(groups(tmp_path))
    seen: Counter = Counter()
    for step in range(40):
        batch = data.train_batch(0, step, 6)
        assert batch["groups"].view(3, 2).unique(dim=1).shape == (3, 1)
        names = batch["ids"][:, 0].view(3, 2)
        assert (names[:, 0] != names[:, 1]).all()
        seen.update(batch["ids"][:, 0].tolist())
    assert len(seen) == 11


def test_slices_that_would_cut_a_group_are_refused(tmp_path) -> None:
    data = open_data(groups(tmp_path))
    require_whole_groups(data, 8, 4)
    with pytest.raises(BadInput, match="12 in 4 slices would cut groups of 2 rows apart; take 16"):
        require_whole_groups(data, 12, 4)
    with pytest.raises(BadInput, match="2 of 4 groups have fewer than 3 texts"):
        open_data(tmp_path, {"per_group": 3})


def test_tags_stay_with_their_tokens_where_texts_are_cut(tmp_path) -> None:
    (chunk,) = open_data(tagged(tmp_path)).split("test")
    assert chunk["tags"].tolist() == [[2, 1, 0], [0, 1, 2]]
    (cut,) = open_data(tmp_path, {"max_length": 1}).split("test")
    assert (cut["ids"].tolist(), cut["tags"].tolist()) == ([[1], [3]], [[2], [0]])


def test_vectors_stay_with_their_texts(tmp_path) -> None:
    data = open_data(captions(tmp_path))
    (chunk,) = data.split("test")
    assert (chunk["ids"].tolist(), chunk["lengths"].tolist()) == (
        [[1, 2, 10], [3, 4, 5], [6, 10, 10]],
        [2, 3, 1],
    )
    assert chunk["vector"].tolist() == [[0, 1], [2, 3], [4, 5]]
    batch = data.train_batch(3, 1, 5)
    first = {1: [0, 1], 3: [2, 3], 6: [4, 5]}
    assert [first[row[0]] for row in batch["ids"].tolist()] == batch["vector"].tolist()
    (cut,) = open_data(tmp_path, {"max_length": 1}).split("test")
    assert cut["ids"].tolist() == [[1], [3], [6]]
    assert open_data(tmp_path, {"max_length": 1}).facts["max_length"] == 1
    np.save(tmp_path / "test.vector.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(
        BadState, match=r"test.vector.npy: \[3, 4\], not \[3, 2\]; run the stage that makes it again"
    ):
        open_data(tmp_path)


def test_questions_have_their_passages_and_all_answers(tmp_path) -> None:
    (chunk,) = open_data(passages(tmp_path)).split("test")
    assert chunk["passages"].tolist() == [[[4, 5, 10], [6, 10, 10]], [[7, 8, 9], [10, 10, 10]]]
    assert chunk["passage_lengths"].tolist() == [[2, 1], [3, 0]]
    assert chunk["answer"].tolist() == [[4], [7]]
    assert chunk["aliases"].tolist() == [[[4, 10], [10, 10]], [[7, 10], [8, 9]]]
    assert chunk["alias_lengths"].tolist() == [[1, 0], [1, 2]]
