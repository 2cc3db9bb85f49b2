"""Templates of sentences, by words that stand together more often than chance has it.

Source: Su Jianlin, 最小熵原理（三）：“飞象过河”之句模版和语言结构, archives/5577, 2018.

A sentence is a graph: an edge goes from word a to word b, at most `window` words later, where

    p(a, b) > min_proba   and   ln p(a, b) - ln p(a) - ln p(b) > min_pmi,

p(a) = count of a / count of all words, and p(a, b) = pairs (a, b) / all pairs, at all distances from 1 to `window`
together. Each path from a word without an edge to it, to a word without an edge from it, is a template: its words, and
a placeholder X wherever one or more words are left out, before, between or behind them. A word without any edge is a path.
With `window` 1 templates are phrases.

A document is cut into sentences at 。！？!?；; and newlines (or, for clauses, at every mark that is neither letter nor digit nor
space: see ENDS), and a sentence of more than LONGEST words after each LONGEST.
A sentence has exponentially many paths in the worst case: at most `max_paths` of them count. They are taken in turns, one
from each first word, from left to right, then the next one from each; those that begin at one word come by their
positions in lexicographic order, so that the nearest next word goes first.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from genpipe.corpus.counts import Counts
from genpipe.corpus.runs import TOKEN
from genpipe.corpus.tokenizers import Tokenizer
from genpipe.dependencies import version_of
from genpipe.discovery.notation import HOLE, escaped_column
from genpipe.errors import BadInput

ENDS = {False: "[。！？!?；;\n]", True: r"[^\w\p{Zs}\t'’-]"}  # of sentences, of clauses; as Rust reads them
LONGEST = 250  # words of a sentence
SENTENCES, CUT = r"\#sentences", r"\#cut"  # counted beside templates: no template is written like that

Path = tuple[int, ...]  # places of words in a sentence, ascending


@dataclass(frozen=True)
class _OfSentences(Tokenizer):
    """Yields what is to be counted of the sentences that `base` cuts into words: so it can be counted as tokens are."""

    base: Tokenizer
    clauses: bool  # or sentences
    window: int

    block: ClassVar[int] = 1 << 19  # several rows a word are held at once

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        lists: list[list[str]] = [[] for _ in texts]
        for document, token in self._explode(pl.Series(texts, dtype=pl.String)).collect().iter_rows():
            lists[document].append(token)
        return lists


@dataclass(frozen=True)
class SkipGrams(_OfSentences):
    """The words of all sentences, and their pairs at distances from 1 to `window`, as `a b`."""

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        words = sentences(self.base, texts, self.clauses).lazy()
        each = [words.select("document", TOKEN)]
        for distance in range(1, self.window + 1):
            pair = pl.concat_str(TOKEN, pl.col(TOKEN).shift(-distance), separator=" ")
            inside = pl.col("sentence") == pl.col("sentence").shift(-distance)
            pairs = words.select("document", pair.alias(TOKEN), inside.alias("inside"))
            each.append(pairs.filter("inside").drop("inside"))
        return pl.concat(each)


@dataclass(frozen=True)
class Templates(_OfSentences):
    """The templates of all sentences; SENTENCES a sentence, and CUT one with more paths than `max_paths`."""

    pairs: str  # those with an edge, `a b` a line
    max_paths: int

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        words = sentences(self.base, texts, self.clauses)
        followers = _followers(self.pairs)
        documents: list[int] = []
        found: list[str] = []
        start = 0
        tokens, owners = words[TOKEN].to_list(), words["document"].to_list()
        for length in words["sentence"].rle().struct.field("len"):
            sentence = tokens[start : start + length]
            templates, is_cut = templates_of(sentence, followers, self.window, self.max_paths)
            templates += [SENTENCES, CUT] if is_cut else [SENTENCES]
            documents += [owners[start]] * len(templates)
            found += templates
            start += length
        columns = {
            "document": pl.Series(documents, dtype=pl.UInt32),
            TOKEN: pl.Series(found, dtype=pl.String),
        }
        return pl.LazyFrame(columns)


def skip_grams(base: Tokenizer, clauses: bool, window: int) -> SkipGrams:
    """Counts words and pairs."""
    version = f"{base.version} skip-grams {clauses} {window} {_code_version()}"
    return SkipGrams(base.name, version, (), base, clauses, window)


def templates(base: Tokenizer, clauses: bool, window: int, pairs: str, max_paths: int) -> Templates:
    """Counts templates."""
    known = hashlib.sha256(pairs.encode()).hexdigest()
    version = f"{base.version} templates {clauses} {window} {max_paths} {known} {_code_version()}"
    return Templates(base.name, version, (), base, clauses, window, pairs, max_paths)


def cut_sentences(texts: pl.Series, clauses: bool) -> pl.DataFrame:
    """The sentences, or clauses, of all texts in order: columns document (the number of the text) and text."""
    cut = pl.col("text").str.replace_all(ENDS[clauses], "\n").str.split("\n")
    numbered = texts.rename("text").to_frame().with_row_index("document")
    return numbered.with_columns(cut).explode("text").filter(pl.col("text") != "")


def sentences(base: Tokenizer, texts: pl.Series, clauses: bool) -> pl.DataFrame:
    """The words of all sentences in order: columns document and sentence (numbers), and token, as written in templates."""
    parts = cut_sentences(texts, clauses)
    words = base.explode(parts["text"]).collect(engine="streaming")
    part = words["document"].to_numpy()
    lengths = words["document"].rle().struct.field("len").to_numpy()
    place = np.arange(len(part)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sentence = np.cumsum(place % LONGEST == 0, dtype=np.uint32)
    document = parts["document"].to_numpy()[part]
    frame = pl.DataFrame({"document": document, "sentence": sentence, TOKEN: words[TOKEN]})
    return frame.with_columns(escaped_column(pl.col(TOKEN)).alias(TOKEN))


def strong_pairs(counts: Counts, min_proba: float, min_pmi: float) -> str:
    """The pairs of words with an edge, `a b` a line in the order of code points, by what SkipGrams counted."""
    rows = counts.rows().with_columns(pl.col(TOKEN).str.contains(" ", literal=True).alias("is_pair"))
    totals = dict(rows.group_by("is_pair").agg(pl.col("count").sum()).collect(engine="streaming").iter_rows())
    words, pairs = totals.get(False, 0), totals.get(True, 0)
    if not words:
        raise BadInput("no word in the texts; name texts with words, or another field or tokenizer")
    frequent = rows.filter("is_pair", pl.col("count") > min_proba * pairs).collect(engine="streaming")
    halves = frequent.select(pl.col(TOKEN).str.split(" "), "count").rows()
    known = pl.Series(TOKEN, sorted({word for pair, _ in halves for word in pair}), dtype=pl.String)
    alone = rows.filter(~pl.col("is_pair")).join(known.to_frame().lazy(), on=TOKEN, how="semi")
    single = dict(alone.select(TOKEN, "count").collect(engine="streaming").iter_rows())

    def pmi(first: str, second: str, count: int) -> float:
        return math.log(count / pairs) - math.log(single[first] / words) - math.log(single[second] / words)

    return "\n".join(sorted(f"{a} {b}" for (a, b), count in halves if pmi(a, b, count) > min_pmi))


@functools.lru_cache(1)
def _followers(pairs: str) -> dict[str, set[str]]:
    """The words that each word has an edge to."""
    followers: dict[str, set[str]] = {}
    for pair in pairs.split("\n") if pairs else []:
        first, second = pair.split(" ")
        followers.setdefault(first, set()).add(second)
    return followers


def templates_of(
    words: Sequence[str], followers: dict[str, set[str]], window: int, max_paths: int
) -> tuple[list[str], bool]:
    """The templates of a sentence, at most `max_paths`, and whether it has more."""
    after = [
        [place for place in range(i + 1, min(i + 1 + window, len(words))) if words[place] in strong]
        if (strong := followers.get(word))
        else []
        for i, word in enumerate(words)
    ]
    paths = list(itertools.islice(paths_in_turns(after), max_paths + 1))
    return [_template(words, path) for path in paths[:max_paths]], len(paths) > max_paths


def paths_in_turns(after: Sequence[Sequence[int]]) -> Iterator[Path]:
    """All maximal paths of a graph of places, each with the places that it has an edge to: one from each beginning in turns."""
    reached = {place for places in after for place in places}
    waiting = [_paths_from(place, after) for place in range(len(after)) if place not in reached]
    while waiting:
        left: list[Iterator[Path]] = []
        for paths in waiting:
            path = next(paths, None)
            if path is not None:
                yield path
                left.append(paths)
        waiting = left


def _paths_from(place: int, after: Sequence[Sequence[int]]) -> Iterator[Path]:
    """The paths that begin at a place, in lexicographic order: each step of it leads to a path, so none takes long."""
    path: list[int] = []
    waiting = [(0, place)]
    while waiting:
        depth, last = waiting.pop()
        path[depth:] = [last]
        if after[last]:
            waiting += [(depth + 1, following) for following in reversed(after[last])]
        else:
            yield tuple(path)


def _template(words: Sequence[str], path: Path) -> str:
    """The template of a path through a sentence whose words are written as in templates."""
    parts: list[str] = []
    end = 0  # behind the last word that is in the template
    for place in path:
        if place > end:
            parts.append(HOLE)
        parts.append(words[place])
        end = place + 1
    if end < len(words):
        parts.append(HOLE)
    return " ".join(parts)


@functools.cache
def _code_version() -> str:
    return version_of("discovery.templates")
