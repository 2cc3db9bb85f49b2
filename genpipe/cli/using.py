"""A trained model and your own input, without training data: `genpipe use`."""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
        description="Use a trained model on your own input. Only the directory of the model is read: no training data is needed.",
        epilog="examples: genpipe use answer artifacts/models/couplet 春風; genpipe use sample ogan@prod --out drawn",
    )
    parts = use.add_subparsers(dest="use", metavar="WHAT", required=True)
    _add_sample(parts)
    _add_codes(parts)
    _add_answers(parts)


def _add_sample(parts: Commands) -> None:
    sample = _part(
        parts,
        "sample",
        "draw images, points or texts",
        _sample,
        "examples: genpipe use sample artifacts/models/nice --num 64 --how temperature=0.6 --out drawn; "
        "genpipe use sample energy@prod --seed 7 --out drawn. Number j of a seed is the same whatever N is.",
    )
    sample.add_argument("--num", type=positive, default=16, metavar="N", help="default: 16")
    sample.add_argument(
        "--seed", type=seed, default=0, metavar="K", help="another one draws others; default: 0"
    )
    _add_given(sample)
    _add_how(sample)
    _add_out(sample)


def _add_codes(parts: Commands) -> None:
    encode = _part(
        parts,
        "encode",
        "print the codes or features of inputs, a line each: its name and its numbers, with tabs between them",
        _encode,
        "example: genpipe use encode artifacts/models/ogan three.png seven.png > codes.tsv",
    )
    encode.add_argument("inputs", nargs="+", metavar="INPUT", help="files of pictures, or texts")
    _add_given(encode)
    decode = _part(
        parts,
        "decode",
        "make images of codes",
        _decode,
        "example: genpipe use decode artifacts/models/ogan codes.tsv --out decoded, "
        "where genpipe use encode wrote codes.tsv",
    )
    decode.add_argument("table", type=Path, metavar="TABLE", help="what genpipe use encode printed")
    _add_given(decode)
    _add_out(decode)


def _add_answers(parts: Commands) -> None:
    answer = _part(
        parts,
        "answer",
        "print an answer a line: a text, tags, or a class and its probability",
        _answer,
        "examples: genpipe use answer artifacts/models/couplet 明月松間照 春風; "
        "genpipe use answer classifier@prod digit.png",
    )
    answer.add_argument("inputs", nargs="+", metavar="INPUT", help="texts, or files of pictures")
    _add_how(answer)
    search = _part(
        parts,
        "search",
        "print the inputs that are nearest to a query, with their cosines",
        _search,
        "examples: genpipe use search artifacts/models/classifier digit.png pictures/*.png; "
        "genpipe use search MODEL 明月 --texts lines.txt --num 3",
    )
    search.add_argument("query", metavar="QUERY", help="a text, or a file of a picture")
    search.add_argument(
        "among", nargs="*", metavar="INPUT", help="what is searched: texts, or files of pictures"
    )
    search.add_argument("--texts", type=Path, metavar="FILE", help="search these texts too, one a line")
    search.add_argument("--num", type=positive, default=5, metavar="N", help="default: 5")


def _part(
    parts: Commands,
    name: str,
    help: str,
    function: Callable[["Using", argparse.Namespace], None],
    epilog: str,
) -> argparse.ArgumentParser:
    part = parts.add_parser(
        name, help=help.partition(":")[0], description=help[0].upper() + help[1:] + ".", epilog=epilog
    )
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
        help="an option of the model, as temperature=0.8; an unknown one lists those there are",
    )


def _add_given(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--given",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a condition that the model takes: labels=3, source=TEXT",
    )


def _add_out(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--out",
        type=new_directory(SAMPLES),
        required=True,
        metavar="DIR",
        help="new, empty, or written by this command before",
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def _run(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.using import opened

    with _directory(root, arguments.model) as directory:
        arguments.function(opened(directory), arguments)


@contextlib.contextmanager
def _directory(root: Path, model: str) -> Iterator[Path]:
    """The directory of a model; one of the registry is pulled for as long as it is needed."""
    if Path(model).is_dir():
        yield Path(model).resolve()
        return
    if "@" not in model:
        raise BadInput(
            f"{model}: no such directory; name that of a trained model, as artifacts/models/{Path(model).name}, "
            f"or a version of the registry, as {Path(model).name}@prod"
        )
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

    given, how = dict(arguments.given), dict(arguments.how)
    sample(using, arguments.num, arguments.seed, given, how, arguments.out)


def _encode(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import encode

    encode(using, arguments.inputs, dict(arguments.given))


def _decode(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import decode

    decode(using, arguments.table, dict(arguments.given), arguments.out)


def _answer(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import answer

    answer(using, arguments.inputs, dict(arguments.how))


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
