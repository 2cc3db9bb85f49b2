"""Kill -9 at random times, and nothing is lost, left or different.

    python -m tests.chaos                           # 20 rounds, most of an hour; a table, and status 1 if a round fails
    python -m tests.chaos --seed 7 --round 3        # one round again
    python -m tests.chaos --targets count --victims stage "Ray worker" --rounds 4
    python -m tests.chaos --storm                   # 16 stages at once, 20 times

A round makes the work of a few stages undone, runs the flow, kills its victim, waits until what remains has ended, and
runs the same command again. Then `dvc.lock` must be that of the undisturbed run, `dvc status` clean, no process left
and no file that the undisturbed run did not leave. Needs the archives of the raw data, in genpipe's cache or over the
network; everything else is in a temporary directory, which is kept when a round fails.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import storm
from tests.chaos.pipeline import stages_in
from tests.chaos.rounds import Outcome, draw, play, prepare
from tests.chaos.victims import VICTIMS

HEAD = "| round | victim | killed after s | it interrupted | to be done | recovered in s | verdict |\n|---:|---|---:|---|---|---:|---|"


def main() -> int:
    """Attack; 0 when all held."""
    take_signals()
    given = _arguments()
    if given.storm:
        return storm.main(given.rounds)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    scratch = Path(tempfile.mkdtemp(prefix="ch-", dir="/tmp"))  # short: a Unix socket allows 107 bytes
    print(f"seed {seed}, in {scratch}; the undisturbed run comes first", flush=True)
    arena = prepare(scratch, given.targets)
    print(HEAD, flush=True)
    failed = []
    for number in range(given.rounds) if given.round is None else [given.round]:
        drawn = draw(seed, number, list(stages_in(arena.state.lock)), given.victims)
        outcome = play(arena, drawn)
        print(row(outcome), flush=True)
        failed += [number] if outcome.complaints else []
    if not failed:
        shutil.rmtree(scratch)
        return 0
    print(f"again: {again(seed, failed[0], given)}\nlogs: {scratch}", flush=True)
    return 1


def take_signals() -> None:
    """End well when asked to; and start processes that can be interrupted.

    A shell starts what it puts in the background with SIGINT ignored, and so do all below it. A Prefect worker ends by
    sending itself that signal when it has got SIGTERM: it would never end.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def row(outcome: Outcome) -> str:
    """A row of the table."""
    drawn, strike = outcome.draw, outcome.strike
    cells = [
        str(drawn.number),
        drawn.victim,
        f"{strike.seconds:.1f}" if strike else "-",
        (", ".join(strike.interrupted) if strike else "") or "-",
        ", ".join(drawn.stages) + (", not in dvc.lock" if drawn.forgets_lock else ""),
        f"{outcome.recovery:.1f}",
        "; ".join(outcome.complaints) or "as undisturbed",
    ]
    return f"| {' | '.join(cells)} |"


def again(seed: int, number: int, given: argparse.Namespace) -> str:
    """The command that plays one round again."""
    victims = "" if given.victims == list(VICTIMS) else f" --victims {' '.join(map(repr, given.victims))}"
    targets = f" --targets {' '.join(given.targets)}" if given.targets else ""
    return f"python -m tests.chaos --seed {seed} --round {number}{victims}{targets}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, help="default: another one each time; it is printed")
    parser.add_argument("--round", type=int, metavar="N", help="play this one only")
    parser.add_argument(
        "--victims", nargs="+", choices=list(VICTIMS), default=list(VICTIMS), metavar="VICTIM"
    )
    parser.add_argument("--targets", nargs="+", default=[], metavar="STAGE", help="of the flow; default: all")
    parser.add_argument("--storm", action="store_true", help="many stages at once, nobody is killed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
