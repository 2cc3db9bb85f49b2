"""A trained model and your own input, without training data: sample, encode, decode, interpolate, answer, embed, search."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.cli.arguments import (
    Commands,
    Once,
    named,
    new_directory,
    new_png,
    pair,
    positive,
    seed,
    steps_of_a_way,
)
from genpipe.errors import BadInput
from genpipe.sampling.outputs import SAMPLES
from genpipe.using.outputs import EMBEDDED

Options = argparse.ArgumentParser | argparse._ArgumentGroup
NUM = 16  # examples that are drawn where nobody says how many

if TYPE_CHECKING:
    from genpipe.using.model import Using

MODEL = "a trained recipe, a directory that genpipe train or genpipe pull wrote, or MODEL@VERSION or MODEL@STAGE of the registry"


def add(commands: Commands) -> None:
    """Add the commands that only a trained model has; `genpipe sample` and `encode` take one in place of a stage's name."""
    _add_decode(commands)
    _add_interpolate(commands)
    _add_answers(commands)
    _add_embed(commands)
    _add_search(commands)


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


def _add_interpolate(parts: Commands) -> None:
    part = _part(
        parts,
        "interpolate",
        "write a picture of the way between two pictures, or between two samples, in the space of codes",
        _interpolate,
        "examples: genpipe interpolate ogan three.png seven.png --steps 10; genpipe interpolate wgan_gp --seed 2 --out way.png. "
        "Codes lie at equal angles. Pictures of another size are resized.",
    )
    part.add_argument("pictures", nargs="*", metavar="PICTURE", help="two files, or none: two samples")
    part.add_argument("--steps", type=steps_of_a_way, default=8, metavar="N", help="default: 8")
    part.add_argument("--seed", type=seed, metavar="K", help="of the samples; default: 0")
    _add_given(part)
    part.add_argument(
        "--out",
        type=new_png,
        default=Path("interpolation.png"),
        metavar="FILE",
        help="default: interpolation.png in this directory",
    )


def _add_answers(parts: Commands) -> None:
    answer = _part(
        parts,
        "answer",
        "print an answer a line: a text, tags, a class and its probability, or a text with its gaps filled",
        _answer,
        "examples: genpipe answer couplet 明月松間照 春風 --num 3; genpipe answer classifier@prod digit.png; genpipe answer masked_lm 床前明＿光",
    )
    answer.add_argument("inputs", nargs="+", metavar="INPUT", help="texts, or files of pictures")
    answer.add_argument(
        "--passage",
        action="append",
        default=[],
        metavar="TEXT",
        help="a passage that the inputs are questions about; may be repeated",
    )
    answer.add_argument("--passages", type=Path, metavar="FILE", help="such passages, one a line")
    answer.add_argument(
        "--num",
        type=positive,
        metavar="N",
        help="answers to each line of verse, the best first, with tabs between them; default: 5",
    )
    _add_how(answer)


def _add_embed(parts: Commands) -> None:
    embed = _part(
        parts,
        "embed",
        "write a folder with the vectors of many sentences, which genpipe search then searches",
        _embed,
        "example: genpipe embed similarity_am lines.txt --out build/sentences. Equal lines are one sentence. Sentences "
        "that the folder has already, by the same model, keep their vectors.",
    )
    embed.add_argument(
        "names",
        nargs="*",
        metavar="FILE",
        help="as genpipe count reads it: .txt (a sentence a line), .jsonl, .parquet, a folder; default: standard input",
    )
    embed.add_argument("--field", default="text", help="field or column that holds the text; default: text")
    _add_out(embed, EMBEDDED)


