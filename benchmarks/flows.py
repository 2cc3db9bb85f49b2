"""Log-densities and samples of flows beside nflows, normflows and zuko: one architecture, one set of numbers, one thread, alternated.

    python -m benchmarks.flows [RECIPE ...] --peers PYTHON [--rounds 5] [--rows 200] [--calls 30] [--quiet-only]

PYTHON has the packages of benchmarks/peers/requirements-flows.txt. Each contestant is a short script in benchmarks/peers: NICE
with additive couplings of even and odd dimensions in turn, ReLU networks, a scale a dimension and a logistic prior. Their
log-densities of the same points must agree before anything is measured. A number is the median of CPU times of calls in one
process; a ratio is that of speeds, ours divided by theirs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.measure import busy_cores, chosen, measured, rotated, wait_for_quiet
from genpipe.errors import BadInput, GenpipeError

HERE = Path(__file__).parent
ARCHITECTURES = {"nice": "784x4x500x3"}  # of each recipe that is measured: see Architecture.parse
LIBRARIES = {"nflows": 1.0, "normflows": 1.0, "zuko": 1.35}  # and how many times as fast we shall be
OPERATIONS = ("log_prob", "sample")
OURS = "genpipe"
AGREE = 1e-4  # relative difference of log-densities in float32

Times = Mapping[str, list[float]]  # seconds by contestant, a number a round


def command(recipe: str, contestant: str, peers: str, *more: str) -> list[str]:
    """One process of a contestant."""
    script = str(HERE / "peers" / f"flow_{contestant}.py")
    python = [sys.executable, script, recipe] if contestant == OURS else [peers, script]
    path = f"PYTHONPATH={HERE.parent}" if contestant == OURS else "PYTHONPATH="
    return ["env", path, "OMP_NUM_THREADS=1", *python, ARCHITECTURES[recipe], *more]


def require_agreement(recipe: str, peers: str, rows: int = 50) -> None:
    """Raise where a library does not compute what ours does: a ratio of unequal work means nothing."""
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in (OURS, *LIBRARIES):
            file = Path(scratch) / f"{name}.npy"
            how = command(recipe, name, peers, "log_prob", "--rows", str(rows), "--write", str(file))
            done = subprocess.run(how, capture_output=True, text=True, env=os.environ, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:]
                raise BadInput(
                    f"{name}: ended with {done.returncode}: {' '.join(last)}; --peers must be a Python that has "
                    "benchmarks/peers/requirements-flows.txt"
                )
            found[name] = np.load(file)
    for name in LIBRARIES:
        off = float(np.abs(found[name] / found[OURS] - 1).max())
        if not off <= AGREE:
            raise BadInput(
                f"{recipe}: the log-densities of {name} differ by {off:.3g} of ours; its script must compute the same"
            )


def alternated(recipe: str, operation: str, given: argparse.Namespace) -> Times:
    """Each contestant once a round, another one first each time."""
    names = [OURS, *LIBRARIES]
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name in rotated(names, number):
            _ = wait_for_quiet() if given.quiet_only else busy_cores(0.1)
            more = ("--rows", str(given.rows), "--calls", str(given.calls))
            seconds = measured(command(recipe, name, given.peers, operation, *more), memory=False).work
            assert seconds is not None
            found[name].append(seconds)
            print(
                f"{recipe}: {operation}: round {number + 1}: {name}: {1e3 * seconds:.2f} ms",
                file=sys.stderr,
                flush=True,
            )
    return found


def lines(recipe: str, operation: str, found: Times) -> list[str]:
    """A row of the table for each library."""
    ours = found[OURS]
    rows = []
    for name, bar in LIBRARIES.items():
        ratios = [theirs / mine for theirs, mine in zip(found[name], ours, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        times = [f"{1e3 * statistics.median(values):.2f}" for values in (ours, found[name])]
        rows.append(f"| {recipe} | {operation} | {name} | {times[0]} | {times[1]} | {spread} | {bar} |")
    return rows


def main() -> None:
    """Print a row for each recipe, operation and library."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--calls", type=int, default=30, help="counted, of each process")
    parser.add_argument("--quiet-only", action="store_true", help="wait until other programs are quiet")
    given = parser.parse_args()
    try:
        recipes = chosen(given.recipes, ARCHITECTURES)
        print("| recipe | operation | library | ours, ms | theirs, ms | ours / theirs, speed | bar |")
        print("|---|---|---|---:|---:|---:|---:|", flush=True)
        for recipe in recipes:
            require_agreement(recipe, given.peers)
            for operation in OPERATIONS:
                print("\n".join(lines(recipe, operation, alternated(recipe, operation, given))), flush=True)
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
