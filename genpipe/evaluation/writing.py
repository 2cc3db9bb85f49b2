"""Targets that a model writes for sources, beside those of the data."""

from collections.abc import Sequence
from statistics import fmean, median_low

from genpipe.capabilities import Example
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.spelling import Ids, most_frequent, of_training, rows, units
from genpipe.evaluation.texts import Text, bleu, bleu_order, distinct, matches, rouge_l
from genpipe.sampling.decoding import write
from genpipe.sampling.draw import first, in_fixed_chunks, rows_of
from genpipe.sampling.text import marks_of

MOST = 1000  # pairs that are judged


def judge_writing(trial: Trial) -> dict[str, float]:
    """ROUGE-L, BLEU and exact match of what is written, likeliest token by token, for the first 1,000 sources, at most as long as the longest target.

    Beside them stand those of the beginning of the source, cut to the median length of training targets, and of the most frequent
    training target; distinct n-grams beside those of the targets.
    """
    targets = of_training(trial, "target")
    x = first_rows(trial)
    sources, real = (rows(x[field], x[f"{field}_lengths"]) for field in ("source", "target"))
    length, common = median_low(map(len, targets)), most_frequent(targets)
    right = [units(trial, text) for text in real]
    made = [units(trial, text, written=True) for text in written(trial, x, max(map(len, real)))]
    beside = {"": made}
    beside["_copy"] = [units(trial, text[:length]) for text in sources]
    beside["_majority"] = [units(trial, common)] * len(right)
    order, found = bleu_order(right), dict[str, float]()
    for suffix, texts in beside.items():
        found |= {f"{name}{suffix}": value for name, value in _compared(texts, right, order).items()}
    for n in (1, 2):
        found |= {f"distinct_{n}": distinct(made, n), f"distinct_{n}_real": distinct(right, n)}
    return found | {"bleu_order": order, "written_num_texts": len(right)}


def first_rows(trial: Trial) -> Example:
    """The rows that are judged."""
    number = sum(rows_of(x) for x in trial.data.split(trial.split))
    return first(trial.data, min(MOST, number), trial.split)


def written(trial: Trial, x: Example, longest: int, extractive: bool = False) -> list[Ids]:
    """What the model writes for rows, the likeliest token each time (a beam of 1, as archives/6933 and 7115 have it), `longest` tokens at most."""
    marks = marks_of(trial.data.facts, trial.kind)

    def greedy(n: int, given: Example) -> Example:
        return write(trial.recipe, n, given, marks, "greedy", longest, extractive=extractive)

    made = in_fixed_chunks(greedy, rows_of(x), trial.seed, {name: x[name] for name in trial.recipe.given})
    return rows(made["ids"], made["lengths"])


def _compared(made: Sequence[Text], right: Sequence[Text], order: int) -> dict[str, float]:
    pairs = list(zip(made, right, strict=True))
    return {
        "rouge_l": fmean(rouge_l(*pair) for pair in pairs),
        "bleu": bleu(made, right, order),
        "exact_match": fmean(matches(text, [real]) for text, real in pairs),
    }
