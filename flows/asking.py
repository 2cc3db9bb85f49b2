"""What is asked of a flow, turned into targets and trials: for its command and for its deployment alike. No Prefect here."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genpipe import yaml_text
from genpipe.cores import cores
from genpipe.errors import BadInput, BadState, GenpipeError, kind_of
from genpipe.git import commit_of, files_of, git
from genpipe.graph import read_plan
from genpipe.params.project import read_params
from tasks.revisions import contents_at
from tasks.sweeping import check_network, combinations, params_of
from tasks.trial import Trial
from tasks.workspace import Contents

TRIALS_LEASE = "trials"  # of all flows that write to .genpipe/trials
WATCH_LEASE = "watch"


def corpus_targets(root: Path, names: list[str] | None) -> list[str]:
    """The vocabularies, and with them the counts, of the corpora of params.yaml or of those named."""
    params = read_params(root)
    for name in names or []:
        params.named("corpora", name)
    if not params.corpora:
        raise BadInput("params.yaml: it has no corpora; add a block to corpora")
    return [f"vocabulary@{name}" for name in names or params.corpora]


def trials_at_once(root: Path, asked: int | None) -> int:
    """How many trials run at once: as asked, or cluster.max_parallel of params.yaml, else as many as there are cores."""
    limit = (read_params(root).cluster.max_parallel or cores()) if asked is None else asked
    if limit < 1:
        raise BadInput(f"--max-parallel: must be 1 or more trials at once, not {limit}")
    return limit


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class SweepRequest:
    """Values to try in the block of a recipe, and how many of their combinations."""

    recipe: str
    grid: Mapping[str, Sequence[Any]]
    random: int | None
    seed: int

    @property
    def directory(self) -> Path:
        """Where its results are, below the project: the same request has the same place."""
        drawn = None if self.random is None else (self.random, self.seed)
        return Path(".genpipe") / "sweeps" / f"{self.recipe}-{_digest([self.grid, drawn])}"

    def trials(self, root: Path) -> list[Trial]:
        """One for each combination; all values are checked before this returns."""
        values = yaml_text.read(root / "params.yaml")
        trials: list[Trial] = []
        read_params(root).named("recipes", self.recipe)
        read_plan(root, [f"evaluate@{self.recipe}"]).require_inputs()
        if "dvc.yaml" not in files_of(root):
            raise BadState(
                "dvc.yaml: not tracked by Git, and a trial copies only what is; git add what the stages need"
            )
        for settings in combinations(self.grid, self.random, self.seed):
            params = params_of(values, self.recipe, settings)
            if any(path.startswith("train.network") for path in settings):
                check_network(params, self.recipe)
            written = yaml_text.dump(params).encode()
            trials.append(Trial(settings, Contents({"params.yaml": written}, (f"evaluate@{self.recipe}",))))
        return trials


@dataclass(frozen=True)
class BackfillRequest:
    """Git revisions on whose raw data stages are to be run."""

    revisions: Sequence[str]
    targets: Sequence[str] | None

    @property
    def directory(self) -> Path:
        """Where its results are, below the project: the same request has the same place."""
        return Path(".genpipe") / "backfills" / _digest([self.revisions, self.targets])

    def trials(self, root: Path) -> list[Trial]:
        """One for each revision, the oldest first; a revision or a target that is not there is found before this returns."""
        read_plan(root, list(self.targets or []) or None)
        commits = {revision: _commit(root, revision) for revision in self.revisions}
        made = {
            commit: int(git(root, "show", "--no-patch", "--format=%ct", commit))
            for commit in commits.values()
        }
        in_order = sorted(commits, key=lambda revision: made[commits[revision]])
        return [self._trial(root, revision, commits[revision], made) for revision in in_order]

    def _trial(self, root: Path, revision: str, commit: str, made: Mapping[str, int]) -> Trial:
        day = datetime.fromtimestamp(made[commit], UTC).date().isoformat()
        settings = {"revision": revision, "commit": commit[:12], "date": day}
        try:
            return Trial(settings, contents_at(root, commit, tuple(self.targets or ())))
        except GenpipeError as error:
            raise kind_of(error)(f"{revision}: {error}") from None


def _commit(root: Path, revision: str) -> str:
    commit = commit_of(root, revision)
    if commit is None:
        raise BadInput(f"{revision}: no such Git revision; `git log` and `git tag` name those there are")
    return commit
