"""Unigrams and bigrams of token ids, what a language model must be better than."""

from collections.abc import Sequence

import numpy as np

Ids = np.ndarray


class Bigrams:
    """Counts of a training set: each text is read as if a start mark stood before it, and ends with an end mark.

    A unigram has one count more than it was seen. Bigrams are interpolated with these (Witten and Bell, 1991): after h,
    p(w | h) = (c(h, w) + T(h) p(w)) / (c(h) + T(h)), with T(h) the number of different tokens that were seen after h.
    """

    def __init__(self, texts: Sequence[Ids], num_tokens: int, start: int, end: int) -> None:
        self.num_tokens, self.start, self.end = num_tokens, start, end
        before, after = self._pairs(texts)
        counts = np.bincount(after, minlength=num_tokens)
        self.unigram = (counts + 1) / (counts.sum() + num_tokens)
        self.pairs, self.seen = np.unique(before * num_tokens + after, return_counts=True)
        self.following = np.bincount(before, minlength=num_tokens)
        self.kinds = np.bincount(self.pairs // num_tokens, minlength=num_tokens)

    def bits(self, texts: Sequence[Ids]) -> dict[str, float]:
        """Bits of a token or end mark of other texts, by unigrams and by bigrams."""
        before, after = self._pairs(texts)
        codes = before * self.num_tokens + after
        place = np.searchsorted(self.pairs, codes).clip(max=len(self.pairs) - 1)
        seen = np.where(self.pairs[place] == codes, self.seen[place], 0)
        one, kinds, total = self.unigram[after], self.kinds[before], self.following[before]
        two = np.where(total > 0, (seen + kinds * one) / np.maximum(total + kinds, 1), one)
        return {name: float(-np.log2(p).mean()) for name, p in (("unigram", one), ("bigram", two))}

    def _pairs(self, texts: Sequence[Ids]) -> tuple[Ids, Ids]:
        """Each token with the one before it."""
        before = [np.concatenate([[self.start], text]) for text in texts]
        after = [np.concatenate([text, [self.end]]) for text in texts]
        return np.concatenate(before).astype(np.int64), np.concatenate(after).astype(np.int64)


class NaiveBayes:
    """Classes of texts by their tokens, each text a bag of tokens; counts with one more for each token (Maron, 1961)."""

    def __init__(self, texts: Sequence[Ids], labels: Ids, num_classes: int, num_tokens: int) -> None:
        tokens = np.concatenate(texts).astype(np.int64)
        of_token = np.repeat(labels, [len(text) for text in texts])
        codes = np.bincount(of_token * num_tokens + tokens, minlength=num_classes * num_tokens)
        counts = codes.reshape(num_classes, num_tokens) + 1.0
        self.tokens = np.log(counts / counts.sum(1, keepdims=True))
        self.classes = np.log((np.bincount(labels, minlength=num_classes) + 1) / (len(labels) + num_classes))

    def classify(self, texts: Sequence[Ids]) -> Ids:
        """The likeliest class of each text, int64 [n]."""
        scores = [self.classes + self.tokens[:, np.asarray(text, np.int64)].sum(1) for text in texts]
        return np.array([int(score.argmax()) for score in scores], np.int64)
