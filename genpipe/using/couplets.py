"""Lines that answer a person's lines: several of each, in the script of the line, reranked by a masked language model if one is given."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpipe.capabilities import Example, Fills
from genpipe.corpus.codec import UNKNOWN
from genpipe.errors import BadInput
from genpipe.sampling.draw import checked_options, chunks
from genpipe.sampling.lines import Beam, Lines, Weight, search, several
from genpipe.using.model import HOW, Using, opened
from genpipe.using.scripts import Reader, converted, script_of

NUM = 5  # answers to a line where nobody says how many
TAKEN = ("model", "x", "forbidden")


def lines_for_lines(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    """The answers to each line, the best first, with tabs between them: NUM unless `num` says how many, or as many as there are.

    `masked_lm` names a model that also judges the lines: one beside this one, or a directory. BadInput for an option that there is not.
    """
    own = {key: value for key, value in how.items() if key in ("masked_lm", "masked_weight")}
    others = {key: value for key, value in how.items() if key not in own}
    options = {"num": NUM} | checked_options(search, others, TAKEN, HOW)
    judge = _Judge(using, **checked_options(_Judge.__init__, own, ("self", "using"), HOW))
    reader = Reader(using.text().vocabulary)
    return ["\t".join(_answers(using, text, reader, judge, options)) for text in inputs]


def _answers(
    using: Using, text: str, reader: Reader, judge: "_Judge", options: Mapping[str, Any]
) -> list[str]:
    codec, script = using.text(), script_of(text)
    x = {"source": torch.tensor([codec.encode(reader.read(text))])}
    line_breaks = {number for number, token in enumerate(codec.vocabulary) if token == "\n"}
    forbidden = {UNKNOWN, *line_breaks, *range(codec.pad, using.facts["num_tokens"])}
    found = judge.best(x, forbidden, options)
    kept = found.ids[0][found.scores[0].isfinite()]
    if not len(kept):
        raise BadInput(f"{text[:40]!r}: no line answers it under these options; leave tones or repeats out")
    return [converted(codec.decode(row), script) for row in kept.tolist()]


class _Judge:
    """Searches lines, and weighs those that the beam keeps by a masked language model if there is one."""

    def __init__(self, using: Using, masked_lm: str | None = None, masked_weight: Weight = 0.5) -> None:
        self.using, self.weight = using, masked_weight
        self.masked = None if masked_lm is None else _masked_lm(using, masked_lm)

    def best(self, x: Example, forbidden: set[int], options: Mapping[str, Any]) -> Lines:
        """The best answers to one line."""
        recipe = self.using.recipe
        if self.masked is None:
            return search(recipe, x, forbidden, **options)
        known = {name: p.default for name, p in inspect.signature(search).parameters.items()}
        asked = {name: value for name, value in {**known, **options}.items() if name not in TAKEN}
        every = search(
            recipe, x, forbidden, **{**asked, "num": max(asked["beam"], asked["num"]), "differ": 1}
        )
        kept = every.ids[:, every.scores[0].isfinite()]
        scores = every.scores[:, : kept.shape[1]] + self.weight * self._surprise(x["source"][0], kept[0])
        return several(Beam(kept, scores), x, asked["num"], asked["differ"])

    def _surprise(self, source: Tensor, lines: Tensor) -> Tensor:
        """The pseudo-log-likelihood of each line, [lines]: of each character, hidden alone, given the couplet about it.

        Salazar et al., Masked Language Model Scoring, 2020 (arXiv:1910.14659).
        """
        assert self.masked is not None
        codec, read = self.masked.text(), Reader(self.masked.text().vocabulary).read
        spell = self.using.text().decode
        upper = spell(source.tolist())
        ids = torch.tensor([codec.encode(read(f"{upper}，{spell(row)}。")) for row in lines.tolist()])
        return pseudo_log_likelihoods(self.masked.recipe, ids, range(len(upper) + 1, ids.shape[1] - 1))


def pseudo_log_likelihoods(model: Fills, ids: Tensor, places: Sequence[int]) -> Tensor:
    """The sum of the log-probabilities of the tokens of each text, [n, time] → [n], at some places, each hidden alone."""
    time = ids.shape[1]
    hidden = torch.zeros(len(places), time, dtype=torch.bool)
    hidden[torch.arange(len(places)), torch.tensor(list(places))] = True
    rows = ids.repeat_interleave(len(places), 0)
    x = {
        "ids": rows,
        "hidden": hidden.repeat(len(ids), 1),
        "documents": torch.zeros_like(rows),
        "positions": torch.arange(time).expand_as(rows),
    }
    with torch.no_grad():
        found = torch.cat([_log_probs(model, part) for part in chunks(x)])
    return found.view(len(ids), len(places)).sum(1)


def _log_probs(model: Fills, part: Example) -> Tensor:
    """Of the one hidden token of each row, [n]."""
    x = {name: value for name, value in part.items() if name != "hidden"}
    logits = model.fill(x, part["hidden"]).log_softmax(-1)
    return logits.gather(1, x["ids"][part["hidden"]].unsqueeze(1)).squeeze(1)


def _masked_lm(using: Using, name: str) -> Using:
    """A masked language model by its name beside this model, or by its directory."""
    directory = Path(name) if "/" in name else using.directory.parent / name
    if not directory.is_dir():
        raise BadInput(
            f"masked_lm: {directory}: no such directory; name a trained masked_lm beside this model, or its directory"
        )
    masked = opened(directory)
    if not isinstance(masked.recipe, Fills) or masked.kind != "stream":
        raise BadInput(f"masked_lm: {masked.name} fills no gaps of texts; name a trained masked_lm")
    return masked
