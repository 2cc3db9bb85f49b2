"""Trees by nested templates: the article's grammar, the tie, and every tree that there is beside the one that is found."""

import itertools
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genpipe.cli import main
from genpipe.discovery.drawings import bracketed, drawn, indented
from genpipe.discovery.notation import parts_of, text_of
from genpipe.discovery.trees import LONGEST, Parser, Tree
from genpipe.errors import BadInput

ARTICLE = {
    "X 的 X": 20, "X 吗": 9, "X 是 X": 5, "X 可以 X 吗": 5, "X 和 X": 4, "X 呢": 3, "X 是 什么 呢": 2,
}  # fmt: skip
PEARS = ["雪梨", "和", "苹果", "和", "香蕉", "的", "颜色", "是", "什么", "呢"]
EGG = ["鸡蛋", "可以", "吃", "吗"]


def trees_of(
    words: tuple[str, ...], counts: dict[str, int], null: float
) -> Iterator[tuple[float, tuple, Tree]]:
    """All trees of a span, each with its score and with what decides among equal ones, by their definition."""
    total = sum(counts.values())
    is_matched = False
    for text, count in counts.items():
        parts = parts_of(text)
        for cuts in itertools.combinations(range(1, len(words)), len(parts) - 1):
            spans = [words[a:b] for a, b in itertools.pairwise((0, *cuts, len(words)))]
            if any(part is not None and span != (part,) for part, span in zip(parts, spans, strict=True)):
                continue
            is_matched = True
            inside = [
                list(trees_of(span, counts, null))
                for part, span in zip(parts, spans, strict=True)
                if part is None
            ]
            number = sum(part is not None for part in parts)
            rule = (number, tuple(-cut for cut in (*cuts, len(words))), tuple(part or "" for part in parts))
            for chosen in itertools.product(*inside):
                score = math.log(count / total) + math.fsum(score for score, _, _ in chosen)
                below = iter(tree for _, _, tree in chosen)
                children = tuple(next(below) if part is None else part for part in parts)
                rules = (rule, *(below_rule for _, below_rule, _ in chosen))
                yield score, rules, Tree(parts, children, score)
    if not is_matched:
        score = null * (len(words) - 1)
        yield score, (), Tree(None, words, score)


def shape(tree: Tree | str) -> object:
    """A tree without its scores."""
    return tree if isinstance(tree, str) else (tree.template, tuple(map(shape, tree.children)))


def best_of(words: tuple[str, ...], counts: dict[str, int], null: float) -> tuple[float, Tree, int]:
    """The highest score, the tree of the rule among equal ones, and how many trees have it."""
    every = list(trees_of(words, counts, null))
    highest = max(score for score, _, _ in every)
    equal = [(rules, tree) for score, rules, tree in every if score > highest - 1e-7]
    return highest, min(equal, key=lambda pair: pair[0])[1], len(equal)


templates = st.lists(st.none() | st.sampled_from("abc"), min_size=1, max_size=4)
grammars = st.dictionaries(
    templates.filter(any)
    .filter(lambda parts: all(a or b for a, b in itertools.pairwise(parts)))
    .map(text_of),
    st.sampled_from([1, 2, 4]),
    max_size=5,
)


def test_the_grammar_of_the_article_parses_its_sentence():
    tree = Parser(ARTICLE).parse(EGG)
    assert bracketed(tree) == "(鸡蛋)可以(吃)吗"
    assert tree.name == "X 可以 X 吗"
    assert tree.score == pytest.approx(math.log(5 / 48))
    assert indented(tree).splitlines() == ["X 可以 X 吗", "├─ (鸡蛋)", "├─ 可以", "├─ (吃)", "└─ 吗"]


def test_of_equal_trees_the_one_with_the_longer_left_part_is_taken():
    score, tree, number = best_of(tuple(PEARS[:5]), {"X 和 X": 4, "X 的 X": 20}, -20.0)
    assert number == 2
    found = Parser({"X 和 X": 4, "X 的 X": 20}).parse(PEARS[:5])
    assert bracketed(found) == bracketed(tree) == "((雪梨)和(苹果))和(香蕉)"
    assert found.score == pytest.approx(score)
    whole = Parser(ARTICLE).parse(PEARS)
    assert bracketed(whole) == "(((雪梨)和(苹果))和(香蕉))的((颜色)是什么呢)"


