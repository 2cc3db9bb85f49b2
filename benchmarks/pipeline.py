"""`make run` of two checkouts of genpipe, alternated: wall time, CPU seconds, and the memory of all their processes.

    python -m benchmarks.pipeline OLD [NEW] [--part run --part judging] [--rounds 2] [--any-load]

OLD and NEW (this checkout by default) have been installed (`make install`) and have their raw data (`genpipe data`).
The part `run` first removes all that their stages have made, in DVC's cache too: a restored output costs nothing. The part
`judging`, for which everything must be up to date, removes samples and metrics alone, and measures their making.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from benchmarks.measure import Row, Table, busy_cores, chosen, measured, rotated, wait_for_quiet

LOOK_SECONDS = 1.0  # between two looks at the memory: a look at some dozens of processes takes milliseconds
# of wall time, CPU seconds and memory, beside commit 14557d1
MOST = {"run": {"wall": 0.50, "cpu": 0.45, "peak": 0.6}, "judging": {"cpu": 0.4}}


def all_removed(root: Path) -> None:
    """The state of a fresh clone with its environment and raw data."""
    git(root, "checkout", "--quiet", "--", "dvc.lock", "artifacts")
    git(root, "clean", "-ffdqX", "--", "artifacts")
    for name in (".genpipe", ".dvc/cache"):
        shutil.rmtree(root / name, ignore_errors=True)


def judgements_removed(root: Path) -> None:
    """The state after all trainings of a run: samples and metrics are neither in the workspace nor in the cache."""
    for name in ("artifacts/samples", "artifacts/metrics"):
        shutil.rmtree(root / name, ignore_errors=True)
    stages = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        if name.partition("@")[0] in ("sample", "evaluate"):
            for out in stage["outs"]:
                (root / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]).unlink(missing_ok=True)


def git(root: Path, *words: str) -> None:
    """A command of Git in a checkout; CalledProcessError where it fails."""
    subprocess.run(["git", "-C", str(root), *words], check=True)


PARTS: dict[str, Callable[[Path], None]] = {"run": all_removed, "judging": judgements_removed}


def compared(roots: Sequence[Path], prepare: Callable[[Path], None], rounds: int, quiet_only: bool) -> Table:
    """The runs of each checkout; the first one is the base."""
    rows: dict[str, Row] = {}
    others: list[float] = []
    for number in range(rounds):
        for name in rotated([str(root) for root in roots], number):
            prepare(Path(name))
            others.append(wait_for_quiet() if quiet_only else busy_cores())
            command = ["make", "--no-print-directory", "-C", name, "-o", ".venv/.installed", "run"]
            run = measured(command, memory=True, pause=LOOK_SECONDS)
            row = rows.setdefault(name, Row(name, None, run))
            row.runs.append(run)
            row.memory = max(row.memory, run, key=lambda run: run.peak)
            print(f"round {number + 1} of {rounds}: {name}: {run.wall:.0f} s", file=sys.stderr, flush=True)
    return Table([rows[str(root)] for root in roots], str(roots[0]), max(others))


def ratios(table: Table, kind: str) -> list[float]:
    """NEW divided by OLD, round by round; `kind` is wall, cpu or peak."""
    old, new = table.rows
    return [getattr(b, kind) / getattr(a, kind) for a, b in zip(old.runs, new.runs, strict=True)]


def main() -> None:
    """Print a table a part, and its ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW", nargs="?", default=Path())
    parser.add_argument("--part", action="append", default=[], help="run or judging; both by default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--any-load", action="store_true", help="do not wait until other programs are quiet")
    arguments = parser.parse_args()
    roots = [arguments.old.resolve(), arguments.new.resolve()]
    for part in chosen(arguments.part, PARTS):
        table = compared(roots, PARTS[part], arguments.rounds, not arguments.any_load)
        print(f"\n{part}\n\n{table}\n")
        for kind, most in MOST[part].items():
            found = ratios(table, kind)
            print(
                f"{kind}, NEW / OLD: {statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f}); at most {most}",
                flush=True,
            )


if __name__ == "__main__":
    main()
