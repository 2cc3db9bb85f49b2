"""What a model makes for a person: samples, codes of inputs, images of codes, and the way from one image to another."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpipe.capabilities import Decodes, Embeds, Encodes, Example, NextToken, Samples
from genpipe.data.loader import derived_seed
from genpipe.errors import BadInput
from genpipe.files import new_directory, new_file, refuse_inputs
from genpipe.nn.pixels import SCALED, Pixels
from genpipe.sampling import decoding
from genpipe.sampling.draw import (
    CHUNK,
    Coder,
    checked_options,
    chunks,
    coder_of,
    draw,
    in_chunks,
    in_fixed_chunks,
    interpolate,
    joined,
)
from genpipe.sampling.images import pixels_of
from genpipe.sampling.outputs import SAMPLES
from genpipe.sampling.panels import Output, written
from genpipe.sampling.pictures import grid, write_png
from genpipe.sampling.text import marks_of, speller_in
from genpipe.using.inputs import read
from genpipe.using.model import HOW, Using, conditions_of, one_line, require, require_given, under


def sample(
    using: Using, num: int, seed: int, given: Mapping[str, Any], how: Mapping[str, Any], out: Path
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
    if num < 1:
        raise BadInput(f"num: must be 1 or more, not {num}")
    if isinstance(recipe, Samples):
        require_given(using, given)
        return finite(using, draw(recipe, num, seed, given, how, HOW), "options that are less extreme")
    require(using, "draws nothing", Samples, NextToken)
    require_given(using, given)
    marks = marks_of(using.facts, using.kind)
    options = checked_options(decoding.write, how, ("model", "n", "given", "marks"), HOW)
    return in_fixed_chunks(
        lambda n, part: decoding.write(recipe, n, part, marks, **options), num, seed, given
    )


def finite(using: Using, made: Example, remedy: str) -> Example:
    """What a model made. Raises BadInput where a value of it is not a finite number: as bytes it would be black, without a word."""
    for name, values in made.items():
        if not bool(values.isfinite().all()):
            raise BadInput(
                f"{using.directory}: {name} that this model made are not finite numbers; take {remedy}, or fetch or train the "
                "model again"
            )
    return made


def encode(using: Using, inputs: Sequence[str], given: Mapping[str, Any]) -> None:
    """Print a line an input: its name, and its code, or its features where the model has no codes."""
    for name, row in zip(inputs, codes_of(using, inputs, given).tolist(), strict=True):
        print("\t".join([one_line(name), *(f"{value:.9g}" for value in row)]))


def codes_of(using: Using, inputs: Sequence[str | Path] | Tensor, given: Mapping[str, Any]) -> Tensor:
    """The code of each input, float [n, latent], or its features where the model has no codes."""
    recipe = using.recipe
    require(using, "has neither codes nor features", Encodes, Embeds)
    if isinstance(recipe, Encodes):
        # before pictures are read, of which lines may be printed
        conditions = under(using, given, len(inputs))
        codes = in_chunks(recipe.encode, {**read(using, inputs), **conditions})
        return finite(using, {"codes": codes}, "other inputs")["codes"]
    for name in given:
        raise BadInput(f"--given {name}: the features of {using.name} depend on no condition; leave it out")
    return in_chunks(recipe.embed, read(using, inputs))


def decode(using: Using, table: Path, given: Mapping[str, Any], out: Path) -> None:
    """Write what the model makes of the codes in a table that `encode` printed."""
    require(using, "makes nothing of codes", Decodes)
    refuse_inputs(out, [table, using.directory])
    codes = read_codes(table, using.recipe.latent_dim)
    x = {**under(using, given, len(codes)), "codes": codes}
    with torch.no_grad():
        made = joined([using.recipe.decode(chunk["codes"], chunk) for chunk in chunks(x)])
    write(using, finite(using, made, "codes that genpipe encode wrote"), out, SCALED)


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


def interpolated(
    using: Using, inputs: Sequence[str | Path] | Tensor, steps: int, seed: int, given: Mapping[str, Any]
) -> Tensor:
    """Images at equal angles from the code of one image to that of another, or between two samples without inputs.

    Values in [0, 1], [steps, channels, height, width]. Raises BadInput where the model cannot do that.
    """
    if steps < 2:
        raise BadInput(
            f"steps: must be 2 or more, not {steps}: the first and the last are those of the two codes"
        )
    if using.kind != "images":
        raise BadInput(f"{using.name} makes no images: it was trained on {using.kind}")
    if len(inputs) == 2:
        return _between_images(using, inputs, steps, given)
    if len(inputs):
        raise BadInput(f"name two pictures, or none to go from one sample to another, not {len(inputs)}")
    require(using, "makes nothing of codes", Decodes)
    conditions = under(using, given, CHUNK)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "walks"))
        start, end = using.recipe.draw_codes(CHUNK, conditions)[:2].split(1)
    return _way(using, using.recipe.decode, start, end, conditions, steps)


def _between_images(
    using: Using, inputs: Sequence[str | Path] | Tensor, steps: int, given: Mapping[str, Any]
) -> Tensor:
    coder = _coder(using)
    conditions = under(using, given, 2)
    x = read(using, inputs)
    start, end = in_chunks(coder.encode, {**x, **conditions}).split(1)
    return _way(using, coder.decode, start, end, conditions, steps)


def _coder(using: Using) -> Coder:
    """How the model encodes and decodes pictures. Raises BadInput where it does not do both."""
    coder = coder_of(using.recipe)
    if coder is None:
        rest = (
            "; name no pictures to go from one sample to another" if isinstance(using.recipe, Decodes) else ""
        )
        raise BadInput(
            f"{using.name} cannot encode and decode pictures{rest}; genpipe recipes lists what each model can do"
        )
    return coder


def _way(
    using: Using,
    decode: Callable[[Tensor, Example], Example],
    start: Tensor,
    end: Tensor,
    conditions: Example,
    steps: int,
) -> Tensor:
    """The images on the way between two codes, [1, latent], all under the conditions of the first row."""
    first = {name: value[:1] for name, value in conditions.items()}
    way = interpolate(decode, start, end, first, steps)[0]
    return finite(using, {"images": way}, "other pictures")["images"]


def write_walk(
    using: Using, inputs: Sequence[str], steps: int, seed: int, given: Mapping[str, Any], out: Path
) -> None:
    """A picture of the images on the way, in one row; those that it goes from and to stand at its ends, as they are read."""
    refuse_inputs(out, [using.directory, *map(Path, inputs)])
    pixels = pixels_of(using.recipe)
    ends: Sequence[str] | Tensor = inputs
    if len(inputs) == 2 and using.kind == "images":
        _coder(using)  # before the pictures are read
        under(using, given, 2)
        ends = read(using, inputs)["images"]  # once: a line says what is resized
    made = pixels.to_bytes(interpolated(using, ends, steps, seed, given))
    if isinstance(ends, Tensor):
        first, last = SCALED.to_bytes(ends).split(1)
        made = torch.cat([first, made, last])
    with new_file(out) as partial:
        write_png(partial, grid(made.numpy(), len(made)))
    print(
        f"wrote {out}: {steps} steps"
        + (" between the two pictures at its ends" if inputs else " between two samples")
    )
