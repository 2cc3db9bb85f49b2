"""Token ids as the units that texts are compared by."""

from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor

from genpipe.evaluation.judge import Trial
from genpipe.evaluation.texts import Text, normalised
from genpipe.sampling.text import UNKNOWN

Ids = Sequence[int]
NO_TOKEN = "�"  # what a written unknown token is: it is no right one, whatever token stood in the right text


def rows(ids: Tensor, lengths: Tensor) -> list[Ids]:
    """The texts of padded rows, [n, time]."""
    return [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]


def of_training(trial: Trial, field: str) -> list[Ids]:
    """The texts of a field of all training rows."""
    parts = trial.data.split("train")
    return [text for x in parts for text in rows(x[field], x[f"{field}_lengths"])]


def units(trial: Trial, text: Ids, written: bool = False) -> Text:
    """The characters of a text, without punctuation and spaces, or its ids where the data has no vocabulary."""
    if trial.speller is None:
        return [-1 if written and token == UNKNOWN else token for token in text]
    if not written:
        return normalised(trial.speller.line(text))
    spelled = (NO_TOKEN if token == UNKNOWN else trial.speller.line([token]) for token in text)
    return normalised(trial.speller.separator.join(spelled))


def most_frequent(texts: Iterable[Ids]) -> Ids:
    """The text that is there most often; of several the one that is there first."""
    return max(Counter(map(tuple, texts)).items(), key=lambda item: item[1])[0]
