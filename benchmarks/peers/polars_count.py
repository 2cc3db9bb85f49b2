"""polars: a lazy scan of lines, words at white space or by the pattern of genpipe's `word`, counted, sorted, written."""

import os
import time

from common import arguments, report

TOKENIZERS = ("whitespace", "unicode-space", "word")


def main() -> None:
    """Run the query."""
    given = arguments(TOKENIZERS)
    os.environ["POLARS_MAX_THREADS"] = str(given.workers)
    import polars as pl

    started = time.perf_counter()
    line = pl.col("line")
    if given.tokenizer == "whitespace":  # at single spaces, as benchmarks.texts writes them: its fastest way
        tokens = line.str.split(" ")
    elif given.tokenizer == "unicode-space":  # what genpipe's `whitespace` does
        tokens = line.str.replace_all(r"[^\S ]\s*| \s+", " ").str.split(" ")
    else:
        tokens = line.str.extract_all(r"\w+(?:['’]\w+)*")
    lines = pl.scan_csv(
        given.file, has_header=False, separator="\x01", quote_char=None, schema={"line": pl.String}
    )
    counts = (
        lines.select(tokens.alias("token").explode())
        .filter(pl.col("token").is_not_null() & (pl.col("token") != ""))
        .group_by("token")
        .agg(pl.len().cast(pl.Int64).alias("count"))
        .sort(["count", "token"], descending=[True, False])
        .collect(engine="streaming")
    )
    counts.write_csv(given.out, include_header=False, separator="\t", quote_style="never")
    seconds = time.perf_counter() - started
    report(time.perf_counter() - seconds, int(counts["count"].sum()), len(counts))


if __name__ == "__main__":
    main()
