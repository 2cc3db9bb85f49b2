"""A language model under classes: its probabilities, its conditions, and what judges say of it, beside independent computations."""

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genpipe.assembly import build
from genpipe.errors import BadInput
from genpipe.evaluation.conditions import agreement, judge_conditions
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.ngrams import Bigrams, NaiveBayes
from genpipe.models.conditional_lm import ConditionalLM
from genpipe.sampling.decoding import write
from genpipe.sampling.draw import conditions
from genpipe.sampling.text import Speller, marks_of
from genpipe.using.model import Using, conditions_of
from tests import tiny

START, END, PAD = 5, 6, 4
FACTS = {"num_tokens": 9, "start": START, "end": END, "pad": PAD, "sep": 7, "mask": 8, "max_length": 3}
NAMES = {"form": ["2x1", "3x1"], "dynasty": ["song", "tang", "yuan"]}


def model(moved: bool = True, **network: Any) -> ConditionalLM:
    """In double precision; `moved` changes the maps of the conditions, which start at zero."""
    small = {"width": 8, "num_blocks": 2, "num_heads": 2, "condition_dim": 4, **network}
    made = build("conditional_lm", small, {**FACTS, "conditions": NAMES}, 0).double().eval()
    assert isinstance(made, ConditionalLM)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * moved * torch.randn_like(parameter))
    return made


def x(*texts: list[int], form: int = 0, dynasty: int = 0) -> dict[str, Tensor]:
    longest = max(map(len, texts))
    n = len(texts)
    ids = torch.tensor([text + [PAD] * (longest - len(text)) for text in texts], dtype=torch.int64).reshape(
        n, longest
    )
    lengths = torch.tensor([len(text) for text in texts])
    return {
        "ids": ids,
        "lengths": lengths,
        "form": torch.full((n,), form),
        "dynasty": torch.full((n,), dynasty),
    }


