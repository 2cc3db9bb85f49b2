"""Which tokens of a text are hidden, what stands in their place, and how the embeddings are to be read afterwards.

Whole words with 80 % marks, 10 % random tokens and 10 % tokens as they were: RoBERTa-style pre-training in bert4keras (Su, 2020,
archives/7055), after BERT (Devlin et al., 2018, arXiv:1810.04805). Runs of words: MacBERT (Cui et al., 2020, arXiv:2004.13922).
All random numbers are torch's global generator's.
"""

import torch
from torch import Tensor

MARKED, RANDOM = 0.8, 0.1  # of the hidden tokens; the others stay as they are
LENGTHS = (0.4, 0.3, 0.2, 0.1)  # how likely a run has 1, 2, 3, 4 words


def hide_words(words: Tensor, may: Tensor, rate: float) -> Tensor:
    """Each word is hidden with probability `rate`, whole: bool [n, time].

    `words`, int64 [n, time], numbers the words of a row in their order, from 0; tokens where `may`, bool, is false are never hidden.
    """
    drawn = torch.rand(words.shape, device=words.device) < rate  # of word w at place w
    return drawn.gather(1, words) & may


def hide_runs(words: Tensor, documents: Tensor, may: Tensor, rate: float) -> Tensor:
    """Runs of one to four words of a document are hidden, so that each word is with probability `rate`: bool [n, time].

    `documents`, int64 [n, time], numbers the documents of a row. Runs may overlap, and end with their document.
    """
    starts = torch.rand(words.shape, device=words.device) < start_rate(rate)
    longer = torch.rand(words.shape, device=words.device)
    of_word = torch.zeros_like(documents).scatter(1, words, documents)
    hidden = torch.zeros_like(may)
    for distance in range(len(LENGTHS)):
        first = words - distance
        there = first >= 0
        first = first.clamp(min=0)
        reaches = starts.gather(1, first) & (longer.gather(1, first) < reach(distance))
        hidden = hidden | (there & reaches & (of_word.gather(1, first) == documents))
    return hidden & may


def reach(distance: int) -> float:
    """How likely a run has more than `distance` words."""
    return sum(LENGTHS[distance:])


def start_rate(rate: float) -> float:
    """How often a word must start a run, so that a word far from the start of a text is in one with probability `rate`."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        outside = 1.0
        for distance in range(len(LENGTHS)):
            outside *= 1 - middle * reach(distance)
        low, high = (middle, high) if 1 - outside < rate else (low, middle)
    return low


def corrupted(
    ids: Tensor, hidden: Tensor, mark: int, num_ordinary: int, stand_in: Tensor | None = None
) -> Tensor:
    """The ids with hidden tokens replaced: 80 % by `mark`, 10 % by a random ordinary token, 10 % by nothing, int64 [n, time].

    Ordinary ids are 1 to num_ordinary - 1. `stand_in`, int64 [n, time], stands in the place of `mark`, where it is given.
    """
    which = torch.rand(ids.shape, device=ids.device)
    other = torch.randint(1, num_ordinary, ids.shape, device=ids.device)
    marks = torch.full_like(ids, mark) if stand_in is None else stand_in
    put = torch.where(which < MARKED, marks, torch.where(which < MARKED + RANDOM, other, ids))
    return torch.where(hidden, put, ids)


def expected_embeddings(weight: Tensor, mark: int, rate: float) -> Tensor:
    """The mean of what a training showed in a token's place, [num_tokens, dim]: its embeddings with this Dropout switched off.

    E[i] ← (1 − r) E[i] + r (0.8 E[mark] + 0.1 E[i] + 0.1 mean E), of which coefficients sum to 1; the mark stays what it was.
    Masked Language Models as Dropout (Su, 2021, archives/8770).
    """
    kept = 1 - rate + rate * (1 - MARKED - RANDOM)
    made = kept * weight + rate * (MARKED * weight[mark] + RANDOM * weight.mean(0))
    return made.index_copy(0, torch.tensor([mark], device=weight.device), weight[mark : mark + 1])


def neighbours(
    ids: Tensor, documents: Tensor, num_ordinary: int, num_contexts: int, reach: int = 2
) -> Tensor:
    """How often each ordinary token stands within `reach` places of each of the first tokens, float [num_ordinary, num_contexts].

    Tokens are numbered by frequency, so the first are the frequent ones; documents do not see each other.
    """
    counts = torch.zeros(num_ordinary * num_contexts, dtype=torch.float64)
    for distance in range(1, reach + 1):
        same = documents[:, distance:] == documents[:, :-distance]
        for token, context in (
            (ids[:, distance:], ids[:, :-distance]),
            (ids[:, :-distance], ids[:, distance:]),
        ):
            counted = same & (token < num_ordinary) & (context < num_contexts)
            counts += torch.bincount(token[counted] * num_contexts + context[counted], minlength=len(counts))
    return counts.view(num_ordinary, num_contexts)


def most_similar(counts: Tensor, least: int = 5) -> Tensor:
    """Of each token the one with the most similar contexts, int64 [tokens]; itself where it was seen in fewer than `least`.

    Similar is the cosine of positive pointwise mutual information (Bullinaria and Levy, 2007), of `counts`, [tokens, contexts].
    """
    total, of_token, of_context = counts.sum(), counts.sum(1, keepdim=True), counts.sum(0, keepdim=True)
    ratio = counts * total / (of_token * of_context).clamp(min=1)
    rows = torch.nn.functional.normalize(torch.log(ratio.clamp(min=1)).float())
    known = of_token.squeeze(1) >= least
    best = torch.arange(len(counts))
    for part in torch.arange(len(counts))[known].split(1024):
        cosines = rows[part] @ rows.T
        cosines[:, ~known] = -1
        cosines[torch.arange(len(part)), part] = -1
        best[part] = cosines.argmax(1)
    return best
