"""Inputs and their shards: every document once, from every format, and each mistake named."""

import functools
import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genpipe import cli
from genpipe.corpus import shards
from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import counted
from genpipe.corpus.inputs import Input, find_inputs
from genpipe.corpus.shards import Shard, cut
from genpipe.corpus.tokenizers import tokenizer
from genpipe.errors import BadInput, Unavailable

# without the time: names of tests hold these bytes, and are the same in every process
compressed = functools.partial(gzip.compress, mtime=0)


@pytest.fixture(scope="module", autouse=True)
def no_bars() -> Iterator[None]:
    """Saving a data set draws a progress bar each time."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def as_lines(documents: Sequence[str]) -> bytes:
    return "".join(f"{document}\n" for document in documents).encode()


def as_records(documents: Sequence[str]) -> bytes:
    return as_lines([json.dumps({"text": document}) for document in documents])


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def write_parquet(path: Path, column: pa.Array | Sequence[str], rows: int = 3) -> Path:
    pq.write_table(pa.table({"n": range(len(column)), "text": column}), path, row_group_size=rows)
    return path


def write_dataset(path: Path, documents: Sequence[object]) -> Path:
    texts = datasets.Value("string")
    kind = datasets.List(texts) if any(isinstance(document, list) for document in documents) else texts
    columns = {"n": list(range(len(documents))), "text": list(documents)}
    features = datasets.Features({"n": datasets.Value("int64"), "text": kind})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(path)
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_memory(suffix: str, data: bytes) -> str:
    fsspec.filesystem("memory").pipe(f"/inputs{suffix}", data)
    return f"memory://inputs{suffix}"


def parquet_bytes(documents: Sequence[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array(documents, pa.string())}), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def one(name: Path | str, **how: str | bool) -> Input:
    (found,) = find_inputs([str(name)], **how)
    return found


def documents_of(pieces: Sequence[Shard]) -> list[str]:
    return [text for piece in pieces for text in shards.read(piece).documents()]


def digest_of(name: Path | str, **how: str | bool) -> str:
    (piece,) = cut(one(name, **how), 1 << 20)
    return shards.read(piece).digest()


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# a line has no newline, and no \r at its end, since CRLF ends a line too
any_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=12)

Write = Callable[[Path, list[str]], Path | str]
OF_LINES: dict[str, Write] = {
    ".txt": lambda at, texts: write_bytes(at / "t.txt", as_lines(texts)),
    ".txt.gz": lambda at, texts: write_bytes(at / "t.txt.gz", compressed(as_lines(texts))),
    ".txt.zst": lambda at, texts: write_bytes(at / "t.TXT.zst", zstd(as_lines(texts))),
    "memory .txt": lambda _, texts: write_memory(".txt", as_lines(texts)),
}
OF_RECORDS: dict[str, Write] = {
    ".jsonl": lambda at, texts: write_bytes(at / "t.jsonl", as_records(texts)),
    ".jsonl.gz": lambda at, texts: write_bytes(at / "t.jsonl.gz", compressed(as_records(texts))),
    ".jsonl.zst": lambda at, texts: write_bytes(at / "t.jsonl.zst", zstd(as_records(texts))),
    ".parquet": lambda at, texts: write_parquet(at / "t.parquet", pa.array(texts, pa.string())),
    "data set": lambda at, texts: write_dataset(at / "set", texts),
    "memory .jsonl.gz": lambda _, texts: write_memory(".jsonl.gz", compressed(as_records(texts))),
    "memory .parquet": lambda _, texts: write_memory(".parquet", parquet_bytes(texts)),
}


def check_covered_once(name: Path | str, documents: list[str], size: int) -> None:
    pieces = cut(one(name), size)
    assert documents_of(pieces) == documents
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]


@settings(max_examples=30)
@given(documents=st.lists(any_line, max_size=10), size=st.integers(1, 60))
@pytest.mark.parametrize("write", OF_LINES.values(), ids=OF_LINES)
def test_shards_of_lines_hold_every_document_once(tmp_path, write, documents, size):
    check_covered_once(write(tmp_path, documents), documents, size)


@settings(max_examples=30)
@given(documents=st.lists(any_text, max_size=10), size=st.integers(1, 300))
@pytest.mark.parametrize("write", OF_RECORDS.values(), ids=OF_RECORDS)
def test_shards_of_records_and_rows_hold_every_document_once(tmp_path, write, documents, size):
    assume(documents or write is not OF_RECORDS["data set"])  # one without rows has its own test
    check_covered_once(write(tmp_path, documents), documents, size)


@settings(max_examples=30)
@given(document=any_text)
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_a_whole_file_is_one_document_to_the_last_byte(tmp_path, suffix, document):
    data = document.encode()
    path = write_bytes(tmp_path / f"t{suffix}", compressed(data) if suffix.endswith(".gz") else data)
    pieces = cut(one(path, whole_files=True), 1)
    assert documents_of(pieces) == [document.removeprefix("\ufeff")]
    assert [piece.size for piece in pieces] == [path.stat().st_size]


@pytest.mark.parametrize("size", [1, 160, 1 << 20])
def test_tables_are_cut_as_the_shard_size_asks(tmp_path, size):
    texts = [f"{i:08}" for i in range(12)]
    rows = [(s.start, s.end) for s in cut(one(write_parquet(tmp_path / "t.parquet", texts)), size)]
    groups = [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert rows == {1: groups, 160: [(0, 6), (6, 12)], 1 << 20: [(0, 12)]}[size]
    pieces = cut(one(write_dataset(tmp_path / "set", texts)), (size + 1) // 2)
    assert [piece.end - piece.start for piece in pieces] == {1: [1] * 12, 160: [6, 6], 1 << 20: [12]}[size]
    assert sum(piece.size for piece in pieces) == 12 * (8 + 4)  # the bytes, and where each row begins


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
    ],
    ids=str,
)
def test_every_column_of_strings_is_text(tmp_path, kind):
    is_list = "list" in str(kind)
    column = pa.array(
        [["é", "b"], [], ["c"]] if is_list else ["é", "", "c"], None if is_list else pa.string()
    )
    path = write_parquet(tmp_path / "t.parquet", column.cast(kind), rows=2)
    assert pq.read_schema(path).field("text").type == kind
    assert documents_of(cut(one(path), 1)) == (["é\nb", "", "c"] if is_list else ["é", "", "c"])


def test_lines_are_cut_after_the_newline_that_fills_a_shard(tmp_path):
    path = write_bytes(tmp_path / "t.txt", b"abc\n" * 3)
    ranges = {size: [(s.start, s.end) for s in cut(one(path), size)] for size in (4, 5)}
    assert ranges == {4: [(0, 4), (4, 8), (8, 12)], 5: [(0, 8), (8, 12)]}


def test_a_byte_order_mark_is_no_text_only_where_a_file_begins(tmp_path):
    path = write_bytes(tmp_path / "t.txt", "\ufeffa\n\ufeffb\n".encode())
    assert documents_of(cut(one(path), 1)) == ["a", "\ufeffb"]


def test_a_table_without_rows_has_no_documents(tmp_path):
    schema = pa.schema({"text": pa.string()})
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        writer.write_table(schema.empty_table())
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 1
    assert documents_of(cut(one(tmp_path / "t.parquet"), 1)) == []


def test_lists_in_a_data_set_are_documents_of_lines(tmp_path):
    path = write_dataset(tmp_path / "set", [["a", "b"], [], ["c"]])
    assert documents_of(cut(one(path), 1)) == ["a\nb", "", "c"]


def test_only_the_named_column_of_a_parquet_file_is_read(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", ["a", "b"])
    (piece,) = cut(one(path), 100)
    other = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    begin = other.dictionary_page_offset or other.data_page_offset
    data[begin : begin + other.total_compressed_size] = b"\xff" * other.total_compressed_size
    path.write_bytes(data)
    assert documents_of([piece]) == ["a", "b"]
    with pytest.raises(BadInput, match="not a whole parquet file"):
        shards.read(Shard(one(path, field="n"), 0, 2, 0))


# names


def make_tree(root: Path) -> None:
    for name in (
        "b.txt",
        "a.txt",
        "a-z/c.jsonl",
        "a/z.txt",
        "a/deep/y.txt",
        ".git/x.txt",
        "a/.x.txt",
        "R.md",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["."], ["a-z/c.jsonl", "a.txt", "a/deep/y.txt", "a/z.txt", "b.txt"]),
        (["*.txt"], ["a.txt", "b.txt"]),
        (["**/*.txt"], ["a.txt", "a/deep/y.txt", "a/z.txt", "b.txt"]),
        (["*/*"], ["a-z/c.jsonl", "a/z.txt"]),
        (["b.txt", "a", "b.txt"], ["b.txt", "a/deep/y.txt", "a/z.txt", "b.txt"]),
        (["a/.x.txt"], ["a/.x.txt"]),
    ],
)
@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_names_become_files_in_one_order(tmp_path, monkeypatch, scheme, names, found):
    make_tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    root = str(tmp_path)
    if scheme == "memory://":
        fsspec.filesystem("memory").put(root, "/", recursive=True)
        root = f"memory:///{tmp_path.name}"
    if scheme:
        names = [
            f"{'file://' if scheme == 'file://' else ''}{root}/{name}".removesuffix("/.") for name in names
        ]
    assert [i.path for i in find_inputs(names)] == [f"{root}/{name}" for name in found]


def test_a_name_with_a_star_and_links_to_files_are_found(tmp_path):
    star = write_bytes(tmp_path / "*.txt", b"star\n")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.txt").symlink_to(star)
    write_bytes(tmp_path / "b.txt", b"")
    assert one(star).path == str(star)
    assert documents_of(cut(one(tmp_path / "set"), 9)) == ["star"]


def test_an_input_says_how_it_is_read(tmp_path):
    make_tree(tmp_path)
    text, record = tmp_path / "a.txt", tmp_path / "a-z" / "c.jsonl"
    assert one(text, field="f") == Input(str(text), "lines", "", None, "strict")
    assert one(text, whole_files=True, errors="replace") == Input(str(text), "file", "", None, "replace")
    assert one(record, field="f", whole_files=True) == Input(str(record), "jsonl", "f", None, "strict")


def count(directory: Path, inputs: list[Input], name: str) -> dict[str, int]:
    """The statistics of a count."""
    options = Counting(tokenizer(name), directory / "s")
    with counted(inputs, options, shard_bytes=1, workers=0, where="local", name="c") as counts:
        return counts.statistics


def test_the_same_file_named_twice_counts_twice(tmp_path):
    path = str(write_bytes(tmp_path / "t.txt", b"a b\n"))
    found = count(tmp_path, find_inputs([path, path]), "word")
    assert (found["tokens"], found["types"], found["documents"]) == (4, 2, 2)


# digests


def test_equal_content_has_one_digest_wherever_it_stands(tmp_path):
    data = as_lines(["ab", "ab"])
    names = [
        write_bytes(tmp_path / "a.txt", data),
        write_bytes(tmp_path / "with_mark.txt", b"\xef\xbb\xbf" + data),
        write_bytes(tmp_path / "a.txt.gz", compressed(data)),
        write_bytes(tmp_path / "a.txt.zst", zstd(data)),
        write_memory(".txt", data),
    ]
    assert len({digest_of(name) for name in names}) == 1
    first, second = (shards.read(piece).digest() for piece in cut(one(names[0]), 1))
    assert first == second

    tables = [
        write_parquet(tmp_path / "1.parquet", ["ab", "c"], 1),
        write_parquet(tmp_path / "2.parquet", ["ab", "c"]),
    ]
    assert len({digest_of(table) for table in tables}) == 1


def test_other_content_or_another_reading_has_another_digest(tmp_path):
    line = write_bytes(tmp_path / "a.txt", b'{"a": "b", "text": "c"}\n')
    record = write_bytes(tmp_path / "a.jsonl", line.read_bytes())
    columns = pa.table({"a": ["b"], "text": ["b"]})
    pq.write_table(columns, tmp_path / "same.parquet")
    digests = [
        digest_of(line),
        digest_of(line, whole_files=True),
        digest_of(line, errors="replace"),
        digest_of(write_bytes(tmp_path / "b.txt", b"other\n")),
        digest_of(record),
        digest_of(record, field="a"),
        digest_of(tmp_path / "same.parquet"),
        digest_of(tmp_path / "same.parquet", field="a"),
        digest_of(write_dataset(tmp_path / "set", ["b"])),
        digest_of(write_parquet(tmp_path / "1.parquet", ["ab", "c"])),
        digest_of(write_parquet(tmp_path / "2.parquet", ["a", "bc"])),
    ]
    assert len(set(digests)) == len(digests)


# bytes that are no UTF-8

BROKEN = (
    b"a\xffb\n\xef\xbf\xbd\n\xe4\xba\n"  # one bad byte, a U+FFFD of the text itself, a character cut short
)


def write_broken_parquet(path: Path) -> Path:
    offsets = pa.array([0, 1, 3], pa.int32()).buffers()[1]
    column = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"ab\xff"))
    return write_parquet(path, column, rows=1)


def test_broken_bytes_are_replaced_and_counted(tmp_path):
    path = write_bytes(tmp_path / "t.txt", BROKEN)
    pieces = [shards.read(piece) for piece in cut(one(path, errors="replace"), 1)]
    assert [content.documents().to_list() for content in pieces] == [["a\ufffdb"], ["\ufffd"], ["\ufffd"]]
    assert [content.replaced for content in pieces] == [1, 0, 1]
    whole = shards.read(cut(one(path, errors="replace"), 99)[0])
    assert (len(whole.documents()), whole.replaced) == (3, 2)
    assert len(pieces[0].documents()) == 1  # asked again, it does not count again
    assert pieces[0].replaced == 1

    table = write_broken_parquet(tmp_path / "t.parquet")
    content = shards.read(cut(one(table, errors="replace"), 1 << 20)[0])
    assert (content.documents().to_list(), content.replaced) == (["a", "b\ufffd"], 1)


def test_the_statistics_say_how_much_was_replaced_also_when_runs_are_reused(tmp_path):
    path = str(write_bytes(tmp_path / "t.txt", BROKEN))
    for _ in range(2):
        assert count(tmp_path, find_inputs([path], errors="replace"), "char")["replaced"] == 2
    with pytest.raises(BadInput):  # a run with U+FFFD in it is none of the strict ones
        count(tmp_path, find_inputs([path]), "char")


def test_the_command_line_counts_whole_files_and_replaces(tmp_path, capsys):
    write_bytes(tmp_path / "t.txt", BROKEN)
    words = ["--root", str(tmp_path), "count", f"{tmp_path}/*.txt", "--tokenizer=word", "--workers=0"]
    words += ["--out", str(tmp_path / "out.parquet")]
    assert cli.main(words) == 2
    assert "byte 1 is 0xff" in capsys.readouterr().err
    assert cli.main([*words, "--errors", "replace", "--whole-files"]) == 0
    assert "1 documents" in capsys.readouterr().out


# mistakes


def complaint_of(name: Path | str, **how: str | bool) -> str:
    with pytest.raises(BadInput) as raised:
        documents_of([piece for found in find_inputs([str(name)], **how) for piece in cut(found, 10)])
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.txt", "none.txt: no such file or directory; name a .txt file"),
        ("t.txt/none.txt", "none.txt: no such file or directory"),
        ("*.jsonl", "*.jsonl: no file matches"),
        ("emp*", "emp*: no file matches"),
        ("?.jsonl", "?.jsonl: no file matches"),
        ("[a-c].jsonl", "[a-c].jsonl: no file matches"),
        ("{t,none}.txt", "none.txt: no such file or directory"),
        ("empty", "empty: no known file in this folder"),
        ("t.csv", "t.csv: not a known kind of file; name a .txt file"),
        ("*.csv", "t.csv: not a known kind of file; name a .txt file"),
        ("t.parquet.gz", "t.parquet.gz: not a known kind of file; name a .txt file"),
        ("txt", "txt: not a known kind of file; name a .txt file"),
    ],
)
def test_a_name_without_inputs_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    for file in ("t.txt", "t.csv", "t.parquet.gz", "txt", "empty/notes.md"):
        write_bytes(tmp_path / file, b"")
    assert message in complaint_of(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("?.txt", ["1.txt", "2.txt"]),
        ("[2-9]*.txt", ["2.txt", "20.txt"]),
        ("{20,1}.txt", ["1.txt", "20.txt"]),
        ("{2,{1,2}0,1}.txt", ["1.txt", "10.txt", "2.txt", "20.txt"]),
        ("{?,1*}.txt", ["1.txt", "10.txt", "2.txt"]),
        ("{b,d}/{x,y}.txt", ["b/x.txt", "b/y.txt", "d/x.txt", "d/y.txt"]),
        ("{b,b,d}/x.txt", ["b/x.txt", "d/x.txt"]),
        # a file of that very name is meant
        ("{1,2}.jsonl", ["{1,2}.jsonl"]),
        ("[1].txt", ["[1].txt"]),
        ("d?", ["d?/x.txt"]),
    ],
)
def test_a_pattern_finds_what_a_shell_finds(tmp_path, pattern, found):
    names = ["1.txt", "2.txt", "10.txt", "20.txt", "[1].txt", "{1,2}.jsonl", "d?/x.txt"]
    for name in (*names, *(f"{folder}/{file}.txt" for folder in "bd" for file in "xy")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_bytes(tmp_path / name, b"")
    paths = [item.path for item in find_inputs([f"{tmp_path}/{pattern}"])]
    assert paths == [str(tmp_path / name) for name in found]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch://a.txt", "nosuch://a.txt: cannot be opened here: Protocol not known: nosuch"),
        ("memory://nowhere/a.txt", "memory://nowhere/a.txt: no such file"),
        ("memory://nowhere/*.txt", "memory://nowhere/*.txt: no file matches"),
        ("zip://*.txt::a.zip", "a chain of URLs cannot be read"),
        ("hf://poems:train[:10]", "a slice of a split cannot be counted"),
    ],
)
def test_a_url_that_cannot_be_opened_is_refused(name, message):
    assert message in complaint_of(name)


def test_broken_content_behind_a_url_is_the_content_s_fault():
    for suffix, kind in ((".parquet", "parquet"), (".txt.gz", "gzip")):
        assert f"not a whole {kind} file" in complaint_of(write_memory(suffix, b"text and more text"))


def test_a_missing_driver_is_named(monkeypatch):
    def refuse(_: str) -> None:
        raise ImportError("Install s3fs to access S3")  # as fsspec says where it is not installed

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    assert "s3://bucket/a.txt: cannot be opened here: Install s3fs" in complaint_of("s3://bucket/a.txt")


TEXT = as_lines(["床前明月光"] * 9)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt.gz", compressed(TEXT)[:-9], "not a whole gzip file: Compressed file ended before"),
        ("t.txt.gz", b"text", "not a whole gzip file: Not a gzipped file"),
        ("t.txt.gz", b"", "not a whole gzip file: it is empty"),
        ("t.txt.zst", zstd(TEXT)[:-3], "not a whole zstd file: Truncated"),
        ("t.txt.zst", b"text", "not a whole zstd file: ZSTD decompress failed"),
        ("t.txt.zst", b"", "not a whole zstd file: it is empty"),
        ("t.parquet", b"text and more text", "not a whole parquet file: Parquet magic bytes"),
        ("t.parquet", b"", "not a whole parquet file"),
        ("t.txt.gz", compressed(b"\xef\xbb\xbfa\xff"), "byte 4 of the unpacked file is 0xff; convert"),
        (
            "t.txt",
            b"a\nb\xff\n",
            "not valid UTF-8: byte 3 is 0xff; convert the file first, for example: iconv",
        ),
        ("t.txt", b"a\xff\n", "or genpipe count --errors replace"),
        ("t.jsonl.gz", compressed(b'{"text": ""}\n\n{}\n'), "line 3: no field 'text'"),
    ],
)
def test_broken_content_is_refused_with_its_place(tmp_path, name, data, message):
    path = write_bytes(tmp_path / name, data)
    complaint = complaint_of(path)
    assert complaint.startswith(str(path))
    assert message in complaint


@pytest.mark.parametrize(
    ("column", "field", "message"),
    [
        (["a"], "title", "must have one column 'title', it has: n, text; name the one with the text"),
        (["a"], "n", "column 'n': must hold strings or lists of strings, not int64"),
        ([[1]], "text", "must hold strings or lists of strings, not list<"),
        (
            ["a", "b", None],
            "text",
            "row 2 (from 0): column 'text': must be a string or a list of strings, not null",
        ),
        ([["a"], ["b", None]], "text", "row 1 (from 0): column 'text': must be a string"),
    ],
)
def test_a_column_that_is_no_text_is_refused(tmp_path, column, field, message):
    table = write_parquet(tmp_path / "t.parquet", pa.array(column), rows=1)
    assert message in complaint_of(table, field=field)
    datasets.Dataset.from_parquet(str(table), cache_dir=str(tmp_path)).save_to_disk(tmp_path / "set")
    assert message in complaint_of(tmp_path / "set", field=field)


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "t.parquet")
    assert "must have one column 'text', it has: text, text" in complaint_of(tmp_path / "t.parquet")


def test_broken_strings_in_a_table_are_named_by_row(tmp_path):
    message = complaint_of(write_broken_parquet(tmp_path / "t.parquet"))
    assert "t.parquet: row 1 (from 0): not valid UTF-8: byte 1 is 0xff" in message


def test_a_data_set_of_several_splits_wants_one(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "sets")
    message = complaint_of(tmp_path / "sets")
    assert f"name {tmp_path}/sets/test or {tmp_path}/sets/train" in message
    assert documents_of(cut(one(tmp_path / "sets" / "train"), 9)) == ["a"]


def test_a_data_set_without_rows_is_refused(tmp_path):
    assert "the data set has no rows" in complaint_of(write_dataset(tmp_path / "set", []))


def test_a_broken_data_set_is_refused(tmp_path):
    path = write_dataset(tmp_path / "set", ["a"])
    (rows,) = path.glob("*.arrow")
    rows.write_bytes(b"text")
    assert "not a whole dataset file" in complaint_of(path)
    rows.unlink()
    assert "no such file any more" in complaint_of(path)


@pytest.mark.parametrize("name", ["t.txt", "t.parquet"])
def test_an_input_that_shrank_or_went_is_named(tmp_path, name):
    path = tmp_path / name

    def write(texts: list[str]) -> None:
        write_parquet(path, texts) if name == "t.parquet" else write_bytes(path, as_lines(texts))

    write(["a" * 99, "b"])
    pieces = cut(one(path), 1000)
    write(["a"])
    with pytest.raises(BadInput, match="got shorter"):
        shards.read(pieces[0])
    path.unlink()
    with pytest.raises(BadInput, match="no such file any more"):
        shards.read(pieces[0])


# over the network


class NoLength(http.server.SimpleHTTPRequestHandler):
    """Does not say how long a file is."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Content-Length":
            super().send_header(keyword, value)


