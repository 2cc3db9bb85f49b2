"""Versions and stages of models as GTO's tags of Git: `nice@v0.0.2` is a version, `nice#prod#3` puts one into production.

They are read in the order of their counters, not of their times as GTO does: a remote accepts each counter once, whereas two
tags of one second, or of two clocks, have no order. They are written by Git, in GTO's form: one tag in the repository that GTO
cannot read ends its every command.
"""

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gto.constants import Action
from gto.tag import parse_name
from gto.versions import SemVer

from genpipe.errors import BadInput
from genpipe.git import BOT, GitFailed, commit_of, git, is_on_remote, lines_of
from genpipe.progress import tell

PRODUCTION = "prod"
FIELDS = (
    "refname:strip=2",
    "*objecttype",
    "*objectname",
    "taggerdate:iso-strict",
    "taggername",
    "contents:subject",
)
END = "%00"  # of a field: a subject may hold anything else


@dataclass(frozen=True)
class Version:
    """A model that passed the gate: its number, and the commit whose dvc.lock names its weights."""

    model: str
    name: str
    commit: str
    created: str
    is_deprecated: bool = False  # `gto deprecate` came after it, and nobody has put it into a stage since

    @property
    def tag(self) -> str:
        """Its tag, which also names it on the command line."""
        return f"{self.model}@{self.name}"


@dataclass(frozen=True)
class Assignment:
    """A version was put into a stage, by whom and why."""

    stage: str
    version: Version
    created: str
    by: str
    why: str


@dataclass(frozen=True)
class Model:
    """A model of the registry: its versions, lowest first, and what was put where, in order."""

    name: str
    versions: tuple[Version, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    is_deprecated: bool = False  # nothing of it was registered or put into a stage since `gto deprecate`

    def history(self, stage: str = PRODUCTION) -> list[Version]:
        """The versions that led to the one in a stage, which is the last; going back to one takes off those after it."""
        history: dict[Version, None] = {}
        for assignment in self.assignments:
            if assignment.stage == stage:
                while assignment.version in history:
                    history.popitem()
                history[assignment.version] = None
        return list(history)

    def production(self) -> Version | None:
        """The version in production."""
        return next(reversed(self.history()), None)

    def was_in_production(self, version: Version) -> bool:
        """Whether a version is or was in production."""
        return any(a.version == version and a.stage == PRODUCTION for a in self.assignments)

    def stages_of(self, version: Version) -> list[str]:
        """The stages that a version is in now."""
        return [stage for stage, there in self._in_stages.items() if there == version]

    @functools.cached_property
    def _in_stages(self) -> dict[str, Version]:
        stages = dict.fromkeys(assignment.stage for assignment in self.assignments)
        return {stage: self.history(stage)[-1] for stage in stages}

    def named(self, wanted: str) -> Version:
        """The version of a number (`v0.0.2`) or in a stage (`prod`), or the error that lists what there is."""
        found = {version.name: version for version in self.versions} | self._in_stages
        if wanted not in found:
            has = f"it has: {', '.join(found)}" if found else "no version of it is registered"
            raise BadInput(f"{self.name}@{wanted}: no such version or stage; {has}")
        return found[wanted]


@dataclass(frozen=True)
class _Tag:
    """A tag in GTO's form, with an object of its own."""

    name: str
    parsed: Mapping[str, Any]  # what the name says
    commit: str
    created: str
    by: str
    subject: str

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.created)


def read_models(root: Path) -> dict[str, Model]:
    """Every model of the registry, by its name; a tag that names no version is reported and left out."""
    of_model: defaultdict[str, list[_Tag]] = defaultdict(list)
    for tag in _read_tags(root, "refs/tags"):
        of_model[tag.parsed["name"]].append(tag)
    return {name: _model(name, of_model[name]) for name in sorted(of_model)}


def read_model(root: Path, name: str) -> Model:
    """One model of the registry; without versions where it has none."""
    return read_models(root).get(name, Model(name))


def _read_tags(root: Path, *patterns: str) -> list[_Tag]:
    form = END.join(f"%({field})" for field in FIELDS)
    rows = [line.split("\0") for line in lines_of(git(root, "for-each-ref", f"--format={form}", *patterns))]
    return [tag for row in rows if (tag := _parsed(*row))]


def _parsed(name: str, kind: str, commit: str, created: str, by: str, subject: str) -> _Tag | None:
    """The tag, if it says something of a model."""
    parsed = parse_name(name, raise_on_fail=False)
    # a tag without an object of its own has no author and no date; GTO does not count it either
    if "action" not in parsed or not commit:
        return None
    if kind != "commit" or not created:
        what = f"it names a {kind}, not a commit" if kind != "commit" else "it has no date"
        _tell_once(f"tag {name!r} is left out: {what}; git tag -d takes it away")
        return None
    return _Tag(name, parsed, commit, created, by, subject)


_tell_once = functools.cache(tell)


def _model(name: str, tags: list[_Tag]) -> Model:
    retired = max((t.moment for t in tags if t.parsed["action"] == Action.DEPRECATE), default=None)
    renewed = _renewed(tags)
    gone = {t.parsed["version"] for t in tags if t.parsed["action"] == Action.DEREGISTER}
    versions = [
        Version(
            name,
            tag.parsed["version"],
            tag.commit,
            tag.created,
            retired is not None and renewed[tag.commit] <= retired,
        )
        for tag in tags
        if tag.parsed["action"] == Action.REGISTER and tag.parsed["version"] not in gone
    ]
    versions.sort(key=lambda version: SemVer(version.name))
    is_retired = retired is not None and max(renewed.values(), default=retired) <= retired
    return Model(name, tuple(versions), tuple(_assignments(versions, tags)), is_retired)


