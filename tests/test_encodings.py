"""Text data sets as token ids of every kind, and the codec that an encoded directory holds."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from genpipe.cli import main
from genpipe.corpus.codec import Codec
from genpipe.corpus.encoding import encode
from genpipe.corpus.fields import in_order
from genpipe.corpus.training import train_tokenizer
from genpipe.corpus.vocabulary import build_vocabulary, read_counts
from genpipe.data.loader import Data
from genpipe.data.opening import open_data
from genpipe.errors import BadInput, BadState
from genpipe.files import CODEC, TOKENIZERS, write_json
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus
from genpipe.params.encodings import Encoding
from genpipe.params.project import check_params

WORDS = ["<unk>", *"天地日月山水"]
HERE = Cluster(workers=0, executor="local")
Records = Sequence[Mapping[str, Any]]


def write_dataset(root: Path, **splits: Records) -> None:
    """A prepared data set of text, and a vocabulary."""
    folder = root / "artifacts/datasets/verses"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "data.json", {"kind": "text", "splits": list(splits), "facts": {}})
    for split, records in splits.items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    vocabulary = root / "artifacts/vocabularies/verses"
    vocabulary.mkdir(parents=True, exist_ok=True)
    write_json(vocabulary / "vocabulary.json", WORDS)


def encoded(
    root: Path, kind: str, fields: dict[str, str], *, cluster: Cluster = HERE, carry: Sequence[str] = ()
) -> Path:
    corpus = Corpus(dataset="verses", files=(), tokenizer="char", shard_bytes=40)
    block = {"dataset": "verses", "corpus": "verses", "kind": kind, "fields": fields, "carry": carry}
    encode(root, "out", Encoding.model_validate(block), corpus, cluster)
    return root / "artifacts/encoded/out"


def spelled(directory: Path, rows: Any) -> list[str]:
    return [Codec.read(directory).decode(row) for row in rows.tolist()]


def only(data: Data, split: str) -> Mapping[str, Any]:
    (chunk,) = data.split(split)
    return chunk


def test_pairs_have_two_fields_of_one_vocabulary_and_carry_side_tables(tmp_path: Path) -> None:
    pairs = [{"upper": "天地", "lower": "山水"}, {"upper": "日火月", "lower": "月日水"}]
    write_dataset(tmp_path, train=pairs, test=pairs[:1])
    (tmp_path / "artifacts/datasets/verses/tones.tsv").write_text("a table\n")
    directory = encoded(tmp_path, "pairs", {"source": "upper", "target": "lower"}, carry=["tones.tsv"])
    chunk = only(open_data(directory), "train")
    assert spelled(directory, chunk["source"]) == ["天地", "日□月"]
    assert spelled(directory, chunk["target"]) == ["山水", "月日水"]
    assert (directory / "tones.tsv").read_text() == "a table\n"
    size = len(WORDS)
    assert json.loads((directory / "data.json").read_text()) == {
        "kind": "pairs",
        "splits": ["train", "test"],
        "facts": {
            "num_tokens": size + 5,
            "pad": size,
            "start": size + 1,
            "end": size + 2,
            "sep": size + 3,
            "mask": size + 4,
            "max_length": 3,
        },
    }


def test_the_share_of_unknown_ids_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [{"upper": "天天", "lower": "山水"}, {"upper": "日火", "lower": "月日"}]
    write_dataset(tmp_path, train=pairs, test=[])
    encoded(tmp_path, "pairs", {"source": "upper", "target": "lower"})
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "4 ids of train.source, 25.00 % of them unknown",
        "4 ids of train.target, 0.00 % of them unknown",
        "0 ids of test.source, 0.00 % of them unknown",
        "0 ids of test.target, 0.00 % of them unknown",
    ]


def test_a_stream_joins_a_list_of_strings_and_ends_each_document(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=[{"lines": ["天", "地"]}, {"lines": ["山水"]}])
    directory = encoded(tmp_path, "stream", {"text": "lines"})
    data = open_data(directory, {"time": 7})
    end, pad = data.facts["end"], data.facts["pad"]
    assert only(data, "train")["ids"].tolist() == [[1, 0, 2, end, 5, 6, end]]
    assert pad == len(WORDS)


def test_groups_of_another_split_have_numbers_after_those_of_training(tmp_path: Path) -> None:
    train = [{"text": t, "group": g} for t, g in (("天", "z"), ("地", "z"), ("日", "m"), ("月", "m"))]
    write_dataset(tmp_path, train=train, unseen=[{"text": "山", "group": "a"}, {"text": "水", "group": "a"}])
    data = open_data(encoded(tmp_path, "groups", {"text": "text", "group": "group"}))
    assert data.facts["num_groups"] == 2
    assert only(data, "train")["groups"].tolist() == [1, 1, 0, 0]
    assert only(data, "unseen")["groups"].tolist() == [2, 2]


def test_each_token_keeps_its_tag(tmp_path: Path) -> None:
    write_dataset(
        tmp_path, train=[{"text": "天地日", "tags": ["B", "E", "S"]}, {"text": "月", "tags": ["S"]}]
    )
    directory = encoded(tmp_path, "tagged", {"text": "text", "tags": "tags"})
    data = open_data(directory)
    names = json.loads((directory / "classes.json").read_text())
    chunk = only(data, "train")
    assert [names[tag] for tag in chunk["tags"][0].tolist()] == ["B", "E", "S"]
    assert chunk["lengths"].tolist() == [3, 1]
    assert data.facts["num_tags"] == 3


def test_texts_have_a_label_of_their_own(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=[{"text": "天", "form": "long"}, {"text": "地", "form": 5}])
    data = open_data(encoded(tmp_path, "tagged", {"text": "text", "label": "form"}))
    assert only(data, "train")["labels"].tolist() == [1, 0]
    assert data.facts["num_classes"] == 2


def test_labels_that_are_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    """As texts, 10 would come before 2."""
    write_dataset(tmp_path, train=[{"text": "天", "form": number} for number in (10, 2, 0, 1)])
    data = open_data(encoded(tmp_path, "tagged", {"text": "text", "label": "form"}))
    assert only(data, "train")["labels"].tolist() == [3, 2, 0, 1]
    assert data.facts["classes"] == ("0", "1", "2", "10")
    assert in_order({"9" * 5000, "10", "2"}) == ["10", "2", "9" * 5000], "as texts"


def test_questions_keep_their_passages_and_answers(tmp_path: Path) -> None:
    records = [
        {"q": "天", "p": ["天地", "日"], "a": ["地"]},
        {"q": "山", "p": ["山水"], "a": ["水", "山水"]},
    ]
    write_dataset(tmp_path, train=records)
    directory = encoded(tmp_path, "passages", {"question": "q", "passages": "p", "answer": "a"})
    chunk = only(open_data(directory), "train")
    assert [spelled(directory, row) for row in chunk["passages"]] == [["天地", "日"], ["山水", ""]]
    assert [spelled(directory, row) for row in chunk["aliases"]] == [["地", ""], ["水", "山水"]]
    assert spelled(directory, chunk["answer"]) == ["地", "水"]


def test_the_bytes_of_an_encoding_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    records = [{"q": "天" * (i % 5 + 1), "p": ["山水", "日月" * i + "地"], "a": ["地"]} for i in range(40)]
    made = []
    for name, workers in (("alone", 0), ("shared", 2)):
        write_dataset(tmp_path / name, train=records)
        directory = encoded(
            tmp_path / name,
            "passages",
            {"question": "q", "passages": "p", "answer": "a"},
            cluster=Cluster(workers=workers, executor="local"),
        )
        made.append({path.name: path.read_bytes() for path in directory.iterdir()})
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("kind", "fields", "record", "said"),
    [
        (
            "pairs",
            {"source": "a", "target": "b"},
            {"a": "天", "b": " "},
            "text 1 of the field 'b' has no token",
        ),
        ("pairs", {"source": "a", "target": "b"}, {"a": "天"}, "no field 'b'; the line has: a"),
        (
            "tagged",
            {"text": "a", "tags": "b"},
            {"a": "天 地", "b": ["B", "O", "E"]},
            "record 1 has 2 tokens and 3 in 'b'",
        ),
        ("tagged", {"text": "a", "tags": "b"}, {"a": "天", "b": "B"}, "'b' is not a list of names"),
        ("groups", {"text": "a", "group": "b"}, {"a": "天", "b": [1]}, "'b' is not one name or number"),
        (
            "passages",
            {"question": "a", "passages": "b", "answer": "b"},
            {"a": "天", "b": []},
            "'b' is not a list of texts",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path, kind: str, fields: dict[str, str], record: dict[str, Any], said: str
) -> None:
    write_dataset(tmp_path, train=[record])
    with pytest.raises(BadInput, match=said):
        encoded(tmp_path, kind, fields)
    assert not (tmp_path / "artifacts/encoded/out").exists()


def test_a_label_that_training_does_not_have_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=[{"text": "天", "label": "a"}], test=[{"text": "地", "label": "b"}])
    with pytest.raises(BadInput, match="'label' is 'b' only outside of training"):
        encoded(tmp_path, "tagged", {"text": "text", "label": "label"})


def test_images_cannot_be_encoded(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=[{"text": "天"}])
    described = {"kind": "images", "splits": ["train"], "facts": {}}
    write_json(tmp_path / "artifacts/datasets/verses/data.json", described)
    with pytest.raises(BadInput, match="data of the kind images is not text"):
        encoded(tmp_path, "stream", {"text": "text"})


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_counts_that_were_cut_off_are_named(tmp_path: Path, cut: int) -> None:
    import polars as pl

    counts = tmp_path / "artifacts/counts/verses/counts.parquet"
    counts.parent.mkdir(parents=True)
    pl.DataFrame({"token": ["天"], "count": [9]}).write_parquet(counts)
    counts.write_bytes(counts.read_bytes()[:cut])
    with pytest.raises(BadState, match=r"counts\.parquet: .*; count again: genpipe count --corpus verses$"):
        build_vocabulary(tmp_path, "verses", Corpus(dataset="verses", files=(), tokenizer="char"))
    assert not (tmp_path / "artifacts/vocabularies").exists()


DATA, VOCABULARY = "datasets/verses/data.json", "vocabularies/verses/vocabulary.json"
DESCRIBED = {"kind": "text", "splits": ["train"], "facts": {}}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        *((DATA, content, "must have kind (a text), splits (a list of texts, one at least)") for content in (
            [], {}, None, *(DESCRIBED | change for change in (
                {"kind": ["text"]}, {"splits": []}, {"splits": "train"}, {"splits": [1]}, {"splits": None}, {"facts": []},
            )),
        )),
        *((VOCABULARY, content, "not a list of tokens; ") for content in ({"天": 1}, "天地", None, ["<unk>", 1])),
        (VOCABULARY, [], "no token is in it; "),
        (VOCABULARY, ["<unk>", "天", "天"], "the token '天' is there twice; "),
    ],
)  # fmt: skip
def test_what_a_stage_left_is_one_line_where_it_is_not_what_it_must_be(
    tmp_path: Path, file: str, content: Any, said: str
) -> None:
    write_dataset(tmp_path, train=[{"text": "天"}])
    write_json(tmp_path / "artifacts" / file, content)
    with pytest.raises(BadState, match=f"{file}: {re.escape(said)}") as error:
        encoded(tmp_path, "stream", {"text": "text"})
    assert "make it first: genpipe " in str(error.value)
    assert not (tmp_path / "artifacts/encoded").exists()


@pytest.mark.parametrize(
    "carry",
    [["."], ["a"], ["a.txt"], ["a/train.text.ids.npy"], ["a.tsv", "b/a.tsv"], [".."],
     *([name] for name in ("data.json", "classes.json", "a/codec.json", "vocabulary.json", *TOKENIZERS))],
)  # fmt: skip
def test_what_is_carried_is_a_table_that_nothing_else_writes(carry: list[str]) -> None:
    block = {"dataset": "d", "corpus": "c", "kind": "stream", "fields": {"text": "text"}, "carry": carry}
    with pytest.raises(ValidationError, match="carry"):
        Encoding.model_validate(block)


def test_a_directory_is_not_carried(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=[{"text": "天"}])
    (tmp_path / "artifacts/datasets/verses/tones.tsv").mkdir()
    with pytest.raises(BadInput, match=r"tones\.tsv: a directory, and only files are carried"):
        encoded(tmp_path, "stream", {"text": "text"}, carry=["tones.tsv"])
    assert not (tmp_path / "artifacts/encoded").exists()


def test_fields_of_another_kind_are_refused() -> None:
    block = {"dataset": "d", "corpus": "c", "kind": "pairs", "fields": {"text": "text"}}
    params = {
        "datasets": {"d": {"kind": "text", "source": "s"}},
        "corpora": {"c": {"dataset": "d", "files": []}},
    }
    with pytest.raises(
        BadInput, match=r"encodings\.e: fields: the kind pairs has the fields source and target"
    ):
        check_params(params | {"encodings": {"e": block}})
    with pytest.raises(BadInput, match=r"encodings\.e\.corpus: no corpus 'x' \(has: c\)"):
        check_params(params | {"encodings": {"e": block | {"corpus": "x", "kind": "stream"}}})


@pytest.mark.parametrize(
    ("name", "text", "back"),
    [
        ("char", "天 地\n山", "天地\n山"),
        ("jieba", "天地，山水", "天地，山水"),
        ("word", "two  words", "two words"),
    ],
)
def test_a_codec_gives_text_back_but_for_white_space(tmp_path: Path, name: str, text: str, back: str) -> None:
    from genpipe.corpus.tokenizers import tokenizer

    codec = Codec(tokenizer(name), ("<unk>", *dict.fromkeys(tokenizer(name).split(text))))
    ids = codec.encode(text)
    assert codec.decode([codec.start, *ids, codec.end, codec.pad]) == back
    assert (codec.pad, codec.mask) == (len(codec.vocabulary), len(codec.vocabulary) + 4)


def test_a_codec_reads_the_copy_of_the_tokenizer_file(tmp_path: Path) -> None:
    import polars as pl

    counts = tmp_path / "counts.parquet"
    pl.DataFrame({"token": ["low", "lower", "lowest"], "count": [9, 5, 2]}).write_parquet(counts)
    train_tokenizer(read_counts(counts, "count"), "bpe", 30, tmp_path / "bpe.json", spaced=True)
    write_dataset(tmp_path, train=[{"text": "low lower"}])
    corpus = Corpus(dataset="verses", files=(), tokenizer="bpe", tokenizer_file="bpe.json")
    from genpipe.corpus.tokenizers import corpus_tokenizer

    pieces = corpus_tokenizer(tmp_path, corpus).split("low lower")
    words = ["<unk>", *dict.fromkeys(pieces)]
    write_json(tmp_path / "artifacts/vocabularies/verses/vocabulary.json", words)
    block = {"dataset": "verses", "corpus": "verses", "kind": "stream", "fields": {"text": "text"}}
    encode(tmp_path, "out", Encoding.model_validate(block), corpus, HERE)
    (tmp_path / "bpe.json").unlink()
    directory = tmp_path / "artifacts/encoded/out"
    codec = Codec.read(directory)
    ids = np.load(directory / "train.text.ids.npy")
    assert codec.encode("low lower") == ids.tolist()
    assert codec.decode(ids) == "low lower"
    names = {path.name for path in directory.iterdir()} & {"data.json", *CODEC, *TOKENIZERS}
    assert names == {"data.json", "codec.json", "vocabulary.json", "tokenizer.json"}


def test_a_text_without_a_known_token_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=[{"text": "天"}])
    codec = Codec.read(encoded(tmp_path, "stream", {"text": "text"}))
    for text in ("火火", ""):
        with pytest.raises(BadInput, match="no token of it is in the vocabulary"):
            codec.encode(text)


def test_the_command_names_an_encoding_that_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        "datasets: {d: {kind: text, source: s}}\n"
        "corpora: {c: {dataset: d, files: []}}\n"
        "encodings: {e: {dataset: d, corpus: c, kind: stream, fields: {text: text}}}\n"
    )
    assert main(["encode", "x"]) == 2
    assert "no 'x' in encodings of params.yaml; it has: e" in capsys.readouterr().err
