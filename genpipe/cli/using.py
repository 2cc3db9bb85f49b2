"""A trained model and your own input, without training data: sample, encode, decode, answer, search."""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.cli.arguments import Commands, new_directory, pair, positive
from genpipe.errors import BadInput
from genpipe.files import SAMPLES

Options = argparse.ArgumentParser | argparse._ArgumentGroup
NUM = 16  # examples that are drawn where nobody says how many

if TYPE_CHECKING:
    from genpipe.using import Using

MODEL = "a trained recipe, a directory that genpipe train or genpipe pull wrote, or MODEL@VERSION or MODEL@STAGE of the registry"


def add(commands: Commands) -> None:
    """Add the commands that only a trained model has; `genpipe sample` and `encode` take one in place of a stage's name."""
    _add_decode(commands)
    _add_answers(commands)


def add_sample(sample: argparse.ArgumentParser) -> None:
    """Add what `genpipe sample` takes with a trained model."""
    of_model = sample.add_argument_group("with a model")
    of_model.add_argument("--num", type=positive, metavar="N", help="how many to draw; default: 16")
    _add_given(of_model)
    _add_how(of_model)


def add_encode(encode: argparse.ArgumentParser) -> None:
    """Add what `genpipe encode` takes with a trained model."""
    encode.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="with a model: files of pictures, or texts"
    )
    _add_given(encode)


def _add_decode(parts: Commands) -> None:
    decode = _part(
        parts,
        "decode",
        "make images of codes",
        _decode,
        "example: genpipe decode ogan codes.tsv --out decoded, where genpipe encode wrote codes.tsv",
    )
    decode.add_argument("table", type=Path, metavar="TABLE", help="what genpipe encode printed")
    _add_given(decode)
    _add_out(decode)


def _add_answers(parts: Commands) -> None:
    answer = _part(
        parts,
        "answer",
        "print an answer a line: a text, tags, or a class and its probability",
        _answer,
        "examples: genpipe answer couplet 明月松間照 春風; genpipe answer classifier@prod digit.png",
    )
    answer.add_argument("inputs", nargs="+", metavar="INPUT", help="texts, or files of pictures")
    _add_how(answer)
    search = _part(
        parts,
        "search",
        "print the inputs that are nearest to a query, with their cosines",
        _search,
        "examples: genpipe search classifier digit.png pictures/*.png; "
        "genpipe search MODEL 明月 --texts lines.txt --num 3",
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


def _add_how(part: Options) -> None:
    part.add_argument(
        "--how",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the model, as temperature=0.8; an unknown one lists those there are",
    )


def _add_given(part: Options) -> None:
    part.add_argument(
        "--given",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a condition that the model takes: labels=CLASS, source=TEXT",
    )


def _add_out(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--out",
        type=new_directory(SAMPLES),
        required=True,
        metavar="DIR",
        help="new, empty, or written by this command before",
    )


def _run(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.using import opened

    with _directory(root, arguments.model) as directory:
        arguments.function(opened(directory), arguments)


@contextlib.contextmanager
def _directory(root: Path, model: str) -> Iterator[Path]:
    """The directory of a model; one of the registry is pulled for as long as it is needed."""
    trained = root / "artifacts" / "models" / model
    for directory in (Path(model),) if "/" in model else (trained, Path(model)):
        if directory.is_dir():
            yield directory.resolve()
            return
    if "@" not in model:
        raise BadInput(
            f"{model}: no such directory; name a recipe that is trained, the directory of a trained model, as "
            "artifacts/models/NAME, or a version of the registry, as NAME@prod"
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


def sample(root: Path, arguments: argparse.Namespace) -> None:
    """`genpipe sample MODEL`."""
    from genpipe.using import opened, sample

    if arguments.model is not None:
        raise BadInput(f"--model goes with a recipe; {arguments.recipe} is a model already")
    if arguments.out is None:
        raise BadInput(f"name where the samples of {arguments.recipe} go with --out DIR")
    given, how = dict(arguments.given), dict(arguments.how)
    with _directory(root, arguments.recipe) as directory:
        sample(opened(directory), arguments.num or NUM, arguments.seed or 0, given, how, arguments.out)


def encode(root: Path, arguments: argparse.Namespace) -> None:
    """`genpipe encode MODEL INPUT …`."""
    from genpipe.using import encode, opened

    if not arguments.inputs:
        raise BadInput(f"name what {arguments.encoding} is to encode: files of pictures, or texts")
    with _directory(root, arguments.encoding) as directory:
        encode(opened(directory), arguments.inputs, dict(arguments.given))


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
