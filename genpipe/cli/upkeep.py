"""What keeps a project in order."""

import argparse
from pathlib import Path

from genpipe.cli.arguments import Commands, positive


def add(commands: Commands) -> None:
    """Add the commands that keep a project in order."""
    doctor = commands.add_parser(
        "doctor", help="what is missing on this machine, and the command that fixes it"
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)

    gc = commands.add_parser(
        "gc", help="what can go: old runs, leftovers, logs, unused cache; deletes on --yes"
    )
    gc.add_argument("--yes", action="store_true", help="delete it; without this it is only shown")
    gc.add_argument(
        "--days", type=positive, default=30, metavar="N", help="of logs and kept work to stay; default: 30"
    )
    gc.add_argument("--no-cache", action="store_true", help="leave the cache of DVC alone")
    gc.add_argument(
        "--stages",
        action="store_true",
        help="only what stages made, with their entries in dvc.lock, that dvc.yaml no longer has",
    )
    gc.set_defaults(run=_gc)

    unlock = commands.add_parser(
        "unlock", help="who holds locks and leases; removes those of the dead on --yes"
    )
    unlock.add_argument("--yes", action="store_true", help="remove what processes that have ended left")
    unlock.set_defaults(run=_unlock)

    check = commands.add_parser(
        "check", help="whether every stage of dvc.yaml depends on the code that it runs"
    )
    check.add_argument(
        "--determinism",
        metavar="STAGE",
        help="run a stage twice in a copy instead, and compare what it makes",
    )
    check.set_defaults(run=_check)


def _doctor(root: Path, arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from genpipe.upkeep.doctor import examine

    findings = examine(root)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2))
    else:
        print("\n".join(finding.describe() for finding in findings))
    return int(any(finding.level == "missing" for finding in findings))


def _gc(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.upkeep import leftovers, removed
    from genpipe.upkeep.sizes import readable

    with_cache = not (arguments.no_cache or arguments.stages) and (root / ".dvc").is_dir()
    if with_cache:
        leftovers.require_own_cache(root)
    entries = removed.removed_stages(root)
    found = list(removed.outputs_of_removed(root))
    if not arguments.stages:
        found += leftovers.leftovers(root, arguments.days)
    cached = leftovers.unused_objects(root) if with_cache else []
    print(leftovers.describe(root, found, cached))
    if entries:
        print(f"dvc.lock has {len(entries)} stages that dvc.yaml no longer has: {', '.join(entries)}")
    if not found and not cached and not entries:
        return
    if not arguments.yes:
        print("nothing was deleted; genpipe gc --yes does it")
        return
    freed = leftovers.remove(root, found)  # before the entries, which say what there is to remove
    removed.forget_removed(root)
    if cached:
        freed += leftovers.remove_unused_objects(root, cached)
    print(f"freed {readable(freed)}")


def _unlock(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.upkeep.holders import holders, release

    found = holders(root)
    print("\n".join(holder.describe() for holder in found) or "nobody holds anything")
    dead = [holder for holder in found if not holder.is_alive]
    if dead and arguments.yes:
        print(f"removed {len(release(root))} entries of processes that have ended")
    elif dead:
        print("nothing was removed; genpipe unlock --yes removes what processes that have ended left")


def _check(root: Path, arguments: argparse.Namespace) -> int:
    from genpipe.upkeep import declared, determinism

    if arguments.determinism:
        name = arguments.determinism
        differing = determinism.differences(root, name)
        if differing:
            print(f"{name}: two runs differ in {len(differing)} files, first {differing[0]}")
        else:
            print(f"{name}: two runs made the same bytes")
        return int(bool(differing))
    wrong = declared.check(root)
    print("\n".join(wrong) or "every stage of dvc.yaml depends on the code that it runs")
    return int(bool(wrong))
