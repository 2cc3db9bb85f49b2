"""Whole lines that answer a line token by token: candidates at each place, a beam over them, n-grams and the rules of couplets.

The likeliest token at each place need not make a line (Su, archives/6270, on its own model). Where the tagger's probabilities
p(c | upper line) and those of n-grams are taken for independent witnesses, the score of a line is the sum over its places of

    log p(cᵢ | upper line) + line_weight · (log p(cᵢ | cᵢ₋₂, cᵢ₋₁) − log p(cᵢ)).
"""

from collections.abc import Collection
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from genpipe.capabilities import Example, RanksLines, Tags
from genpipe.errors import BadInput
from genpipe.params.blocks import Count

Weight = Annotated[float, Field(ge=0)]
# a character whose tone the couplets do not decide, by odds of e, breaks no rule
KNOWN = 1.0


class Lines(NamedTuple):
    """Answers of each row, the best first: ids, int64 [n, num, time], padded as the source is, and their scores, [n, num].

    A score of −inf says that a row has fewer answers; its ids mean nothing.
    """

    ids: Tensor
    scores: Tensor


class Beam(NamedTuple):
    """Beginnings of lines, int64 [n, beam, places], and their scores, [n, beam]."""

    ids: Tensor
    scores: Tensor


def search(
    model: Tags,
    x: Example,
    forbidden: Collection[int],
    num: Count = 1,
    candidates: Count = 16,
    beam: Count = 32,
    line_weight: Weight = 0.75,
    repeats: Literal["answered", "free"] = "answered",
    tones: bool = False,
    differ: Count = 2,
) -> Lines:
    """The `num` best lines for each `source`, of those that a beam keeps; never a forbidden token, nor one of the line they answer.

    `candidates` tokens are tried at each place. `repeats: answered` lets a line repeat a token at two places just where the line that
    it answers repeats one there. `tones` keeps the tones of regulated verse, as far as the model knows them. Of several answers
    any two have other tokens at `differ` places or more, or at all of a line that has fewer. BadInput for `tones` of a model that
    knows none. A row's answers depend on no other row.
    """
    with torch.no_grad():
        allowed = _allowed(model, x, forbidden, tones)
        kept = _beam(model, x, allowed, candidates, max(beam, num), line_weight, repeats == "answered")
    return several(kept, x, num, differ)


def _allowed(model: Tags, x: Example, forbidden: Collection[int], tones: bool) -> Tensor:
    """Log-probabilities of tokens at each place, [n, time, num_tokens], −inf where one may not stand."""
    log_probs = model.tag(x).log_softmax(-1)
    log_probs[..., list(forbidden)] = -torch.inf
    source = x["source"]
    answered = source.unsqueeze(1).expand(-1, source.shape[1], -1)
    log_probs = log_probs.scatter(-1, answered, -torch.inf)
    return log_probs.masked_fill(_against_the_rules(model, x), -torch.inf) if tones else log_probs


def _against_the_rules(model: Tags, x: Example) -> Tensor:
    """Which tokens break the rules of tones at each place, bool [n, time, num_tokens]."""
    if not isinstance(model, RanksLines) or not model.history():
        raise BadInput(
            f"tones: {type(model).__name__} knows none; take a model that was trained with `ngram`, or leave it out"
        )
    level = model.levels()
    own, place = level[x["source"]].unsqueeze(-1), torch.arange(x["source"].shape[1])
    is_known = (own.abs() > KNOWN) & (level.abs() > KNOWN)
    alike = is_known & ((own > 0) == (level > 0))
    is_even = (place % 2 == 1).view(1, -1, 1)
    is_last = (place == lengths_of(x).unsqueeze(1) - 1).unsqueeze(-1)
    return (alike & is_even) | (is_last & (level < -KNOWN))


def lengths_of(x: Example) -> Tensor:
    """The length of each source, [n]; a batch that has none is of one length."""
    return x.get("source_lengths", torch.full((len(x["source"]),), x["source"].shape[1]))


