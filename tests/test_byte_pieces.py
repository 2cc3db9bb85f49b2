"""Pieces of bytes learnt without labels: exact counts, exact Viterbi, a file that loses nothing."""

import functools
import itertools
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace
from transformers import PreTrainedTokenizerFast

from genpipe import cli
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut
from genpipe.corpus.tasks import InProcess
from genpipe.corpus.tokenizers import tokenizer
from genpipe.discovery import byte_ngrams, byte_pieces, byte_windows
from genpipe.discovery.byte_ngrams import MISSING, SCALE, NgramModel, train_ngrams
from genpipe.discovery.byte_pieces import byte_letters, train_byte_pieces
from genpipe.discovery.byte_segmentation import BytePieces, piece_starts
from genpipe.discovery.byte_windows import ORDER, rows_of
from genpipe.discovery.piece_splitting import Pieces, Splitter

VERSES = [
    "床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉。",
    "明月幾時有，把酒問青天。\n不知天上宮闕，今夕是何年。",
    "春眠不覺曉，處處聞啼鳥。",
    "",
    "\n\n",
    "the moon, the moon\r\n\x00e\u0301 😀👩‍👩‍👧 𠮷",
    "明月明月明月，床前明月光。",
]
WORDS = [
    "明月",
    "青天",
    "床前",
    "光",
    "不",
    "知",
    "the ",
    "moon",
    "。\n",
    "，",
    "😀",
    "é",
    "\t",
    "春眠不覺曉",
    "𠮷",
]
chosen = random.Random(0)
DOCUMENTS = [*VERSES, *("".join(chosen.choices(WORDS, k=chosen.randint(1, 9))) for _ in range(60))]
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TRICKY = [
    "<unk>",
    byte_pieces.UNKNOWN,
    "\x00\x1f\x7f\x85",
    "\u0301\u0301",
    " \t\n\r\u2028",
    "\ufeff",
    "👩‍👩‍👧",
    "明月光\n",
]
texts = st.lists(any_text | st.sampled_from([*TRICKY, *VERSES]), max_size=4).map("".join)


def write(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


def train(path: Path, documents: list[str], size: int = 400, **options) -> Path:
    source = write(path.with_suffix(".jsonl"), documents)
    usual = {"workers": 0, "where": "local", "memory": 256 << 20}
    scratch = path.parent / "scratch"
    train_byte_pieces(find_inputs([str(source)]), size, path, scratch=scratch, **(usual | options))
    return path


def ngrams(
    folder: Path, documents: list[str], min_count: int = 2, shard_bytes: int = 1500, memory: int = 100_000
) -> Path:
    folder.mkdir()
    (item,) = find_inputs([str(write(folder / "text.jsonl", documents))])
    shards = cut(item, shard_bytes)
    train_ngrams(InProcess(), shards, folder, min_count=min_count, memory=memory, name="test")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return ngrams(tmp_path_factory.mktemp("model") / "ngrams", VERSES)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("pieces") / "pieces.json", DOCUMENTS)


def plain_rows(text: str) -> list[bytes]:
    """The rows of a short text, by the definition: a new one where no newline follows a newline."""
    data = text.encode()
    rows = [b""]
    for place in range(len(data)):
        if rows[-1].endswith(b"\n") and data[place : place + 1] != b"\n":
            rows.append(b"")
        rows[-1] += data[place : place + 1]
    return [row for row in rows if row]


def plain_scores(documents: list[str], min_count: int) -> dict[bytes, float]:
    """The logarithms of conditional frequencies, by a Counter over all n-grams."""
    counts: Counter[bytes] = Counter()
    for row in itertools.chain.from_iterable(map(plain_rows, documents)):
        for start in range(len(row)):
            counts.update(
                row[start : start + order] for order in range(1, ORDER + 1) if start + order <= len(row)
            )
    for byte in range(256):
        counts[bytes([byte])] = max(counts[bytes([byte])], 1)
    counts[b""] = sum(count for gram, count in counts.items() if len(gram) == 1)
    return {
        gram: math.log(count) - math.log(counts[gram[:-1]])
        for gram, count in counts.items()
        if gram and (len(gram) == 1 or count >= min_count or within_character(gram))
    }