def _add_search(parts: Commands) -> None:
    search = _part(
        parts,
        "search",
        "print the inputs, or the sentences of a folder, that are nearest to a query, with their cosines",
        _search,
        "examples: genpipe search classifier digit.png pictures/*.png; "
        "genpipe search MODEL 明月 --texts lines.txt --num 3; genpipe search ./sentences 明月 春風 --num 10",
    )
    search.add_argument("query", metavar="QUERY", help="a text, or a file of a picture")
    search.add_argument(
        "among",
        nargs="*",
        metavar="INPUT",
        help="what is searched: texts, or files of pictures; with a folder that genpipe embed wrote, in place of MODEL: more queries",
    )
    search.add_argument("--texts", type=Path, metavar="FILE", help="search these texts too, one a line")
    search.add_argument("--num", type=positive, default=5, metavar="N", help="default: 5")
    search.add_argument(
        "--exact", action="store_true", help="look at all sentences of a folder, without its index"
    )


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
    part.add_argument(
        "--class",
        dest="label",
        action=Once,
        metavar="CLASS",
        help="short for --given labels=CLASS: its name, or its number where classes have no names",
    )


def _add_out(part: argparse.ArgumentParser, written: Sequence[str] = SAMPLES) -> None:
    """Where a command writes the files named `written`."""
    part.add_argument(
        "--out",
        type=new_directory(written),
        required=True,
        metavar="DIR",
        help="new, empty, or written by this command before",
    )


def _run(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.using.model import found, opened

    with found(root, arguments.model) as directory:
        arguments.function(opened(directory), arguments)


def given_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The conditions that are asked for, a class among them."""
    given = named(arguments.given, "--given")
    if arguments.label is None:
        return given
    if "labels" in given:
        raise BadInput("--class and --given labels= name a class both; leave one of them out")
    return {**given, "labels": arguments.label}


def sample(root: Path, arguments: argparse.Namespace) -> None:
    """`genpipe sample MODEL`."""
    from genpipe.files import require_ours
    from genpipe.using.making import sample
    from genpipe.using.model import found, opened

    if arguments.model is not None:
        raise BadInput(f"--model goes with a recipe; {arguments.recipe} is a model already")
    out = arguments.out or Path(f"{Path(arguments.recipe).name.partition('@')[0]}-samples").resolve()
    require_ours(out, SAMPLES)
    with found(root, arguments.recipe) as directory:
        using, num, seed = opened(directory), arguments.num or NUM, arguments.seed or 0
        sample(using, num, seed, given_of(arguments), named(arguments.how, "--how"), out)


def encode(root: Path, arguments: argparse.Namespace) -> None:
    """`genpipe encode MODEL INPUT …`."""
    from genpipe.using.making import encode
    from genpipe.using.model import found, opened

    if not arguments.inputs:
        raise BadInput(f"name what {arguments.encoding} is to encode: files of pictures, or texts")
    with found(root, arguments.encoding) as directory:
        encode(opened(directory), arguments.inputs, given_of(arguments))


def _decode(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using.making import decode

    decode(using, arguments.table, given_of(arguments), arguments.out)


def _interpolate(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using.making import write_walk

    if arguments.pictures and arguments.seed is not None:
        raise BadInput("--seed has no effect between two pictures; leave it out, or name no pictures")
    seed = arguments.seed or 0
    write_walk(using, arguments.pictures, arguments.steps, seed, given_of(arguments), arguments.out)


def _answer(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using.answering import answer

    passages = [*arguments.passage, *_texts(arguments.passages)]
    how = named(arguments.how, "--how") | ({"num": arguments.num} if arguments.num else {})
    answer(using, arguments.inputs, how, passages)


def _embed(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using.embedding import embed
    from genpipe.using.sentences import lines_of

    named = [Path(name) for name in arguments.names if "://" not in name]
    embed(using, lines_of(arguments.names, arguments.field), arguments.out, named)


def _search(using: "Using", arguments: argparse.Namespace) -> None:
    from genpipe.using import embedding
    from genpipe.using.answering import search

    if embedding.is_folder(using.directory):
        if arguments.texts:
            raise BadInput(
                f"--texts: {arguments.model} has its own sentences; leave it out, or name the model to search other texts"
            )
        embedding.search(using, [arguments.query, *arguments.among], arguments.num, arguments.exact)
        return
    if arguments.exact:
        raise BadInput(
            "--exact: of use with a folder that genpipe embed wrote; a look at your own inputs is exact"
        )
    search(using, arguments.query, [*arguments.among, *_texts(arguments.texts)], arguments.num)


def _texts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a text file that can be read: {error}") from None
