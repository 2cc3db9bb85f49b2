"""params.yaml as frozen types: an unknown key, a wrong type or an unsafe name is an error that names its path."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from genpipe.errors import BadInput


def _safe_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ValueError(f"a name is made of a-z, 0-9 and _, not {name!r}")
    return name


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"wanted a regular expression, {pattern!r} is none: {error}") from None
    return pattern


def _relative_path(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"a path stays inside the project and is relative, not {path!r}")
    return path


Name = Annotated[str, AfterValidator(_safe_name)]
RelativePath = Annotated[str, AfterValidator(_relative_path)]
Pattern = Annotated[str, AfterValidator(_pattern)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]


class Block(BaseModel):
    """A block of params.yaml: immutable, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cluster(Block):
    """Where work runs. No artifact depends on it."""

    workers: int = Field(2, ge=0, description="worker processes of a stage; 0 runs in process, without Ray")
    max_parallel: int = Field(1, ge=1, description="stages that a flow runs at once")
    gpus_per_worker: float = Field(0, ge=0)


class Dataset(Block):
    """Raw data made into plain files under artifacts/datasets/NAME."""

    kind: Literal["digits", "image_folder", "text", "poems", "couplets"]
    source: RelativePath
    test_share: float = Field(0.1, gt=0, lt=1, description="image_folder, couplets: share kept for testing")
    image_size: int = Field(28, ge=8, description="image_folder: pixels a side")


class Corpus(Block):
    """Text that is counted, given a vocabulary, and encoded."""

    dataset: Name
    files: tuple[str, ...] = Field(description="files of the data set to count")
    field: str = "text"
    tokenizer: Literal["jieba", "character", "word"] = "jieba"
    shard_bytes: int = Field(1 << 20, ge=1)
    min_count: int = Field(1, ge=1, description="rarer tokens are <unk>")
    max_size: int | None = Field(None, ge=1, description="size limit of the vocabulary, <unk> included")
    encode: tuple[str, ...] = Field(description="files of the data set to encode")


class Solver(Block):
    """How one update is minimised."""

    optimiser: Literal["adam", "rmsprop", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    betas: tuple[DecayRate, DecayRate] = (0.9, 0.999)
    alpha: DecayRate = 0.99
    momentum: DecayRate = 0.0
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    decay: Literal["constant", "linear", "cosine"] = "constant"
    lr_multipliers: dict[Pattern, float] = Field(
        default_factory=dict, description="regular expression on names -> factor"
    )
    clip_norm: float | None = Field(None, gt=0)


class RecipeParams(Block):
    """One model to train, sample and judge."""

    model: Name
    dataset: Name
    data: RelativePath = Field(description="what it trains on, below artifacts/")
    judge: Name = Field(description="recipe whose features judge the samples; itself where none does")
    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    logical_workers: int = Field(4, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    log_every: int = Field(20, ge=1)
    network: dict[str, Any] = Field(default_factory=dict, description="arguments of the model's constructor")
    solvers: dict[str, Solver]
    num_samples: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _batch_divides(self) -> "RecipeParams":
        if self.batch_size % self.logical_workers:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of logical_workers {self.logical_workers}; "
                f"take {self.batch_size // self.logical_workers * self.logical_workers or self.logical_workers}"
            )
        return self


class Params(Block):
    """The whole of params.yaml."""

    seed: int = Field(1, ge=0, lt=2**63)
    cluster: Cluster = Field(default_factory=lambda: Cluster.model_validate({}))
    datasets: dict[Name, Dataset]
    corpora: dict[Name, Corpus] = Field(default_factory=dict)
    recipes: dict[Name, RecipeParams] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _references_exist(self) -> "Params":
        for block, items in (("corpora", self.corpora), ("recipes", self.recipes)):
            for name, item in items.items():
                if item.dataset not in self.datasets:
                    raise ValueError(
                        f"{block}.{name}.dataset: no data set {item.dataset!r} (has: {', '.join(self.datasets)})"
                    )
        for name, recipe in self.recipes.items():
            if recipe.judge not in self.recipes:
                raise ValueError(
                    f"recipes.{name}.judge: no recipe {recipe.judge!r} (has: {', '.join(self.recipes)})"
                )
        return self

    def named(self, block: Literal["datasets", "corpora", "recipes"], name: str) -> Any:
        """The item of a block, or the error that lists what there is."""
        items = getattr(self, block)
        if name not in items:
            raise BadInput(f"no {name!r} in {block} of params.yaml; it has: {', '.join(items) or 'nothing'}")
        return items[name]


def read_params(root: Path) -> Params:
    """Read and validate params.yaml of the project at `root`."""
    path = root / "params.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; run genpipe from the root of a project") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: wanted YAML, {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadInput(f"params.yaml: {where + ': ' if where else ''}{first['msg']}{more}") from None