def within_character(gram: bytes) -> bool:
    lead = gram[0]
    length = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    return len(gram) <= length


def score_of(pieces: list[bytes], scores: dict[bytes, int]) -> int:
    """Of a way to cut, in 1/SCALE, by the definition."""
    grams = (piece[max(0, end - ORDER) : end] for piece in pieces for end in range(1, len(piece) + 1))
    return sum(scores.get(gram, int(MISSING)) for gram in grams)


@functools.cache
def ways(data: bytes) -> list[list[bytes]]:
    """All ways to cut between characters."""
    text = data.decode()
    places = range(1, len(text))
    found: list[list[bytes]] = []
    for number in range(len(text)):
        for cuts in itertools.combinations(places, number):
            bounds = [0, *cuts, len(text)]
            found.append([text[start:end].encode() for start, end in itertools.pairwise(bounds)])
    return found


def table_of(folder: Path) -> dict[bytes, int]:
    """All n-grams of a model with their scores, read from its files."""
    found = {bytes([byte]): int(score) for byte, score in enumerate(np.load(folder / "table1.npy"))}
    for pair, score in enumerate(np.load(folder / "table2.npy")):
        if score > MISSING:
            found[pair.to_bytes(2, "big")] = int(score)
    for order in range(3, ORDER + 1):
        keys, scores = np.load(folder / f"keys{order}.npy"), np.load(folder / f"scores{order}.npy")
        found |= {int(key).to_bytes(order, "big"): int(s) for key, s in zip(keys, scores, strict=True)}
    return found


def pieces_of(folder: Path, text: str) -> list[str]:
    return BytePieces("byte_piece", "1", (), folder).split(text)


# n-grams


@settings(max_examples=15, deadline=None)
@given(st.lists(texts, max_size=6), st.integers(1, 80), st.integers(1, 3), st.sampled_from([2000, 1 << 20]))
def test_scores_are_those_of_a_plain_counter_whatever_the_shards_and_the_memory(
    tmp_path_factory, documents, shard_bytes, min_count, memory
):
    folder = tmp_path_factory.mktemp("any") / "model"
    ngrams(folder, documents, min_count, shard_bytes, memory)
    plain = {gram: round(SCALE * score) for gram, score in plain_scores(documents, min_count).items()}
    found = table_of(folder)
    assert found.keys() == plain.keys()
    assert max(abs(found[gram] - plain[gram]) for gram in plain) <= 1  # roundings of the last place


def test_whole_logarithms_are_rounded_alike_whatever_the_last_bits():
    counts = np.arange(1, 1 << 20)
    exact = np.longdouble(SCALE) * np.log(counts.astype(np.longdouble))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-7  # a double errs by less than 1e-8 here
    assert (byte_ngrams.logarithms(counts) == np.rint(exact)).all()


def test_windows_hold_zero_bytes_and_end_with_the_row():
    window, reach = byte_windows.windows(rows_of(pl.Series(["a\x00", "", "bcdefgh"])))
    assert [number.to_bytes(6, "big") for number in window.tolist()[:3]] == [
        b"a" + bytes(5),
        bytes(6),
        b"bcdefg",
    ]
    assert reach.tolist() == [2, 1, 6, 6, 5, 4, 3, 2, 1]


@given(st.lists(texts, max_size=6))
def test_rows_are_lines_with_their_newlines(documents):
    rows = rows_of(pl.Series(documents, dtype=pl.String))
    data = bytes(rows.data)
    found = [data[start : start + size] for start, size in zip(rows.starts, rows.lengths, strict=True)]
    assert found == [row for text in documents for row in plain_rows(text)]
    assert rows.documents.tolist() == [n for n, text in enumerate(documents) for _ in plain_rows(text)]


def test_long_lines_are_cut_before_characters_and_by_their_document_alone(monkeypatch):
    monkeypatch.setattr(byte_windows, "MOST_BYTES", 10)
    alone = rows_of(pl.Series(["明月" * 8]))
    assert alone.starts.tolist() == [0, 9, 18, 27, 36, 45][: len(alone.starts)]
    assert (alone.lengths <= 10).all()
    beside = rows_of(pl.Series(["ab", "明月" * 8]))
    assert (beside.starts[1:] - 2).tolist() == alone.starts.tolist()


