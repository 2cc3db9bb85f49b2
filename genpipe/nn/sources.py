"""What a sequence-to-sequence model reads: `<s>` one part `<sep>` another part `<sep>`, each part padded on the right by itself.

Attention knows the order of tokens by their positions only, so padding may lie between the parts: it has no weight, and
positions count tokens alone. So a source and a target need not be packed again, and both lie where the data has them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Part(NamedTuple):
    """Ids, int64 [n, time], padded on the right, and their lengths, int64 [n]."""

    ids: Tensor
    lengths: Tensor


class Source(NamedTuple):
    """`ids` and `positions`, int64 [n, time]; `tokens`, bool [n, time], false for padding; `last`, int64 [n], the place of the last mark."""

    ids: Tensor
    positions: Tensor
    tokens: Tensor
    last: Tensor

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each row, int64 [n]: the position of what comes next."""
        return self.tokens.sum(1)


def joined(parts: Sequence[Part], start: int, sep: int) -> Source:
    """All parts behind a start mark, with a mark after each."""
    n = len(parts[0].ids)
    ids = [parts[0].ids.new_full((n, 1), start)]
    tokens = [torch.ones_like(ids[0], dtype=torch.bool)]
    width = 1
    last = parts[0].lengths
    for part in parts:
        marked = ended(part, sep)
        last = width + part.lengths
        width += marked.shape[1]
        ids.append(marked)
        tokens.append(are_tokens(marked, part.lengths + 1))
    is_token = torch.cat(tokens, 1)
    positions = (is_token.cumsum(1) - 1).clamp(min=0)
    return Source(torch.cat(ids, 1), positions, is_token, last)


def ended(part: Part, mark: int) -> Tensor:
    """Ids with a mark after the last one of each row, int64 [n, time + 1]."""
    return F.pad(part.ids, (0, 1), value=mark).scatter(1, part.lengths.unsqueeze(1), mark)


def are_tokens(ids: Tensor, lengths: Tensor) -> Tensor:
    """Which places of padded rows, [n, time], are no padding, bool [n, time]."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)


def contains(texts: Part, answers: Part) -> Tensor:
    """Whether each answer is a part of its text, bool [n]; an answer of length 0 is a part of any."""
    time, width = texts.ids.shape[1], answers.ids.shape[1]
    if not width:
        return torch.ones_like(texts.lengths, dtype=torch.bool)
    windows = F.pad(texts.ids, (0, width)).unfold(1, width, 1)
    is_same = (windows == answers.ids.unsqueeze(1)) | ~are_tokens(answers.ids, answers.lengths).unsqueeze(1)
    starts = torch.arange(time + 1, device=texts.ids.device)
    fits = starts + answers.lengths.unsqueeze(1) <= texts.lengths.unsqueeze(1)
    return (is_same.all(-1) & fits).any(1)
