"""Whether captions that a model writes are those of their images, and whether it looks at these at all."""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Example, LogProb
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.spelling import NO_TOKEN, Ids, most_frequent, rows
from genpipe.evaluation.texts import Text, f1, matches
from genpipe.sampling.decoding import write
from genpipe.sampling.draw import chunks, in_fixed_chunks, whole
from genpipe.sampling.text import UNKNOWN, marks_of


def judge_captions(trial: Trial) -> dict[str, float]:
    """F1 of words and exact match of the likeliest captions, and what the vectors are worth, in nats a token.

    Beside them stand the most frequent caption of the training rows, the one that shares most words with the others (`_constant`), the
    caption of the training row whose vector is nearest, and what the same model writes under the vector of another row (`_shuffled`)
    and under a vector of zeros (`_zero`). An unknown word is never right.
    """
    x, known = whole(trial.data, trial.split), whole(trial.data, "train")
    real, train = (rows(y["ids"], y["lengths"]) for y in (x, known))
    vectors = {"": x["vector"], "_shuffled": of_others(x["vector"]), "_zero": torch.zeros_like(x["vector"])}
    longest = int(max(x["lengths"].max(), known["lengths"].max()))
    right = [[words(trial, text)] for text in real]
    made = {
        name: [words(trial, text, written=True) for text in captions(trial, vector, longest)]
        for name, vector in vectors.items()
    }
    made["_majority"] = [words(trial, most_frequent(train), written=True)] * len(real)
    made["_constant"] = [words(trial, train[most_common(train)], written=True)] * len(real)
    made["_nearest"] = [
        words(trial, train[i], written=True) for i in nearest(x["vector"], known["vector"]).tolist()
    ]
    found: dict[str, float] = {}
    for name, texts in made.items():
        pairs = list(zip(texts, right, strict=True))
        found[f"caption_f1{name}"] = fmean(f1(text, own) for text, own in pairs)
        found[f"caption_match{name}"] = fmean(matches(text, own) for text, own in pairs)
    number = int(x["lengths"].sum()) + len(real)  # tokens and end marks
    nats = {name: nats_of(trial, {**x, "vector": vector}) / number for name, vector in vectors.items()}
    found |= {f"nats_per_token{name}": value for name, value in nats.items() if name}
    found["vector_gap"] = nats["_shuffled"] - nats[""]
    found["distinct_captions"] = len({*map(tuple, made[""])}) / len(real)
    found["distinct_captions_real"] = len({tuple(own[0]) for own in right}) / len(real)
    return found | {"caption_num_texts": len(real)}


def captions(trial: Trial, vectors: Tensor, longest: int) -> list[Ids]:
    """What the model writes under each vector, the likeliest token each time, `longest` tokens at most."""
    marks = marks_of(trial.data.facts, trial.kind)

    def greedy(n: int, given: Example) -> Example:
        return write(trial.recipe, n, given, marks, "greedy", longest)

    made = in_fixed_chunks(greedy, len(vectors), trial.seed, {"vector": vectors})["ids"].tolist()
    return [[token for token in row if token != marks.pad] for row in made]


def nats_of(trial: Trial, x: Example) -> float:
    """Nats of all texts under their vectors."""
    assert isinstance(trial.recipe, LogProb)
    with torch.no_grad():
        return -sum(float(trial.recipe.log_prob(part).double().sum()) for part in chunks(x))


def of_others(vectors: Tensor) -> Tensor:
    """Each row has the vector of the row before it; the first has that of the last. Rows lie in the order of hashes."""
    return vectors.roll(1, 0)


def nearest(vectors: Tensor, known: Tensor) -> Tensor:
    """The number of the nearest of some known vectors, [n, dim] → int64 [n]: of equal ones the first. As the model sees them: without their scale."""
    one, other = (F.layer_norm(x.double(), x.shape[1:]) for x in (vectors, known))
    return (other.square().sum(1) - 2 * one @ other.T).argmin(1)


def most_common(texts: Sequence[Ids]) -> int:
    """The number of the text with the highest mean F1 of words, each counted once, beside all of them; of equal ones the first."""
    known = {
        token: number for number, token in enumerate(sorted({token for text in texts for token in text}))
    }
    has = torch.zeros(len(texts), len(known))
    for row, text in zip(has, texts, strict=True):
        row[[known[token] for token in text]] = 1
    sizes = has.sum(1)
    # whole numbers below 2²⁴, so exact in any order of the sum
    means = [
        (2 * part @ has.T / (part.sum(1, keepdim=True) + sizes)).double().mean(1) for part in has.split(500)
    ]
    return int(torch.cat(means).argmax())


def words(trial: Trial, text: Ids, written: bool = False) -> Text:
    """The words of a text, or its ids where the data has no vocabulary. A written unknown word is no right one, whatever word stood there."""
    unknown: Sequence[object] = [NO_TOKEN] if written else ["□"]
    return [
        unknown[0] if token == UNKNOWN else trial.speller.line([token]) if trial.speller else token
        for token in text
    ]
