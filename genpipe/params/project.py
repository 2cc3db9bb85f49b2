"""The whole of params.yaml, read and checked."""

import math
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from genpipe import yaml_text
from genpipe.errors import BadInput, BadState
from genpipe.numerics import DEFAULT, Numerics
from genpipe.params.blocks import Block, Free, Name, RelativePath
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus, Dataset
from genpipe.params.encodings import Encoding
from genpipe.params.features import Features
from genpipe.params.lexicons import Lexicon
from genpipe.params.promotion import Rule
from genpipe.params.training import Training
from genpipe.params.word_taggers import TAGGED


class Sampling(Block):
    """What `genpipe sample` draws or shows; a change here retrains nothing."""

    num: int = Field(ge=1, description="examples to draw or rows to show")
    how: dict[str, Free] = Field(
        default_factory=dict, description="options of the model's sample, or of decoding"
    )


# none, or models/NAME; written out in each recipe, since dvc.yaml has no defaults
OtherModel = Annotated[str, Field(pattern=r"^(none|models/[^/]+)$")]

# that, or a checkpoint of others among the data sets
Start = Annotated[str, Field(pattern=r"^(none|(models|datasets)/[^/]+)$")]


# that, or a feature network among the data sets
Yardstick = Annotated[str, Field(pattern=r"^(none|(models|datasets)/[^/]+)$")]


class RecipeParams(Block):
    """One model to train, sample and judge."""

    model: Name
    data: RelativePath = Field(description="what it trains on, below artifacts/")
    start: Start = Field(
        description="the trained recipe, or the checkpoint, whose weights it begins with, where they fit"
    )
    train: Training
    sample: Sampling
    judge: Yardstick = Field(
        description="the trained recipe, or the feature network, in whose features its samples are compared"
    )
    validator: OtherModel = Field(
        "none", description="the same for samples of its checkpoints, where train.best is a metric of them"
    )


class Params(Block):
    """The whole of params.yaml."""

    seed: int = Field(1, ge=0, lt=2**63)
    numerics: Numerics = Field(
        DEFAULT,
        description="native: the fastest kernels of this kind of processor; portable: the same bytes on every x86-64 processor with AVX2",
    )
    cluster: Cluster = Field(default_factory=lambda: Cluster.model_validate({}))
    datasets: dict[Name, Dataset]
    corpora: dict[Name, Corpus] = Field(default_factory=dict)
    encodings: dict[Name, Encoding] = Field(default_factory=dict)
    features: dict[Name, Features] = Field(default_factory=dict)
    lexicons: dict[Name, Lexicon] = Field(default_factory=dict)
    recipes: dict[Name, RecipeParams] = Field(default_factory=dict)
    sets: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="recipes that a flow brings up to date together"
    )
    promotion: dict[Name, Annotated[tuple[Rule, ...], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        named_data = (("corpora", self.corpora), ("encodings", self.encodings), ("lexicons", self.lexicons))
        for block, items in named_data:
            for name, item in items.items():
                if item.dataset not in self.datasets:
                    raise ValueError(
                        f"{block}.{name}.dataset: no data set {item.dataset!r} (has: {', '.join(self.datasets)})"
                    )
        for name, encoding in self.encodings.items():
            if encoding.corpus not in self.corpora:
                raise ValueError(
                    f"encodings.{name}.corpus: no corpus {encoding.corpus!r} (has: {', '.join(self.corpora)})"
                )
        for name, lexicon in self.lexicons.items():
            if lexicon.other is not None and lexicon.other not in self.lexicons:
                has = ", ".join(f"lexicons/{other}" for other in self.lexicons)
                raise ValueError(f"lexicons.{name}.beside: no {lexicon.beside!r} (has: none, {has})")
        for name, block in self.features.items():
            named = (("encoding", block.encoding, self.encodings), ("dataset", block.dataset, self.datasets))
            for key, other, items in (*named, ("model", block.model.removeprefix("models/"), self.recipes)):
                if other not in items:
                    raise ValueError(f"features.{name}.{key}: no {other!r} (has: {', '.join(items)})")
        for name, recipe in self.recipes.items():
            others = {"start": recipe.start, "judge": recipe.judge, "validator": recipe.validator}
            for key, other in others.items():
                kind = "checkpoint" if key == "start" else "feature_network"
                networks = {f"datasets/{n}" for n, d in self.datasets.items() if d.kind == kind}
                if other not in {"none", *networks} and other.removeprefix("models/") not in self.recipes:
                    has = ", ".join([*(f"models/{recipe}" for recipe in self.recipes), *sorted(networks)])
                    raise ValueError(f"recipes.{name}.{key}: no recipe of {other!r} (has: none, {has})")
        for name, recipes in self.sets.items():
            for recipe in recipes:
                if recipe not in self.recipes:
                    raise ValueError(f"sets.{name}: no recipe {recipe!r} (has: {', '.join(self.recipes)})")
        for name in self.promotion:
            if name not in self.recipes:
                raise ValueError(f"promotion.{name}: no recipe {name!r} (has: {', '.join(self.recipes)})")
        return self

    @model_validator(mode="after")
    def _executors_are_of_stages(self) -> Self:
        blocks = {
            "count": self.corpora,
            "encode": self.encodings,
            "discover": self.lexicons,
            "train": self.recipes,
        }
        for stage in self.cluster.executors:
            group, _, name = stage.partition("@")
            if name and name not in blocks[group]:
                raise ValueError(
                    f"cluster.executors: no stage {stage!r} (of {group} there is: {', '.join(blocks[group])})"
                )
        return self

    @model_validator(mode="after")
    def _no_lexicon_stands_beside_itself(self) -> Self:
        needs = {name: [other] for name, block in self.lexicons.items() if (other := block.other)}
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]
            raise ValueError(
                f"lexicons.{circle[0]}.beside: it would need itself: {' ← '.join(circle)}; compare one way only"
            ) from None
        return self

    @model_validator(mode="after")
    def _no_training_needs_itself(self) -> Self:
        needs = {
            name: [
                other.removeprefix("models/")
                for other in (recipe.start, recipe.validator, self._features_of(recipe.data))
                if other.startswith("models/")
            ]
            for name, recipe in self.recipes.items()
        }
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]  # each is followed by one that it needs
            raise ValueError(
                f"recipes.{circle[0]}: its training would need itself, by start, validator or features: {' ← '.join(circle)}"
            ) from None
        return self

    def _features_of(self, data: str) -> str:
        """The model whose features are in the data of a recipe, as models/NAME, or none."""
        folder, _, name = data.partition("/")
        return self.features[name].model if folder == "features" and name in self.features else "none"

    @model_validator(mode="after")
    def _validators_validate(self) -> Self:
        for name, recipe in self.recipes.items():
            best = recipe.train.best
            if recipe.validator != "none" and not (best and best.validation):
                raise ValueError(
                    f"recipes.{name}.validator: {recipe.validator} has no effect where train.best.metric is no "
                    "validation.METRIC; set validator: none, or name one"
                )
        return self

    @model_validator(mode="after")
    def _files_of_a_corpus_are_its_data_sets(self) -> Self:
        texts = [(f"corpora.{name}", corpus.files) for name, corpus in self.corpora.items()]
        texts += [(f"lexicons.{name}", lexicon.files) for name, lexicon in self.lexicons.items()]
        for name, files in texts:
            for file in files:
                if Path(file).is_absolute() or ".." in Path(file).parts:
                    raise ValueError(f"{name}: a file is named below its data set, not {file!r}")
        return self

    @model_validator(mode="after")
    def _words_of_a_tagger_are_counted_only(self) -> Self:
        for name, encoding in self.encodings.items():
            corpus = self.corpora.get(encoding.corpus)
            if corpus and corpus.tokenizer == TAGGED:
                raise ValueError(
                    f"encodings.{name}.corpus: {encoding.corpus} has the tokenizer {TAGGED}, by which text is counted and not encoded; "
                    "name another corpus"
                )
        return self

    def named(
        self,
        block: Literal["datasets", "corpora", "encodings", "features", "lexicons", "recipes", "sets"],
        name: str,
    ) -> Any:
        """The item of a block, or the error that lists what there is."""
        items = getattr(self, block)
        if name not in items:
            raise BadInput(f"no {name!r} in {block} of params.yaml; it has: {', '.join(items) or 'nothing'}")
        return items[name]

    def stages_of_set(self, name: str | None) -> list[str]:
        """The stages that judge the recipes of a set; none without a set. Raises BadInput where there is no such set."""
        return [f"evaluate@{recipe}" for recipe in self.named("sets", name)] if name else []


