"""Counting, measured against named peers on this machine: the comparisons that docs/corpus.md reports.

python -m benchmarks.corpus NAME --texts DIRECTORY [--peers PYTHON] [--rounds 5] [--quiet-only]

NAME is chinese, article, english, scaling, memory or durability. The texts come from benchmarks.texts; PYTHON has
benchmarks/peers/requirements.txt.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from genpipe.errors import BadInput, GenpipeError
from genpipe.files import existing

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Entry:
    """A command of a comparison, the text it counts, and the family that must count alike."""

    command: list[str]
    text: Path
    family: str = ""


@dataclass(frozen=True)
class Setting:
    """Where things are, and how often they are measured."""

    texts: Path
    peers: str
    rounds: int
    quiet_only: bool

    def text(self, name: str) -> Path:
        """A text by its name."""
        return existing(self.texts / name, f"make it first: python -m benchmarks.texts {self.texts}")

    def peer(self, script: str, text: str, tokenizer: str, *, workers: int = 2) -> Entry:
        """A script of benchmarks/peers; what counts with one tokenizer must agree."""
        path = self.text(text)
        given = [
            str(path),
            "--tokenizer",
            tokenizer,
            "--workers",
            str(workers),
            "--out",
            f"{measure.OUT}.tsv",
        ]
        return Entry([self.peers, str(PEERS / f"{script}.py"), *given], path, f"{tokenizer} {text}")

    def ours(self, text: str, tokenizer: str, where: str, *more: str, workers: int = 2) -> Entry:
        """genpipe, by benchmarks.count."""
        path = self.text(text)
        given = ["--tokenizer", tokenizer, "--where", where, "--workers", str(workers), *more]
        command = [
            sys.executable,
            "-m",
            "benchmarks.count",
            str(path),
            *given,
            "--out",
            f"{measure.OUT}.parquet",
        ]
        return Entry(command, path, f"{tokenizer} {text}")

    def compare(self, entries: dict[str, Entry], base: str) -> None:
        """Measure and print."""
        table = measure.compare(
            {name: entry.command for name, entry in entries.items()},
            self.rounds,
            base=base,
            megabytes={name: entry.text.stat().st_size / 1e6 for name, entry in entries.items()},
            families={name: entry.family for name, entry in entries.items()},
            quiet_only=self.quiet_only,
        )
        print(table)


def chinese(setting: Setting) -> None:
    """32 MB against the article's loop, with its tokenizer (on the first 3 MB: MB/s compare) and with a fast one."""
    rjieba = "rjieba 32 MB"
    entries = {
        "article's loop, jieba 3 MB": setting.peer("article", "chinese3.txt", "jieba"),
        "genpipe, jieba 3 MB, 2 processes": setting.ours("chinese3.txt", "jieba", "local", "--shard", "1"),
        f"article's loop, {rjieba}": setting.peer("article", "chinese.txt", "rjieba"),
        f"one Counter, {rjieba}": setting.peer("counter", "chinese.txt", "rjieba"),
        f"datatrove, 2 tasks, {rjieba}": setting.peer("datatrove_count", "chinese.txt", "rjieba"),
        f"Spark local[2], {rjieba}": setting.peer("spark_count", "chinese.txt", "rjieba"),
        "genpipe, jieba 32 MB, 2 processes": setting.ours("chinese.txt", "jieba", "local"),
        "genpipe, jieba 32 MB, 2 Ray actors": setting.ours("chinese.txt", "jieba", "ray"),
    }
    setting.compare(entries, "article's loop, jieba 3 MB")


def article(setting: Setting) -> None:
    """The article's claim of a super-linear speed-up: both of its serial loops, and its parallel one."""
    for text, tokenizer in (("chinese3.txt", "jieba"), ("chinese.txt", "rjieba")):
        entries = {
            "loop": setting.peer("article", text, tokenizer),
            "batches of 1,000, added up": setting.peer("article_batched", text, tokenizer),
            "one Counter": setting.peer("counter", text, tokenizer),
            "parallel_apply, 1 worker": setting.peer("article_parallel", text, tokenizer, workers=1),
            "parallel_apply, 2 workers": setting.peer("article_parallel", text, tokenizer),
        }
        print(f"\n{text}, {tokenizer}\n")
        setting.compare(entries, "loop")


