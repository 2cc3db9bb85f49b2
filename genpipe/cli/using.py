"""A trained model and your own input, without training data: `genpipe use`."""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genpipe.cli.arguments import Commands, new_directory, positive, seed
from genpipe.errors import BadInput
from genpipe.files import SAMPLES

if TYPE_CHECKING:
    from genpipe.using import Using

MODEL = (
    "a directory that genpipe train or genpipe pull wrote, or MODEL@VERSION or MODEL@STAGE of the registry"
)


def add(commands: Commands) -> None:
    """Add the commands that take a trained model and a person's input."""
    use = commands.add_parser(
        "use",
        help="use a trained model on your own input: sample, encode, decode, answer, search",
        epilog="examples: genpipe use answer artifacts/models/couplet 春風; genpipe use sample ogan@prod --out /tmp/ogan",
    )
    parts = use.add_subparsers(dest="use", metavar="WHAT", required=True)
    _add_sample(parts)
    _add_codes(parts)
    _add_answers(parts)


def _add_sample(parts: Commands) -> None:
    sample = _part(parts, "sample", "draw images, points or texts", _sample)
    sample.add_argument("--num", type=positive, default=16, metavar="N", help="default: 16")
    sample.add_argument("--seed", type=seed, default=0, metavar="K", help="default: 0")
    sample.add_argument(
        "--given",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a condition: labels=3, source=TEXT",
    )
    _add_how(sample)
    _add_out(sample)


def _add_codes(parts: Commands) -> None:
    encode = _part(parts, "encode", "print the codes or features of inputs, a line each", _encode)
    encode.add_argument("inputs", nargs="+", metavar="INPUT", help="files of pictures, or texts")
    decode = _part(parts, "decode", "make images of codes", _decode)
    decode.add_argument("table", type=Path, metavar="TABLE", help="what genpipe use encode printed")
    _add_out(decode)


def _add_answers(parts: Commands) -> None:
    answer = _part(
        parts, "answer", "print an answer a line: a text, tags, or a class and its probability", _answer
    )
    answer.add_argument("inputs", nargs="+", metavar="INPUT", help="texts, or files of pictures")
    _add_how(answer)
    search = _part(
        parts, "search", "print the inputs that are nearest to a query, with their cosines", _search
    )
    search.add_argument("query", metavar="QUERY", help="a text, or a file of a picture")
    search.add_argument(
        "among", nargs="*", metavar="INPUT", help="what is searched: texts, or files of pictures"
    )
    search.add_argument("--texts", type=Path, metavar="FILE", help="search these texts too, one a line")
    search.add_argument("--num", type=positive, default=5, metavar="N", help="default: 5")


def _part(
    parts: Commands, name: str, help: str, function: Callable[["Using", argparse.Namespace], None]
) -> argparse.ArgumentParser:
    part = parts.add_parser(name, help=help)
    part.add_argument("model", metavar="MODEL", help=MODEL)
    part.set_defaults(run=_run, function=function)
    return part


def _add_how(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--how",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option, as temperature=0.8",
    )


def _add_out(part: argparse.ArgumentParser) -> None:
    part.add_argument("--out", type=new_directory(SAMPLES), required=True, metavar="DIR")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def _options(pairs: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """Options with numbers where they are written as numbers; what they may be is checked by their function."""
    return dict(pairs)


def _run(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.using import opened

    with _directory(root, arguments.model) as directory:
        arguments.function(opened(directory), arguments)


@contextlib.contextmanager
def _directory(root: Path, model: str) -> Iterator[Path]:
    """The directory of a model; one of the registry is pulled for as long as it is needed."""
    if "@" not in model or Path(model).is_dir():
        yield Path(model).resolve()
        return
    from genpipe.registry.pull import pull
    from genpipe.registry.tags import read_model
    from genpipe.registry.trace import split_name

    name, version = split_name(model)
    if version is None:
        raise BadInput(f"{model!r}: not MODEL@VERSION or MODEL@STAGE")
    with tempfile.TemporaryDirectory(prefix="genpipe-") as held:
        pull(root, name, read_model(root, name).named(version).commit, Path(held) / name)
        yield Path(held) / name


def _sample(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import sample

    given, how = dict(arguments.given), _options(arguments.how)
    sample(using, arguments.num, arguments.seed, given, how, arguments.out)


def _encode(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import encode

    encode(using, arguments.inputs)


def _decode(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import decode

    decode(using, arguments.table, arguments.out)


def _answer(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import answer

    answer(using, arguments.inputs, _options(arguments.how))


def _search(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import search

    search(using, arguments.query, [*arguments.among, *_texts(arguments.texts)], arguments.num)


def _texts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a text file that can be read: {error}") from None
