"""The corpus layer without Ray: shards, exact counts, vocabularies, token ids."""

import hashlib
import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genpipe.corpus import counting, counts, encoding, shards, vocabulary
from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import counted
from genpipe.corpus.inputs import Input, find_inputs
from genpipe.corpus.runs import choose_ranges
from genpipe.corpus.tokenizers import Tokenizer, Vectorised, tokenizer
from genpipe.errors import BadInput, BadState
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus
from genpipe.params.encodings import Encoding

VERSES = [
    "床前明月光，疑是地上霜。",
    "舉頭望明月，低頭思故鄉。",
    "",
    "  ",
    "a\tb don't 3.14 Ωmega",
    "𠮷野家 x" * 3,
    "é\r中",
]


def write_text(path: Path, documents: list[str], newline: str = "\n") -> Path:
    path.write_bytes("".join(text + newline for text in documents).encode())
    return path


def input_of(path: Path, field: str = "text") -> Input:
    (found,) = find_inputs([str(path)], field=field)
    return found


def count(
    path: Path, *, shard_bytes: int = 40, name: str = "jieba", field: str = "text", **changes
) -> pa.Table:
    options = Counting(tokenizer(name), path.parent / "scratch", **changes)
    inputs = [input_of(path, field)]
    with counted(inputs, options, shard_bytes=shard_bytes, workers=0, where="local", name="count") as counts:
        counts.write(path.parent / "table.parquet")
    return pq.read_table(path.parent / "table.parquet")


def as_dict(table: pa.Table) -> dict[str, int]:
    return dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True))


def serial_counts(documents: list[str], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for text in documents:
        for token in tokenizer(name).split(text):
            total[token] += 1
    return total


# documents of a .txt file: no newline, and no \r at the end, since CRLF ends a line too
lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=12)


@settings(max_examples=60)
@given(documents=st.lists(lines | st.sampled_from(VERSES[:5]), max_size=12), shard_bytes=st.integers(1, 60))
@pytest.mark.parametrize("name", ["jieba", "char", "word", "whitespace"])
def test_counts_equal_a_serial_loop_whatever_the_shard_size(tmp_path, name, documents, shard_bytes):
    text = write_text(tmp_path / "text.txt", documents)
    text_counts = count(text, shard_bytes=shard_bytes, name=name)
    assert as_dict(text_counts) == serial_counts(documents, name)
    records = [json.dumps({"text": document}, ensure_ascii=False) for document in documents]
    json_counts = count(write_text(tmp_path / "text.jsonl", records), shard_bytes=shard_bytes, name=name)
    assert json_counts.equals(text_counts)


def test_rows_are_ordered_by_count_then_code_point(tmp_path):
    # U+FFFD sorts before U+20000 by code point, and after it by UTF-16 unit
    table = count(write_text(tmp_path / "t.txt", ["\ufffd𠀀ba", "bB", "\ufffd𠀀"]), name="char")
    assert table["token"].to_pylist() == ["b", "\ufffd", "𠀀", "B", "a"]
    assert table.schema.field("token").type == pa.large_string()
    assert table["count"].to_pylist() == [2, 2, 2, 1, 1]


@settings(max_examples=100)
@given(
    documents=st.lists(lines, max_size=8),
    newline=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    size=st.integers(1, 50),
)
def test_shards_cover_a_file_once_and_end_with_documents(tmp_path, documents, newline, last, size):
    path = write_text(tmp_path / "t.txt", documents, newline)
    if last and documents and documents[-1]:
        path.write_bytes(path.read_bytes().removesuffix(newline.encode()))
    pieces = shards.cut(input_of(path), size)
    assert b"".join(part for piece in pieces for part in shards.read(piece).parts) == path.read_bytes()
    texts = [text for piece in pieces for text in shards.read(piece).documents()]
    assert texts == [document.removesuffix("\r") for document in documents]
    assert all(piece.size >= size for piece in pieces[:-1])


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a b"}\n\n')  # and a blank line is no record
    assert as_dict(count(path, name="word")) == {"a": 1, "b": 1}


