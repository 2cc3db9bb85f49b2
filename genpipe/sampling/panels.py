"""What a trained model can show: a table of panels, each with the capabilities and the kinds of data that it needs."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import (
    Attends,
    Classifies,
    Decodes,
    Embeds,
    Encodes,
    Energy,
    Example,
    Fills,
    Infers,
    Invertible,
    LogProb,
    NextToken,
    Restores,
    Samples,
    Scores,
    Solves,
    Tags,
)
from genpipe.corpus.word_tags import are_of_words, spaced
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.nn.pixels import SCALED, Pixels
from genpipe.sampling import decoding
from genpipe.sampling.attention import attention
from genpipe.sampling.captions import captions
from genpipe.sampling.conditioned import under_classes
from genpipe.sampling.draw import as_values as as_values  # judges take it from here
from genpipe.sampling.draw import (
    checked_options,
    conditions,
    first,
    in_chunks,
    in_fixed_chunks,
    rows_of,
)
from genpipe.sampling.fillings import fillings
from genpipe.sampling.images import (
    GRID,
    mistakes,
    nearest_training_images,
    reconstructions,
    restorations,
    samples_by_class,
    samples_by_temperature,
    walks_between_images,
    walks_between_samples,
    walks_of_a_flow,
)
from genpipe.sampling.lines import search as search_lines
from genpipe.sampling.over_training import over_training
from genpipe.sampling.pictures import grid, write_png
from genpipe.sampling.plane import map_of_densities, map_of_energies, map_of_scores
from genpipe.sampling.showing import Output, Panel, Row, Showing
from genpipe.sampling.tables import SHOWN, write_table
from genpipe.sampling.text import UNKNOWN, Speller, marks_of
from genpipe.sampling.trajectories import parameters, trajectories


def show_all(showing: Showing, panels: Sequence[Panel] | None = None) -> list[Row]:
    """Write the files of every panel that fits, and panels.json; BadInput where none does."""
    fitting = [panel for panel in (PANELS if panels is None else panels) if fits(panel, showing)]
    if not fitting:
        raise BadInput(
            f"{type(showing.recipe).__name__} shows nothing on data of the kind {showing.kind}: no panel needs only what "
            "it can do; give it a capability, or write a panel in genpipe/sampling/panels.py"
        )
    rows = [row for panel in fitting for row in panel.show(showing)]
    write_json(showing.directory / "panels.json", [asdict(row) for row in rows])
    return rows


def fits(panel: Panel, showing: Showing) -> bool:
    """Whether the model can do what a panel needs, on data of this kind."""
    return all(isinstance(showing.recipe, need) for need in panel.needs) and (
        not panel.kinds or showing.kind in panel.kinds
    )


def samples(showing: Showing) -> Iterable[Row]:
    """What the model draws."""
    return written(showing.drawn, showing, showing.recipe.pixels)


def texts(showing: Showing) -> Iterable[Row]:
    """What the model writes, token after token."""
    recipe, marks = showing.recipe, marks_of(showing.data.facts, showing.kind)
    options = checked_options(decoding.write, showing.how, ("model", "n", "given", "marks"))

    def write(n: int, given: Example) -> Example:
        return decoding.write(recipe, n, given, marks, **options)

    given = conditions(recipe, showing.data, showing.num)
    made = in_fixed_chunks(write, showing.num, showing.seed, given)
    return [*written(made, showing, SCALED), *beside_the_data(showing, made["ids"])]


def beside_the_data(showing: Showing, ids: Tensor) -> Iterable[Row]:
    """What was written for a source or a question, beside what the data has; nothing where texts have no source."""
    field, right = {"pairs": ("source", "target"), "passages": ("question", "answer")}.get(
        showing.kind, ("", "")
    )
    if field not in showing.recipe.given:
        return
    x = first(showing.data, len(ids))
    number = min(len(ids), sum(map(rows_of, showing.data.split("test"))))
    pad = showing.data.facts["pad"]
    texts = (of_lengths(x, field, pad), ids, of_lengths(x, right, pad))
    columns = [showing.spelled(each[:number]) for each in texts]
    write_table(showing.directory / "written.tsv", (field, "written", "real"), zip(*columns, strict=True))
    caption = (
        f"The {field} of a test example, what the model writes, and the {right} in the data: the first test examples, whose order is "
        "that of a hash, so none is chosen. □ is a token without an id."
    )
    yield Row("written.tsv", "table", "Written beside the data", caption)


def of_lengths(x: Example, field: str, pad: int) -> Tensor:
    """The ids of a field, [n, time], with padding behind each text, also where chunks were joined with zeros."""
    is_behind = torch.arange(x[field].shape[1]) >= x[f"{field}_lengths"].unsqueeze(1)
    return x[field].masked_fill(is_behind, pad)


def written(made: Example, output: Output, pixels: Pixels) -> list[Row]:
    """The files of what was made, each written as its key says."""
    fitting = [key for key in made if key in WRITERS]
    if not fitting:
        raise BadInput(
            f"{type(output.recipe).__name__} made {', '.join(made)}; what can be written: {', '.join(WRITERS)}"
        )
    return [WRITERS[key](made[key], output, pixels) for key in fitting]


def write_images(images: Tensor, output: Output, pixels: Pixels) -> Row:
    """samples.npy, uint8 [n, channels, height, width], and a picture of the first ones."""
    stored = pixels.to_bytes(images).numpy()
    np.save(output.directory / "samples.npy", stored)
    write_png(output.directory / "grid.png", grid(stored[:GRID], columns=8))
    return Row("grid.png", "picture", "Samples", "Drawn at random from the trained model; none is chosen.")


def write_points(points: Tensor, output: Output, pixels: Pixels) -> Row:
    """points.npy, float32 [n, dim], and the first two coordinates as a table for a plot."""
    np.save(output.directory / "points.npy", points.float().numpy())
    rows = [tuple(f"{value:.6g}" for value in row[:2]) for row in points.tolist()]
    write_table(output.directory / "points.tsv", ("x", "y")[: points.shape[1]], rows)
    return Row("points.tsv", "plot", "Samples", "Points drawn at random from the trained model.")


def write_ids(ids: Tensor, output: Output, pixels: Pixels) -> Row:
    """The texts, a line each, and texts.npy, int64 [n, time]."""
    np.save(output.directory / "texts.npy", ids.numpy())
    lines = [line.translate(SHOWN) for line in output.spelled(ids)]
    (output.directory / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Row("texts.txt", "text", "Texts", "Written by the trained model, one a line; ⏎ is a line break.")


def answers(showing: Showing) -> Iterable[Row]:
    """A line, the line of the same length that answers it, and the one in the data."""
    parts = [
        (x["source"], lines_of(showing.recipe, x, showing.speller, showing.how), x["target"])
        for x in showing.data.split("test")
    ]
    rows = [row for part in parts for row in zip(*map(showing.spelled, part), strict=True)]
    write_table(showing.directory / "answers.tsv", ("source", "generated", "real"), spread(rows, showing.num))
    caption = "A test line, the answer of the model, and the answer in the data. □ is a token without an id."
    yield Row("answers.tsv", "table", "Answers", caption)


def answer_of(model: Tags, x: Example, speller: Speller | None) -> Tensor:
    """The likeliest token at each place by itself, [n, time]; never an unknown token, a line break or a special id."""
    return decoding.answer(model, x, no_answer(model, x, speller))


def lines_of(model: Tags, x: Example, speller: Speller | None, how: Mapping[str, Any]) -> Tensor:
    """The best lines of a search, [n, time], out of the same tokens."""
    options = checked_options(search_lines, how, ("model", "x", "forbidden"))
    return search_lines(model, x, no_answer(model, x, speller), **options).ids[:, 0]


def no_answer(model: Tags, x: Example, speller: Speller | None) -> set[int]:
    """The ids that answer nothing: an unknown token, a line break, the special ones."""
    vocabulary = speller.vocabulary if speller else []
    with torch.no_grad():
        num_tags = model.tag({name: value[:1] for name, value in x.items()}).shape[-1]
    special = range(len(vocabulary) or num_tags, num_tags)
    line_breaks = [i for i, token in enumerate(vocabulary) if token == "\n"]
    return {UNKNOWN, *line_breaks, *special}


def tags(showing: Showing) -> Iterable[Row]:
    """Texts with the tag of each token, or with their words, where tags mark those."""
    x = first(showing.data, showing.num)
    found = in_chunks(lambda part: showing.recipe.tag(part).argmax(-1), x)
    name = functools.partial(class_name, showing.data.facts)
    parts = [ids[:length] for ids, length in zip(x["ids"], x["lengths"].tolist(), strict=True)]
    of_words = are_of_words(showing.data.facts.get("classes", ()))

    def shown(ids: Tensor, tags: Tensor) -> str:
        names = [*map(name, tags[: len(ids)].tolist())]
        return spaced(showing.spelled(ids.unsqueeze(1)), names) if of_words else " ".join(names)

    rows = [
        (text, shown(ids, made), shown(ids, real))
        for text, ids, made, real in zip(showing.spelled(x["ids"]), parts, found, x["tags"], strict=True)
    ]
    what = "words" if of_words else "tags"
    write_table(showing.directory / "tags.tsv", ("text", what, "real"), rows)
    caption = f"A test text, the {what} of the model, and the {what} in the data."
    yield Row("tags.tsv", "table", what.capitalize(), caption)


def classes(showing: Showing) -> Iterable[Row]:
    """Texts with their class."""
    x = first(showing.data, showing.num)
    found = in_chunks(showing.recipe.classify, x).argmax(-1).tolist()
    made, real = ([class_name(showing.data.facts, n) for n in row] for row in (found, x["labels"].tolist()))
    rows = list(zip(showing.spelled(x["ids"]), made, real, strict=True))
    write_table(showing.directory / "classes.tsv", ("text", "class", "real"), rows)
    yield Row("classes.tsv", "table", "Classes", "A test text, the class of the model, and that in the data.")


def class_name(facts: Mapping[str, Any], number: int) -> str:
    """The name of a class or a tag; its number where the data has no names."""
    return str(facts["classes"][number]) if "classes" in facts else str(number)


def neighbours(showing: Showing) -> Iterable[Row]:
    """Test texts and the nearest other text."""
    x = first(showing.data, showing.num)
    features = torch.nn.functional.normalize(in_chunks(showing.recipe.embed, x))
    nearest = (features @ features.T).fill_diagonal_(-torch.inf).argmax(1)
    lines = showing.spelled(x["ids"])
    same = (x["groups"] == x["groups"][nearest]).tolist()
    rows = [(lines[i], lines[j], "yes" if same[i] else "no") for i, j in enumerate(nearest.tolist())]
    write_table(showing.directory / "neighbours.tsv", ("text", "nearest", "same group"), rows)
    yield Row("neighbours.tsv", "table", "Nearest texts", "A test text and the nearest one by its features.")


def spread(rows: list[tuple[str, ...]], n: int) -> list[tuple[str, ...]]:
    """`n` rows spread evenly over all, or all where there are fewer."""
    return [rows[i * len(rows) // n] for i in range(n)] if n < len(rows) else rows


WRITERS: Mapping[str, Callable[[Tensor, Output, Pixels], Row]] = {
    "images": write_images,
    "points": write_points,
    "ids": write_ids,
}
PANELS = (
    Panel((Samples,), (), samples),
    Panel((NextToken,), ("stream", "pairs", "passages", "tagged"), texts),
    Panel((NextToken,), ("tagged",), under_classes),
    Panel((NextToken,), ("captions",), texts),
    Panel((NextToken,), ("captions",), captions),
    Panel((Samples,), ("images",), samples_by_class),
    Panel((Samples,), ("images",), samples_by_temperature),
    Panel((Encodes, Decodes), ("images",), reconstructions),
    Panel((Encodes, Decodes), ("images",), walks_between_images),
    Panel((Restores,), ("images",), restorations),
    Panel((Fills,), ("stream",), fillings),
    Panel((Attends,), (), attention),
    Panel((Invertible,), ("images",), walks_of_a_flow),
    Panel((Samples, Decodes), ("images",), walks_between_samples),
    Panel((Samples,), ("images",), nearest_training_images),
    Panel((Samples,), ("images", "points"), over_training),
    Panel((Energy,), ("points",), map_of_energies),
    Panel((Scores,), ("points",), map_of_scores),
    Panel((LogProb,), ("points",), map_of_densities),
    Panel((Classifies,), ("images",), mistakes),
    Panel((Classifies,), ("tagged",), classes),
    Panel((Tags,), ("pairs",), answers),
    Panel((Tags,), ("tagged",), tags),
    Panel((Embeds,), ("groups",), neighbours),
    Panel((Solves,), ("trajectory",), trajectories),
    Panel((Infers,), ("trajectory",), parameters),
)
