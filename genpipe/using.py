"""A trained model and a person's own input: of the disk only the model's directory is read, never training data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpipe.assembly import load_trained
from genpipe.capabilities import Classifies, Decodes, Embeds, Encodes, Example, NextToken, Samples, Tags
from genpipe.corpus.codec import UNKNOWN, Codec
from genpipe.data.texts import padded
from genpipe.errors import BadInput
from genpipe.files import SAMPLES, existing, new_directory, refuse_inputs
from genpipe.nn.pixels import SCALED, Pixels, scaled
from genpipe.sampling import decoding
from genpipe.sampling.draw import (
    checked_options,
    chunks,
    draw,
    in_chunks,
    in_fixed_chunks,
    joined,
    require_conditions,
)
from genpipe.sampling.panels import Output, class_name, written
from genpipe.sampling.text import marks_of, speller_in
from genpipe.sources.pixels import Read, bits_used, read_deep, read_picture

HOW = "--how "  # how errors call an option


@dataclass(frozen=True)
class Using:
    """A trained model, what it knows of its data, and its codec where it reads or writes text."""

    recipe: Any
    kind: str
    facts: Mapping[str, Any]
    codec: Codec | None
    directory: Path

    @property
    def name(self) -> str:
        """What errors call the model."""
        return type(self.recipe).__name__

    def text(self) -> Codec:
        """The codec. Raises BadInput where the model has none."""
        if self.codec is None:
            raise BadInput(f"{self.name} neither reads nor writes text: it was trained on {self.kind}")
        return self.codec


def opened(directory: Path) -> Using:
    """The model in a directory that `genpipe train` or `genpipe pull` wrote."""
    torch.set_num_threads(1)
    recipe, kind, facts = load_trained(directory)
    codec = Codec.read(directory) if "num_tokens" in facts else None
    return Using(recipe, kind, facts, codec, directory)


def sample(
    using: Using, num: int, seed: int, given: Mapping[str, str], how: Mapping[str, Any], out: Path
) -> None:
    """Draw `num` examples under conditions that are the same for each, and write them to the directory `out`."""
    refuse_inputs(out, [using.directory])
    made = drawn(using, num, seed, conditions_of(using, given), how)
    write(using, made, out, getattr(using.recipe, "pixels", SCALED))


def write(using: Using, made: Example, out: Path, pixels: Pixels) -> None:
    """Write what a model made to the directory `out`, whole or not at all."""
    with new_directory(out, SAMPLES) as partial:
        rows = written(made, Output(using.recipe, speller_in(using.directory), partial), pixels)
    print(f"wrote {out}: {', '.join(row.file for row in rows)}")


def drawn(using: Using, num: int, seed: int, given: Example, how: Mapping[str, Any]) -> Example:
    """`num` examples of a model that samples, or that writes token after token."""
    recipe = using.recipe
    if isinstance(recipe, Samples):
        return draw(recipe, num, seed, given, how, HOW)
    require(using, "draws nothing", Samples, NextToken)
    require_conditions(recipe, given)
    marks = marks_of(using.facts, using.kind)
    options = checked_options(decoding.write, how, ("model", "n", "given", "marks"), HOW)
    return in_fixed_chunks(
        lambda n, part: decoding.write(recipe, n, part, marks, **options), num, seed, given
    )


def conditions_of(using: Using, given: Mapping[str, str]) -> dict[str, Tensor]:
    """Conditions that are the same for each example, a row each."""
    return {key: value for name, text in given.items() for key, value in condition(using, name, text)}


def under(using: Using, given: Mapping[str, str], n: int) -> dict[str, Tensor]:
    """The same conditions for each of `n` examples; BadInput where one is missing that the model takes."""
    conditions = conditions_of(using, given)
    if isinstance(using.recipe, Samples | NextToken):
        require_conditions(using.recipe, conditions)
    return {name: value.expand(n, *value.shape[1:]) for name, value in conditions.items()}


def condition(using: Using, name: str, text: str) -> list[tuple[str, Tensor]]:
    """A condition as one row: a class, or a text as its ids and their length."""
    takes = getattr(using.recipe, "given", ())
    if name not in takes:
        names = ", ".join(takes) or "none"
        raise BadInput(f"{using.name} does not take the condition {name!r}; it takes: {names}")
    if name == "labels":
        return [(name, torch.tensor([class_number(using, text)]))]
    ids = using.text().encode(text)
    return [(name, torch.tensor([ids])), (f"{name}_lengths", torch.tensor([len(ids)]))]


def class_number(using: Using, text: str) -> int:
    """The number of a class that is given by its name, or by its number where classes have no names."""
    num_classes = using.facts.get("num_classes", 0)
    names = list(using.facts.get("classes", map(str, range(num_classes))))
    if text not in names:
        raise BadInput(f"labels={text}: no such class; the classes are: {', '.join(names) or 'none'}")
    return names.index(text)


def encode(using: Using, inputs: Sequence[str], given: Mapping[str, str]) -> None:
    """Print a line an input: its name, and its code, or its features where the model has no codes."""
    recipe = using.recipe
    require(using, "has neither codes nor features", Encodes, Embeds)
    x = read(using, inputs)
    if isinstance(recipe, Encodes):
        codes = in_chunks(recipe.encode, {**x, **under(using, given, len(inputs))})
    else:
        for name in given:
            raise BadInput(
                f"--given {name}: the features of {using.name} depend on no condition; leave it out"
            )
        codes = in_chunks(recipe.embed, x)
    for name, row in zip(inputs, codes.tolist(), strict=True):
        print("\t".join([one_line(name), *(f"{value:.9g}" for value in row)]))


def decode(using: Using, table: Path, given: Mapping[str, str], out: Path) -> None:
    """Write what the model makes of the codes in a table that `encode` printed."""
    require(using, "makes nothing of codes", Decodes)
    refuse_inputs(out, [table, using.directory])
    codes = read_codes(table, using.recipe.latent_dim)
    x = {**under(using, given, len(codes)), "codes": codes}
    with torch.no_grad():
        made = joined([using.recipe.decode(chunk["codes"], chunk) for chunk in chunks(x)])
    write(using, made, out, SCALED)


def read_codes(table: Path, latent_dim: int) -> Tensor:
    """Codes, float [n, latent], of tab-separated lines that begin with a name."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
        codes = [[float(cell) for cell in line.split("\t")[1:]] for line in lines]
    except (ValueError, OSError) as error:
        raise BadInput(f"{table}: not a table of codes ({error}); write it with genpipe encode") from None
    for number, row in enumerate(codes, 1):
        if len(row) != latent_dim:
            raise BadInput(
                f"{table}: line {number} has {len(row)} numbers, and codes of this model have {latent_dim}"
            )
    if not codes:
        raise BadInput(f"{table}: empty; write it with genpipe encode")
    found = torch.tensor(codes)  # float32, where 1e39 is infinite
    bad = torch.nonzero(~found.isfinite())
    if len(bad):
        raise BadInput(
            f"{table}: line {int(bad[0, 0]) + 1} has a number that is not finite; write the table with genpipe encode"
        )
    return found