def test_a_list_of_strings_is_one_document_of_lines(tmp_path):
    path = write_text(tmp_path / "t.jsonl", ['{"p": ["ab", "c"]}', '{"p": []}'])
    (piece,) = shards.cut(input_of(path, "p"), 1000)
    assert shards.read(piece).documents().to_list() == ["ab\nc", ""]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt", b"good\nb\xffd\n", "byte 6 is 0xff"),
        ("t.txt", "床前".encode("gb18030"), "iconv"),
        ("t.jsonl", b'{"text": "a"}\n{"text"\n', "line 2: not a JSON record"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', "line 2: no field 'text'; the line has: no record but list"),
        ("t.jsonl", b'{"title": "a", "p": 1}\n', "line 1: no field 'text'; the line has: title, p"),
        ("t.jsonl", b'{"text": 3}\n', "line 1: field 'text': must be a string or a list of strings, not 3"),
        ("t.jsonl", b'{"text": ["a", null]}\n', "must be a string or a list of strings"),
        ("t.jsonl", b'{"text": "\\ud800"}\n', "line 1: field 'text' has half a surrogate pair"),
        ("t.csv", b"a\n", "not a known kind of file; name a .txt file"),
    ],
)
@pytest.mark.parametrize("shard_bytes", [1, 1000])
def test_bad_text_is_named_with_its_place_and_a_remedy(tmp_path, name, data, message, shard_bytes):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInput) as raised:
        count(path, shard_bytes=shard_bytes)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_shard_of_no_bytes_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        count(tmp_path / "t.txt")
    with pytest.raises(BadInput, match="must be 1 or more, not 0"):
        count(write_text(tmp_path / "t.txt", VERSES), shard_bytes=0)


def test_finished_runs_are_reused_and_broken_ones_counted_again(tmp_path):
    path = write_text(tmp_path / "t.txt", VERSES)
    first = count(path)
    runs = sorted((tmp_path / "scratch").iterdir())
    written = {run: (run.stat().st_mtime_ns, run.read_bytes()) for run in runs}
    runs[0].write_bytes(b"")
    runs[1].unlink()
    assert count(path).equals(first)
    assert {run: run.read_bytes() for run in runs} == {run: data for run, (_, data) in written.items()}
    assert all(run.stat().st_mtime_ns == written[run][0] for run in runs[2:])
    whole = runs[2].read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    runs[2].write_bytes(whole[: -8 - footer] + bytes(footer) + whole[-8:])  # as after a power failure
    assert count(path).equals(first)
    assert runs[2].read_bytes() == whole


def test_equal_shards_share_a_run_and_count_as_often_as_they_occur(tmp_path):
    path = write_text(tmp_path / "t.txt", ["明月"] * 50)
    assert as_dict(count(path, shard_bytes=7)) == {"明月": 50}
    assert len(list((tmp_path / "scratch").iterdir())) == 1


def test_another_field_or_tokenizer_has_its_own_runs(tmp_path):
    path = write_text(tmp_path / "t.jsonl", ['{"a": "明月", "b": "光"}'])
    assert as_dict(count(path, field="a")) == {"明月": 1}
    assert as_dict(count(path, field="b")) == {"光": 1}
    assert as_dict(count(path, field="a", name="char")) == {"明": 1, "月": 1}


CORPUS = Corpus(
    dataset="verses", files=("train.jsonl",), tokenizer="char", shard_bytes=30,
    min_count=2, max_size=None,
)  # fmt: skip


VERSES_AS_STREAM = Encoding(dataset="verses", corpus="verses", kind="stream", fields={"text": "text"})


