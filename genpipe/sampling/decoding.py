"""From logits to tokens: aligned answers, and greedy, nucleus and beam search over the state of a next-token model."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from genpipe.capabilities import Example, NextToken, State, Tags
from genpipe.params.blocks import Count

Share = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(gt=0)]


class Marks(NamedTuple):
    """Ids that stand for no text: what begins and ends a text, and what fills the rest of a row."""

    opening: tuple[int, ...]  # what a model reads before the first token, a start mark first
    end: int
    pad: int


def answer(model: Tags, x: Example, forbidden: Collection[int]) -> Tensor:
    """The likeliest token at each position of `source`, [n, time], never a forbidden one and never the one it answers."""
    with torch.no_grad():
        logits = model.tag(x)
    logits[..., list(forbidden)] = -torch.inf
    return logits.scatter(-1, x["source"].unsqueeze(-1), -torch.inf).argmax(-1)


def write(
    model: NextToken,
    n: int,
    given: Example,
    marks: Marks,
    method: Literal["greedy", "nucleus", "beam"] = "nucleus",
    max_tokens: Count = 100,
    top_p: Share = 0.9,
    temperature: Temperature = 1.0,
    beam: Count = 4,
) -> Example:
    """`ids`, [n, max_tokens], each row up to its end mark and then padding, and their `lengths`, [n].

    Nucleus sampling (Holtzman et al., 2019, arXiv:1904.09751) draws a number a row and token from torch's global generator.
    """
    if method == "beam":
        ids = beam_search(model, n, given, marks, max_tokens, beam)
    else:
        uniform = torch.rand(n, max_tokens) if method == "nucleus" else None
        ids = _one_by_one(model, n, given, marks, max_tokens, uniform, top_p, temperature)
    return {"ids": ids, "lengths": (ids != marks.pad).sum(1)}


def _one_by_one(
    model: NextToken, n: int, given: Example, marks: Marks, max_tokens: int,
    uniform: Tensor | None, top_p: float, temperature: float,
) -> Tensor:  # fmt: skip
    state, newest = opened(model, n, given, marks)
    ids, is_over = torch.full((n, max_tokens), marks.pad), torch.zeros(n, dtype=torch.bool)
    for time in range(max_tokens):
        logits, state = model.next(newest, state)
        logits = without(logits, marks)
        newest = (
            logits.argmax(-1) if uniform is None else nucleus(logits / temperature, top_p, uniform[:, time])
        )
        is_over = is_over | (newest == marks.end)
        if is_over.all():
            break
        ids[:, time] = newest.masked_fill(is_over, marks.pad)
        newest = newest.masked_fill(is_over, marks.end)
    return ids


def opened(model: NextToken, n: int, given: Example, marks: Marks) -> tuple[State, Tensor]:
    """The state of `n` rows after all but the last token of an opening, and that last one, [n]."""
    state = model.begin(given, n)
    for token in marks.opening[:-1]:
        _, state = model.next(torch.full((n,), token), state)
    return state, torch.full((n,), marks.opening[-1])


def without(logits: Tensor, marks: Marks) -> Tensor:
    """Logits, [n, num_tokens], under which no text has a start mark or padding in it."""
    return logits.index_fill(-1, torch.tensor([marks.opening[0], marks.pad]), -torch.inf)


def nucleus(logits: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """A token a row, [n], of the least set of likeliest ones whose probabilities reach `top_p`, by a number in [0, 1)."""
    shares, order = logits.double().softmax(-1).sort(stable=True, dim=-1, descending=True)
    shares = shares.masked_fill(shares.cumsum(-1) - shares >= top_p, 0)
    reached = shares.cumsum(-1)
    place = torch.searchsorted(reached, (uniform.double() * reached[:, -1]).unsqueeze(1), right=True)
    return order.gather(1, place.clamp(max=logits.shape[1] - 1)).squeeze(1)


def beam_search(model: NextToken, n: int, given: Example, marks: Marks, max_tokens: int, beam: int) -> Tensor:
    """The most likely of the `beam` texts a row that are kept at each token, [n, max_tokens]."""
    state, newest = opened(model, n, given, marks)
    rows = torch.arange(n).repeat_interleave(beam)
    state, newest = take(state, rows), newest[rows]
    ids = torch.full((n * beam, max_tokens), marks.pad)
    is_over = torch.zeros(n * beam, dtype=torch.bool)
    score = torch.full((n, beam), -torch.inf)
    score[:, 0] = 0.0  # all beams of a row begin alike: one of them only may go on
    for time in range(max_tokens):
        logits, state = model.next(newest, state)
        gain = without(logits, marks).log_softmax(-1)
        gain[is_over] = -torch.inf  # a text that is over goes on with its end mark only, at no cost
        gain[is_over, marks.end] = 0.0
        score, best = (score.unsqueeze(-1) + gain.unflatten(0, (n, beam))).flatten(1).topk(beam)
        rows = (best // logits.shape[-1] + beam * torch.arange(n).unsqueeze(1)).flatten()
        newest, state = (best % logits.shape[-1]).flatten(), take(state, rows)
        is_over = newest == marks.end
        ids = ids[rows]
        ids[:, time] = newest.masked_fill(is_over, marks.pad)
        if is_over.all():
            break
    return ids.unflatten(0, (n, beam))[torch.arange(n), score.argmax(1)]


def take(state: State, rows: Tensor) -> Any:
    """These rows of every tensor of a state: tensors, and tuples, lists and mappings of them."""
    if isinstance(state, Tensor):
        return state[rows]
    if isinstance(state, dict):
        return {name: take(part, rows) for name, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)([take(part, rows) for part in state])
    return state