def _renewed(tags: list[_Tag]) -> dict[str, datetime]:
    """When a commit was last registered or put into a stage."""
    renewed: dict[str, datetime] = {}
    for tag in tags:
        if tag.parsed["action"] in (Action.REGISTER, Action.ASSIGN):
            renewed[tag.commit] = max(tag.moment, renewed.get(tag.commit, tag.moment))
    return renewed


def _assignments(versions: list[Version], tags: list[_Tag]) -> Iterable[Assignment]:
    of_commit = {version.commit: version for version in versions}
    assignments: list[Assignment] = []
    for tag in sorted(tags, key=_counter):
        if tag.commit not in of_commit or "stage" not in tag.parsed:
            continue
        version, stage = of_commit[tag.commit], tag.parsed["stage"]
        if tag.parsed["action"] == Action.ASSIGN:
            assignments.append(Assignment(stage, version, tag.created, tag.by, tag.subject))
        else:
            assignments = [a for a in assignments if (a.version, a.stage) != (version, stage)]
    return assignments


def _counter(tag: _Tag) -> int:
    return tag.parsed.get("counter", 0)


def register(root: Path, model: str, commit: str) -> str:
    """Make a commit the next version of a model; its number."""
    taken = [SemVer(known["version"]) for known in _names_of(root, model) if "version" in known]
    version = (max(taken).bump_patch() if taken else SemVer.get_minimal()).version
    _write(root, f"{model}@{version}", commit, f"Registering artifact {model} version {version}", None)
    return version


def assign(root: Path, version: Version, why: str, author: tuple[str, str] | None = None) -> None:
    """Put a version into production, in the name of `author` or of the bot."""
    last = max((known.get("counter", 0) for known in _names_of(root, version.model)), default=0)
    _write(root, f"{version.model}#{PRODUCTION}#{last + 1}", version.commit, why, author)


def _names_of(root: Path, model: str) -> list[Mapping[str, Any]]:
    """What the names of all tags of a model say, those that are left out too: a name can be taken once."""
    found = git(root, "for-each-ref", "--format=%(refname:strip=2)", *_patterns([model]))
    return [parsed for name in lines_of(found) if (parsed := parse_name(name, raise_on_fail=False))]


def _write(root: Path, name: str, commit: str, message: str, author: tuple[str, str] | None) -> None:
    """A new annotated tag, unsigned whatever Git's settings say: nobody sits before a nightly run."""
    who, mail = author or (BOT["GIT_COMMITTER_NAME"], BOT["GIT_COMMITTER_EMAIL"])
    named = {"GIT_COMMITTER_NAME": who, "GIT_COMMITTER_EMAIL": mail}
    words = ("-c", "tag.gpgSign=false", "-c", "tag.forceSignAnnotated=false", "tag", "--annotate")
    git(root, *words, "--cleanup=verbatim", "--file=-", name, commit, given=message, extra=named)


def tags_of(root: Path, models: Iterable[str]) -> dict[str, str]:
    """The tags of models: their names and the objects they are."""
    patterns = _patterns(models)  # for-each-ref lists every reference when it is given none
    return (
        _listed(git(root, "for-each-ref", "--format=%(objectname)%09%(refname)", *patterns))
        if patterns
        else {}
    )


def fetch_tags(root: Path, remote: str, models: Iterable[str]) -> None:
    """Take over the tags of models from a remote; where it has another tag of the same name, the remote is right."""
    if patterns := _patterns(models):
        git(root, "fetch", "--quiet", "--no-tags", "--force", remote, *(f"+{p}:{p}" for p in patterns))


def delete(root: Path, names: Iterable[str]) -> None:
    """Take back tags that nobody else has seen."""
    for name in names:
        git(root, "update-ref", "-d", name)


def unpushed_tags(root: Path, remote: str, models: Iterable[str]) -> list[str]:
    """The tags of models that a remote lacks and whose commits it has."""
    there = _listed(git(root, "ls-remote", "--tags", remote))
    missing = [name for name in tags_of(root, models) if name not in there]
    return [name for name in missing if commit_of(root, name) and is_on_remote(root, remote, name)]


def push_tags(root: Path, remote: str, models: Iterable[str]) -> None:
    """Push them, all or none."""
    if names := unpushed_tags(root, remote, models):
        git(root, "push", "--quiet", "--atomic", remote, *(f"{name}:{name}" for name in names))


def _patterns(models: Iterable[str]) -> list[str]:
    return [f"refs/tags/{model}{mark}*" for model in models for mark in "@#"]


def _listed(text: str) -> dict[str, str]:
    rows = (line.split("\t") for line in lines_of(text))
    return {name: value for value, name in rows if not name.endswith("^{}")}


def person(root: Path) -> tuple[str, str] | None:
    """Name and mail of who works here, as Git knows them; None where it does not."""
    try:
        name, _, rest = git(root, "var", "GIT_COMMITTER_IDENT").partition(" <")
    except GitFailed:
        return None
    return name, rest.partition(">")[0]