@pytest.mark.parametrize(
    ("counts", "words", "found"),
    [
        # fewer words of the topmost template first, though the other one is longer from the left
        ({"X m X": 2, "X b c": 2}, "dmebc", "(d)m((e)bc)"),
        # then the part that is longer, from the left
        ({"X a": 2, "c X": 2}, "cba", "(c(b))a"),
        ({"a X a X a": 1}, "abababa", "a(bab)a(b)a"),
        ({"X a X": 1}, "bacac", "((b)a(c))a(c)"),
        # 4 · 1 is 2 · 2, though the logarithm of 4, rounded, is not twice that of 2
        ({"X a": 4, "c b": 1, "c X a": 2, "b": 2}, "cba", "(cb)a"),
        # then a placeholder before a word
        ({"b X": 2, "X a": 2}, "ba", "(b)a"),
    ],
)
def test_ties_go_by_words_then_by_length_then_by_parts(counts, words, found):
    assert bracketed(Parser(counts, null_score=0.0).parse(words)) == found


@settings(max_examples=400)
@given(grammars, st.text("abc", min_size=1, max_size=8), st.sampled_from([0.0, -1.5, -20.0]))
def test_the_tree_is_the_best_of_all_there_are(counts, words, null):
    score, tree, _ = best_of(tuple(words), counts, null)
    found = Parser(counts, null_score=null).parse(words)
    assert found.score == pytest.approx(score, abs=1e-6)
    assert shape(found) == shape(tree)
    assert found.words() == list(words)


def test_many_dense_grammars_have_ties_and_several_levels():
    """The same where templates match often, and proof that such grammars are more than flat lists."""
    chosen = random.Random(1)
    ties = levels = 0
    for _ in range(150):
        texts = chosen.sample(
            ["X a X", "X a", "a X", "X b X", "b X", "X b", "a b", "a X b", "a", "b X a X", "X a X b"], 5
        )
        counts = {text: chosen.choice([1, 2]) for text in texts}
        words = tuple(chosen.choices("abc", k=chosen.randint(5, 7)))
        score, tree, number = best_of(words, counts, -3.0)
        found = Parser(counts, null_score=-3.0).parse(words)
        assert found.score == pytest.approx(score, abs=1e-6)
        assert shape(found) == shape(tree)
        ties += number > 1
        levels += any(isinstance(child, Tree) and child.template for child in found.children)
    assert ties > 20
    assert levels > 80


def test_a_total_of_more_templates_lowers_each_score():
    alone, among = Parser({"X 吗": 1}), Parser({"X 吗": 1}, total=10)
    assert among.parse(["好", "吗"]).score == pytest.approx(alone.parse(["好", "吗"]).score - math.log(10))


def test_without_a_template_a_sentence_is_a_flat_list():
    tree = Parser({}).parse(EGG)
    assert (tree.template, tree.children, tree.score) == (None, tuple(EGG), -60.0)
    assert indented(tree) == "(鸡蛋可以吃吗)"


def test_words_that_look_like_placeholders_are_words():
    tree = Parser({r"X \X": 1}).parse(["a", "X"])
    assert shape(tree) == ((None, "X"), ((None, ("a",)), "X"))
    assert tree.name == r"X \X"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"X a X": 2, "a": 1}, "a" * LONGEST),
        ({"a X a X a X a": 3, "X a X": 2}, "a" * 200),
        (ARTICLE, PEARS * (LONGEST // len(PEARS))),
    ],
)
def test_long_sentences_take_seconds(counts, words):
    began = time.process_time()
    tree = Parser(counts).parse(list(words))
    assert time.process_time() - began < 60
    assert tree.words() == list(words)


# for people


