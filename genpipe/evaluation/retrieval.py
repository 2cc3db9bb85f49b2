"""Whether the nearest texts have the same meaning."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import Example
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.sampling.draw import in_chunks
from genpipe.sampling.text import UNKNOWN

if TYPE_CHECKING:
    from scipy import sparse

NEAREST = (1, 5, 10)
ROWS = 500  # compared with all at once

Cosines = Callable[[slice], Tensor]  # of some rows with all rows, float64 [rows, n]


def judge_retrieval(trial: Trial) -> dict[str, float]:
    """Share of texts with one of the same group among the 1, 5 and 10 nearest, by cosine, and the mean reciprocal rank of the first one.

    Beside them those of two vectors of token counts, plain and weighed by rarity in training, and of a text at random. Texts that are
    alone in their group are compared with but not counted.
    """
    parts = list(trial.data.split(trial.split))
    groups = torch.cat([x["groups"] for x in parts])
    number = len(groups)
    others = (groups.unsqueeze(0) == groups.unsqueeze(1)).sum(1) - 1
    counted = others > 0
    if not counted.any() or number <= NEAREST[1]:
        raise NotMeasured(
            f"top_1: the split {trial.split} has no two texts of one group, or at most {NEAREST[1]} texts"
        )
    features = torch.cat([in_chunks(trial.recipe.embed, x) for x in parts])
    counts = token_counts(parts, trial.data.facts["num_tokens"])
    documents = token_counts(trial.data.split("train"), trial.data.facts["num_tokens"])
    return {
        **_measured(ranks(of_features(features), groups)[counted], ""),
        **_measured(ranks(of_counts(counts), groups)[counted], "_bag"),
        **_measured(ranks(of_counts(rarities(documents, counts)), groups)[counted], "_tf_idf"),
        "top_1_random": float(others[counted].double().mean()) / (number - 1),
    }


def ranks(cosines: Cosines, groups: Tensor) -> Tensor:
    """The place of the nearest text of the same group among all other texts, int64 [n], from 1 on; n if its group has no other text.

    A text of another group that is just as near comes first, so that features which are all alike find nothing.
    """
    found: list[Tensor] = []
    for start in range(0, len(groups), ROWS):
        rows = slice(start, start + ROWS)
        near = cosines(rows)
        same = groups[rows].unsqueeze(1) == groups
        own = torch.zeros_like(same)
        own[torch.arange(len(same)), torch.arange(start, start + len(same))] = True
        best = near.masked_fill(~same | own, -torch.inf).max(1, keepdim=True).values
        found.append(1 + ((near >= best) & ~same).sum(1))
    return torch.cat(found)


def of_features(features: Tensor) -> Cosines:
    """The cosines of features, [n, dim]."""
    unit = torch.nn.functional.normalize(features.double())
    return lambda rows: unit[rows] @ unit.T


def of_counts(counts: "sparse.csr_array") -> Cosines:
    """The cosines of rows of weights, [n, tokens]."""
    from scipy import sparse  # here: no other stage waits for SciPy

    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
    unit = sparse.csr_array(counts.multiply(1 / np.maximum(lengths, 1e-30)[:, None]))
    return lambda rows: torch.from_numpy((unit[rows] @ unit.T).toarray())


def token_counts(parts: Iterable[Example], num_tokens: int) -> "sparse.csr_array":
    """How often each text has each token, float64 [n, num_tokens]; tokens that the vocabulary lacks do not count."""
    from scipy import sparse  # here: no other stage waits for SciPy

    rows = [
        row[:length]
        for x in parts
        for row, length in zip(x["ids"].numpy(), x["lengths"].tolist(), strict=True)
    ]
    ids, lengths = np.concatenate(rows), [len(row) for row in rows]
    known = ids != UNKNOWN
    places = np.repeat(np.arange(len(rows)), lengths)
    found = sparse.coo_array((np.ones(known.sum()), (places[known], ids[known])), (len(rows), num_tokens))
    return sparse.csr_array(found)


def rarities(documents: "sparse.csr_array", counts: "sparse.csr_array") -> "sparse.csr_array":
    """Counts times ln((1 + N) / (1 + n)) + 1, where n of the N documents have the token: what scikit-learn calls smoothed tf-idf."""
    from scipy import sparse  # here: no other stage waits for SciPy

    num_documents, num_tokens = cast(tuple[int, int], documents.shape)
    number = np.bincount(documents.indices, minlength=num_tokens)
    weights = np.log((1 + num_documents) / (1 + number)) + 1
    return sparse.csr_array(counts * weights[np.newaxis])


def _measured(places: Tensor, suffix: str) -> dict[str, float]:
    shares = {f"top_{k}{suffix}": float((places <= k).double().mean()) for k in NEAREST}
    return {**shares, f"mean_reciprocal_rank{suffix}": float((1 / places.double()).mean())}