# the most probable pieces


@settings(max_examples=150, deadline=None)
@given(
    text=st.text("床前明月光ab\n，😀é", min_size=1, max_size=12).filter(lambda text: len(text.encode()) <= 16)
)
def test_the_pieces_score_as_the_best_of_all_ways(model, text):
    table = table_of(model)
    found = [piece.encode() for piece in pieces_of(model, text)]
    assert b"".join(found).decode() == text
    best = sum(max(score_of(way, table) for way in ways(row)) for row in plain_rows(text))
    assert score_of(found, table) == best


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.randoms())
def test_no_other_way_scores_more_and_neighbours_change_nothing(model, documents, chance):
    table = table_of(model)
    split = BytePieces("byte_piece", "1", (), model).split_all(documents)
    assert ["".join(pieces) for pieces in split] == documents
    for text, pieces in zip(documents, split, strict=True):
        assert pieces == pieces_of(model, text)
        other: list[bytes] = []
        for row in plain_rows(text):
            characters = row.decode()
            cuts = sorted(chance.sample(range(1, len(characters)), chance.randint(0, len(characters) - 1)))
            bounds = [0, *cuts, len(characters)]
            other += [characters[a:b].encode() for a, b in itertools.pairwise(bounds)]
        assert score_of([piece.encode() for piece in pieces], table) >= score_of(other, table)


def test_what_is_frequent_together_is_a_piece(model):
    assert "明月" in pieces_of(model, "明月")
    assert piece_starts(rows_of(pl.Series(["鑫", "ab"])), NgramModel(model)).tolist()[:3] == [
        True,
        False,
        False,
    ]


# splitting into given pieces


def plain_best(text: str, pieces: Pieces) -> int:
    scores, byte_scores = pieces.scores()
    of = {piece.encode(): int(score) for piece, score in zip(pieces.texts, scores, strict=True)}
    of |= {bytes([byte]): int(score) for byte, score in enumerate(byte_scores)}
    data = text.encode()
    best = [0] + [-(1 << 60)] * len(data)
    for end in range(1, len(data) + 1):
        best[end] = max(best[start] + of.get(data[start:end], -(1 << 60)) for start in range(end))
    return best[-1]


