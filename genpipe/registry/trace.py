"""`genpipe trace`: where a model came from, as dvc.lock of its commit records it, back to the raw data."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genpipe.errors import BadInput, GenpipeError
from genpipe.git import commit_of, git, show
from genpipe.registry import tags
from genpipe.registry.gate import metrics_in
from genpipe.registry.lock import METRICS, MODELS, Entry, Lock, read_lock
from genpipe.registry.pull import fetch

MACHINE = "Machine"  # the trailer of a published commit that tells where it was published
NAMED_LIBRARIES = ("torch", "numpy", "safetensors")  # in words; --json has them all


@dataclass(frozen=True)
class Origin:
    """A stage and what it read: code, raw data, parameters, and the outputs of other stages."""

    stage: str
    command: str
    params: Mapping[str, Any]
    code: tuple[Entry, ...]
    data: tuple[Entry, ...]
    parents: tuple["Parent", ...] = ()


@dataclass(frozen=True)
class Parent:
    """An output that was read, and the stage that made it (None where that stage is listed already)."""

    output: Entry
    stage: str
    origin: Origin | None


@dataclass(frozen=True)
class Lineage:
    """A model, where it stands, and where it came from."""

    model: str
    where: str
    commit: str | None
    weights: str
    metrics: Mapping[str, float]
    card: Mapping[str, Any] | None
    machine: str | None
    libraries: Mapping[str, str]
    origin: Origin
    stages: tuple[str, ...]


def split_name(text: str) -> tuple[str, str | None]:
    """`nice@prod` as the model and the version or stage that is meant; None where it is the workspace's."""
    name, at, wanted = text.partition("@")
    if not name or (at and not wanted) or not name.replace("_", "").isalnum():
        raise BadInput(f"name a model as MODEL, MODEL@VERSION or MODEL@STAGE, as in nice@prod, not {text!r}")
    return name, wanted if at else None


def trace(root: Path, name: str, wanted: str | None) -> Lineage:
    """The lineage of a model of the workspace, of a version, or of what is in a stage."""
    version = tags.read_model(root, name).named(wanted) if wanted else None
    commit = version.commit if version else None
    lock = read_lock(root, commit)
    entry = lock.output(f"{MODELS}/{name}")
    if entry is None:
        known = sorted(
            e["path"].removeprefix(f"{MODELS}/") for _, e in lock.outputs() if e["path"].startswith(MODELS)
        )
        raise BadInput(f"{name}: no such model in {lock.where}; it has {', '.join(known) or 'none'}")
    maker = lock.makers(entry["path"])[-1]
    return Lineage(
        name,
        version.tag if version else "the workspace",
        commit or commit_of(root, "HEAD"),
        entry["md5"],
        _metrics(root, name, commit),
        _card(root, entry, commit),
        _machine(root, commit) if commit else None,
        lock.libraries(maker),
        _origin(lock, maker, set()),
        tuple(tags.read_model(root, name).stages_of(version)) if version else (),
    )


def _origin(lock: Lock, stage: str, seen: set[str]) -> Origin:
    seen.add(stage)
    code, data, parents = [], [], []
    for entry in lock.inputs(stage):
        makers = lock.makers(entry["path"])
        if makers:
            parents += [Parent(entry, m, None if m in seen else _origin(lock, m, seen)) for m in makers]
        else:
            (data if entry["path"].split("/")[0] == "data" else code).append(entry)
    record = lock.stages[stage]
    return Origin(stage, record["cmd"], record.get("params", {}), tuple(code), tuple(data), tuple(parents))


def _read(root: Path, path: str, commit: str | None) -> bytes | None:
    if commit:
        return show(root, commit, path)
    return (root / path).read_bytes() if (root / path).exists() else None


def _metrics(root: Path, name: str, commit: str | None) -> dict[str, float]:
    path = f"{METRICS}/{name}.json"
    return metrics_in(_read(root, path, commit), path)


def _card(root: Path, entry: Entry, commit: str | None) -> dict[str, Any] | None:
    """The model's recipe.json, which names device and libraries; None where it is not to be had."""
    path = f"{entry['path']}/recipe.json"
    if commit is None:
        text = _read(root, path, None)
        return json.loads(text) if text else None
    try:
        with tempfile.TemporaryDirectory() as directory:
            fetch(root, path, commit, Path(directory) / "recipe.json")
            return json.loads((Path(directory) / "recipe.json").read_bytes())
    except GenpipeError:  # the lineage does not need the weights
        return None


def _machine(root: Path, commit: str) -> str | None:
    trailer = f"--format=%(trailers:key={MACHINE},valueonly)"
    return git(root, "show", "--no-patch", trailer, commit).strip() or None


def as_dict(lineage: Lineage) -> dict[str, Any]:
    """The lineage for programs, ready for JSON."""
    return asdict(lineage)


def describe(root: Path, lineage: Lineage) -> str:
    """The lineage as a tree for people."""
    return "\n".join(_head(root, lineage)) + "\n" + "\n".join(_tree(lineage.origin, ""))


def _head(root: Path, lineage: Lineage) -> Iterator[str]:
    stages = f" ({', '.join(lineage.stages)})" if lineage.stages else ""
    yield f"{lineage.model}: {lineage.where}{stages}"
    if lineage.commit:
        date = git(root, "show", "--no-patch", "--format=%cs", lineage.commit)
        yield f"  commit    {lineage.commit:.12}, {date}"
    yield f"  weights   {lineage.weights}"
    yield f"  metrics   {_pairs({k: f'{v:g}' for k, v in lineage.metrics.items()}) or 'none'}"
    yield f"  trained   on {_device(lineage.card)}"
    if lineage.machine:
        yield f"  published {lineage.machine}"
    named = {name: lineage.libraries[name] for name in NAMED_LIBRARIES if name in lineage.libraries}
    libraries = f"{len(lineage.libraries)} pinned: {_pairs(named)}" if lineage.libraries else "not recorded"
    yield f"  libraries {libraries}"


def _device(card: Mapping[str, Any] | None) -> str:
    if card is None:
        return "an unknown device: the model's card is not to be had (dvc fetch, or ask who trained it)"
    processor = _pairs(card.get("processor", {}))
    libraries = _pairs(card.get("libraries", {})) or "unknown libraries"
    device = card.get("device", "an unknown device")
    return f"{device} ({processor}), with {libraries}" if processor else f"{device}, with {libraries}"


def _tree(origin: Origin, indent: str) -> Iterator[str]:
    yield f"{indent}{origin.stage}: {origin.command}"
    for file, values in origin.params.items():
        for key, value in values.items():
            yield f"{indent}  param   {key} = {json.dumps(value, ensure_ascii=False)} ({file})"
    yield from (f"{indent}  code    {_entry(entry)}" for entry in origin.code)
    yield from (f"{indent}  data    {_entry(entry)}" for entry in origin.data)
    for parent in origin.parents:
        yield f"{indent}  from    {_entry(parent.output)}{'' if parent.origin else f', by {parent.stage} (above)'}"
        if parent.origin:
            yield from _tree(parent.origin, indent + "    ")


def _entry(entry: Entry) -> str:
    files = f", {entry['nfiles']} files" if "nfiles" in entry else ""
    return f"{entry['path']} {entry['md5']} ({entry['size']:,} bytes{files})"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
