"""Measures of texts beside independent ones: definitions written out, sacrebleu as it is called by hand, lists."""

import doctest
import itertools
import math
import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from sacrebleu import corpus_bleu

from genpipe.evaluation import texts as measures
from genpipe.evaluation.reading import copies, copy
from genpipe.evaluation.spelling import most_frequent, units
from genpipe.sampling.text import Speller


def subsequence(a: str, b: str) -> int:
    """The definition: the longest of all subsequences of `a` that `b` has in its order."""

    def has(text):
        rest = iter(b)
        return all(unit in rest for unit in text)

    sizes = range(len(a), 0, -1)
    return next((size for size in sizes if any(map(has, itertools.combinations(a, size)))), 0)


def random_text(draw: random.Random, most: int) -> str:
    return "".join(draw.choices("甲乙丙", k=draw.randrange(most + 1)))


def test_rouge_l_is_that_of_the_longest_of_all_common_subsequences():
    draw = random.Random(0)
    for _ in range(300):
        a, b = random_text(draw, 8), random_text(draw, 8)
        length = subsequence(a, b)
        assert measures.longest_common_subsequence(a, b) == length
        if not length:
            assert measures.rouge_l(a, b) == 0
            continue
        precision, recall = length / len(a), length / len(b)
        assert measures.rouge_l(a, b) == pytest.approx(2 * precision * recall / (precision + recall))
    long = "".join(draw.choices("甲乙丙丁", k=300))
    assert measures.rouge_l(long, long) == 1
    assert measures.rouge_l("甲乙丙", "丙乙甲") == pytest.approx(1 / 3)  # order counts


def test_bleu_is_that_of_sacrebleu_and_its_order_that_of_the_data():
    made, real = ["山中送別", "春日", "山人"], ["山中留別", "春日", "送友人"]
    order = measures.bleu_order(real)
    assert order == 3  # two of three have three characters
    by_hand = corpus_bleu(
        [" ".join(t) for t in made], [[" ".join(t) for t in real]], tokenize="none", force=True
    )
    assert measures.bleu(made, real, 4) == pytest.approx(by_hand.score / 100)
    counts = [
        (
            sum(
                (Counter(grams(a, n)) & Counter(grams(b, n))).total() for a, b in zip(made, real, strict=True)
            ),
            n,
        )
        for n in (1, 2, 3)
    ]
    totals = [sum(len(grams(a, n)) for a in made) for n in (1, 2, 3)]
    shares = [
        count / total if count else 1 / (2 * total) for (count, _), total in zip(counts, totals, strict=True)
    ]
    brevity = math.exp(min(0, 1 - sum(map(len, real)) / sum(map(len, made))))
    mean = math.exp(sum(math.log(share) for share in shares) / 3)
    assert measures.bleu(made, real, 3) == pytest.approx(brevity * mean)


def grams(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def test_short_lines_score_nothing_by_four_grams_and_all_by_the_order_of_the_data():
    """The trap: identical lines of two and three characters have no 4-gram."""
    lines = ["春日", "山居", "送友人"]
    assert measures.bleu(lines, lines, 4) == 0
    assert measures.bleu_order(lines) == 2
    assert measures.bleu(lines, lines, 2) == pytest.approx(1)


def test_distinct_counts_different_grams():
    assert measures.distinct(["甲乙", "甲乙丙"], 1) == pytest.approx(3 / 5)
    assert measures.distinct(["甲乙", "甲乙丙"], 2) == pytest.approx(2 / 3)
    assert measures.distinct(["甲"], 2) == 0


def test_answers_are_compared_with_the_nearest_alias():
    made = ["歙縣", "歙縣人", "", "山"]
    right = [["歙縣人", "歙縣"], ["歙縣"], ["山"], ["水"]]
    found = measures.answers(made, right)
    overlaps = [1, 2 * 1 * (2 / 3) / (1 + 2 / 3), 0, 0]
    assert found["exact_match"] == 1 / 4
    assert found["f1"] == pytest.approx(sum(overlaps) / 4)
    assert found["final"] == pytest.approx((found["exact_match"] + found["f1"]) / 2)
    assert measures.f1("甲甲", ["甲乙"]) == pytest.approx(1 / 2)  # each as often as it occurs
    assert measures.f1("", [""]) == 0


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(measures).failed == 0


def test_an_unknown_token_is_never_a_right_answer():
    trial = SimpleNamespace(speller=Speller(["<unk>", "，", "山"], False))
    assert units(trial, [2, 1, 2]) == "山山"
    assert units(trial, [0, 2]) == "□山"
    assert units(trial, [0, 2], written=True) != units(trial, [0, 2])
    bare = SimpleNamespace(speller=None)
    assert units(bare, [0, 2], written=True) == [-1, 2]
    assert units(bare, [0, 2]) == [0, 2]


def test_a_copy_follows_the_longest_part_of_the_question():
    question = [7, 1, 2, 3, 9]
    assert copy(question, [[1, 2, 5, 5], [0, 1, 2, 3, 4, 6, 8]], 2) == [4, 6]
    assert copy(question, [[1, 2, 3], [9, 5]], 2) == [3]  # nothing follows the whole of it
    assert copy([50], [[1, 2]], 2) == []
    x = {
        "question": torch.tensor([[1, 9], [2, 2]]), "question_lengths": torch.tensor([1, 2]),
        "passages": torch.tensor([[[1, 4, 9], [9, 9, 9]], [[2, 2, 6], [9, 9, 9]]]),
        "passage_lengths": torch.tensor([[2, 0], [3, 0]]),
    }  # fmt: skip
    assert copies(x, 3) == [[4], [6]]


def test_the_most_frequent_text():
    assert tuple(most_frequent([[1], [2, 3], [2, 3], [1], [2, 3]])) == (2, 3)
