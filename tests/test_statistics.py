"""Curves of a corpus, from how many tokens occur how often."""

import random
from collections import Counter

import polars as pl
import pytest

from genpipe.corpus.statistics import Spectrum, coverage, growth, spectrum_of, zipf

TEXT = random.Random(0).choices(range(300), weights=[1 / (1 + i) for i in range(300)], k=5000)


def spectrum() -> Spectrum:
    return spectrum_of(pl.LazyFrame({"count": list(Counter(TEXT).values())}))


def test_a_spectrum_knows_all_tokens_and_types():
    assert spectrum().tokens == len(TEXT)
    assert spectrum().types.sum() == len(set(TEXT))


def test_zipf_gives_the_count_of_each_rank():
    counts = sorted(Counter(TEXT).values(), reverse=True)
    rows = zipf(spectrum())
    assert rows == [(rank, counts[rank - 1]) for rank, _ in rows]
    assert rows[-1][0] == len(counts)


def test_coverage_is_the_share_of_the_most_frequent():
    counts = sorted(Counter(TEXT).values(), reverse=True)
    for size, share in coverage(spectrum()):
        assert share == pytest.approx(sum(counts[:size]) / len(TEXT))


def test_growth_is_what_shuffled_texts_have_on_average():
    rows = growth(spectrum())
    assert rows[-1] == (len(TEXT), len(set(TEXT)))
    tokens, expected = rows[len(rows) * 3 // 4]
    shuffled = [len(set(random.Random(seed).sample(TEXT, tokens))) for seed in range(200)]
    assert sum(shuffled) / len(shuffled) == pytest.approx(expected, rel=0.02)


def test_an_empty_corpus_has_empty_curves():
    nothing = spectrum_of(pl.LazyFrame(schema={"count": pl.Int64}))
    assert (zipf(nothing), coverage(nothing), growth(nothing)) == ([], [], [])
