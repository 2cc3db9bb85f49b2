"""Found words as files: a lexicon that cuts text, a table with the evidence, and each frequent word in its context."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import polars as pl

from genpipe import files as file_tools
from genpipe.corpus.inputs import Input
from genpipe.corpus.normalisation import normaliser
from genpipe.corpus.shards import cut, read
from genpipe.corpus.tokenizers import Tokenizer, tokenizer
from genpipe.discovery.free_words import free_words
from genpipe.discovery.lexicon_files import read_counts
from genpipe.discovery.units import UnitKind
from genpipe.discovery.words import Settings, Words
from genpipe.errors import BadInput

FILES = ("lexicon.tsv", "words.parquet", "words.tsv", "typical.tsv", "statistics.json")
SHOWN = 200  # words in their context
AROUND = 12  # characters
TEXT_BYTES = 8 << 20  # of the beginning of the text, where contexts are looked for

Contexts = Mapping[str, Sequence[str]]


def write(
    out: Path,
    words: Words,
    contexts: Contexts,
    scores: Mapping[str, float] = MappingProxyType({}),
    typical: Sequence[str] = (),
) -> None:
    """Write FILES into a folder: `scores` beside the statistics, `typical` only where there is something to compare with."""
    with file_tools.new_directory(out, FILES) as directory:
        lexicon = sorted(words.lexicon.items(), key=lambda item: (-item[1], item[0]))
        lines = (f"{word}\t{count}\n" for word, count in lexicon if word.split() == [word])
        (directory / "lexicon.tsv").write_text("".join(lines), encoding="utf-8")
        words.table.write_parquet(directory / "words.parquet", compression="zstd")
        longer = words.table.filter(pl.col("units") > 1)
        examples = [" / ".join(contexts.get(word, ())) for word in longer["word"]]
        longer.with_columns(pl.Series("examples", examples, dtype=pl.String)).write_csv(
            directory / "words.tsv", separator="\t", quote_style="never"
        )
        if typical:
            (directory / "typical.tsv").write_text("\n".join(["word", *typical, ""]), encoding="utf-8")
        file_tools.write_json(directory / "statistics.json", {**words.statistics, **scores})


def in_context(inputs: Sequence[Input], words: Words, settings: Settings, each: int) -> Contexts:
    """The first places of the most frequent words of two units and more, with the text around them; `each`: places of a word.

    Places are those of the characters, whether or not they were cut so there.
    """
    wanted = words.table.filter(pl.col("units") > 1)["word"].head(SHOWN).to_list() if each else []
    found: dict[str, list[str]] = {word: [] for word in wanted}
    left = set(wanted)
    for text in _beginning(inputs, settings):
        for word in sorted(left):
            place = text.find(word)
            while place >= 0 and len(found[word]) < each:
                found[word].append(_around(text, place, word))
                place = text.find(word, place + len(word))
        left = {word for word in left if len(found[word]) < each}
        if not left:
            break
    return found


def _beginning(inputs: Sequence[Input], settings: Settings) -> Iterator[str]:
    """The documents of the first TEXT_BYTES bytes of the text, or a few more."""
    size = 0
    for shard in (shard for item in inputs for shard in cut(item, 1 << 20)):
        if size >= TEXT_BYTES:
            return
        size += shard.size
        yield from map(normaliser(settings.normalise), read(shard).documents().to_list())


def _around(text: str, place: int, word: str) -> str:
    before = text[max(0, place - AROUND) : place]
    behind = text[place + len(word) : place + len(word) + AROUND]
    return " ".join(f"{before}[{word}]{behind}".split())


def read_known(lexicon: Path) -> set[str]:
    """The words of a lexicon: a word a line, or word<TAB>more."""
    try:
        lines = lexicon.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"{lexicon}: {error.strerror}; name a file with a word a line") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{lexicon}: not valid UTF-8 at byte {error.start}; convert the file first") from None
    known = {word for line in lines if (word := line.split("\t")[0].strip())}
    if not known:
        raise BadInput(f"{lexicon}: no words; give a word a line")
    return known


def cutter_of(lexicon: Path) -> Tokenizer:
    """The tokenizer that cuts a text into the words of a lexicon file, or of a folder that `write` has made.

    A folder says which units its words have, and how their text was normalised; a file does not.
    """
    if not lexicon.is_dir():
        return tokenizer("lexicon", file=lexicon)
    statistics = _statistics(lexicon)
    counts = read_counts(lexicon / "lexicon.tsv")
    nothing_added = dict.fromkeys(counts, 0.0)
    return free_words(counts, nothing_added, statistics["kind_of_units"], tuple(statistics["normalise"]))


def _statistics(folder: Path) -> dict[str, Any]:
    path = folder / "statistics.json"
    try:
        found = json.loads(path.read_bytes())
        normaliser(found["normalise"])
        if found["kind_of_units"] not in get_args(UnitKind):
            raise ValueError(f"no units {found['kind_of_units']!r}")
    except OSError:
        raise BadInput(
            f"{folder}: has no statistics.json that can be read; name a folder that genpipe discover wrote"
        ) from None
    except (ValueError, KeyError, TypeError, BadInput) as error:
        raise BadInput(f"{path}: not what genpipe discover writes: {_line(error)}; write it again") from None
    return found


def scores_against(words: Words, known: set[str]) -> dict[str, float]:
    """Precision and recall of the words of two units and more.

    Recall is over the known words with two characters or more, those that the text does not have too.
    """
    found = set(words.table.filter(pl.col("units") > 1)["word"].to_list())
    longer = {word for word in known if len(word) > 1}
    right = len(found & known)
    return {
        "precision": right / len(found) if found else 0.0,
        "recall": right / len(longer) if longer else 0.0,
    }


def read_table(beside: Path) -> pl.DataFrame:
    """The table in a folder that `write` has made."""
    path = beside / "words.parquet"
    if not path.is_file():
        raise BadInput(f"{beside}: has no words.parquet; name a folder that genpipe discover wrote")
    try:
        return pl.read_parquet(path, columns=["word", "count", "units"])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: not what genpipe discover writes: {_line(error)}; write it again") from None


def typical(words: Words, other: pl.DataFrame, number: int) -> list[str]:
    """The words of two units and more that are typical of this text beside another one's, the most typical first.

    By the log-likelihood ratio of their counts (Ted Dunning, *Accurate Methods for the Statistics of Surprise and Coincidence*, 1993).
    """
    totals = words.table["count"].sum(), other["count"].sum()
    both = words.table.filter(pl.col("units") > 1).join(other, on="word", how="left", suffix="_beside")
    here, there = pl.col("count"), pl.col("count_beside").fill_null(0)
    expected = (here + there) / sum(totals)
    surprise = here * (here / (expected * totals[0])).log()
    surprise += pl.when(there > 0).then(there * (there / (expected * totals[1])).log()).otherwise(0.0)
    more = both.filter(here * totals[1] > there * totals[0])
    return (
        more.with_columns(surprise.alias("surprise"))
        .sort("surprise", "word", descending=[True, False])["word"]
        .head(number)
        .to_list()
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def summary(words: Words) -> str:
    """How many words there are, and the ten most frequent ones of two units and more, as a few lines of text."""
    longer = words.table.filter(pl.col("units") > 1)
    return "\n".join(
        [
            f"{words.statistics['units']:>12,} units, {words.statistics['distinct_units']:,} of them different and frequent",
            f"{len(longer):>12,} words of two units and more",
            *(f"{count:>12,} {word}" for word, count in longer.head(10).select("word", "count").iter_rows()),
        ]
    )
