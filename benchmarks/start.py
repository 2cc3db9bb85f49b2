"""What starting a training costs: five steps on two local processes, beside the same on Ray and in one process.

    python -m benchmarks.start [--recipe nice] [--rounds 3] [--any-load]

Run it in a project whose data is made. The models must be the same bytes. CPU seconds count all processes of a training.
"""

import argparse
import shlex
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Table, compare
from genpipe.errors import WorkFailed
from genpipe.files import WEIGHTS, sha256
from genpipe.params.project import read_params

STEPS = 5
RAY, LOCAL = "two processes on Ray Train", "two local processes"
PLACES = {
    RAY: "--workers 2 --executor ray",
    LOCAL: "--workers 2 --executor local",
    "one process": "--workers 0",
}
MOST = 0.2  # of the CPU seconds on Ray


def started(root: Path, recipe: str, rounds: int, quiet_only: bool) -> Table:
    """The places compared; WorkFailed where their weights differ."""
    with tempfile.TemporaryDirectory() as scratch:
        places = {name: Path(scratch) / str(number) for number, name in enumerate(PLACES)}
        commands = {name: _command(root, recipe, place, PLACES[name]) for name, place in places.items()}
        families = {name: name for name in commands}
        table = compare(commands, rounds, base=RAY, families=families, quiet_only=quiet_only)
        if len({sha256(place / "out" / WEIGHTS) for place in places.values()}) != 1:
            raise WorkFailed(f"{recipe}: the weights of {', '.join(PLACES)} differ")
    return table


def ratios(table: Table) -> list[float]:
    """The CPU seconds on two local processes divided by those on Ray, round by round."""
    runs = {row.name: row.runs for row in table.rows}
    return [local.cpu / ray.cpu for local, ray in zip(runs[LOCAL], runs[RAY], strict=True)]


def _command(root: Path, recipe: str, place: Path, words: str) -> list[str]:
    """A training from its first step, in a project of its own that has the data of `root`."""
    data = Path("artifacts") / read_params(root).recipes[recipe].data
    (place / data).parent.mkdir(parents=True)
    (place / data).symlink_to((root / data).resolve())
    shutil.copy(root / "params.yaml", place)
    train = (
        f"{shlex.quote(sys.executable)} -m genpipe.cli --root {place} train {recipe} --steps {STEPS} {words}"
    )
    return ["sh", "-c", f"rm -rf {place}/.genpipe {place}/out && exec {train} --out {place}/out"]


def main() -> None:
    """Print the table, and the ratio that the local start is held to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="nice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--any-load", action="store_true", help="do not wait until other programs are quiet")
    arguments = parser.parse_args()
    table = started(Path.cwd(), arguments.recipe, arguments.rounds, not arguments.any_load)
    found = ratios(table)
    middle = statistics.median(found)
    print(table)
    print(
        f"\nCPU, two local processes / Ray: {middle:.2f} ({min(found):.2f}-{max(found):.2f}); at most {MOST}"
    )


if __name__ == "__main__":
    main()
