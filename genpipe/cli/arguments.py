"""What the words on the command line may be, checked before anything is done."""

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from genpipe.errors import BadInput, GenpipeError
from genpipe.files import require_ours, temporary_name

MOST_STEPS = 1000  # images in a row
BLOCKS = ("recipe", "corpus", "encoding", "block")  # of params.yaml: arguments that name what a stage writes
OF_MODELS = ("num", "given", "label", "how", "inputs")  # arguments that only a trained model takes
# argparse has no public names for what add_subparsers and add_argument_group return
Commands = argparse._SubParsersAction
Arguments = argparse._ActionsContainer


class Command(argparse.ArgumentParser):
    """A command whose own usage stands before an argument that it does not know; argparse shows that of the whole program."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]; argparse is typed by overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=workers,
        metavar="N",
        help="worker processes; 0 works in this process; default: cluster.workers",
    )
    command.add_argument(
        "--executor",
        choices=["auto", "local", "ray"],
        help="processes of this machine, Ray, or what pays off; default: cluster.executor",
    )
    command.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster, as RAY_ADDRESS names it")


def new_file(text: str) -> Path:
    """A file to write, found out before the work is done: no directory, and in one that can be written."""
    path = Path(text)
    try:
        if not path.name or path.is_dir():
            raise argparse.ArgumentTypeError(
                f"must be a file to write, {text!r} is a directory; name a file in it"
            )
        above = next(place for place in path.absolute().parents if os.path.lexists(place))
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=above):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"{text} cannot be written: {error.strerror}; name another"
        ) from None
    return path


def new_png(text: str) -> Path:
    """A picture to write, as PNG."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must be the name of a PNG file, as way.png, not {text!r}")
    return new_file(text)


def not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {text!r}")
    return int(text)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return value


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number, 1 or more, not {text!r}")
    return int(text)


def steps_of_a_way(text: str) -> int:
    """As many as stand in one row of a picture."""
    if not text.isdecimal() or not 2 <= int(text) <= MOST_STEPS:
        raise argparse.ArgumentTypeError(f"must be a number from 2 to {MOST_STEPS:,}, not {text!r}")
    return int(text)


class Once(argparse.Action):
    """Stores the value of an option; twice is an error, where argparse would take the last one without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        if before is not None:
            raise argparse.ArgumentError(
                self, f"given twice, as {before} and {values}; leave one of them out"
            )
        setattr(namespace, self.dest, values)


def orders(text: str) -> tuple[int, ...]:
    orders = {int(part) if part.isdecimal() else 0 for part in text.split(",")}
    if not orders <= set(range(1, 7)):
        raise argparse.ArgumentTypeError(f"must be orders of n-grams from 1 to 6, as in 1,2,3, not {text!r}")
    return tuple(sorted(orders))


def workers(text: str) -> int:
    try:
        workers = int(text)
    except ValueError:
        workers = -1
    if workers < 0:
        raise argparse.ArgumentTypeError(f"must be a number of processes, 0 or more, not {text!r}")
    return workers


def range_of_workers(text: str) -> tuple[int, int]:
    fewest, dash, most = text.partition("-")
    if not dash:
        return workers(text), workers(text)
    if not (fewest.isdecimal() and most.isdecimal() and 1 <= int(fewest) <= int(most)):
        raise argparse.ArgumentTypeError(
            f"must be a number of processes, or a range from 1 up as in 1-4, not {text!r}"
        )
    return int(fewest), int(most)


def new_directory(ours: Collection[str]) -> Callable[[str], Path]:
    """The type of a directory to write: new, empty, or with nothing but files of the names `ours`; and where it can be."""

    def directory(text: str) -> Path:
        try:
            path = Path(text).resolve()
            require_ours(path, ours)
            above = next(place for place in (*path.parents, path) if os.path.lexists(place))
            probe = above / temporary_name(path, "partial").name
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise argparse.ArgumentTypeError(
                f"{text} cannot be written: {error.strerror}; name another"
            ) from None
        except (GenpipeError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            raise argparse.ArgumentTypeError(str(error)) from None
        return path

    return directory


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 2^63 - 1, not {text!r}")
    return int(text)


def steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more optimiser steps, not {text!r}")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def named(pairs: Iterable[tuple[str, str]], option: str) -> dict[str, str]:
    """The values of an option that may be repeated, by name; BadInput for a name that is there twice."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput(
                f"{option} {name}: given twice, as {found[name]} and {value}; leave one of them out"
            )
        found[name] = value
    return found


def is_model(name: str) -> bool:
    """Whether a word names a trained model, a directory or a version of the registry, and not a stage of params.yaml."""
    return "/" in name or "@" in name


def named_item(arguments: argparse.Namespace) -> str | None:
    """The item of params.yaml, or the model, that a command is about; None for a command about neither."""
    return next(filter(None, (getattr(arguments, block, None) for block in BLOCKS)), None)


def is_of_model(arguments: argparse.Namespace) -> bool:
    """Whether a command is to do what a trained model does, and not what a stage of params.yaml does."""
    name = named_item(arguments)
    by_option = any(getattr(arguments, option, None) not in (None, []) for option in OF_MODELS)
    return by_option or (name is not None and is_model(name))
