"""Aligned pairs of lines, couplets among them: cross-entropy, tones, antithesis."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Example, Tags
from genpipe.errors import BadState
from genpipe.evaluation.judge import Trial
from genpipe.sampling.draw import rows_of
from genpipe.sampling.panels import answer_of, lines_of

NUMERALS = frozenset("一二三四五六七八九十百千萬万兩两雙双半孤獨独數数")
COLOURS = frozenset("紅红綠绿青黃黄白黑碧翠蒼苍丹朱紫素金銀银")
LEVEL = "平"
DIRECTIONS = frozenset("東东西南北上下前後后左右中內内外邊边")
CLASSES = {"numeral": NUMERALS, "colour": COLOURS, "direction": DIRECTIONS}
Line = Sequence[str]


def judge_couplets(trial: Trial) -> dict[str, float]:
    """Cross-entropy, and the form of generated couplets where tones are known, beside that of real and of shuffled ones."""
    test = list(trial.data.split(trial.split))
    mixed = shuffled(test, trial.seed)
    train = torch.cat([x["target"].flatten() for x in trial.data.split("train")])
    target = torch.cat([x["target"].flatten() for x in test])
    metrics = {
        "cross_entropy": cross_entropy(trial.recipe, test),
        "cross_entropy_unigram": unigram_cross_entropy(train, target, trial.data.facts["num_tokens"]),
        "cross_entropy_shuffled": cross_entropy(trial.recipe, mixed),
    }
    path = trial.data.directory / "tones.tsv"
    return metrics | form(trial, test, mixed, read_tones(path)) if path.exists() else metrics


def form(
    trial: Trial, test: list[Example], mixed: list[Example], tones: Mapping[str, str]
) -> dict[str, float]:
    """The form of generated couplets, by the search of lines that samples show and token by token, and of real and shuffled ones."""
    found = [{**x, "target": lines_of(trial.recipe, x, trial.speller, trial.how)} for x in test]
    singly = [{**x, "target": answer_of(trial.recipe, x, trial.speller)} for x in test]
    sets = {"": found, "_singly": singly, "_real": test, "_shuffled": mixed}
    rates: dict[str, float] = {}
    for suffix, parts in sets.items():
        rates |= judge_form([pair for x in parts for pair in spelled(trial, x)], tones, suffix)
    return rates


def spelled(trial: Trial, x: Example) -> Iterable[tuple[str, str]]:
    """Source and target as text."""
    if trial.speller is None:
        raise BadState("the data of couplets has no vocabulary.json; encode it again")
    return zip(trial.speller.lines(x["source"]), trial.speller.lines(x["target"]), strict=True)


def read_tones(path: Path) -> dict[str, str]:
    """The usual tone, 平 or 仄, of each character."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["character"]: row["tone"] for row in csv.DictReader(file, delimiter="\t")}


def judge_form(pairs: Sequence[tuple[Line, Line]], tones: Mapping[str, str], suffix: str) -> dict[str, float]:
    """Tones, antithesis and repetition of couplets; the names end with `suffix`."""
    rates = {"tone_opposition": tone_opposition(pairs, tones), "level_ending": level_endings(pairs, tones)}
    rates |= {f"{kind}_antithesis": antithesis(pairs, kind) for kind in CLASSES}
    rates |= {"shared_character": shared_characters(pairs), "repeated_character": repeated_characters(pairs)}
    return {f"{name}{suffix}": rate for name, rate in rates.items()}


def cross_entropy(model: Tags, batches: Sequence[Example]) -> float:
    """Nats a character of the targets, given the sources; padding is not counted."""
    total, characters = 0.0, 0
    with torch.no_grad():
        for x in batches:
            keep = torch.arange(x["target"].shape[1]) < x["target_lengths"].unsqueeze(1)
            logits = model.tag(x)[keep].double()
            total += float(F.cross_entropy(logits, x["target"][keep], reduction="sum"))
            characters += int(keep.sum())
    return total / characters


def unigram_cross_entropy(train: Tensor, test: Tensor, num_tokens: int) -> float:
    """Nats a character of `test` under the frequencies, with one added to each count, of the characters of `train`."""
    counts = torch.bincount(train.flatten(), minlength=num_tokens).double() + 1
    return float(-(counts / counts.sum()).log()[test.flatten()].mean())


def shuffled(batches: Sequence[Example], seed: int) -> list[Example]:
    """The same targets under sources of other pairs of the same chunk, whose lines have one length."""
    result: list[Example] = []
    for number, x in enumerate(batches):
        order = torch.from_numpy(
            np.random.Generator(np.random.Philox([seed, number])).permutation(rows_of(x))
        )
        result.append({**x, "source": x["source"][order], "source_lengths": x["source_lengths"][order]})
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


def level_endings(pairs: Sequence[tuple[Line, Line]], tones: Mapping[str, str]) -> float:
    """Share of lower lines that end in a level tone, of those whose last tone is known."""
    found = [tones[lower[-1]] == LEVEL for _, lower in pairs if lower[-1] in tones]
    return sum(found) / len(found) if found else float("nan")


def antithesis(pairs: Sequence[tuple[Line, Line]], kind: str) -> float:
    """Where the upper line has a numeral (or a colour, or a direction), how often the lower line has one in the same place."""
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