def log_prob(model: Any, texts: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.log_prob(texts)


def test_the_probabilities_of_all_texts_are_one_together() -> None:
    """Of at most three tokens: the model ends a text of three for certain. Whatever is written, padding and marks included."""
    made, others = model(), [i for i in range(9) if i != END]
    for classes in ({"form": 0, "dynasty": 0}, {"form": 1, "dynasty": 2}):
        total = 0.0
        for size in range(4):
            texts = [list(text) for text in itertools.product(others, repeat=size)]
            total += float(log_prob(made, x(*texts, **classes)).exp().sum())
        assert total == pytest.approx(1, abs=1e-12)


def test_reading_token_by_token_gives_the_probability_of_the_whole() -> None:
    made = model(key_size=6, talking_heads="both", embedding_dim=4, bottleneck=2, pre_norm=False)
    for text in ([], [1], [2, 3], [1, 2, 3]):
        one = x(text, form=1, dynasty=2)
        state, newest, total = made.begin(one, 1), torch.tensor([START]), 0.0
        for token in [*text, END]:
            logits, state = made.next(newest, state)
            total += float(logits.detach().log_softmax(-1)[0, token])
            newest = torch.tensor([token])
        assert total == pytest.approx(float(log_prob(made, one)), abs=1e-12)


def test_the_loss_is_the_mean_over_tokens_and_ends() -> None:
    made, batch = model(), x([1, 2], [3], [])
    loss = made.cross_entropy(batch)
    assert loss.weight is not None
    assert float(loss.weight) == 6  # three tokens and three ends
    assert float(loss.value.detach()) == pytest.approx(-float(log_prob(made, batch).sum()) / 6)
    changed = {**batch, "ids": batch["ids"].masked_fill(batch["ids"] == PAD, 1)}
    assert torch.equal(made.cross_entropy(changed).value, loss.value)


def test_a_cut_text_does_not_pay_for_its_end() -> None:
    """A text of `max_length` tokens ends for certain, so its end costs nothing and has no gradient."""
    made, batch = model(), x([1, 2, 3])
    nats, _, _ = made._compared(batch, made.condition(batch))
    assert float(nats[-1].detach()) == 0
    assert all((nats[:-1] > 0).tolist())


def test_at_the_start_classes_change_nothing_and_their_maps_have_gradients() -> None:
    made = model(moved=False)
    first, second = x([1, 2], form=0, dynasty=0), x([1, 2], form=1, dynasty=2)
    assert torch.equal(log_prob(made, first), log_prob(made, second))
    made.cross_entropy(second).value.backward()
    maps = {name: p for name, p in made.named_parameters() if "scale" in name or "shift" in name}
    assert len(maps) == 2 * (
        1 + 2 * 2 + 1 + 1
    )  # of the embeddings, of two blocks, after them, and before the logits
    for name, parameter in maps.items():
        assert parameter.grad is not None
        assert float(parameter.grad.norm()) > 0, name
    assert all(float(own.weight.grad.abs().sum()) == 0 for own in made.classes.values())


def test_each_condition_counts_and_they_add_up() -> None:
    made = model()
    log_probs = {
        (f, d): float(log_prob(made, x([1, 2], form=f, dynasty=d))) for f in range(2) for d in range(3)
    }
    assert len({round(value, 9) for value in log_probs.values()}) == 6
    vectors = made.condition(x([1], [1], form=1, dynasty=2))
    expected = made.classes["form"].weight[1] + made.classes["dynasty"].weight[2]
    assert torch.equal(vectors, expected.expand(2, -1))


def test_no_text_is_longer_than_those_of_the_data() -> None:
    made = model()
    given = {name: value.expand(50) for name, value in x([1]).items() if name in NAMES}
    torch.manual_seed(0)
    ids = write(made, 50, given, marks_of(FACTS, "tagged"), max_tokens=20, temperature=3.0)
    assert int(ids["lengths"].max()) == 3
    with pytest.raises(BadInput, match="a text of 4 tokens, and the model knows texts of up to 3"):
        log_prob(made, x([1, 2, 3, 1]))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (
            {"form": torch.tensor([2]), "dynasty": torch.tensor([0])},
            r"form: the classes of this model are 0 to 1, not 2",
        ),
        (
            {"form": torch.tensor([0]), "dynasty": torch.tensor([-1])},
            r"dynasty: the classes of this model are 0 to 2, not -1",
        ),
        ({"form": torch.tensor([0])}, "the condition 'dynasty' is missing; it takes: form, dynasty"),
    ],
)
def test_classes_that_there_are_not_are_refused_in_one_line(given: dict[str, Tensor], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        model().begin(given, 1)


def test_data_without_classes_and_too_few_positions_are_refused() -> None:
    with pytest.raises(BadInput, match="the data has no classes to write under"):
        build("conditional_lm", {}, FACTS, 0)
    with pytest.raises(BadInput, match="num_positions: 3 are less than the 4"):
        model(num_positions=3)
    assert build("conditional_lm", {}, {**FACTS, "num_classes": 2}, 0).given == ("labels",)


def test_classes_are_given_by_name() -> None:
    using = Using(model(), "tagged", {**FACTS, "conditions": NAMES}, None, Path())
    found = conditions_of(using, {"form": "3x1", "dynasty": ["tang", "song"]})
    assert {name: value.tolist() for name, value in found.items()} == {"form": [1], "dynasty": [1, 0]}
    with pytest.raises(BadInput, match="dynasty: no class 'ming'; the classes are: song, tang, yuan"):
        conditions_of(using, {"dynasty": "ming"})


def test_a_model_follows_two_conditions_at_once_after_training(tmp_path: Path) -> None:
    """Of the tiny data: whether the first character is a late one, and whether the text is long."""
    fitted = tiny.trainer_of(
        "conditional_lm",
        tiny.data_for("conditional_lm", tmp_path),
        tmp_path / "run",
        steps=150,
        checkpoint_every=150,
    )
    fitted.fit()
    recipe = fitted.recipe.eval()
    wanted = list(itertools.product((0, 1), (0, 1))) * 25
    given = {"first": torch.tensor([a for a, _ in wanted]), "long": torch.tensor([b for _, b in wanted])}
    torch.manual_seed(0)
    made = write(recipe, 100, given, marks_of(fitted.data.facts, "tagged"), max_tokens=8)
    is_late = made["ids"][:, 0] > 6
    is_long = made["lengths"] > 4
    right = (is_late == given["first"].bool()) & (is_long == given["long"].bool())
    assert right.double().mean() > 0.9


# judges


def test_bigrams_are_those_of_a_computation_by_hand() -> None:
    train, test = [np.array([1, 2]), np.array([1, 1])], [np.array([1, 3])]
    found = Bigrams(train, 9, START, END).bits(test)
    counts = Counter([1, 2, END, 1, 1, END])
    one = {token: (counts[token] + 1) / (6 + 9) for token in range(9)}
    pairs = Counter([(START, 1), (1, 2), (2, END), (START, 1), (1, 1), (1, END)])

    def two(h: int, w: int) -> float:
        seen = {pair: n for pair, n in pairs.items() if pair[0] == h}
        if not seen:
            return one[w]
        return (pairs[h, w] + len(seen) * one[w]) / (sum(seen.values()) + len(seen))

    assert found["unigram"] == pytest.approx(-sum(math.log2(one[w]) for w in (1, 3, END)) / 3)
    expected = -sum(math.log2(two(h, w)) for h, w in ((START, 1), (1, 3), (3, END))) / 3
    assert found["bigram"] == pytest.approx(expected)
    for h in range(9):
        assert sum(two(h, w) for w in range(9)) == pytest.approx(1)


def test_naive_bayes_is_bayes_rule_over_bags_of_tokens() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 9, rng.integers(1, 6)) for _ in range(40)]
    labels = rng.integers(0, 3, 40)
    bayes = NaiveBayes(texts, labels, 3, 9)
    for text in texts[:10]:
        scores = []
        for label in range(3):
            own = Counter(
                t for other, y in zip(texts, labels, strict=True) if y == label for t in other.tolist()
            )
            prior = (int((labels == label).sum()) + 1) / 43
            scores.append(prior * math.prod((own[t] + 1) / (own.total() + 9) for t in text.tolist()))
        assert bayes.classify([text]).tolist() == [int(np.argmax(scores))]


