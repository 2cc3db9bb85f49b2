"""Files of templates: found in texts and written as Parquet and TSV, and read again."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from genpipe import files as file_tools
from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import Counts, counted_by
from genpipe.corpus.executors import MB_PER_S, Where, executor
from genpipe.corpus.inputs import Input
from genpipe.corpus.runs import TOKEN
from genpipe.corpus.shards import cut
from genpipe.corpus.tokenizers import Tokenizer
from genpipe.discovery.notation import HOLE, parts_of
from genpipe.discovery.templates import CUT, SENTENCES, cut_sentences, skip_grams, strong_pairs, templates
from genpipe.errors import BadInput

ROWS = 1 << 20  # of a row group of the table
TIMES = 6  # the time of counting words, about
COMMAND = "genpipe templates FILE --out templates.parquet"
COUNT = re.compile(r"0*[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Settings:
    """What an edge is, how many paths of a sentence count, and which templates are kept."""

    clauses: bool = False
    window: int = 5
    min_proba: float = 1e-5
    min_pmi: float = 2.0  # nats
    max_paths: int = 1000
    min_count: int = 2


@dataclass(frozen=True)
class Grammar:
    """Templates to parse with: the counts of those that may match, and the sum of all counts."""

    counts: dict[str, int]
    total: int


def find_templates(
    inputs: Sequence[Input],
    tokenizer: Tokenizer,
    settings: Settings,
    out: Path,
    *,
    scratch: Path,
    memory: int,
    shard_bytes: int | None,
    workers: int,
    where: Where,
) -> str:
    """Write the templates of texts to the Parquet file `out` and to a TSV beside it; returns what was found, as lines."""
    first = Counting(skip_grams(tokenizer, settings.clauses, settings.window), scratch, memory=memory)
    shards = [shard for item in inputs for shard in cut(item, shard_bytes or first.usual_shard)]
    seconds = TIMES * sum(shard.size for shard in shards) / 1e6 / MB_PER_S[tokenizer.name]
    scratch.mkdir(parents=True, exist_ok=True)
    with file_tools.scratch_directory(scratch, "here") as here:
        shared = (here, *(path for item in inputs if (path := item.local_path)))
        with executor(where, workers, len(shards), seconds, shared=shared) as does:
            with counted_by(does, shards, first, workers=workers, name="words and pairs") as counts:
                pairs = strong_pairs(counts, settings.min_proba, settings.min_pmi)
            second = templates(tokenizer, settings.clauses, settings.window, pairs, settings.max_paths)
            counting = Counting(second, scratch, memory=memory)
            with counted_by(does, shards, counting, workers=workers, name="templates") as counts:
                return _write(counts, tokenizer, settings, len(pairs.splitlines()), out)


def _write(counts: Counts, tokenizer: Tokenizer, settings: Settings, pairs: int, out: Path) -> str:
    is_template = ~pl.col(TOKEN).is_in([SENTENCES, CUT])
    found = dict(counts.rows().filter(~is_template).select(TOKEN, "count").collect().iter_rows())
    rows = (
        counts.rows()
        .filter(is_template, pl.col("count") >= settings.min_count)
        .select(
            pl.col(TOKEN).alias("template"),
            "count",
            pl.col(TOKEN)
            .str.split(" ")
            .list.eval(pl.element() != HOLE)
            .list.sum()
            .cast(pl.Int64)
            .alias("words"),
        )
    )
    figures = {"pairs": pairs, "sentences": found.get(SENTENCES, 0), "cut": found.get(CUT, 0)}
    about = {"tokenizer": tokenizer.name, "normalise": tokenizer.normalise, "version": tokenizer.version}
    metadata = json.dumps({**about, **asdict(settings), **figures}, ensure_ascii=False)
    with file_tools.new_file(out) as table, file_tools.new_file(tsv_of(out)) as lines:
        rows.sink_parquet(table, compression="zstd", row_group_size=ROWS, metadata={"genpipe": metadata})
        rows.sink_csv(lines, separator="\t", quote_style="never")
        kept = pl.scan_parquet(table)
        number = kept.select(pl.len()).collect().item()
        top = kept.filter(pl.col("words") > 1).head(10).collect()
    return "\n".join(
        [
            f"{figures['sentences']:>12,} {'clauses' if settings.clauses else 'sentences'}, {figures['cut']:,} of them with more than {settings.max_paths:,} paths",
            f"{pairs:>12,} pairs of words with an edge",
            f"{counts.statistics['types'] - len(found):>12,} templates, {number:,} of them {settings.min_count:,} times or more; the first ones of two words or more:",
            *(f"{row['count']:>12,} {row['template']}" for row in top.iter_rows(named=True)),
            f"the templates are in {out} and {tsv_of(out)}",
        ]
    )


def tsv_of(out: Path) -> Path:
    """The TSV beside a Parquet file."""
    return out.with_suffix(".tsv")


def read_grammar(path: Path, words: Collection[str] | None = None, top: int | None = None) -> Grammar:
    """The templates in a Parquet file of `genpipe templates`, or in a TSV: template, tab, count a line.

    With `words`, written as in templates, only those that consist of them, and of placeholders; with `top` only the first.
    """
    counts = _read_tsv(_there(path)) if _is_tsv(path) else _read_parquet(path)[0]
    counts = counts if top is None else counts.sort("count", "template", descending=[True, False]).head(top)
    if counts.is_empty():
        raise BadInput(f"{path}: no template in it; use more text, or a smaller --min-count")
    total = int(counts["count"].sum())
    if words is not None:
        known = pl.Series([*words, HOLE], dtype=pl.String).implode()
        each = pl.col("template").str.split(" ").list.eval(pl.element().is_in(known)).list.all()
        counts = counts.filter(each)
    return Grammar(dict(counts.iter_rows()), total)


def read_about(path: Path) -> dict[str, Any]:
    """How the templates of a Parquet file were found: tokenizer, normalise, version, settings; nothing for a TSV."""
    return {} if _is_tsv(_there(path)) else _read_parquet(path, rows=0)[1]


def sentences_of(text: str, tokenizer: Tokenizer, clauses: bool) -> list[list[str]]:
    """The words of each sentence, or clause, of a text; BadInput where it has none."""
    parts = cut_sentences(pl.Series([text]), clauses)["text"]
    found = [words for words in tokenizer.split_all(parts.to_list()) if words]
    if not found:
        raise BadInput(f"{text[:20]!r}: no word in it; give a sentence")
    return found


def _is_tsv(path: Path) -> bool:
    return path.suffix.lower() == ".tsv"


def _there(path: Path) -> Path:
    file_tools.existing(path, f"make it first: {COMMAND}")
    if path.is_dir():
        raise BadInput(f"{path}: a directory; name a file of templates in it")
    return path


def _read_parquet(path: Path, rows: int | None = None) -> tuple[pl.DataFrame, dict[str, Any]]:
    try:
        about = json.loads(pl.read_parquet_metadata(_there(path))["genpipe"])
        require = {"tokenizer", "normalise", "version", "clauses"} - set(about)
        if require:
            raise ValueError("it is another table of genpipe")
        return pl.read_parquet(path, columns=["template", "count"], n_rows=rows, glob=False), about
    except (KeyError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        line = " ".join(str(error).split())[:100]
        raise BadInput(
            f"{path}: not the Parquet file of genpipe templates ({line}); make it again: {COMMAND}"
        ) from None


def _read_tsv(path: Path) -> pl.DataFrame:
    counts: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not valid UTF-8 at byte {error.start}; convert the file first") from None
    has_header = lines[0].removesuffix("\r").split("\t")[:2] == ["template", "count"]
    for number, line in enumerate(lines[has_header:], start=1 + has_header):
        template, *fields = line.removesuffix("\r").split("\t")
        if not fields or not COUNT.fullmatch(fields[0]):
            raise BadInput(
                f"{path}: line {number}: must be template<TAB>count, a whole number from 1 up, not {line[:40]!r}; fix the line"
            )
        try:
            parts_of(template)
        except ValueError as error:
            raise BadInput(f"{path}: line {number}: {template[:40]!r}: {error}; fix the line") from None
        if template in counts:
            raise BadInput(
                f"{path}: line {number}: {template!r} was there before; add its counts up on one line"
            )
        counts[template] = int(fields[0])
    return pl.DataFrame(
        {"template": counts.keys(), "count": counts.values()},
        schema={"template": pl.String, "count": pl.Int64},
    )
