"""What becomes of a published run's models: the gate's verdicts as a table in Prefect, promotions and refusals as events."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from genpipe import lease
from genpipe.params.project import read_params
from genpipe.registry.promotion import Decision, promote
from tasks.publish import Published, publish

EVENTS = {"promote": "genpipe.model.promoted", "refuse": "genpipe.model.refused"}
WORDS = {"promote": "promoted", "refuse": "not promoted", "keep": "as it was"}


@dataclass(frozen=True)
class Release:
    """Where a run was published, and what became of its models."""

    published: Published
    decisions: tuple[Decision, ...]

    @property
    def is_new(self) -> bool:
        """Whether anything came of it that was not there before."""
        return self.published.is_new or any(decision.action == "promote" for decision in self.decisions)


def release(root: Path, name: str, allow_dirty: bool) -> Release:
    """Publish the verified state of the project, and promote the models that pass their rules."""
    rules = read_params(root).promotion
    with lease.hold(root, "registry"):
        published = publish(root, name, allow_dirty)
        decisions = promote(root, published.commit, rules, published.remote)
    done = Release(published, tuple(decisions))
    if done.is_new:
        _show(done)
    return done


def _show(done: Release) -> None:
    logger = get_run_logger()
    logger.info(f"published: {done.published.describe()}")
    for decision in done.decisions:
        logger.info(f"{decision.model}: {WORDS[decision.action]}: {decision.why}")
        if decision.action in EVENTS:
            _announce(decision, done.published)
    if done.decisions:
        create_table_artifact(
            verdict_table(done.decisions), "promotion", "which models are in production, and why"
        )


def verdict_table(decisions: Iterable[Decision]) -> list[dict[str, str]]:
    """A row for each model: its version, what became of it, and why."""
    return [
        {
            "model": decision.model,
            "version": decision.version.name if decision.version else "",
            "outcome": WORDS[decision.action],
            "in place of": decision.replaces.name if decision.replaces else "",
            "why": decision.why,
        }
        for decision in decisions
    ]


def _announce(decision: Decision, published: Published) -> None:
    """Emit the event of a promotion or a refusal; a model that is refused has no version, as a rule."""
    version = decision.version
    emit_event(
        EVENTS[decision.action],
        resource={
            "prefect.resource.id": f"genpipe.model.{decision.model}",
            "prefect.resource.name": version.tag if version else decision.model,
        },
        payload={
            "model": decision.model,
            "outcome": WORDS[decision.action],
            "version": version.name if version else None,
            "replaces": decision.replaces.name if decision.replaces else None,
            "commit": version.commit if version else published.commit,
            "branch": published.branch,
            "why": decision.why,
        },
    )
