"""Words found in a text without labels, by three methods over the same exact counts.

solidity   n-grams whose parts are bound join their units; what is between two cuts and passes a look back is a word (archives/4256, 6920)
entropy    pairs with a mutual information above a bound join their units; words that are no more than their parts go (archives/5476, 5597)
combined   solidity, with a lexicon that is counted again by how free the words are: by the branching entropy of their ends
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import polars as pl

from genpipe import files as file_tools
from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import Counts, counted_by
from genpipe.corpus.executors import Where, executor
from genpipe.corpus.inputs import Input
from genpipe.corpus.shards import Shard, cut
from genpipe.corpus.tasks import Executor
from genpipe.corpus.tokenizers import Tokenizer
from genpipe.discovery import cutting, gram_counting
from genpipe.discovery.branching import branching
from genpipe.discovery.candidates import Located, confirmed, locate
from genpipe.discovery.entropy import strong_pairs, without_redundant
from genpipe.discovery.free_words import free_words
from genpipe.discovery.gram_counting import USUAL_SHARD, GramCounting
from genpipe.discovery.grams import NONE, Grams
from genpipe.discovery.solidity import solid, solidities
from genpipe.discovery.units import UnitKind, are_rows
from genpipe.errors import BadInput
from genpipe.progress import Progress

Array = np.ndarray
Method = Literal["combined", "solidity", "entropy"]
METHODS: tuple[str, ...] = get_args(Method)

MB_PER_S = 5.0  # of one core, about
# nats for n-grams of two units, three, and so on
PUBLISHED = (2.0, 4.0, 6.0, 8.0, 10.0)
COMBINED = (1.0, 4.5, 8.0, 11.5, 15.0)
OF_LETTERS = (0.0, 0.5, 1.0, 1.5, 2.0)  # an alphabet is small, so chance makes many n-grams of letters


@dataclass(frozen=True)
class Settings:
    """What a word is. `thresholds`: nats for n-grams of two units and more; those of the method, or of letters, where there are none."""

    method: Method = "combined"
    units: UnitKind = "runs"
    normalise: tuple[str, ...] = ()
    order: int = 4
    min_count: int = 5
    thresholds: tuple[float, ...] = ()
    strict: bool = False  # look back at all parts of a word
    freedom: float = 0.75  # nats a unit for an autonomy of 1; of combined
    min_proba: float = 1e-5  # of pairs and of words; of entropy
    min_pmi: float = 1.0  # nats; of entropy

    def of_order(self) -> dict[int, float]:
        """The threshold of each order that is counted."""
        of_method = COMBINED if self.method == "combined" else PUBLISHED
        given = self.thresholds or (OF_LETTERS if self.units == "characters" else of_method)
        if len(given) < self.order - 1:
            raise BadInput(
                f"thresholds: {len(given)} given, and n-grams of 2 to {self.order} units need {self.order - 1}; give more, or lower the order"
            )
        return dict(zip(range(2, self.order + 1), given, strict=False))


@dataclass(frozen=True)
class Place:
    """Where and with how much memory to work; no result depends on it."""

    scratch: Path
    workers: int = 0
    where: Where = "auto"
    memory: int = 256 << 20
    shard_bytes: int = USUAL_SHARD


class Words(NamedTuple):
    """What was found.

    `table`: word, count, units, and as far as the n-grams reach solidity (nats), left_entropy and right_entropy (nats); by count descending, then by word.
    `lexicon`: what text is cut into, word -> count: the words, those of one unit too, and with `combined` what is between rows.
    """

    table: pl.DataFrame
    lexicon: Mapping[str, int]
    statistics: Mapping[str, Any]


def discover(inputs: Sequence[Input], settings: Settings, place: Place, name: str = "discover") -> Words:
    """The words of a text."""
    settings.of_order()  # complains before anything is counted
    shards = [shard for item in inputs for shard in cut(item, place.shard_bytes)]
    seconds = sum(shard.size for shard in shards) / 1e6 / MB_PER_S
    place.scratch.mkdir(parents=True, exist_ok=True)
    with (
        file_tools.scratch_directory(place.scratch, "here") as here,
        executor(
            place.where,
            place.workers,
            len(shards),
            seconds,
            shared=(here, *(path for item in inputs if (path := item.local_path))),
        ) as does,
    ):
        return _Search(shards, settings, place, does, name).run()


class _Search:
    """One search: the steps that all methods have in common."""

    def __init__(
        self, shards: Sequence[Shard], settings: Settings, place: Place, does: Executor, name: str
    ) -> None:
        self.shards, self.settings, self.place, self.does, self.name = shards, settings, place, does, name

    def run(self) -> Words:
        grams = self._grams()
        found = {"combined": self._combined, "solidity": self._solidity, "entropy": self._entropy}
        words = found[self.settings.method](grams)
        return self._words(words, grams)

    def _grams(self) -> Grams:
        settings = self.settings
        counting = GramCounting(
            2 if settings.method == "entropy" else settings.order,
            self.place.scratch,
            settings.units,
            settings.normalise,
            settings.min_count,
            self.place.memory,
        )
        tasks = [gram_counting.count_task(shard, counting) for shard in self.shards]
        megabytes = sum(shard.size for shard in self.shards) / 1e6
        with Progress(f"{self.name}: n-grams", megabytes, "MB") as progress:
            counted = self.does.run(
                tasks, lambda number, _: progress.reach(progress.done + self.shards[number].size / 1e6)
            )
        return gram_counting.merged(counted, counting, self.does, self.place.workers, f"{self.name}: n-grams")

    def _solidity(self, grams: Grams) -> dict[str, int]:
        members = solid(grams, self.settings.of_order())
        candidates = self._candidates(grams, members)
        located = locate(candidates["word"].to_list(), grams, self.settings.units)
        is_word = confirmed(located, members, strict=self.settings.strict)
        return dict(candidates.filter(pl.Series(is_word)).iter_rows())

    def _entropy(self, grams: Grams) -> dict[str, int]:
        settings = self.settings
        pairs = strong_pairs(grams, settings.min_proba, settings.min_pmi)
        candidates = self._candidates(grams, [np.zeros(len(grams.names), bool), pairs])
        least = settings.min_proba * int(candidates["count"].sum())
        return without_redundant(dict(candidates.filter(pl.col("count") > least).iter_rows()), settings.units)

    def _combined(self, grams: Grams) -> dict[str, int]:
        counts = self._solidity(grams)
        if not counts:
            return {}
        words = [*counts]
        located = locate(words, grams, self.settings.units)
        autonomy = _of_words(located, [each.autonomy for each in branching(grams)], 0.0)
        added = (self.settings.freedom * autonomy * located.lengths).tolist()
        tokenizer = free_words(
            counts, dict(zip(words, added, strict=True)), self.settings.units, self.settings.normalise
        )
        with self._counted(tokenizer, "words", 1) as again:
            return dict(again.rows().collect().iter_rows())

    def _candidates(self, grams: Grams, members: Sequence[Array]) -> pl.DataFrame:
        """The rows of units between two cuts, word and count."""
        binding = cutting.binding_of(grams, members, self.settings.units)
        with self._counted(
            cutting.cut(binding, self.settings.normalise), "candidates", self.settings.min_count
        ) as counts:
            return counts.rows().rename({"token": "word"}).collect()

    def _counted(self, tokenizer: Tokenizer, what: str, min_count: int) -> AbstractContextManager[Counts]:
        counting = Counting(tokenizer, self.place.scratch, min_count=min_count, memory=self.place.memory)
        return counted_by(
            self.does, self.shards, counting, workers=self.place.workers, name=f"{self.name}: {what}"
        )

    def _words(self, counts: Mapping[str, int], grams: Grams) -> Words:
        is_row = are_rows([*counts])
        words = sorted(itertools.compress(counts, is_row), key=lambda word: (-counts[word], word))
        located = locate(words, grams, self.settings.units)
        ends = branching(grams)
        table = pl.DataFrame(
            {
                "word": pl.Series(words, dtype=pl.String),
                "count": pl.Series([counts[word] for word in words], dtype=pl.Int64),
                "units": located.lengths,
                "solidity": np.log(_of_words(located, solidities(grams), np.nan)),
                "left_entropy": _of_words(located, [each.left for each in ends], np.nan),
                "right_entropy": _of_words(located, [each.right for each in ends], np.nan),
            }
        ).with_columns(pl.col("solidity", "left_entropy", "right_entropy").round(6).fill_nan(None))
        statistics = {
            "method": self.settings.method,
            "kind_of_units": self.settings.units,
            "normalise": [*self.settings.normalise],
            "units": grams.total,
            "distinct_units": len(grams.names),
            "words": int((located.lengths > 1).sum()),
            "n_grams": [len(order.keys) for order in grams.orders],
        }
        return Words(table, counts, statistics)


def _of_words(located: Located, values: Sequence[Array], otherwise: float) -> Array:
    """The value of each word among those of the n-grams of its length, float64 [words]; `otherwise` where there is none."""
    found = np.full(len(located.lengths), otherwise)
    for order, of_order in enumerate(values, start=1):
        indices = located.whole(order)
        found[indices != NONE] = of_order[indices[indices != NONE]]
    return found
