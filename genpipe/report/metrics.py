"""What each number means: its name, its unit, which way is better, and what it stands beside. The one place for that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from genpipe.report.numerals import figure
from genpipe.report.plots import strip

Better = Literal["lower", "higher", "as real", ""]
DIRECTIONS: dict[Better, str] = {
    "lower": "↓ lower is better",
    "higher": "↑ higher is better",
    "as real": "≈ as in real data",
    "": "",
}


@dataclass(frozen=True)
class Metric:
    """How a metric is shown; `%` as unit stands for a share in [0, 1]."""

    label: str
    unit: str = ""
    better: Better = ""
    explanation: str = ""
    baselines: Mapping[str, str] = field(default_factory=dict)  # other metric -> what it is
    constants: Mapping[str, float] = field(default_factory=dict)  # what it is -> value


# In order of importance: the first that a recipe has is its key metric.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "Accuracy",
        "%",
        "higher",
        "Share of test examples whose most likely answer is right.",
        {"accuracy_majority": "always the most frequent class"},
    ),
    "bits_per_dim": Metric(
        "Bits per dimension",
        "bits a pixel",
        "lower",
        "Bits the model needs for a pixel of a test image: an upper bound, with pixels dequantised by uniform noise.",
        constants={"uniform distribution": 8.0},
    ),
    "frechet_classifier": Metric(
        "Fréchet distance",
        "in classifier features",
        "lower",
        "Distance between generated and real test images in the features of our own classifier. "
        "It is not the FID of the literature; compare it only with numbers of equal sample size.",
        {"frechet_real_vs_real": "real against real", "frechet_noise": "noise"},
    ),
    "cross_entropy": Metric(
        "Cross-entropy",
        "nats a character",
        "lower",
        "Surprise at the real lower line of a test couplet, given its upper line.",
        {
            "cross_entropy_shuffled": "shuffled upper lines",
            "cross_entropy_unigram": "character frequencies",
        },
    ),
    "tone_opposition": Metric(
        "Tone opposition",
        "%",
        "higher",
        "Share of even positions where the two lines have opposite tones (平 against 仄), as regulated verse asks.",
    ),
    "numeral_antithesis": Metric(
        "Numeral antithesis",
        "%",
        "higher",
        "Where the upper line has a numeral, how often the lower line answers it with a numeral.",
    ),
    "colour_antithesis": Metric(
        "Colour antithesis",
        "%",
        "higher",
        "Where the upper line has a colour, how often the lower line answers it with a colour.",
    ),
    "shared_character": Metric(
        "Shared characters",
        "%",
        "as real",
        "Share of couplets whose lower line uses a character of the upper line again.",
    ),
    "repeated_character": Metric(
        "Repeated characters",
        "%",
        "as real",
        "Share of lower lines that use a character twice.",
    ),
    "reconstruction_mse": Metric(
        "Reconstruction error",
        "mean squared, pixels in [0, 1]",
        "lower",
        "Distance between test images and what the decoder makes of their codes.",
    ),
    "latent_correlation": Metric(
        "Latent correlation ρ",
        "",
        "higher",
        "Correlation between a random code and the code that the encoder finds in the image made from it; "
        "1 means that the encoder inverts the generator.",
        constants={"unrelated codes": 0.0},
    ),
    "frechet_num_images": Metric(
        "Images compared", "", "", "Sample size of each side of the Fréchet distances."
    ),
    # curves
    "nll.loss": Metric("Negative log-likelihood", "nats"),
    "loss": Metric("Loss"),
    "correlation": Metric("Latent correlation ρ"),
    "score_gap": Metric("Critic score, real minus generated"),
}

# An unlisted metric NAME + suffix is shown beside NAME.
BASELINE_SUFFIXES = {
    "_real": "real",
    "_shuffled": "shuffled",
    "_unigram": "frequencies alone",
    "_mean_image": "always the mean image",
    "_other_image": "another image",
    "_noise": "noise",
}


@dataclass(frozen=True)
class Row:
    """A metric ready to be shown."""

    label: str
    value: str
    unit: str
    direction: str
    explanation: str
    baselines: tuple[tuple[str, str], ...]  # what it is, value
    strip: Markup | None  # where the value lies among its baselines


def explained(name: str) -> Metric:
    """The metric or curve column `update.name`; an unknown one keeps its key as its name."""
    return METRICS.get(name) or METRICS.get(name.rpartition(".")[2]) or Metric(name)


def rows(values: Mapping[str, float]) -> list[Row]:
    """Every metric in `values` once: as a row of its own, or beside the one it is a baseline of."""
    beside = {name: _baselines_of(name, values) for name in values}
    used = {other for baselines in beside.values() for other in baselines}
    order = [*(name for name in METRICS if name in values), *sorted(set(values) - set(METRICS))]
    return [_row(name, values, beside[name]) for name in order if name not in used]


def key_metric(shown: list[Row]) -> Row | None:
    """The one number of a recipe: the first."""
    return shown[0] if shown else None


def _baselines_of(name: str, values: Mapping[str, float]) -> dict[str, str]:
    """The metrics that are shown beside `name`, and what they are."""
    by_suffix = {name + suffix: label for suffix, label in BASELINE_SUFFIXES.items()}
    return {
        other: label for other, label in {**by_suffix, **explained(name).baselines}.items() if other in values
    }


def _row(name: str, values: Mapping[str, float], beside: Mapping[str, str]) -> Row:
    metric = explained(name)
    numbers = {label: values[other] for other, label in beside.items()} | dict(metric.constants)
    return Row(
        metric.label,
        figure(values[name], metric.unit),
        metric.unit,
        DIRECTIONS[metric.better],
        metric.explanation,
        tuple((label, figure(x, metric.unit)) for label, x in numbers.items()),
        strip(values[name], list(numbers.values()), reverse=metric.better == "lower"),
    )
