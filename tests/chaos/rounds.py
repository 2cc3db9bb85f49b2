"""A round: work is made undone, a victim dies while it is done, the same command runs again, all is as it was."""

import contextlib
import random
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.warm import GROUPS
from tests.chaos import pipeline
from tests.chaos.arena import SETTLED, UNDISTURBED, Arena, Draw, Outcome
from tests.chaos.attacks import last_line, play_deployed, play_direct
from tests.chaos.processes import Family, succeeded
from tests.chaos.victims import VICTIMS


def draw(seed: int, number: int, stages: Sequence[str], victims: Sequence[str]) -> Draw:
    """The draw of a round; the victims take turns, in an order of chance."""
    turn, place = divmod(number, len(victims))
    order = random.Random(f"{seed} turn {turn}").sample(victims, len(victims))
    rng = random.Random(f"{seed} round {number}")
    victim = VICTIMS[order[place]]
    targets = pipeline.choose(rng, stages, victim.uses_ray)
    if victim.is_warm:  # of so many stages, the flow forks
        targets = sorted(name for name in stages if name.partition("@")[0] in GROUPS)
    return Draw(
        number,
        order[place],
        tuple(targets),
        rng.uniform(0, victim.within),
        rng.random(),
        rng.random() < 0.5,
    )


def prepare(scratch: Path, targets: Sequence[str]) -> Arena:
    """Make the project and run it undisturbed."""
    root = scratch / "project"
    for directory in (root, scratch / "t"):
        directory.mkdir()
    pipeline.make(root)
    arena = Arena(root, scratch, tuple(targets), pipeline.State("", frozenset()))
    with _family() as family:
        run = family.start(arena.command, root, arena.environment, arena.log("undisturbed"))
        complaints = succeeded(run, UNDISTURBED, "the undisturbed run")
        complaints += [f"{process} is left" for process in family.wait_until_gone(SETTLED)]
    if complaints:
        raise RuntimeError(f"{'; '.join(complaints)}: {last_line(arena.log('undisturbed'))}")
    shutil.copytree(root, scratch / "undisturbed", symlinks=True)
    return replace(arena, state=pipeline.state_of(root))


@contextlib.contextmanager
def _family() -> Iterator[Family]:
    family = Family(uuid.uuid4().hex)
    with family.watched():
        yield family


def play(arena: Arena, drawn: Draw) -> Outcome:
    """Play a round."""
    shutil.rmtree(arena.scratch / "t")  # logs of Ray
    (arena.scratch / "t").mkdir()
    arena = replace(arena, is_warm=not VICTIMS[drawn.victim].is_command)
    with _family() as family:
        play_it = play_deployed if VICTIMS[drawn.victim].is_deployed else play_direct
        strike, recovery, complaints = play_it(arena, drawn, family)
    complaints += pipeline.differences(arena.root, arena.targets, arena.state, drawn.forgets_lock)
    complaints += [f"left behind: $TMPDIR/{name}" for name in sorted(_temporary(arena.scratch / "t"))]
    if complaints:  # what is wrong stays to be looked at, and is not held against the next round
        arena.root.rename(arena.scratch / f"failed-{drawn.number}")
        shutil.copytree(arena.scratch / "undisturbed", arena.root, symlinks=True)
    return Outcome(drawn, strike, recovery, tuple(complaints))


def _temporary(directory: Path) -> set[str]:
    """Files there; Ray leaves its logs, torch its settings, a killed Prefect worker what it told its supervisor."""
    names = {path.relative_to(directory) for path in directory.rglob("*") if not path.is_dir()}
    theirs = ("ray", "torchinductor", "prefect-workspace-attempt")
    return {str(name) for name in names if not name.parts[0].startswith(theirs)}
