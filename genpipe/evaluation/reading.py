"""Answers to questions about passages."""

from collections.abc import Sequence
from statistics import median_low

from genpipe.capabilities import Example
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.spelling import Ids, most_frequent, of_training, rows, units
from genpipe.evaluation.texts import Text, answers
from genpipe.evaluation.writing import first_rows, written
from genpipe.sampling.decoding import reads_passages


def judge_reading(trial: Trial) -> dict[str, float]:
    """Exact match, F1 of characters and Final, their mean, of the answers to the first 1,000 questions, written as those of judge_writing.

    All are the best over the right answers of a question, without punctuation and spaces. Beside them stand those of a copy, what follows
    the longest part of the question in a passage, cut to the median length of training answers, and of the most frequent training answer.
    A model that votes is also measured with answers that must be parts of a passage.
    """
    known = of_training(trial, "answer")
    x = first_rows(trial)
    right = [
        [units(trial, text) for text in rows(ids, lengths) if text]
        for ids, lengths in zip(x["aliases"], x["alias_lengths"], strict=True)
    ]
    longest = max(1, int(x["alias_lengths"].max()) + 1)
    copied = copies(x, median_low(map(len, known)))

    def measured(texts: Sequence[Ids], is_written: bool, suffix: str = "") -> dict[str, float]:
        spelled: list[Text] = [units(trial, text, is_written) for text in texts]
        return {f"{name}{suffix}": value for name, value in answers(spelled, right).items()}

    made = written(trial, x, longest)
    found = measured(made, True) | measured(copied, False, "_copy")
    found |= measured([most_frequent(known)] * len(right), False, "_majority")
    if reads_passages(trial.recipe):
        parts = measured(written(trial, x, longest, extractive=True), True)
        found["final_extractive"] = parts["final"]
    unanswered = sum(not text for text in made) / len(made)
    return found | {"unanswered": unanswered, "written_num_texts": len(made)}


def copies(x: Example, length: int) -> list[Ids]:
    """What follows the longest part of each question that one of its passages has, `length` tokens at most."""
    questions = rows(x["question"], x["question_lengths"])
    passages = (rows(*row) for row in zip(x["passages"], x["passage_lengths"], strict=True))
    return [copy(question, own, length) for question, own in zip(questions, passages, strict=True)]


def copy(question: Ids, passages: Sequence[Ids], length: int) -> Ids:
    """The tokens behind the longest part of a question in a passage, of several the first; nothing where none is shared."""
    # ids as characters, so that parts are sought by the search of the standard library; surrogates are no hindrance to it
    asked, read = _as_text(question), [_as_text(passage) for passage in passages]
    for size in range(len(asked), 0, -1):
        for start in range(len(asked) - size + 1):
            for passage, text in zip(passages, read, strict=True):
                place = text.find(asked[start : start + size])
                if place >= 0 and place + size < len(text):
                    return passage[place + size : place + size + length]
    return []


def _as_text(ids: Ids) -> str:
    return "".join(map(chr, ids))
