"""The gate: plain figures against rules, without files."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from genpipe.errors import BadInput, BadState
from genpipe.params.project import read_params
from genpipe.params.promotion import Rule
from genpipe.registry.gate import Judged, gate, metrics_in

PROJECT = Path(__file__).parent.parent
SAME = {"artifacts/datasets/digits": "aaa"}


def judged(name: str, yardstick: dict[str, str] = SAME, **metrics: float) -> Judged:
    return Judged(name, metrics, yardstick)


def rule(**values: object) -> Rule:
    return Rule.model_validate({"metric": "bits_per_dim", "direction": "minimise", **values})


def test_a_better_model_passes_and_a_worse_one_is_told_by_how_much() -> None:
    production = judged("v0.0.1", bits_per_dim=4.0)
    assert gate(judged("nice", bits_per_dim=3.5), production, [rule(min_gain=0.1)]).passed
    verdict = gate(judged("nice", bits_per_dim=3.95), production, [rule(min_gain=0.1)])
    assert not verdict.passed
    assert (
        verdict.describe()
        == "bits_per_dim is 3.95, v0.0.1 has 4: a gain of 0.05, must be at least 0.1 (missed by 0.05)"
    )


def test_a_metric_that_is_maximised_counts_the_other_way() -> None:
    rules = [rule(metric="accuracy", direction="maximise", min_gain=0.01, bound=0.9)]
    production = judged("v0.0.1", accuracy=0.95)
    assert gate(judged("classifier", accuracy=0.97), production, rules).passed
    assert not gate(judged("classifier", accuracy=0.95), production, rules).passed
    assert "must be at least 0.9 (missed by 0.02)" in gate(judged("c", accuracy=0.88), None, rules).describe()


def test_a_gain_of_exactly_the_bound_is_enough() -> None:
    """0.3 - 0.2 is 0.09999999999999998 in binary."""
    assert gate(
        judged("nice", bits_per_dim=0.2), judged("v0.0.1", bits_per_dim=0.3), [rule(min_gain=0.1)]
    ).passed
    assert gate(judged("nice", bits_per_dim=4.5), None, [rule(bound=4.5)]).passed


def test_a_negative_gain_lets_one_metric_be_a_little_worse() -> None:
    production = judged("v0.0.1", bits_per_dim=4.0)
    assert gate(judged("nice", bits_per_dim=4.1), production, [rule(min_gain=-0.2)]).passed
    assert not gate(judged("nice", bits_per_dim=4.3), production, [rule(min_gain=-0.2)]).passed


def test_every_rule_must_hold_and_those_that_fail_are_told() -> None:
    rules = [rule(bound=4.5), rule(metric="cross_entropy", bound=1.0)]
    verdict = gate(judged("nice", bits_per_dim=4.0, cross_entropy=2.0), None, rules)
    assert [check.passed for check in verdict.checks] == [True, False]
    assert verdict.describe().startswith("cross_entropy is 2, must be at most 1 (missed by 1)")
    assert "loss" not in verdict.describe()


def test_the_first_model_is_held_to_the_bounds_alone() -> None:
    rules = [rule(min_gain=10.0, bound=4.5)]
    assert gate(judged("nice", bits_per_dim=4.4), None, rules).passed
    assert not gate(judged("nice", bits_per_dim=4.6), None, rules).passed


def test_models_that_were_measured_by_other_things_are_not_compared() -> None:
    production = judged("v0.0.1", bits_per_dim=1.0, yardstick={"artifacts/datasets/digits": "bbb"})
    verdict = gate(judged("nice", bits_per_dim=4.0), production, [rule(min_gain=0.1, bound=4.5)])
    assert verdict.passed
    assert (
        "not compared with v0.0.1, measured by another state of artifacts/datasets/digits"
        in verdict.describe()
    )
    assert not gate(judged("nice", bits_per_dim=5.0), production, [rule(min_gain=0.1, bound=4.5)]).passed
    gone = judged("v0.0.1", bits_per_dim=1.0, yardstick={**SAME, "artifacts/models/judge": "ccc"})
    assert "artifacts/models/judge" in gate(judged("nice", bits_per_dim=4.0), gone, [rule(min_gain=0.1)]).note


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_never_passes(value: float) -> None:
    assert not gate(judged("nice", bits_per_dim=value), None, [rule(bound=4.5)]).passed
    assert not gate(judged("nice", bits_per_dim=value), None, [rule(min_gain=1)]).passed, (
        "nothing could beat it"
    )
    verdict = gate(
        judged("nice", bits_per_dim=value), judged("v0.0.1", bits_per_dim=4.0), [rule(min_gain=-1)]
    )
    assert verdict.describe() == f"bits_per_dim is {value}, must be a finite number"
    assert not verdict.passed


def test_a_model_without_a_finite_metric_that_is_in_production_can_be_replaced() -> None:
    production = judged("v0.0.1", bits_per_dim=-math.inf)
    assert gate(judged("nice", bits_per_dim=4.0), production, [rule(min_gain=0.1, bound=4.5)]).passed


def test_what_is_no_number_is_no_metric() -> None:
    assert metrics_in(b'{"loss": 1, "word": "low", "none": null, "flag": true}', "here") == {"loss": 1}
    assert metrics_in(None, "here") == {}
    for text in (b"[1, 2]", b"no json", b"\xff"):
        with pytest.raises(BadState, match=r"^here: not JSON with a number for each metric"):
            metrics_in(text, "here")


def test_an_unknown_metric_is_one_line_with_those_there_are() -> None:
    with pytest.raises(
        BadInput,
        match=r"^params.yaml: promotion: nice has no metric 'cross_entropy' \(has: bits_per_dim, frechet_classifier\)$",
    ):
        gate(
            judged("nice", bits_per_dim=1.0, frechet_classifier=2.0),
            None,
            [rule(metric="cross_entropy", bound=1.0)],
        )


def test_a_metric_that_production_was_not_measured_by_has_only_its_bound() -> None:
    assert gate(
        judged("nice", bits_per_dim=4.0), judged("v0.0.1", cross_entropy=1.0), [rule(min_gain=1.0, bound=4.5)]
    ).passed


@given(
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.floats(0.001, 1e3),
    st.sampled_from(["minimise", "maximise"]),
)
def test_of_two_models_at_most_one_may_replace_the_other(
    a: float, b: float, gain: float, direction: str
) -> None:
    """Else production would swing between them for ever."""
    metric = {"minimise": "bits_per_dim", "maximise": "accuracy"}[direction]
    rules = [rule(metric=metric, direction=direction, min_gain=gain)]
    first, second = judged("a", **{metric: a}), judged("b", **{metric: b})
    assert not (gate(first, second, rules).passed and gate(second, first, rules).passed)


def params_with(tmp_path: Path, promotion: object) -> Path:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({**params, "promotion": promotion}), encoding="utf-8"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("promotion", "complaint"),
    [
        (
            {"nicer": [{"metric": "bits_per_dim", "direction": "minimise", "bound": 1}]},
            "promotion.nicer: no recipe 'nicer'",
        ),
        ({"nice": []}, "promotion.nice: "),
        (
            {"nice": [{"metric": "bits_per_dim", "direction": "minimise"}]},
            "a rule without min_gain and bound asks for nothing",
        ),
        (
            {"nice": [{"metric": "bits_per_dim", "direction": "down", "bound": 1}]},
            "promotion.nice.0.direction: ",
        ),
        ({"nice": [{"metric": "../x", "direction": "minimise", "bound": 1}]}, "promotion.nice.0.metric: "),
        (
            {"nice": [{"metric": "bits_per_dim", "direction": "minimise", "bound": "low"}]},
            "promotion.nice.0.bound: ",
        ),
        (
            {"nice": [{"metric": "bits_per_dim", "direction": "minimise", "bond": 1}]},
            "promotion.nice.0.bond: ",
        ),
    ],
)
def test_a_wrong_rule_is_one_line_that_names_it(tmp_path: Path, promotion: object, complaint: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_params(params_with(tmp_path, promotion))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_our_own_rules_let_the_models_of_the_results_page_pass() -> None:
    rules = read_params(PROJECT).promotion
    assert set(rules) >= set(read_params(PROJECT).sets["quick"])
    measured = {
        "classifier": {"accuracy": 0.9797},
        "nice": {"bits_per_dim": 4.763, "frechet_classifier": 544},
        "ogan": {"frechet_classifier": 71, "latent_correlation": 0.81, "reconstruction_mse": 0.0283},
        "wgan_gp": {"frechet_classifier": 64},
        "aae": {"frechet_classifier": 79, "reconstruction_mse": 0.0258},
        "energy": {"frechet_classifier": 61},
        "glann": {"frechet_classifier": 37},
        "couplet": {"cross_entropy": 5.759, "tone_opposition": 0.964},
    }
    for name, metrics in measured.items():
        verdict = gate(judged(name, **metrics), None, rules[name])
        assert verdict.passed, verdict.describe()
        again = gate(judged(name, **metrics), judged("v0.0.1", **metrics), rules[name])
        assert not again.passed, f"{name}: a model that gains nothing replaces production"
