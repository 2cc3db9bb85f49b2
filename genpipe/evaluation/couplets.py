"""Couplets judged without a judge: cross-entropy, tones, antithesis."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.data.pairs import Pairs
from genpipe.recipe import Tags
from genpipe.sampling.showing import answers

NUMERALS = frozenset("一二三四五六七八九十百千萬万兩两雙双半孤獨独數数")
COLOURS = frozenset("紅红綠绿青黃黄白黑碧翠蒼苍丹朱紫素金銀银")
CLASSES = {"numeral": NUMERALS, "colour": COLOURS}
Line = Sequence[str]


def judge_couplets(model: Tags, data: Pairs, tones: Mapping[str, str], seed: int) -> dict[str, float]:
    """Cross-entropy and form of generated couplets, beside those of real and of shuffled ones."""
    test = data.test()
    mixed = shuffled(test, seed)
    train = torch.cat([torch.from_numpy(pairs[:, 1]).flatten() for pairs in data.groups["train"].values()])
    lower = torch.cat([batch["lower"].flatten() for batch in test])
    metrics = {
        "cross_entropy": cross_entropy(model, test),
        "cross_entropy_unigram": unigram_cross_entropy(train, lower, len(data.vocabulary)),
        "cross_entropy_shuffled": cross_entropy(model, mixed),
    }
    rows = answers(model, data)
    metrics |= judge_form([(upper, made) for upper, made, _ in rows], tones, "")
    metrics |= judge_form([(upper, real) for upper, _, real in rows], tones, "_real")
    lines = [zip(data.spelled(batch["upper"]), data.spelled(batch["lower"]), strict=True) for batch in mixed]
    return metrics | judge_form([pair for pairs in lines for pair in pairs], tones, "_shuffled")


def judge_form(pairs: Sequence[tuple[Line, Line]], tones: Mapping[str, str], suffix: str) -> dict[str, float]:
    """Tones, antithesis and repetition of couplets; the names end with `suffix`."""
    rates = {"tone_opposition": tone_opposition(pairs, tones)}
    rates |= {f"{kind}_antithesis": antithesis(pairs, kind) for kind in CLASSES}
    rates |= {"shared_character": shared_characters(pairs), "repeated_character": repeated_characters(pairs)}
    return {f"{name}{suffix}": rate for name, rate in rates.items()}


def cross_entropy(model: Tags, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Nats a character of the lower lines, given the upper ones."""
    total, characters = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            for upper, lower in zip(batch["upper"].split(100), batch["lower"].split(100), strict=True):
                total += float(
                    F.cross_entropy(model.tag(upper).flatten(0, 1).double(), lower.flatten(), reduction="sum")
                )
                characters += lower.numel()
    return total / characters


def unigram_cross_entropy(train: Tensor, test: Tensor, num_tokens: int) -> float:
    """Nats a character of `test` under the frequencies, with one added to each count, of the characters of `train`."""
    counts = torch.bincount(train.flatten(), minlength=num_tokens).double() + 1
    return float(-(counts / counts.sum()).log()[test.flatten()].mean())


def shuffled(batches: Sequence[Mapping[str, Tensor]], seed: int) -> list[Mapping[str, Tensor]]:
    """The same lower lines under upper lines of other couplets of the same length."""
    result: list[Mapping[str, Tensor]] = []
    for number, batch in enumerate(batches):
        order = np.random.Generator(np.random.Philox([seed, number])).permutation(len(batch["upper"]))
        result.append({"upper": batch["upper"][torch.from_numpy(order)], "lower": batch["lower"]})
    return result


def tone_opposition(pairs: Sequence[tuple[Line, Line]], tones: Mapping[str, str]) -> float:
    """Share of even positions (the ones that verse binds) where the two lines have opposite tones, of those where both are known."""
    known = opposite = 0
    for upper, lower in pairs:
        for a, b in zip(upper[1::2], lower[1::2], strict=True):
            if a in tones and b in tones:
                known += 1
                opposite += tones[a] != tones[b]
    return opposite / known if known else float("nan")


def antithesis(pairs: Sequence[tuple[Line, Line]], kind: str) -> float:
    """Where the upper line has a numeral (or colour), how often the lower line has one in the same place."""
    characters = CLASSES[kind]
    found = [
        b in characters
        for upper, lower in pairs
        for a, b in zip(upper, lower, strict=True)
        if a in characters
    ]
    return sum(found) / len(found) if found else float("nan")


def shared_characters(pairs: Sequence[tuple[Line, Line]]) -> float:
    """Share of couplets whose lower line uses a character of the upper line again: rare in real ones."""
    return sum(bool(set(upper) & set(lower)) for upper, lower in pairs) / len(pairs)


def repeated_characters(pairs: Sequence[tuple[Line, Line]]) -> float:
    """Share of lower lines that use a character twice."""
    return sum(len(set(lower)) < len(lower) for _, lower in pairs) / len(pairs)