def test_a_drawing_has_each_word_once_in_order_and_each_template():
    tree = Parser({**ARTICLE, "X < X": 1}).parse([*PEARS[:5], "<", "大", "小"])
    assert tree.name == "X < X"
    image = ElementTree.fromstring(drawn(tree))
    width, height = (float(image.attrib[side]) for side in ("width", "height"))
    texts = image.findall("{*}text")
    words = [text for text in texts if text.attrib["class"].startswith("w")]
    assert [text.text for text in words] == tree.words()
    places = [float(text.attrib["x"]) for text in words]
    assert all(b - a >= 18 for a, b in itertools.pairwise(places)), "an em of room for each"
    labels = [text.text for text in texts if text.attrib["class"] == "t"]
    assert sorted(labels) == sorted(["X < X", "X 和 X", "X 和 X", "…"])
    assert len({text.attrib["y"] for text in words}) == 1
    assert all(0 < float(t.attrib["x"]) < width and 0 < float(t.attrib["y"]) < height for t in texts)
    assert len(image.findall("{*}line")) == 3 * 3 + 2, "one a part, and two for the flat list"


def test_a_label_that_is_wider_than_its_words_has_room():
    image = ElementTree.fromstring(drawn(Parser({"i X": 1}).parse(["i", "j"])))
    (label,) = [text for text in image.findall("{*}text") if text.attrib["class"] == "t"]
    assert float(label.attrib["x"]) - 15 > 0
    assert float(label.attrib["x"]) + 15 < float(image.attrib["width"])


# the command


@pytest.fixture
def grammar(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = ["template\tcount", *(f"{text}\t{count}" for text, count in ARTICLE.items())]
    path = tmp_path / "article.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_command_prints_and_draws_the_tree(grammar, capsys):
    assert main(["parse", "鸡蛋可以吃吗？", "--templates", "article.tsv", "--svg", "tree.svg"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "(鸡蛋)可以(吃)吗  -2.26", "X 可以 X 吗", "├─ (鸡蛋)", "├─ 可以", "├─ (吃)", "└─ 吗",
    ]  # fmt: skip
    assert Path("tree.svg").read_text(encoding="utf-8") == drawn(Parser(ARTICLE).parse(EGG))
    assert (
        main(["parse", "好吗。好呢", "--templates", "article.tsv", "--null-score", "-1", "--top", "2"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"(好)吗  {math.log(9 / 29):.2f}", "X 吗", "├─ (好)", "└─ 吗", "好呢  -1.00", "(好呢)"]


def test_templates_that_were_found_parse_by_their_tokenizer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("你好吗。他好吗。我来呢。" * 5, encoding="utf-8")
    command = ["templates", "t.txt", "--tokenizer", "char", "--min-proba", "0.2", "--min-pmi", "0.5"]
    assert main([*command, "--workers", "0"]) == 0
    capsys.readouterr()
    assert main(["parse", "她也好吗", "--templates", "templates.parquet"]) == 0
    done = capsys.readouterr()
    assert done.out.splitlines()[1:] == ["X 好 吗", "├─ (她也)", "├─ 好", "└─ 吗"]
    assert done.err == ""
    assert main(["parse", "她也好吗", "--templates", "templates.parquet", "--tokenizer", "jieba"]) == 0
    assert "genpipe: templates.parquet: its words were cut by char" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["好吗", "--templates", "no.tsv"],
            "no.tsv: no such file or directory; make it first: genpipe templates",
        ),
        (["。", "--templates", "article.tsv"], "'。': no word in it; give a sentence"),
        (
            ["好吗。好", "--templates", "article.tsv", "--svg", "t.svg"],
            "--svg t.svg: draws one sentence, not 2; give one",
        ),
        (["好吗", "--templates", "article.tsv", "--svg", "article.tsv"], "article.tsv: this is the input"),
        (
            ["天，" * 126, "--templates", "article.tsv", "--svg", "t.svg"],
            "252 words, and a sentence of 1 to 250",
        ),
        (["好吗", "--templates", "article.tsv", "--null-score", "1"], "null_score: must be between"),
        (["好吗", "--templates", "article.tsv", "--tokenizer", "lexicon"], "name a tokenizer file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(grammar, capsys, words, line):
    before = {path.name: path.read_bytes() for path in grammar.parent.iterdir()}
    assert main(["parse", *words]) == 2
    complaint = capsys.readouterr().err
    assert line in complaint
    assert complaint.count("\n") == 1
    assert {path.name: path.read_bytes() for path in grammar.parent.iterdir()} == before


def test_a_sentence_without_a_word_or_with_too_many_is_refused():
    for words in ([], ["a"] * (LONGEST + 1)):
        with pytest.raises(BadInput, match="a sentence of 1 to 250 can be parsed"):
            Parser(ARTICLE).parse(words)
