"""Beam search over the state of a next-token model: rows of a batch side by side, each with a beam of its own."""

from collections.abc import Callable

import torch
from torch import Tensor

from genpipe.capabilities import State
from genpipe.nn.states import take
from genpipe.sampling.marks import Marks, unended

# The newest tokens, [n], a state, and their place in the text → log-scores of the next token, [n, num_tokens], 0 or less, and
# the new state.
Step = Callable[[Tensor, State, int], tuple[Tensor, State]]


def beam_search(
    step: Step, state: State, newest: Tensor, marks: Marks, max_tokens: int, min_tokens: int, beam: int
) -> Tensor:
    """The text with the highest sum of log-scores among the `beam` that are kept at each token, [n, max_tokens], then padding.

    Texts are not weighed by their length. A row is finished when its best text is over: sums only fall.
    """
    n = len(newest)
    ids = torch.full((n * beam, max_tokens), marks.pad)
    is_over = torch.zeros(n * beam, dtype=torch.bool)
    score = torch.full((n, beam), -torch.inf)
    # all beams of a row begin alike, so one of them only may go on, and the first step has n rows
    score[:, 0] = 0.0
    first = beam * torch.arange(n).unsqueeze(1)
    for time in range(max_tokens):
        gain, state = step(newest, state, time)
        if time < min_tokens:
            gain = unended(gain, marks)
        if is_over.any():
            gain = _over(gain, is_over, marks)
        # the best of a row are among the best of each of its texts
        width = min(beam, gain.shape[-1])
        gains, tokens = (part.repeat_interleave(beam, 0) if time == 0 else part for part in gain.topk(width))
        candidates = (score.to(gain.dtype).unsqueeze(-1) + gains.view(n, beam, width)).flatten(1)
        score, best = candidates.topk(beam)
        rows = (best // width + first).flatten()
        newest = tokens.view(n, beam * width).gather(1, best).flatten()
        state = take(state, rows // beam) if time == 0 else moved(state, rows)
        is_over = newest == marks.end
        ids = ids[rows]
        ids[:, time] = newest.masked_fill(is_over, marks.pad)
        if is_over.view(n, beam)[:, 0].all():
            break
    return ids.view(n, beam, max_tokens)[:, 0]


def _over(gain: Tensor, is_over: Tensor, marks: Marks) -> Tensor:
    """A text that is over goes on with its end mark only, at no cost."""
    gain = gain.masked_fill(is_over.unsqueeze(1), -torch.inf)
    gain[is_over, marks.end] = 0.0
    return gain


def moved(state: State, rows: Tensor) -> State:
    """As `take`, without a copy where every row stays in its place."""
    return state if torch.equal(rows, torch.arange(len(rows))) else take(state, rows)
