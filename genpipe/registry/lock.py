"""dvc.lock as the record of what was made from what, in the workspace or at a revision."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from genpipe import yaml_text
from genpipe.dependencies import CODE, LIBRARIES, digest
from genpipe.errors import BadState, GenpipeError
from genpipe.git import show

LOCK = "dvc.lock"
MODELS, METRICS, SAMPLES = "artifacts/models", "artifacts/metrics", "artifacts/samples"
JUDGING_CODE = "genpipe/evaluation"  # what old locks have as a dependency
Entry = Mapping[str, Any]  # path, md5, size, for a directory nfiles


@dataclass(frozen=True)
class Lock:
    """The stages of a dvc.lock: of each its command, dependencies, parameters and outputs."""

    stages: Mapping[str, Mapping[str, Any]]
    where: str

    def inputs(self, stage: str) -> tuple[Entry, ...]:
        """What a stage read; a dependency that it names twice comes once."""
        entries = self.stages[stage].get("deps", [])
        return tuple({entry["path"]: entry for entry in entries}.values())

    def outputs(self) -> Iterator[tuple[str, Entry]]:
        """Every output, with the stage that made it."""
        for name, stage in self.stages.items():
            for entry in stage.get("outs", []):
                yield name, entry

    def makers(self, path: str) -> list[str]:
        """The stages that made `path`, what holds it, or what is in it."""
        wanted = PurePosixPath(path)
        found = []
        for name, entry in self.outputs():
            made = PurePosixPath(entry["path"])
            if made.is_relative_to(wanted) or wanted.is_relative_to(made):
                found.append(name)
        return found

    def output(self, path: str) -> Entry | None:
        """The entry of an output, if a stage made one of just this path; DVC leaves those of removed stages above."""
        return next((entry for _, entry in reversed([*self.outputs()]) if entry["path"] == path), None)

    def libraries(self, stage: str) -> Mapping[str, str]:
        """The pinned versions of the libraries that a stage ran with; none where it recorded none."""
        found = self._code(stage).get(LIBRARIES)
        return found if isinstance(found, Mapping) else {}

    def weights(self, model: str) -> str | None:
        """The hash of a model's directory; equal hashes are equal weights and cards."""
        entry = self.output(f"{MODELS}/{model}")
        return entry["md5"] if entry else None

    def yardstick(self, model: str) -> dict[str, str]:
        """What the metrics of a model were measured by: its data sets, its judge and the code that judges."""
        own = {f"{MODELS}/{model}", f"{SAMPLES}/{model}"}
        read = {entry["path"]: entry["md5"] for entry in self._evaluation(model)}
        data = {path: md5 for path, md5 in read.items() if path.startswith("artifacts/") and path not in own}
        code = self._judging_code(model) or read.get(JUDGING_CODE)
        return data | ({JUDGING_CODE: code} if code else {})

    def is_judged(self, model: str) -> bool:
        """Whether the metrics are those of the weights, and not of earlier ones."""
        judged = {entry["path"]: entry["md5"] for entry in self._evaluation(model)}
        return judged.get(f"{MODELS}/{model}") == self.weights(model)

    def _judging_code(self, model: str) -> str | None:
        """One hash of the judges that the evaluation of a model ran; None in locks from before stages named their code."""
        makers = self.makers(f"{METRICS}/{model}.json")
        read = self._code(makers[-1]) if makers else {}
        code = {name: sha for name, sha in read.items() if name.startswith("evaluation/")}
        return digest(code) if code else None

    def _code(self, stage: str) -> Mapping[str, Any]:
        """The entry of artifacts/code.json that a stage ran with."""
        entries = self.stages[stage].get("params", {}).get(CODE.as_posix(), {})
        return {name: value for entry in entries.values() for name, value in entry.items()}

    def _evaluation(self, model: str) -> tuple[Entry, ...]:
        makers = self.makers(f"{METRICS}/{model}.json")
        return self.inputs(makers[-1]) if makers else ()


def read_lock(root: Path, revision: str | None = None) -> Lock:
    """dvc.lock of the workspace, or of a revision."""
    if revision is not None:
        return _lock_at(root, revision)
    path = root / LOCK
    if not path.exists():
        raise BadState(f"{path}: no such file; make it by running the stages (make run, or dvc repro)")
    return _parse(path.read_bytes(), LOCK)


@lru_cache(maxsize=64)  # a commit does not change
def _lock_at(root: Path, revision: str) -> Lock:
    text = show(root, revision, LOCK)
    if text is None:
        raise BadState(
            f"{LOCK} at {revision:.12}: no such file in that commit; name a version of the registry"
        )
    return _parse(text, f"{LOCK} at {revision:.12}")


def _parse(text: bytes, where: str) -> Lock:
    try:
        stages = yaml_text.parse(text, where)["stages"]
        if not all(isinstance(stage, dict) for stage in stages.values()):
            raise TypeError("a stage is not a mapping")
    except (GenpipeError, TypeError, KeyError, AttributeError) as error:
        raise BadState(
            f"{where}: not what DVC writes: {' '.join(str(error).split())}; restore it from Git"
        ) from None
    return Lock(stages, where)
