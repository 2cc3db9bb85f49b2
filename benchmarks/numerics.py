"""What portable bits cost: a step of each recipe with `numerics: portable` beside native, alternated, on one process.

    python -m benchmarks.numerics [RECIPE ...] [--steps 40] [--rounds 3] [--any-load]

Networks, batches and optimisers are those of params.yaml, the data those of artifacts/ here.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measure import busy_cores, chosen, measured, rotated, wait_for_quiet
from benchmarks.training import PROJECT, Setting, case_of, mean_step, spread, trainer_steps
from genpipe import numerics
from genpipe.assembly import keep_freed_memory
from genpipe.params.project import read_params

KINDS = ("native", "portable")
MOST = 1.15  # of all recipes together, if portable is to be the default


def compared(recipe: str, rounds: int, steps: int, quiet_only: bool) -> dict[str, list[float]]:
    """Seconds a step, a number a round; native and portable, each in a process of its own."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for kind in rotated(list(KINDS), number):
                _ = wait_for_quiet() if quiet_only else busy_cores()
                work = measured(command(recipe, kind, steps, Path(scratch) / kind), memory=False).work
                assert work is not None
                found[kind].append(work)
    return found


def command(recipe: str, kind: str, steps: int, place: Path) -> list[str]:
    """One training, which tells the seconds of a step: in a directory whose params.yaml chooses the numerics."""
    place.mkdir(exist_ok=True)
    (place / "params.yaml").write_text(f"numerics: {kind}\n", encoding="utf-8")
    (place / "artifacts").unlink(missing_ok=True)
    (place / "artifacts").symlink_to(Path("artifacts").resolve())
    words = [sys.executable, "-m", "benchmarks.numerics", "--one", recipe, "--steps", str(steps)]
    # without the settings of this process
    without = [word for name in numerics.PORTABLE for word in ("-u", name)]
    return ["env", *without, "-C", str(place), f"PYTHONPATH={PROJECT}", "OMP_NUM_THREADS=1", *words]


def line(recipe: str, found: Mapping[str, list[float]]) -> str:
    """A row of the table."""
    native, portable = (found[kind] for kind in KINDS)
    ratios = [b / a for a, b in zip(native, portable, strict=True)]
    cells = [recipe, *(spread([1e3 * value for value in values]) for values in (native, portable))]
    return f"| {' | '.join([*cells, spread(ratios)])} |"


def in_all(times: Mapping[str, Mapping[str, list[float]]]) -> float:
    """Portable divided by native, over all steps that params.yaml gives the recipes."""
    recipes = read_params(PROJECT).recipes
    native, portable = (
        sum(statistics.median(found[kind]) * recipes[recipe].train.steps for recipe, found in times.items())
        for kind in KINDS
    )
    return portable / native


def main() -> None:
    """Print a row a recipe, and the ratio of all of them together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--steps", type=int, default=40, help="counted, of each training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--any-load", action="store_true", help="do not wait until other programs are quiet")
    parser.add_argument("--one", metavar="RECIPE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        keep_freed_memory()
        setting = Setting(Path("artifacts").resolve(), 1, given.steps)
        print(json.dumps({"seconds": mean_step(trainer_steps(case_of(setting, given.one)))}))
        return
    print("| recipe | native, ms a step | portable, ms a step | portable / native, median (min-max) |")
    print("|---|---|---|---|", flush=True)
    times = {}
    for recipe in chosen(given.recipes, read_params(PROJECT).recipes):
        times[recipe] = compared(recipe, given.rounds, given.steps, not given.any_load)
        print(line(recipe, times[recipe]), flush=True)
    print(f"\nall steps of these recipes in params.yaml: {in_all(times):.2f}; at most {MOST} for the default")


if __name__ == "__main__":
    main()
