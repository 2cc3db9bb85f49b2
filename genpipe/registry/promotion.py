"""A published run's models against those in production: which one is promoted, which is not, and why."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genpipe.errors import BadInput, BadState, GenpipeError
from genpipe.git import GitFailed, show
from genpipe.params.promotion import Rule, Rules
from genpipe.registry import tags
from genpipe.registry.gate import Judged, Verdict, gate, metrics_in
from genpipe.registry.lock import METRICS, Lock, read_lock
from genpipe.registry.tags import Model, Version

ATTEMPTS = 3  # at pushing tags, when another run pushes at the same time


@dataclass(frozen=True)
class Decision:
    """What becomes of a model: `promote`, `refuse` (the gate), or `keep` (it is, or was, in production, or is not judged)."""

    model: str
    action: Literal["promote", "refuse", "keep"]
    why: str
    verdict: Verdict | None = None
    version: Version | None = None  # that the weights have already, or were given
    replaces: Version | None = None


def decide(root: Path, commit: str, rules: Rules) -> list[Decision]:
    """Judge each model of a commit that has rules and weights; BadInput when a rule names no metric of it."""
    lock, models = read_lock(root, commit), tags.read_models(root)
    return [
        _decide(root, commit, lock, models.get(name, Model(name)), rules[name])
        for name in rules
        if lock.weights(name)
    ]


def promote(root: Path, commit: str, rules: Rules, remote: str | None) -> list[Decision]:
    """Make the models that pass versions in production; with a remote, tags are taken from there first and pushed.

    Another run that pushes the same tags first is not overwritten: the models are then judged against its ones.
    """
    if remote is None:
        return [_carry_out(root, commit, decision) for decision in decide(root, commit, rules)]
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(GitFailed):
            return _promote_and_push(root, commit, rules, remote)
    return _promote_and_push(root, commit, rules, remote)


def rollback(root: Path, name: str, wanted: str | None, remote: str | None) -> tuple[Version, Version]:
    """Put an earlier version of a model into production again; the version that was there, and the one that is now."""
    if remote:
        tags.fetch_tags(root, remote, [name])
    model = tags.read_model(root, name)
    *before, now = model.history() or [None]
    if now is None:
        raise BadState(
            f"{name}: no version is in production, so there is nothing to go back from; see genpipe models"
        )
    earlier = [version for version in before if version and not version.is_deprecated]
    target = model.named(wanted) if wanted else next(reversed(earlier), None)
    if target is None:
        raise BadState(
            f"{now.tag} is the first in production: there is no earlier version{' that is not deprecated' if before else ''}; "
            "name one with --to VERSION"
        )
    if target == now:
        raise BadInput(f"{now.tag} is in production already; name another with --to VERSION")
    if target.is_deprecated:
        raise BadInput(
            f"{target.tag} is deprecated; name another with --to VERSION, or take it up again with gto assign"
        )
    if _weights_of(root, target) is None:
        raise BadInput(f"{target.tag}: its commit has no weights of {name}; name another with --to VERSION")
    why = f"rollback of production from {now.name} to {target.name}"
    with _new_tags_only_if_all_is_well(root, [name]):
        tags.assign(root, target, why, tags.person(root))
        if remote:
            tags.push_tags(root, remote, [name])
    return now, target


def metrics_at(root: Path, commit: str, name: str) -> dict[str, float]:
    """The metrics of a model in a commit; none where it was committed without."""
    path = f"{METRICS}/{name}.json"
    return metrics_in(show(root, commit, path), f"{path} of {commit:.12}")


def _promote_and_push(root: Path, commit: str, rules: Rules, remote: str) -> list[Decision]:
    tags.fetch_tags(root, remote, rules)
    with _new_tags_only_if_all_is_well(root, rules):
        decisions = [_carry_out(root, commit, decision) for decision in decide(root, commit, rules)]
        tags.push_tags(root, remote, rules)
    return decisions


@contextlib.contextmanager
def _new_tags_only_if_all_is_well(root: Path, models: Iterable[str]) -> Iterator[None]:
    before = tags.tags_of(root, models)
    try:
        yield
    except BaseException:
        tags.delete(root, tags.tags_of(root, models).keys() - before.keys())
        raise


def _decide(root: Path, commit: str, lock: Lock, model: Model, rules: tuple[Rule, ...]) -> Decision:
    if not lock.is_judged(model.name):
        return Decision(model.name, "keep", "its metrics are not those of its weights; evaluate it")
    known, production = _version_with(root, model, lock), model.production()
    if model.is_deprecated or (known and known.is_deprecated):
        what = (
            f"these weights are {known.name}, which is deprecated"
            if known and known.is_deprecated
            else "deprecated"
        )
        remedy = f"gto register {model.name} or gto assign {model.name} takes it up again"
        return Decision(model.name, "keep", f"{what}; {remedy}", None, known)
    if known and known == production:
        return Decision(model.name, "keep", f"these weights are {known.name}, in production", None, known)
    if known and model.was_in_production(known):
        why = f"these weights are {known.name}, taken out of production; genpipe rollback {model.name} --to {known.name}"
        return Decision(model.name, "keep", f"{why} brings them back", None, known)
    new = _judged(root, commit, model.name, model.name)
    rival = _judged(root, production.commit, model.name, production.name) if production else None
    verdict = gate(new, rival, rules)
    action = "promote" if verdict.passed else "refuse"
    return Decision(model.name, action, verdict.describe(), verdict, known, production)


def _judged(root: Path, commit: str, name: str, label: str) -> Judged:
    return Judged(label, metrics_at(root, commit, name), read_lock(root, commit).yardstick(name))


def _version_with(root: Path, model: Model, lock: Lock) -> Version | None:
    """The newest version whose weights are those of `lock`."""
    weights = lock.weights(model.name)
    same = [version for version in model.versions if _weights_of(root, version) == weights]
    return next((v for v in reversed(same) if model.was_in_production(v)), next(reversed(same), None))


def _weights_of(root: Path, version: Version) -> str | None:
    """The hash of a version's weights; None where somebody tagged a commit by hand that has none."""
    try:
        return read_lock(root, version.commit).weights(version.model)
    except GenpipeError:
        return None


def _carry_out(root: Path, commit: str, decision: Decision) -> Decision:
    if decision.action != "promote":
        return decision
    # a run that ended here last time left the version, and not its stage
    name = decision.version.name if decision.version else tags.register(root, decision.model, commit)
    version = tags.read_model(root, decision.model).named(name)
    before = f" over {decision.replaces.name}" if decision.replaces else ""
    tags.assign(root, version, f"promotion of {name}{before}: {decision.why}")
    return Decision(decision.model, "promote", decision.why, decision.verdict, version, decision.replaces)
