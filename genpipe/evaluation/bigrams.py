"""What pairs of neighbouring tokens say of hidden ones: a Markov chain, given every token that is to be seen."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Example


class Bigrams:
    """P(b | a) = λ(a) c(a, b)/c(a) + (1 − λ(a)) p(b), where λ(a) = c(a)/(c(a) + kinds of followers of a) (Witten and Bell, 1991).

    p counts each ordinary token, 1 to num_ordinary - 1, once more than it was seen; others have none of it. Rows are texts laid one
    after another, so an end mark is followed by what begins texts. <pad> follows nothing.
    """

    def __init__(self, parts: Iterable[Example], num_ordinary: int, num_tokens: int) -> None:
        """`parts`: examples with `ids`, int64 [n, time], in which `num_ordinary` is the id of <pad>."""
        from scipy.sparse import csr_matrix  # here: no other stage waits for SciPy

        self.pad, size = num_ordinary, num_tokens
        numbers = np.arange(size)
        self.is_ordinary = (numbers > 0) & (numbers < num_ordinary)  # what a hidden token can be
        seen = np.zeros(size, np.int64)
        codes = [np.zeros(0, np.int64)]
        for x in parts:
            ids = x["ids"].numpy()
            seen += np.bincount(ids.ravel(), minlength=size)
            first, second = ids[:, :-1].ravel(), ids[:, 1:].ravel()
            kept = (first != self.pad) & (second != self.pad)
            codes.append(first[kept] * size + second[kept])
        pairs, number = np.unique(np.concatenate(codes), return_counts=True)
        first, second = divmod(pairs, size)
        self.unigram = np.zeros(size)
        self.unigram[1:num_ordinary] = seen[1:num_ordinary] + 1
        self.unigram /= self.unigram.sum()
        counts, kinds = np.bincount(first, number, size), np.bincount(first, minlength=size)
        self.share = counts / np.maximum(counts + kinds, 1)
        self.followers = csr_matrix((number / counts[first], (first, second)), shape=(size, size))

    def posterior(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Probabilities of hidden tokens, float64 [tokens, num_tokens], in the order of `ids[hidden]`, given all others of their row.

        Hidden tokens are ordinary ones. Exact, by messages from the left and from the right through each run of them.
        """
        known, is_hidden = ids.numpy(), hidden.numpy()
        time = known.shape[1]
        left = self._messages(known, is_hidden, range(time), -1)
        right = self._messages(known, is_hidden, range(time - 1, -1, -1), 1)
        both = left * right
        total = both.sum(1, keepdims=True)
        fallback = np.broadcast_to(self.unigram, both.shape)
        return torch.from_numpy(np.where(total > 0, both / np.where(total > 0, total, 1), fallback))

    def _messages(self, ids: np.ndarray, hidden: np.ndarray, columns: range, beside: int) -> np.ndarray:
        """What the neighbours on one side say of each hidden token, [tokens, num_tokens], in the order of reading."""
        out = np.empty((int(hidden.sum()), len(self.unigram)))
        number = np.cumsum(hidden).reshape(hidden.shape) - 1  # of each hidden token
        for column in columns:
            rows = np.flatnonzero(hidden[:, column])
            if not len(rows):
                continue
            other = column + beside
            if not 0 <= other < ids.shape[1]:
                out[number[rows, column]] = self._nothing(beside)
                continue
            is_chained = hidden[rows, other]
            for part, values in (
                (rows[is_chained], lambda r, c=other: self._passed(out[number[r, c]], beside)),
                (rows[~is_chained], lambda r, c=other: self._beside(ids[r, c], beside)),
            ):
                if len(part):
                    out[number[part, column]] = values(part) * self.is_ordinary
        return out

    def _nothing(self, beside: int) -> np.ndarray:
        """Without a neighbour: the prior from the left, no evidence from the right."""
        return self.unigram if beside < 0 else np.ones_like(self.unigram)

    def _beside(self, known: np.ndarray, beside: int) -> np.ndarray:
        """P(· | known) of tokens on the left, or P(known | ·) of tokens on the right, [rows, num_tokens]."""
        if beside < 0:
            share = self.share[known][:, None]
            made = share * self.followers[known].toarray() + (1 - share) * self.unigram
        else:
            columns = self.followers[:, known].toarray().T
            made = self.share * columns + (1 - self.share) * self.unigram[known][:, None]
        made[known == self.pad] = self._nothing(beside)
        return made

    def _passed(self, message: np.ndarray, beside: int) -> np.ndarray:
        """A message one token on, scaled to a sum of 1."""
        if beside < 0:
            made = (self.followers.T @ (message * self.share).T).T
            made = made + (message @ (1 - self.share))[:, None] * self.unigram
        else:
            made = (
                self.share * (self.followers @ message.T).T
                + (1 - self.share) * (message @ self.unigram)[:, None]
            )
        return made / made.sum(1, keepdims=True)
