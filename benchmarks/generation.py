"""Generation beside transformers' `generate`: the same weights, the same tokens out, one thread, alternated.

    python -m benchmarks.generation --peers PYTHON [--shape 8000x256x6x4x8x8x64x4] [--rounds 5] [--calls 3] [--quiet-only]

PYTHON has the packages of benchmarks/peers/requirements-generation.txt. The shape is: tokens, width, layers, heads, rows of a batch,
tokens that are read, tokens that are written, beam. Each contestant is a short script in benchmarks/peers: a causal model of BERT's shape,
greedy and by beam search, with its cache. Their tokens must be the same before anything is measured. A number is the median of
CPU times of calls in one process; a ratio is that of speeds, ours divided by theirs, or of a batch divided by one text after
another. Memory is the peak of a whole process, shared pages divided.
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

from benchmarks.measure import busy_cores, measured, rotated, wait_for_quiet
from genpipe.errors import BadInput, GenpipeError

HERE = Path(__file__).parent
SHAPE = "8000x256x6x4x8x8x64x4"
OURS, PEER = "genpipe", "transformers"
Contestant = tuple[str, str]  # who, and what
CONTESTANTS: tuple[Contestant, ...] = (
    (OURS, "greedy"), (PEER, "greedy"), (OURS, "beam"), (PEER, "beam"), (OURS, "beam_one_by_one"),
)  # fmt: skip
PAIRS: tuple[tuple[Contestant, Contestant, float], ...] = (  # and how many times as fast the first shall be
    ((OURS, "greedy"), (PEER, "greedy"), 1.3),
    ((OURS, "beam"), (PEER, "beam"), 1.3),
    ((OURS, "beam"), (OURS, "beam_one_by_one"), 3.0),
)
MEMORY = 0.9  # of theirs, at most

Times = Mapping[Contestant, list[float]]  # seconds by contestant, a number a round


def command(one: Contestant, shape: str, peers: str, *more: str) -> list[str]:
    """One process of a contestant."""
    who, what = one
    script = str(HERE / "peers" / f"generation_{who}.py")
    path = f"PYTHONPATH={HERE.parent}" if who == OURS else "PYTHONPATH="
    return [
        "env",
        path,
        "OMP_NUM_THREADS=1",
        sys.executable if who == OURS else peers,
        script,
        shape,
        what,
        *more,
    ]


def require_agreement(shape: str, peers: str) -> None:
    """Raise where the tokens differ: a ratio of unequal work means nothing."""
    found: dict[Contestant, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, one in enumerate(CONTESTANTS):
            file = Path(scratch) / f"{number}.npy"
            how = command(one, shape, peers, "--write", str(file))
            done = subprocess.run(how, capture_output=True, text=True, env=os.environ, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:]
                raise BadInput(
                    f"{one[0]}: ended with {done.returncode}: {' '.join(last)}; --peers must be a Python that has "
                    "benchmarks/peers/requirements-generation.txt"
                )
            found[one] = np.load(file)
    for first, second, _ in PAIRS:
        if not np.array_equal(found[first], found[second]):
            same = float((found[first] == found[second]).all(1).mean())
            raise BadInput(
                f"{' '.join(first)} and {' '.join(second)}: {same:.0%} of the texts are the same; the scripts must write the same tokens"
            )


def alternated(given: argparse.Namespace) -> Times:
    """Each contestant once a round, another one first each time."""
    found: dict[Contestant, list[float]] = {one: [] for one in CONTESTANTS}
    names = {" ".join(one): one for one in CONTESTANTS}
    for number in range(given.rounds):
        for name in rotated(list(names), number):
            _ = wait_for_quiet() if given.quiet_only else busy_cores(0.1)
            how = command(names[name], given.shape, given.peers, "--calls", str(given.calls))
            seconds = measured(how, memory=False).work
            assert seconds is not None
            found[names[name]].append(seconds)
            print(f"round {number + 1}: {name}: {1e3 * seconds:.0f} ms", file=sys.stderr, flush=True)
    return found


def lines(found: Times) -> list[str]:
    """A row of the table for each pair."""
    rows = []
    for first, second, bar in PAIRS:
        ratios = [theirs / mine for theirs, mine in zip(found[second], found[first], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        times = [f"{1e3 * statistics.median(found[one]):.0f}" for one in (first, second)]
        rows.append(
            f"| {' '.join(first)} | {' '.join(second)} | {times[0]} | {times[1]} | {spread} | {bar} |"
        )
    return rows


def memory(given: argparse.Namespace) -> str:
    """The peak of a process of each, greedy."""
    ours, theirs = (
        measured(command((who, "greedy"), given.shape, given.peers, "--calls", "1"), memory=True).peak
        for who in (OURS, PEER)
    )
    return f"peak memory, greedy: {ours / 1e6:.0f} MB and {theirs / 1e6:.0f} MB: {ours / theirs:.2f} (at most {MEMORY})"


def main() -> None:
    """Print a row for each pair, and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--shape", default=SHAPE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3, help="counted, of each process")
    parser.add_argument("--quiet-only", action="store_true", help="wait until other programs are quiet")
    given = parser.parse_args()
    try:
        require_agreement(given.shape, given.peers)
        print("| first | second | first, ms | second, ms | first / second, speed | bar |")
        print("|---|---|---:|---:|---:|---:|", flush=True)
        print("\n".join(lines(alternated(given))), flush=True)
        print(memory(given))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