lexicons = st.dictionaries(
    st.text("明月光a😀é", min_size=1, max_size=4).filter(lambda text: len(text.encode()) > 1),
    st.integers(1, 4),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(counts=lexicons, text=st.text("明月光a😀é鑫", max_size=12))
def test_splits_are_the_best_and_those_of_hugging_face(counts, text):
    pieces = Pieces(list(counts), np.array(list(counts.values()), np.int64), np.ones(256, np.int64))
    splitter = Splitter(pieces)
    split = splitter.split(text)
    assert splitter.score(text) == plain_best(text, pieces)
    encoding = byte_pieces.model_of(pieces).encode(text)
    letters = byte_letters()
    assert encoding.tokens == ["".join(letters[byte] for byte in piece) for piece in split]


@given(
    counts=lexicons,
    documents=st.dictionaries(st.text("明月光a鑫", min_size=1, max_size=9), st.integers(1, 5)),
)
def test_counts_of_splits_are_those_of_each_split(counts, documents):
    pieces = Pieces(list(counts), np.array(list(counts.values()), np.int64), np.ones(256, np.int64))
    splitter = Splitter(pieces)
    found, found_bytes = splitter.count(list(documents), np.array(list(documents.values()), np.int64))
    plain: Counter[bytes] = Counter()
    for text, count in documents.items():
        for piece in splitter.split(text):
            plain[piece] += count
    assert found.tolist() == [plain[piece.encode()] for piece in pieces.texts]
    assert found_bytes.tolist() == [plain[bytes([byte])] for byte in range(256)]


# the file


@settings(max_examples=300, deadline=None)
@given(texts)
def test_any_text_comes_back(file, text):
    model = HuggingFace.from_file(str(file))
    assert model.decode(model.encode(text).ids) == text
    cutter = tokenizer("unigram", file=file)
    assert cutter.join(cutter.split(text)) == text


@settings(max_examples=50, deadline=None)
@given(texts)
def test_transformers_reads_it(file, text):
    theirs = _transformers(file)
    assert theirs.decode(theirs(text)["input_ids"], clean_up_tokenization_spaces=False) == text


@functools.cache
def _transformers(file: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


def test_it_holds_all_bytes_and_scores_are_logarithms_of_shares(file):
    rows = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    assert rows[0][0] == byte_pieces.UNKNOWN
    assert [letter for letter, _ in rows[1:257]] == byte_letters()
    assert sum(math.exp(score) for _, score in rows[1:]) == pytest.approx(1, abs=1e-4)
    assert all((score * SCALE).is_integer() for _, score in rows)
    scores = [score for _, score in rows[257:]]
    assert scores == sorted(scores, reverse=True)
    assert len({piece for piece, _ in rows}) == len(rows)


def plain_counts(texts: dict[bytes, int], counts: dict[bytes, int]) -> Counter[bytes]:
    """The pieces of the best splits, of equal ones those with the longer last piece."""
    total = round(SCALE * math.log(sum(counts.values())))
    scores = {piece: round(SCALE * math.log(count)) - total for piece, count in counts.items()}
    found: Counter[bytes] = Counter()
    for data, times in texts.items():
        best: list[tuple[int, list[bytes]]] = [(0, [])]
        for end in range(1, len(data) + 1):
            starts = [start for start in range(end) if data[start:end] in scores]
            score, start = max((best[start][0] + scores[data[start:end]], -start) for start in starts)
            best.append((score, [*best[-start][1], data[-start:end]]))
        for piece in best[-1][1]:
            found[piece] += times
    return found


def plain_stable(counts: dict[bytes, int]) -> dict[bytes, int]:
    found = plain_counts(counts, counts)
    return dict(found) if len(found) == len(counts) else plain_stable(dict(found))


def plain_training(documents: list[str], model: Path, size: int) -> dict[bytes, int]:
    """All that follows the n-grams, by the definition."""
    found = Counter(piece.encode() for text in documents for piece in pieces_of(model, text))
    kept = {bytes([byte]): found[bytes([byte])] or 1 for byte in range(256)}
    kept |= {piece: n for piece, n in found.items() if len(piece) > 1 and n >= 2 and len(piece) <= 36}
    more = plain_counts({piece: n for piece, n in found.items() if piece not in kept}, kept)
    kept = plain_stable({piece: count + more[piece] for piece, count in kept.items()})
    ranked = sorted(kept, key=lambda piece: (len(piece) > 1, -kept[piece], -len(piece), piece))
    largest = {piece: kept[piece] for piece in ranked[: size - 1]}
    more = plain_counts({piece: kept[piece] for piece in ranked[size - 1 :]}, largest)
    return plain_stable({piece: count + more[piece] for piece, count in largest.items()})


@pytest.mark.parametrize("size", [270, 400])
def test_the_file_is_that_of_a_plain_training(tmp_path, size):
    model = ngrams(tmp_path / "model", DOCUMENTS)
    counts = plain_training(DOCUMENTS, model, size)
    total = round(SCALE * math.log(sum(counts.values())))
    letters = byte_letters()
    expected = {
        "".join(letters[byte] for byte in piece): (round(SCALE * math.log(count)) - total) / SCALE
        for piece, count in counts.items()
    }
    found = json.loads(train(tmp_path / "pieces.json", DOCUMENTS, size).read_text(encoding="utf-8"))
    assert dict(found["model"]["vocab"][1:]) == expected


def test_no_piece_is_longer_than_allowed_rarer_than_allowed_or_better_split(tmp_path):
    long = "天地玄黃宇宙洪荒日月盈昃"  # 36 bytes
    file = train(tmp_path / "pieces.json", [long, long, long + "辰", long + "辰", *DOCUMENTS])
    model = HuggingFace.from_file(str(file))
    back = {letter: byte for byte, letter in enumerate(byte_letters())}
    pieces = [
        bytes(back[letter] for letter in piece)
        for piece in list(model.get_vocab())
        if piece != byte_pieces.UNKNOWN
    ]
    assert max(map(len, pieces)) <= byte_pieces.MAX_BYTES
    for piece in pieces:
        if len(piece) > 1:
            assert len(model.encode(piece.decode()).tokens) == 1
            assert sum(text.count(piece.decode()) for text in [long] * 4 + DOCUMENTS) >= byte_pieces.MIN_COUNT


@pytest.mark.parametrize(("workers", "shard_bytes"), [(1, 1), (1, 333), (1, 1 << 20), (2, 333), (2, 1 << 20)])
def test_the_file_depends_on_no_workers_and_no_shards(tmp_path, file, workers, shard_bytes):
    where = "local" if workers == 2 else "auto"
    other = train(tmp_path / "pieces.json", DOCUMENTS, workers=workers, where=where, shard_bytes=shard_bytes)
    assert other.read_bytes() == file.read_bytes()


def test_memory_changes_nothing(tmp_path, file, monkeypatch):
    monkeypatch.setattr(byte_pieces, "ROWS", 3)
    monkeypatch.setattr(byte_ngrams, "BLOCK", 50)
    monkeypatch.setattr("genpipe.discovery.piece_splitting.CELLS", 30)
    other = train(tmp_path / "pieces.json", DOCUMENTS, memory=20_000)
    assert other.read_bytes() == file.read_bytes()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_smaller_size_keeps_the_bytes_and_the_most_frequent(tmp_path, file):
    small = json.loads(train(tmp_path / "pieces.json", DOCUMENTS, size=270).read_text(encoding="utf-8"))
    large = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    assert 257 < len(small["model"]["vocab"]) <= 270 < len(large)
    assert {piece for piece, _ in small["model"]["vocab"]} < {piece for piece, _ in large}


# the command


def run(*words: str) -> int:
    return cli.main(["tokenizer", "train", *words])


def test_the_command_trains(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [json.dumps({"lines": text.split("\n")}) + "\n" for text in DOCUMENTS]
    Path("poems.jsonl").write_text("".join(records), encoding="utf-8")
    words = ["--kind", "byte_piece", "--size", "400", "--field", "lines", "--workers", "0"]
    assert run("poems.jsonl", *words, "--out", "made.json") == 0
    assert Path("made.json").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--kind", "byte_piece"], "needs the files to learn from"),
        (["--kind", "byte_piece", "--counts", "c.parquet"], "is learnt from texts, not from counts"),
        (["a.txt", "--kind", "byte_piece", "--spaced"], "keeps all white space anyway"),
        (["a.txt", "--kind", "byte_piece", "--size", "256"], "size: must be 257 or more"),
        (["missing.txt", "--kind", "byte_piece"], "missing.txt: no such file"),
        (["empty.txt", "--kind", "byte_piece"], "there is no text to train on"),
        (["bad.txt", "--kind", "byte_piece"], "not valid UTF-8: byte 3"),
        (["a.txt", "--kind", "byte_piece", "--out", "a.txt"], "this is the input"),
        (["a.txt", "--kind", "bpe"], "is learnt from counts, not from texts"),
        (["--kind", "bpe"], "--kind bpe needs --counts FILE"),
        (["--kind", "bpe", "--counts", "c.parquet", "--field", "x"], "--field: only for --kind byte_piece"),
        (
            ["--kind", "unigram", "--counts", "c.parquet", "--workers", "2"],
            "--workers: only for --kind byte_piece",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("明月\n", encoding="utf-8")
    Path("empty.txt").write_text("")
    Path("bad.txt").write_bytes(b"ab\n\xff\n")
    size = [] if "--size" in words else ["--size", "300"]
    out = [] if "--out" in words else ["--out", "made.json"]
    assert run(*words, *size, *out) == 2
    errors = [found for found in capsys.readouterr().err.splitlines() if found.startswith("genpipe:")]
    assert len(errors) == 1
    assert line in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "a.txt",
        "bad.txt",
        "empty.txt",
    ]
    assert Path("a.txt").read_text(encoding="utf-8") == "明月\n"