def _beam(
    model: Tags, x: Example, allowed: Tensor, candidates: int, beam: int, line_weight: float, answered: bool
) -> Beam:
    """The beginnings that are left after the last place, the best first; behind the end of a row its ids are 0."""
    source, lengths = x["source"], lengths_of(x)
    scores, tokens = allowed.topk(min(candidates, allowed.shape[-1]))
    kept = Beam(source.new_zeros(len(source), 1, 0), allowed.new_zeros(len(source), 1))
    for place in range(source.shape[1]):
        gain, token = _spread(scores[:, place], kept), _spread(tokens[:, place], kept)
        if answered:
            gain, token = _as_answered(source, place, kept, allowed[:, place], gain, token)
        if line_weight and isinstance(model, RanksLines) and model.history():
            gain = gain + line_weight * _following(model, kept, token)
        grown = _grown(kept, gain, token, beam)
        is_over = (place >= lengths).view(-1, 1)
        kept = _unless_over(kept, grown, is_over)
    return kept


def _spread(of_rows: Tensor, kept: Beam) -> Tensor:
    """What a row has of candidates, [n, candidates], for each of its beginnings, [n, beam, candidates]."""
    return of_rows.unsqueeze(1).expand(-1, kept.scores.shape[1], -1)


def _as_answered(
    source: Tensor, place: int, kept: Beam, allowed: Tensor, gain: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    """Gains, −inf where a line would repeat a token and the line it answers does not; where that one does, the only candidate."""
    gain, token = gain.clone(), token.clone()
    is_repeat = source[:, :place] == source[:, place : place + 1]
    for before in range(place):
        mirrored, earlier = is_repeat[:, before].view(-1, 1, 1), kept.ids[:, :, before].unsqueeze(-1)
        only = torch.full_like(gain, -torch.inf)
        only[..., :1] = _spread(allowed, kept).gather(-1, earlier)
        forced = torch.where(torch.arange(token.shape[-1]) == 0, earlier, token)
        gain = torch.where(mirrored, only, gain.masked_fill(~mirrored & (token == earlier), -torch.inf))
        token = torch.where(mirrored, forced, token)
    return gain, token


def _following(model: RanksLines, kept: Beam, token: Tensor) -> Tensor:
    """How much likelier candidates are after their beginnings than anywhere, [n, beam, candidates]."""
    padded = torch.cat([kept.ids, token[..., :1]], -1).flatten(0, 1)
    history = model.histories(padded)[:, -1]
    return model.follow(history).view(*token.shape[:2], -1).gather(-1, token)


def _grown(kept: Beam, gain: Tensor, token: Tensor, beam: int) -> Beam:
    """The best continuations by one token."""
    total = (kept.scores.unsqueeze(-1) + gain).flatten(1)
    scores, best = total.topk(min(beam, total.shape[1]))
    parent = (best // token.shape[-1]).unsqueeze(-1).expand(-1, -1, kept.ids.shape[-1])
    newest = token.flatten(1).gather(1, best).unsqueeze(-1)
    return Beam(torch.cat([kept.ids.gather(1, parent), newest], -1), scores)


def _unless_over(kept: Beam, grown: Beam, is_over: Tensor) -> Beam:
    """`grown`, but for rows that have no such place: they stay as they are, with beginnings that do not count as many as there are now."""
    if not is_over.any():
        return grown
    more = grown.scores.shape[1] - kept.scores.shape[1]
    ids = torch.nn.functional.pad(kept.ids, (0, 1, 0, more))
    scores = torch.nn.functional.pad(kept.scores, (0, more), value=-torch.inf)
    return Beam(
        torch.where(is_over.unsqueeze(-1), ids, grown.ids), torch.where(is_over, scores, grown.scores)
    )


def several(kept: Beam, x: Example, num: int, differ: int) -> Lines:
    """The `num` best lines of each row, each at `differ` places or more from those before it, as many as there are."""
    lengths = lengths_of(x)
    apart = (kept.ids.unsqueeze(1) != kept.ids.unsqueeze(2)).sum(-1)  # [n, beam, beam]
    open_scores, chosen, scores = kept.scores.clone(), [], []
    for _ in range(num):
        best = open_scores.max(1)
        chosen.append(best.indices)
        scores.append(best.values)
        far = apart.gather(1, best.indices.view(-1, 1, 1).expand(-1, 1, apart.shape[-1])).squeeze(1)
        open_scores = open_scores.masked_fill(far < lengths.clamp(max=differ).view(-1, 1), -torch.inf)
    rows = torch.stack(chosen, 1)
    ids = kept.ids.gather(1, rows.unsqueeze(-1).expand(-1, -1, kept.ids.shape[-1]))
    is_behind = torch.arange(ids.shape[-1]) >= lengths.view(-1, 1, 1)
    return Lines(torch.where(is_behind, x["source"].unsqueeze(1), ids), torch.stack(scores, 1))