def english(setting: Setting) -> None:
    """Words of 100 MB of English against engines that do nothing else."""
    text = "english.txt"
    entries = {
        "DuckDB": setting.peer("duckdb_count", text, "whitespace"),
        "polars, at single spaces": setting.peer("polars_count", text, "whitespace"),
        "polars, at any white space": setting.peer("polars_count", text, "unicode-space"),
        "article's loop": setting.peer("article", text, "whitespace"),
        "genpipe, 2 threads": setting.ours(text, "whitespace", "auto", "--shard", "16"),
        "polars, word": setting.peer("polars_count", text, "word"),
        "genpipe, word, 2 threads": setting.ours(text, "word", "auto", "--shard", "16"),
    }
    setting.compare(entries, "DuckDB")


def scaling(setting: Setting) -> None:
    """From one Ray actor to two: one session, alternated, all of the Chinese text."""
    from benchmarks.count import count, parse, warm_actors
    from genpipe.corpus.actors import cluster

    text = setting.text("chinese_all.txt")
    arguments = parse(with_out=False).parse_args([str(text), "--where", "ray", "--shard", "2"])
    seconds: dict[int, list[float]] = {1: [], 2: []}
    hashes: set[str] = set()
    with cluster(2), tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "counts.parquet"
        for number in range(setting.rounds):
            for workers in (1, 2) if number % 2 else (2, 1):
                with warm_actors(arguments, workers) as does:
                    if setting.quiet_only:
                        measure.wait_for_quiet()
                    seconds[workers].append(count(arguments, text, workers, out, does))
                hashes.add(measure.hash_of_counts(out))
    if len(hashes) > 1:
        raise BadInput("one and two actors gave different counts")
    print(scaling_table(seconds, text.stat().st_size / 1e6))


def scaling_table(seconds: dict[int, list[float]], megabytes: float) -> str:
    """Seconds, MB/s and the efficiency: the median over the rounds of (1 actor / 2 actors) / 2."""
    rows = ["| Ray actors | s, median (min-max) | MB/s | efficiency |", "|---|---|---|---|"]
    for workers, walls in seconds.items():
        ratios = [one / (workers * many) for one, many in zip(seconds[1], walls, strict=True)]
        median = statistics.median(walls)
        rows.append(
            f"| {workers} | {median:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {megabytes / median:.1f} | "
            f"{statistics.median(ratios):.2f} |"
        )
    return "\n".join(rows)


def memory(setting: Setting) -> None:
    """Peak memory with less and less of it allowed, and of those who take what they need."""
    text = "chinese_all.txt"
    entries = {
        "article's loop, rjieba": setting.peer("article", text, "rjieba"),
        "datatrove, 2 tasks, rjieba": setting.peer("datatrove_count", text, "rjieba"),
        **{
            f"genpipe, jieba, 2 processes, {size} MiB each": setting.ours(
                text, "jieba", "local", "--memory", str(size)
            )
            for size in (512, 128, 32)
        },
    }
    setting.compare(entries, "article's loop, rjieba")


def durability(setting: Setting) -> None:
    """What run files, and then a supervisor, cost: one process each."""
    text = "chinese_all.txt"
    entries = {
        "bare loop over the same shards": setting.ours(text, "jieba", "bare"),
        "genpipe in process: run files": setting.ours(text, "jieba", "here"),
        "genpipe, 1 process: run files, supervised": setting.ours(text, "jieba", "local", workers=1),
    }
    setting.compare(entries, "bare loop over the same shards")


COMPARISONS: dict[str, Callable[[Setting], None]] = {
    "chinese": chinese,
    "article": article,
    "english": english,
    "scaling": scaling,
    "memory": memory,
    "durability": durability,
}


def main() -> None:
    """Make one comparison and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=COMPARISONS)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quiet-only", action="store_true", help="wait until other programs are quiet")
    given = parser.parse_args()
    try:
        COMPARISONS[given.name](Setting(given.texts.resolve(), given.peers, given.rounds, given.quiet_only))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