@pytest.fixture(params=[http.server.SimpleHTTPRequestHandler, NoLength])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A plain web server of tmp_path: like many, it sends files only whole."""
    handler = functools.partial(request.param, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_a_web_server_without_ranges_serves_whole_files_only(tmp_path, server):
    write_bytes(tmp_path / "t.txt.gz", compressed(TEXT))
    write_bytes(tmp_path / "t.txt", TEXT)
    write_parquet(
        tmp_path / "t.parquet", [str(i) for i in range(20_000)], rows=20_000
    )  # more than PyArrow's first read
    assert documents_of(cut(one(f"{server}/t.txt.gz"), 10)) == ["床前明月光"] * 9
    assert documents_of(cut(one(f"{server}/t.txt", whole_files=True), 10)) == [TEXT.decode()]
    assert "this server sends the file only as a whole" in complaint_of(f"{server}/t.txt")
    assert "this server sends the file only as a whole" in complaint_of(f"{server}/t.parquet")
    assert "no such file" in complaint_of(f"{server}/none.txt")


def test_a_data_set_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch):
    rows = datasets.load_from_disk(write_dataset(tmp_path / "set", ["a", "b"]))
    asked: list[tuple[str, str | None]] = []

    def load(path: str, split: str | None) -> object:
        asked.append((path, split))
        return (
            rows
            if split
            else datasets.DatasetDict({"train": rows} if path == "one" else {"a": rows, "b": rows})
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert documents_of(cut(one("hf://me/poems:test"), 9)) == ["a", "b"]
    assert documents_of(cut(one("hf://one"), 9)) == ["a", "b"]
    assert "it has several splits; name hf://two:a or hf://two:b" in complaint_of("hf://two")
    assert asked == [("me/poems", "test"), ("one", None), ("two", None)]


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        Unavailable, match=r"^hf://nobody/nothing: no answer \(.*check the name and the network"
    ):
        find_inputs(["hf://nobody/nothing"])


@pytest.mark.parametrize("start", ["x^2 + y^2", "x\x01a", "x^i ", "PK\x03\x04", "\x04\x22M\x18"])
@pytest.mark.parametrize("shard_bytes", [3, 1000])
def test_text_that_begins_as_a_packed_file_does_is_text(tmp_path, start, shard_bytes):
    lines = [start, "", start, "a"]
    (tmp_path / "t.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert documents_of(cut(one(tmp_path / "t.txt"), shard_bytes)) == lines


def test_a_packed_file_by_another_name_is_refused(tmp_path):
    (tmp_path / "t.txt").write_bytes(compressed(b"a b\n"))
    assert "not valid UTF-8" in complaint_of(tmp_path / "t.txt")


def test_json_as_deep_as_no_reader_goes_is_one_line(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a", "x": ' + "[" * 200_000 + "]" * 200_000 + "}\n")
    assert "line 1: not a JSON record" in complaint_of(tmp_path / "t.jsonl")
