"""Answers to questions about passages."""

from torch import Tensor

from genpipe.evaluation.judge import Trial
from genpipe.sampling.decoding import write
from genpipe.sampling.draw import in_fixed_chunks, rows_of
from genpipe.sampling.text import marks_of


def judge_reading(trial: Trial) -> dict[str, float]:
    """Share of questions whose greedy answer is one of the right ones, token for token."""
    marks, right, number = marks_of(trial.data.facts, trial.kind), 0, 0
    for x in trial.data.split(trial.split):
        longest = max(1, int(x["alias_lengths"].max()) + 1)
        greedy = lambda n, part, time=longest: write(trial.recipe, n, part, marks, "greedy", time)
        given = {name: x[name] for name in trial.recipe.given}
        made = in_fixed_chunks(greedy, rows_of(x), trial.seed, given)
        for row in range(rows_of(x)):
            answer = made["ids"][row, : made["lengths"][row]].tolist()
            right += answer in _texts(x["aliases"][row], x["alias_lengths"][row])
            number += 1
    return {"exact_match": right / number}


def _texts(ids: Tensor, lengths: Tensor) -> list[list[int]]:
    """The texts of padded rows, [k, time], without those of length 0."""
    return [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True) if length]