def read_params(root: Path) -> Params:
    """Read and validate params.yaml of the project at `root`."""
    path = root / "params.yaml"
    try:
        return check_params(yaml_text.read(path))
    except (FileNotFoundError, IsADirectoryError):
        raise BadState(f"{path}: no such file; run genpipe from the root of a project") from None


def check_params(values: Any) -> Params:
    """What a params.yaml says, or the error that names the path of what is wrong in it."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = errors[0]
        where = ".".join(map(str, _written(values, first["loc"])))
        more = f" (and {others} more)" if (others := sum(not _holds(e, first) for e in errors[1:])) else ""
        raise BadInput(f"params.yaml: {where + ': ' if where else ''}{described(first)}{more}") from None
    if (place := _not_finite(values)) is not None:
        raise BadInput(f"params.yaml: {'.'.join(map(str, place))}: Input should be a finite number; give one")
    return params


def _not_finite(values: Any) -> tuple[str | int, ...] | None:
    """The place of a number that is infinite or none: YAML has both, and options of a model may be of any type."""
    if isinstance(values, float):
        return None if math.isfinite(values) else ()
    pairs = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in pairs:
        if (place := _not_finite(value)) is not None:
            return (key, *place)
    return None


def _written(values: Any, place: tuple[str | int, ...]) -> Iterator[str | int]:
    """The keys of a place that params.yaml has: pydantic also names the kind of a block between them."""
    for number, key in enumerate(place, 1):
        is_there = key in values if isinstance(values, dict) else isinstance(values, list)
        if is_there:
            values = values[key]
        if is_there or number == len(place):
            yield key


def _holds(error: ErrorDetails, other: ErrorDetails) -> bool:
    """Whether an error is about what holds the place of another: a list with a wrong item is also called too short."""
    place, inner = error["loc"], other["loc"]
    return len(place) < len(inner) and place == inner[: len(place)]


def described(error: ErrorDetails) -> str:
    """What pydantic says of a value, and the value itself where that leaves it out and it is short."""
    context = error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        key, known = context["discriminator"].strip("'"), context["expected_tags"].replace("'", "")
        return f"{key}: there is no {context['tag']!r}, only: {known}"
    text, came = error["msg"].removeprefix("Value error, "), error["input"]
    is_complete = error["type"] in ("value_error", "extra_forbidden") or not isinstance(
        came, str | int | float
    )
    return text if is_complete else f"{text}, not {came!r:.60}"