def answer(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> None:
    """Print an answer a line: a line for a line, a text, tags, or a class."""
    for needs, kinds, function in ANSWERS:
        if isinstance(using.recipe, needs) and using.kind in kinds:
            for line in function(using, inputs, how):
                print(line)
            return
    raise BadInput(
        f"{using.name} answers nothing: it cannot tag, classify, or write under the condition of a text; "
        "genpipe recipes lists what can"
    )


def _lines_for_lines(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    refuse_options(using, how)
    codec = using.text()
    answers: list[str] = []
    line_breaks = {number for number, token in enumerate(codec.vocabulary) if token == "\n"}
    special = set(range(codec.pad, using.facts["num_tokens"]))
    for text in inputs:
        x = {"source": torch.tensor([codec.encode(text)])}
        ids = decoding.answer(using.recipe, x, {UNKNOWN, *line_breaks, *special})
        answers.append(codec.decode(ids[0].tolist()))
    return answers


def _written_texts(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    ids, lengths = ids_of(using, inputs)
    x = {"source": ids, "source_lengths": lengths, "question": ids, "question_lengths": lengths}
    given = {name: value for name, value in x.items() if name in using.recipe.given}
    made = drawn(using, len(inputs), 0, given, {"method": "beam", **how})
    return [one_line(using.text().decode(row)) for row in made["ids"].tolist()]


def _tags(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    refuse_options(using, how)
    x = read(using, inputs)
    found = in_chunks(lambda part: using.recipe.tag(part).argmax(-1), x)
    return [
        " ".join(class_name(using.facts, number) for number in row[:length])
        for row, length in zip(found.tolist(), x["lengths"].tolist(), strict=True)
    ]


def _classes(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    refuse_options(using, how)
    shares = in_chunks(using.recipe.classify, read(using, inputs)).softmax(-1)
    return [f"{class_name(using.facts, int(row.argmax()))}\t{row.max().item():.4f}" for row in shares]


def refuse_options(using: Using, how: Mapping[str, Any]) -> None:
    """Raise BadInput for any option: what is not drawn has none."""
    for key in how:
        raise BadInput(f"{HOW}{key}: {using.name} takes no options where it answers")


Answer = Callable[[Using, Sequence[str], Mapping[str, Any]], list[str]]
ANSWERS: tuple[tuple[type, tuple[str, ...], Answer], ...] = (
    (Tags, ("pairs",), _lines_for_lines),
    (Tags, ("tagged",), _tags),
    (NextToken, ("pairs",), _written_texts),
    (Classifies, ("images", "tagged"), _classes),
)


def search(using: Using, query: str, among: Sequence[str], num: int) -> None:
    """Print the `num` inputs of `among` whose features are nearest to those of `query`, and their cosines."""
    require(using, "has no features to search by", Embeds)
    if not among:
        raise BadInput("there is nothing to search: give inputs after the query, or a file with --texts")
    features = torch.nn.functional.normalize(in_chunks(using.recipe.embed, read(using, [query, *among])))
    cosines = features[1:] @ features[0]
    for place in cosines.argsort(descending=True, stable=True)[:num].tolist():
        print(f"{cosines[place].item():.4f}\t{one_line(str(among[place]))}")


def require(using: Using, lacks: str, *capabilities: type) -> None:
    """Raise BadInput unless the model has one of the capabilities."""
    if not isinstance(using.recipe, capabilities):
        names = " nor ".join(capability.__name__ for capability in capabilities)
        raise BadInput(
            f"{using.name} {lacks}: it is not {names}; genpipe recipes lists the models and what each can do"
        )


def read(using: Using, inputs: Sequence[str]) -> Example:
    """A person's inputs as a model sees them: files of pictures, or texts."""
    if using.kind == "images":
        shape = using.facts["image_shape"]
        return {"images": scaled(torch.stack([read_image(Path(name), shape) for name in inputs]))}
    if using.kind == "points":
        raise BadInput(f"{using.name} takes points; from Python: genpipe.load({str(using.directory)!r})")
    ids, lengths = ids_of(using, inputs)
    return {"ids": ids, "lengths": lengths}


def ids_of(using: Using, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids, int64 [n, time], padded on the right, and their lengths, [n]."""
    codec = using.text()
    return padded([torch.tensor(codec.encode(text)).numpy() for text in texts], codec.pad)


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A file as an image of the model's size, uint8 [channels, height, width]: the middle square, upright, on white.

    Raises BadInput for a picture in colours where the model takes grey ones; grey ones have three equal colours.
    """
    channels, height, width = shape
    existing(path, "name a file of a picture")
    if height != width:
        raise BadInput(
            f"{path}: pictures are read as squares, and this model takes {height} × {width} pixels"
        )
    found: Read = read_picture(path, height, as_grey=False)
    pixels = read_deep(path, height, bits_used(found.largest)) if found.pixels is None else found.pixels
    if len(pixels) > channels:
        raise BadInput(f"{path}: in colours, and this model takes grey pictures; convert it to grey first")
    return torch.from_numpy(pixels.copy()).expand(channels, height, width)


def one_line(text: str) -> str:
    """A text on one line of a table."""
    return text.replace("\n", "⏎").replace("\t", "⇥")
