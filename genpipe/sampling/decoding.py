"""From logits to tokens: aligned answers, and greedy, nucleus and beam search over the state of a next-token model."""

from collections.abc import Callable, Collection
from typing import Annotated, Literal, TypeGuard

import torch
from pydantic import Field
from torch import Tensor

from genpipe.capabilities import Example, NextToken, State, Tags, Votes
from genpipe.errors import BadInput
from genpipe.nn.states import take as take
from genpipe.params.blocks import Count
from genpipe.sampling.beams import Step, beam_search
from genpipe.sampling.marks import Marks as Marks
from genpipe.sampling.marks import unended
from genpipe.sampling.marks import without as without
from genpipe.sampling.voting import voted

Share = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(ge=0)]


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
    min_tokens: Size = 0,
    top_k: Count | None = None,
    extractive: bool = False,
) -> Example:
    """`ids`, [n, max_tokens], each row up to its end mark and then padding, and their `lengths`, [n].

    Nucleus sampling (Holtzman et al., 2019, arXiv:1904.09751) draws a number a row and token from torch's global generator, out of the
    `top_k` likeliest tokens where that is given. No text ends before `min_tokens`, unless it can go on with nothing.
    A model that reads several passages puts each token to the vote; `extractive` answers are parts of a passage. BadInput
    where options do not go together.
    """
    require_fitting(model, max_tokens, min_tokens, extractive)
    if reads_passages(model):
        newest = torch.full((n,), marks.opening[-1])
        step, state = voted(model, given, marks, extractive)
        scored = step
    else:
        state, newest = opened(model, n, given, marks)
        step, scored = _logits(model, marks), _log_probabilities(model, marks)
    if method == "beam":
        ids = beam_search(scored, state, newest, marks, max_tokens, min_tokens, beam)
    else:
        uniform = torch.rand(n, max_tokens) if method == "nucleus" else None
        choose = lambda logits, time: (
            logits.argmax(-1)
            if uniform is None
            else nucleus(logits / temperature, top_p, uniform[:, time], top_k)
        )
        ids = _one_by_one(step, state, newest, marks, max_tokens, min_tokens, choose)
    return {"ids": ids, "lengths": (ids != marks.pad).sum(1)}


def reads_passages(model: NextToken) -> TypeGuard[Votes]:
    """Whether a model votes over several passages; one that could may have been made to read one text."""
    return isinstance(model, Votes) and "passages" in model.given


def require_fitting(model: NextToken, max_tokens: int, min_tokens: int, extractive: bool) -> None:
    """BadInput where options of `write` contradict each other, or where the model has no use for one."""
    if min_tokens > max_tokens:
        raise BadInput(
            f"min_tokens: {min_tokens} are more than max_tokens, {max_tokens}; lower it, or raise max_tokens"
        )
    if extractive and not reads_passages(model):
        raise BadInput(
            f"extractive: {type(model).__name__} reads no passages that an answer could be a part of; leave it out"
        )


def _logits(model: NextToken, marks: Marks) -> Step:
    def step(newest: Tensor, state: State, time: int) -> tuple[Tensor, State]:
        logits, state = model.next(newest, state)
        return without(logits, marks), state

    return step


def _log_probabilities(model: NextToken, marks: Marks) -> Step:
    def step(newest: Tensor, state: State, time: int) -> tuple[Tensor, State]:
        logits, state = model.next(newest, state)
        return without(logits, marks).log_softmax(-1), state

    return step


def _one_by_one(
    step: Step, state: State, newest: Tensor, marks: Marks, max_tokens: int, min_tokens: int,
    choose: Callable[[Tensor, int], Tensor],
) -> Tensor:  # fmt: skip
    """Ids, [n, max_tokens], each `choose`n by the logits of its place."""
    n = len(newest)
    ids, is_over = torch.full((n, max_tokens), marks.pad), torch.zeros(n, dtype=torch.bool)
    for time in range(max_tokens):
        logits, state = step(newest, state, time)
        if time < min_tokens:
            logits = unended(logits, marks)
        newest = choose(logits, time)
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


def nucleus(logits: Tensor, top_p: float, uniform: Tensor, top_k: int | None = None) -> Tensor:
    """A token a row, [n], of the least set of likeliest ones whose probabilities reach `top_p`, by a number in [0, 1).

    `top_k` first leaves so many of the likeliest, whose probabilities then add up to 1.
    """
    shares, order = logits.double().softmax(-1).sort(stable=True, dim=-1, descending=True)
    if top_k is not None:
        shares[:, top_k:] = 0
        shares = shares / shares.sum(-1, keepdim=True)
    shares = shares.masked_fill(shares.cumsum(-1) - shares >= top_p, 0)
    reached = shares.cumsum(-1)
    place = torch.searchsorted(reached, (uniform.double() * reached[:, -1]).unsqueeze(1), right=True)
    return order.gather(1, place.clamp(max=logits.shape[1] - 1)).squeeze(1)