def make_corpus(root: Path) -> None:
    folder = root / "artifacts" / "datasets" / "verses"
    folder.mkdir(parents=True)
    describe_text(folder, "train", "test")
    for name, texts in {
        "train": ["明月光\n地上霜", "", "望明月\n思故鄉"],
        "test": ["明月 無\n光", "", "霜"],
    }.items():
        write_text(
            folder / f"{name}.jsonl", [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        )


def describe_text(folder: Path, *splits: str) -> None:
    (folder / "data.json").write_text(json.dumps({"kind": "text", "splits": splits, "facts": {}}))


def run_stages(root: Path) -> None:
    counts.count_corpus(root, "verses", CORPUS, Cluster(workers=0))
    vocabulary.build_vocabulary(root, "verses", CORPUS)
    encoding.encode(root, "verses", VERSES_AS_STREAM, CORPUS, Cluster(workers=0))


def tree_hash(root: Path) -> dict[str, str]:
    files = sorted(path for path in (root / "artifacts").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_stages_write_what_they_promise_and_the_same_bytes_twice(tmp_path):
    for root in (tmp_path / "a", tmp_path / "elsewhere"):
        make_corpus(root)
        run_stages(root)
    first = tree_hash(tmp_path / "a")
    run_stages(tmp_path / "a")
    assert tree_hash(tmp_path / "a") == first == tree_hash(tmp_path / "elsewhere")

    artifacts = tmp_path / "a" / "artifacts"
    about = json.loads((artifacts / "counts/verses/statistics.json").read_text())
    size = (artifacts / "datasets/verses/train.jsonl").stat().st_size
    assert about == {
        "bytes": size,
        "characters": 14,
        "documents": 3,
        "replaced": 0,
        "tokens": 14,
        "types": 11,
    }
    top = (artifacts / "counts/verses/top.tsv").read_text().splitlines()
    assert top[:2] == ["rank\ttoken\tcount\tshare", f"1\t\\n\t2\t{2 / 14:.8f}"]
    assert (artifacts / "counts/verses/zipf.tsv").read_text().splitlines()[:2] == ["rank\tcount", "1\t2"]
    assert pq.read_table(artifacts / "counts/verses/counts.parquet").column_names == ["token", "count"]
    assert json.loads((artifacts / "vocabularies/verses/vocabulary.json").read_text()) == [
        "<unk>",
        "\n",
        "明",
        "月",
    ]
    assert json.loads((artifacts / "vocabularies/verses/statistics.json").read_text()) == {
        "coverage": 6 / 14,
        "size": 4,
    }


def test_decoding_gives_the_text_back_and_unknown_tokens_are_zero(tmp_path):
    make_corpus(tmp_path)
    run_stages(tmp_path)
    words, ids, offsets = encoding.read_encoded(tmp_path / "artifacts/encoded/verses", "test")
    decoded = ["".join(words[i] for i in ids[a:b]) for a, b in itertools.pairwise(offsets)]
    assert decoded == ["明月<unk>\n<unk>", "", "<unk>"]
    assert ids.dtype == np.uint16
    assert offsets.dtype == np.int64
    assert isinstance(ids, np.memmap)


def encoded(root: Path, text: str, name: str, words: list[str], shard_bytes: int, workers: int = 0) -> Path:
    """A directory with the ids of a text by a vocabulary."""
    (root / "artifacts/datasets/d").mkdir(parents=True, exist_ok=True)
    lines = text.removesuffix("\n").split("\n") if text else []
    write_text(
        root / "artifacts/datasets/d/t.jsonl",
        [json.dumps({"text": line}, ensure_ascii=False) for line in lines],
    )
    describe_text(root / "artifacts/datasets/d", "t")
    vocabulary_file = root / "artifacts/vocabularies/c/vocabulary.json"
    vocabulary_file.parent.mkdir(parents=True, exist_ok=True)
    vocabulary_file.write_text(json.dumps(words))
    corpus = Corpus.model_validate(
        {"dataset": "d", "files": [], "tokenizer": name, "shard_bytes": shard_bytes}
    )
    block = Encoding(dataset="d", corpus="c", kind="stream", fields={"text": "text"})
    encoding.encode(root, "c", block, corpus, Cluster(executor="local", workers=workers))
    return root / "artifacts/encoded/c"


@pytest.mark.parametrize("name", ["char", "word", "jieba"])
@settings(max_examples=30)
@given(documents=st.lists(lines, max_size=8), shard_bytes=st.integers(1, 50))
def test_ids_of_a_full_vocabulary_decode_to_the_tokens(tmp_path, name, documents, shard_bytes):
    path = write_text(tmp_path / "t.txt", documents)
    full = ["<unk>", *count(path, name=name)["token"].to_pylist()]
    directory = encoded(tmp_path, path.read_bytes().decode(), name, full, shard_bytes)
    words, ids, offsets = encoding.read_encoded(directory, "t")
    decoded = [[words[i] for i in ids[a:b]] for a, b in itertools.pairwise(offsets)]
    assert decoded == tokenizer(name).split_all(documents)
    np.save(tmp_path / "whole.npy", np.array(ids))
    assert (tmp_path / "whole.npy").read_bytes() == (directory / "t.text.ids.npy").read_bytes()
    assert not list((tmp_path / ".genpipe/encoded").rglob("*.npz")), "pieces are removed"


def test_ids_have_the_same_bytes_from_two_processes(tmp_path):
    text = "".join(f"{verse}\n" for verse in VERSES[:5] * 20)
    words = ["<unk>", "明月", "，", "故鄉"]
    alone = encoded(tmp_path / "a", text, "jieba", words, 200)
    shared = encoded(tmp_path / "b", text, "jieba", words, 300, workers=2)
    for file in ("t.text.ids.npy", "t.text.offsets.npy"):
        assert (alone / file).read_bytes() == (shared / file).read_bytes()


def test_a_piece_of_a_killed_encoding_is_reused_and_a_broken_one_written_again(tmp_path):
    encoded(tmp_path, "明月\n", "char", ["<unk>", "月", "明"], 100)
    path = tmp_path / "artifacts/vocabularies/c/vocabulary.json"
    encoder = encoding.Encoder(tokenizer("char"), path, "sha", "<u2", tmp_path)
    (shard,) = shards.cut(input_of(tmp_path / "artifacts/datasets/d/t.jsonl"), 100)
    piece = encoding.encode_shard(shard, encoder)
    whole = piece.path.read_bytes()
    for broken in (whole[:-10], b"", bytes(len(whole))):
        piece.path.write_bytes(broken)
        assert encoding.encode_shard(shard, encoder) == piece
        assert piece.path.read_bytes() == whole
    written = piece.path.stat().st_mtime_ns
    assert encoding.encode_shard(shard, encoder) == piece
    assert piece.path.stat().st_mtime_ns == written


def test_token_ids_are_a_hugging_face_data_set(tmp_path):
    directory = encoded(tmp_path, "明月\n\n月\n", "char", ["<unk>", "月", "明"], 5)
    found = encoding.as_dataset(directory, "t")
    assert found["ids"][:] == [[2, 1], [], [1]]
    assert found[2] == {"ids": [1]}


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_ids_are_as_narrow_as_the_vocabulary_allows(tmp_path, size, dtype):
    directory = encoded(tmp_path, f"{size - 1}\n", "word", [str(i) for i in range(size)], 100)
    ids = np.load(directory / "t.text.ids.npy")
    assert ids.dtype == dtype
    assert ids.tolist() == [size - 1]


def grams(tokens: list[str], orders: tuple[int, ...]) -> list[str]:
    return [" ".join(tokens[i : i + n]) for n in orders for i in range(len(tokens) - n + 1)]


@pytest.mark.parametrize("name", ["char", "whitespace", "jieba"])
@settings(max_examples=30)
@given(
    documents=st.lists(st.text(st.sampled_from("ab 山"), max_size=12), max_size=8),
    orders=st.sampled_from([(2,), (1, 3), (1, 2, 3, 4, 5, 6)]),
    memory=st.sampled_from([1, 1 << 30]),
)
def test_n_grams_and_document_frequency_equal_a_serial_count(tmp_path, name, documents, orders, memory):
    path = write_text(tmp_path / "t.txt", documents)
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Tokenizer, Vectorised):
            patch.setattr(kind, "block", 8)
        patch.setattr(counting, "FEW_TYPES", 3)
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        table = count(path, name=name, orders=orders, document_frequency=True, memory=memory)
    found = [grams(tokens, orders) for tokens in tokenizer(name).split_all(documents)]
    total = Counter(itertools.chain.from_iterable(found))
    within = Counter(itertools.chain.from_iterable(map(set, found)))
    wanted = [(t, total[t], within[t]) for t in sorted(total, key=lambda t: (-total[t], t))]
    assert [tuple(row.values()) for row in table.to_pylist()] == wanted


def test_what_does_not_fit_into_memory_goes_to_disk(tmp_path, monkeypatch):
    """The counts are the same without; that it happens must be seen apart."""
    held = []
    spill = counting._Counts._spill_all

    def watched(counts):
        held.append(sum(map(len, counts._frames)))
        spill(counts)

    monkeypatch.setattr(counting._Counts, "_spill_all", watched)
    monkeypatch.setattr(counting, "FEW_TYPES", 8)
    monkeypatch.setattr(Vectorised, "block", 8)
    path = write_text(tmp_path / "t.txt", [" ".join("abcdefghijkl"[i:]) for i in range(12)])
    count(path, name="whitespace", shard_bytes=1000, memory=1 << 30)
    assert not held
    shutil.rmtree(tmp_path / "scratch")
    count(path, name="whitespace", shard_bytes=1000, memory=1)
    assert len(held) > 1
    assert max(held) <= 8 + len("abcdefghijkl"), "no more than the limit and a block"


class Spaced(Tokenizer):
    """Its tokens are what a pair of its tokens is."""

    def _split_all(self, texts):
        return [["a", "b", "a b"] for _ in texts]


def test_a_token_that_is_a_pair_of_tokens_is_in_a_document_once(tmp_path):
    how = Counting(Spaced("char", "1", ()), tmp_path / "s", orders=(1, 2), document_frequency=True)
    path = write_text(tmp_path / "t.txt", ["x"])
    with counted([input_of(path)], how, shard_bytes=9, workers=0, where="auto", name="count") as found:
        found.write(tmp_path / "counts.parquet")
    rows = {row["token"]: row for row in pq.read_table(tmp_path / "counts.parquet").to_pylist()}
    assert rows["a b"] == {"token": "a b", "count": 2, "documents": 1}


def test_equal_shards_on_threads_do_not_disturb_each_other(tmp_path):
    text = "".join(f"{i} 月光\n" for i in range(300))
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    paths = [input_of(tmp_path / f"{number}.txt") for number in range(6)]
    for attempt in range(5):
        how = Counting(tokenizer("whitespace"), tmp_path / f"scratch{attempt}")
        with counted(paths, how, shard_bytes=1 << 20, workers=4, where="auto", name="count") as found:
            assert found.statistics["tokens"] == 6 * 600
            assert found.head(1).rows() == [("月光", 1800)]


def test_long_tokens_are_bounded_by_their_bytes(tmp_path):
    path = write_text(tmp_path / "t.txt", [f"{i}-" + "a" * 8000 for i in range(400)])
    how = Counting(tokenizer("whitespace"), tmp_path, memory=1 << 20)
    shards_of = shards.cut(input_of(path), 400_000)
    runs = [counting.count_shard(shard, how) for shard in shards_of]
    assert how.ranges(runs) >= 15
    assert len(choose_ranges(runs, how.ranges(runs))) >= 10


def test_rare_tokens_are_dropped_after_all_is_added_up(tmp_path):
    path = write_text(tmp_path / "t.txt", ["a b", "a c", "b a"])
    assert as_dict(count(path, name="word", shard_bytes=1, min_count=2)) == {"a": 3, "b": 2}


def test_a_vocabulary_is_cut_by_count_and_by_size():
    counts = pa.table({"token": ["a", "<unk>", "b", "c", "d"], "count": [9, 8, 7, 2, 1]})
    chosen = lambda **cut: vocabulary.choose_tokens(counts, **cut)["token"].to_pylist()
    assert chosen(min_count=1, max_size=None) == ["a", "b", "c", "d"]
    assert chosen(min_count=2, max_size=None) == ["a", "b", "c"]
    assert chosen(min_count=2, max_size=3) == ["a", "b"]
    assert chosen(min_count=1, max_size=1) == []


def test_counting_files_prints_the_figures_and_writes_one_table(tmp_path, capsys):
    path = write_text(tmp_path / "t.txt", VERSES[:2])
    out = tmp_path / "counts.parquet"
    options = Counting(tokenizer("jieba"), tmp_path / "scratch")
    counts.count_inputs([input_of(path)], options, shard_bytes=40, workers=0, where="auto", out=out, top=None)
    printed = capsys.readouterr()
    assert "2 documents" in printed.out
    assert "count: 100 %" in printed.err
    assert as_dict(pq.read_table(out)) == serial_counts(VERSES[:2], "jieba")
    counts.count_inputs([input_of(path)], options, shard_bytes=40, workers=0, where="auto", out=out, top=3)
    assert pq.read_table(out).num_rows == 3


def test_a_file_that_a_data_set_does_not_have_is_named_with_those_that_it_has(tmp_path):
    make_corpus(tmp_path)
    corpus = CORPUS.model_copy(update={"files": ("documents.jsonl",)})
    with pytest.raises(
        BadState, match=r"documents\.jsonl: .*corpora\.v\.files: the data set has .*train\.jsonl"
    ):
        counts.count_corpus(tmp_path, "v", corpus, Cluster(workers=0))


def test_what_is_made_of_counts_changes_with_the_file_that_defined_their_tokenizer(tmp_path):
    """Encoding depends on the vocabulary, which has the hash; the counts may be the same, the ids are not."""
    make_corpus(tmp_path)
    corpus = CORPUS.model_copy(update={"tokenizer": "lexicon", "tokenizer_file": "words.tsv"})
    found = []
    for words in ("明月\t5\n", "明月\t6\n"):
        (tmp_path / "words.tsv").write_text(words, encoding="utf-8")
        counts.count_corpus(tmp_path, "v", corpus, Cluster(workers=0))
        vocabulary.build_vocabulary(tmp_path, "v", corpus)
        directory = tmp_path / "artifacts/vocabularies/v"
        found.append({path.name: path.read_bytes() for path in directory.iterdir()})
    before, after = found
    assert before["vocabulary.json"] == after["vocabulary.json"]
    assert before["tokenizer_file.json"] != after["tokenizer_file.json"]


def test_a_stage_out_of_order_names_the_one_that_is_missing(tmp_path):
    for stage, command in (
        (lambda: counts.count_corpus(tmp_path, "v", CORPUS, Cluster(workers=0)), "genpipe prepare verses"),
        (lambda: vocabulary.build_vocabulary(tmp_path, "v", CORPUS), "genpipe count --corpus v"),
        (
            lambda: encoding.encode(tmp_path, "v", VERSES_AS_STREAM, CORPUS, Cluster(workers=0)),
            "genpipe vocabulary verses",
        ),
        (lambda: encoding.read_encoded(tmp_path / "v", "train"), "genpipe encode v"),
    ):
        with pytest.raises(BadState, match=command):
            stage()
