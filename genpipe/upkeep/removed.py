"""What stages left that dvc.yaml no longer has: their outputs, and their entries in dvc.lock.

A stage that depends on the folder of such an output reads it, and nobody who gets the commit has it.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from genpipe.graph import forget_stages, layout
from genpipe.registry.lock import LOCK, read_lock
from genpipe.upkeep.leftovers import Leftover
from genpipe.upkeep.sizes import size_of


def removed_stages(root: Path) -> list[str]:
    """The stages of dvc.lock that dvc.yaml no longer has."""
    if not (root / LOCK).exists() or not (root / ".dvc").is_dir():
        return []
    return sorted(set(read_lock(root).stages) - layout(root).stages)


def outputs_of_removed(root: Path) -> Iterator[Leftover]:
    """What they made and nothing makes now; what another stage has taken over stays."""
    gone = set(removed_stages(root))
    if not gone:
        return
    kept = {PurePosixPath(out) for out in layout(root).outs}
    for stage, entry in read_lock(root).outputs():
        made, path = PurePosixPath(entry["path"]), root / entry["path"]
        is_kept = any(out.is_relative_to(made) or made.is_relative_to(out) for out in kept)
        if stage in gone and path.exists() and not is_kept:
            yield Leftover(path, f"{stage} made it, which dvc.yaml no longer has", size_of(path))


def forget_removed(root: Path) -> int:
    """Take their entries out of dvc.lock; how many there were."""
    gone = removed_stages(root)
    if gone:
        forget_stages(root, gone)
    return len(gone)
