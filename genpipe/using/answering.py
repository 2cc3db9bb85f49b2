"""What a model says of a person's inputs: an answer a line, and the nearest of some inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from genpipe.capabilities import Classifies, Embeds, Fills, NextToken, Tags
from genpipe.corpus.word_tags import are_of_words, spaced
from genpipe.errors import BadInput
from genpipe.sampling.draw import in_chunks
from genpipe.sampling.fillings import HIDDEN
from genpipe.sampling.panels import class_name
from genpipe.using.captions import captions
from genpipe.using.couplets import lines_for_lines
from genpipe.using.inputs import ids_of, read
from genpipe.using.making import drawn
from genpipe.using.model import HOW, Using, one_line, passages_of, require


def answer(using: Using, inputs: Sequence[str], how: Mapping[str, Any], passages: Sequence[str] = ()) -> None:
    """Print an answer a line: lines for a line, a text, tags, or a class."""
    for line in answers(using, inputs, how, passages):
        print(line)


def answers(
    using: Using, inputs: Sequence[str], how: Mapping[str, Any], passages: Sequence[str] = ()
) -> list[str]:
    """The answer to each input; each is a question about all of `passages` where the model reads some."""
    if passages and "passages" not in getattr(using.recipe, "given", ()):
        raise BadInput(f"passages: {using.name} reads none; leave them out")
    for needs, kinds, function in ANSWERS:
        if isinstance(using.recipe, needs) and using.kind in kinds:
            return function(using, inputs, how)
    if isinstance(using.recipe, NextToken) and using.kind == "passages":
        return _written_texts(using, inputs, how, passages)
    raise BadInput(
        f"{using.name} answers nothing: it cannot tag, classify, fill gaps, or write under the condition of a text; "
        "genpipe recipes lists what can"
    )


def _written_texts(
    using: Using, inputs: Sequence[str], how: Mapping[str, Any], passages: Sequence[str] = ()
) -> list[str]:
    ids, lengths = ids_of(using, inputs)
    x = {"source": ids, "source_lengths": lengths, "question": ids, "question_lengths": lengths}
    if "passages" in using.recipe.given:
        if not passages:
            raise BadInput(
                f"{using.name} answers questions about passages; give one or more with --passage TEXT"
            )
        x |= dict(passages_of(using, passages))
    given = {name: value for name, value in x.items() if name in using.recipe.given}
    made = drawn(using, len(inputs), 0, given, {"method": "beam", **how})
    return [one_line(using.text().decode(row)) for row in made["ids"].tolist()]


def _tags(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    """The tags of each text; its words, where tags mark those."""
    refuse_options(using, how)
    x = read(using, inputs)
    found = in_chunks(lambda part: using.recipe.tag(part).argmax(-1), x)
    rows = zip(found.tolist(), x["lengths"].tolist(), strict=True)
    tags = [[class_name(using.facts, number) for number in row[:length]] for row, length in rows]
    if not are_of_words(using.facts.get("classes", ())):
        return [" ".join(row) for row in tags]
    return [spaced(using.text().tokenizer.split(text), row) for text, row in zip(inputs, tags, strict=True)]


def _classes(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    refuse_options(using, how)
    shares = in_chunks(using.recipe.classify, read(using, inputs)).softmax(-1)
    return [f"{class_name(using.facts, int(row.argmax()))}\t{row.max().item():.4f}" for row in shares]


def _filled(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    """Each text with the likeliest tokens in its gaps."""
    refuse_options(using, how)
    return [_with_gaps_filled(using, text) for text in inputs]


def _with_gaps_filled(using: Using, text: str) -> str:
    codec = using.text()
    ids: list[int] = []
    for number, piece in enumerate(text.split(HIDDEN)):
        ids += [codec.mask] * (number > 0) + (codec.encode(piece) if piece else [])
    x = torch.tensor([ids], dtype=torch.int64)
    hidden = x == codec.mask
    if not hidden.any() or hidden.all():
        raise BadInput(
            f"{text[:40]!r}: give a text with gaps, a {HIDDEN} for each hidden token, as in 床前明{HIDDEN}光"
        )
    places = torch.arange(x.shape[1]).unsqueeze(0)
    found = {"ids": x, "documents": torch.zeros_like(x), "positions": places}
    return one_line(codec.decode(using.recipe.restore(found, ~hidden)["ids"][0].tolist()))


def refuse_options(using: Using, how: Mapping[str, Any]) -> None:
    """Raise BadInput for any option: what is not drawn has none."""
    for key in how:
        raise BadInput(f"{HOW}{key}: {using.name} takes no options where it answers")


Answer = Callable[[Using, Sequence[str], Mapping[str, Any]], list[str]]
ANSWERS: tuple[tuple[type, tuple[str, ...], Answer], ...] = (
    (Tags, ("pairs",), lines_for_lines),
    (Tags, ("tagged",), _tags),
    (NextToken, ("pairs",), _written_texts),
    (NextToken, ("captions",), captions),
    (Classifies, ("images", "tagged"), _classes),
    (Fills, ("stream",), _filled),
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