def trial_of(
    recipe: Any, data: Any, samples: Path, speller: Speller | None = None, split: str = "test"
) -> Trial:
    unused: Any = None
    return Trial(recipe, data, "tagged", split, samples, unused, speller, 0)


def test_the_judge_agrees_with_counts_of_its_own(tmp_path: Path) -> None:
    data = tiny.data_for("conditional_lm", tmp_path)
    recipe: Any = tiny.recipe_of("conditional_lm", data).eval()
    with torch.no_grad():
        for parameter in recipe.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    given = conditions(recipe, data, 24)
    made = write(recipe, 24, given, marks_of(data.facts, "tagged"), max_tokens=8)
    np.save(tmp_path / "texts.npy", made["ids"].numpy())
    metrics = judge_conditions(trial_of(recipe, data, tmp_path))
    (test,) = data.split("test")
    number = int(test["lengths"].sum()) + len(test["lengths"])
    nats = -float(log_prob(recipe, test).sum())
    assert metrics["bits_per_character"] == pytest.approx(nats / number / math.log(2), rel=1e-5)
    gaps = [
        -float(log_prob(recipe, {**test, name: 1 - test[name]}).sum()) - nats for name in ("first", "long")
    ]
    assert metrics["condition_gap"] == pytest.approx(sum(gaps) / 2 / number, rel=1e-3, abs=1e-6)
    assert 0 <= metrics["all_conditions"] <= metrics["condition_accuracy"] <= 1
    assert metrics["condition_accuracy_majority"] >= 0.5
    other = judge_conditions(trial_of(recipe, data, tmp_path, split="train"))
    assert {*other} == {
        "bits_per_character",
        "bits_per_character_unigram",
        "bits_per_character_bigram",
        "condition_gap",
    }


def test_forms_are_those_of_the_text_and_a_wrong_class_counts_as_wrong(tmp_path: Path) -> None:
    data = tiny.data_for("conditional_lm", tmp_path)
    recipe: Any = tiny.recipe_of("conditional_lm", data)
    speller = Speller(["<unk>", "，", "。", "天", "地"], is_spaced=False)
    line = {"2x2": [3, 4, 1, 4, 0, 2], "3x1": [3, 3, 3, 2], "none": [3, 1, 4, 4, 2]}
    drawn = [np.array(line[name]) for name in ("2x2", "3x1", "none", "2x2")]
    asked = {"first": np.array([0, 1, 0, 1])}
    found = agreement(
        trial_of(recipe, data, tmp_path, speller), {"first": ["2x2", "3x1"]}, drawn, drawn, asked
    )
    assert found == {"form_accuracy": 0.5, "form_accuracy_real": 0.5, "form_accuracy_majority": 0.5}


def test_a_model_without_classes_is_not_measured(tmp_path: Path) -> None:
    data = tiny.data_for("conditional_lm", tmp_path)
    recipe: Any = tiny.recipe_of("conditional_lm", data)
    recipe.given = ()
    with pytest.raises(NotMeasured, match="takes no classes"):
        judge_conditions(trial_of(recipe, data, tmp_path))
