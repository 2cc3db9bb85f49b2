"""Versions and stages of models as GTO's tags of Git: `nice@v0.0.2` is a version, `nice#prod#3` puts one into production.

GTO writes them. They are read here in the order of their counters, not of their times as GTO does: a remote accepts each
counter once, whereas two tags of one second, or of two clocks, have no order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gto import api
from gto.constants import Action
from gto.exceptions import GTOException
from gto.tag import parse_name
from gto.versions import SemVer

from genpipe.errors import BadInput
from genpipe.git import BOT, GitFailed, git, is_on_remote

PRODUCTION = "prod"
FIELDS = ("refname:strip=2", "*objectname", "taggerdate:iso-strict", "taggername", "contents:subject")


@dataclass(frozen=True)
class Version:
    """A model that passed the gate: its number, and the commit whose dvc.lock names its weights."""

    model: str
    name: str
    commit: str
    created: str

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

    def history(self, stage: str = PRODUCTION) -> list[Version]:
        """The versions that led to the one in a stage, which is the last; going back to one takes off those after it."""
        history: list[Version] = []
        for assignment in self.assignments:
            if assignment.stage == stage:
                if assignment.version in history:
                    del history[history.index(assignment.version) :]
                history.append(assignment.version)
        return history

    def production(self) -> Version | None:
        """The version in production."""
        return next(reversed(self.history()), None)

    def was_in_production(self, version: Version) -> bool:
        """Whether a version is or was in production."""
        return any(a.version == version and a.stage == PRODUCTION for a in self.assignments)

    def stages_of(self, version: Version) -> list[str]:
        """The stages that a version is in now."""
        stages = dict.fromkeys(assignment.stage for assignment in self.assignments)
        return [stage for stage in stages if self.history(stage)[-1:] == [version]]

    def named(self, wanted: str) -> Version:
        """The version of a number (`v0.0.2`) or in a stage (`prod`), or the error that lists what there is."""
        found = {version.name: version for version in self.versions}
        found |= {a.stage: self.history(a.stage)[-1] for a in self.assignments}
        if wanted not in found:
            raise BadInput(
                f"{self.name}@{wanted}: no such version or stage; there is {', '.join(found) or 'none yet'}"
            )
        return found[wanted]


def read_models(root: Path) -> dict[str, Model]:
    """Every model of the registry, by its name."""
    lines = git(
        root, "for-each-ref", f"--format={'%09'.join(f'%({field})' for field in FIELDS)}", "refs/tags"
    )
    tags = [
        (parse_name(line.partition("\t")[0], raise_on_fail=False), line.split("\t"))
        for line in lines.splitlines()
    ]
    # a tag without an object of its own has no author and no date; GTO does not count it either
    ours = [(parsed, fields) for parsed, fields in tags if "action" in parsed and fields[1]]
    return {
        name: _model(name, [t for t in ours if t[0]["name"] == name])
        for name in sorted({p["name"] for p, _ in ours})
    }


def read_model(root: Path, name: str) -> Model:
    """One model of the registry; without versions where it has none."""
    return read_models(root).get(name, Model(name))


def _model(name: str, tags: list[tuple[dict, list[str]]]) -> Model:
    gone = {parsed["version"] for parsed, _ in tags if parsed["action"] == Action.DEREGISTER}
    versions = [
        Version(name, parsed["version"], commit, created)
        for parsed, (_, commit, created, *_) in tags
        if parsed["action"] == Action.REGISTER and parsed["version"] not in gone
    ]
    versions.sort(key=lambda version: SemVer(version.name))
    return Model(name, tuple(versions), tuple(_assignments(versions, tags)))


def _assignments(versions: list[Version], tags: list[tuple[dict, list[str]]]) -> Iterable[Assignment]:
    of_commit = {version.commit: version for version in versions}
    assignments: list[Assignment] = []
    for parsed, (_, commit, created, by, why) in sorted(tags, key=lambda tag: tag[0].get("counter", 0)):
        if commit not in of_commit or "stage" not in parsed:
            continue
        version, stage = of_commit[commit], parsed["stage"]
        if parsed["action"] == Action.ASSIGN:
            assignments.append(Assignment(stage, version, created, by, why))
        else:
            assignments = [a for a in assignments if (a.version, a.stage) != (version, stage)]
    return assignments


def register(root: Path, model: str, commit: str) -> str:
    """Make a commit the next version of a model; its number."""
    try:
        return api.register(
            str(root), model, commit, author=BOT["GIT_AUTHOR_NAME"], author_email=BOT["GIT_AUTHOR_EMAIL"]
        ).version
    except GTOException as error:
        raise BadInput(f"{model}: GTO cannot register {commit:.12}: {' '.join(str(error).split())}") from None


def assign(root: Path, version: Version, why: str, author: tuple[str, str] | None = None) -> None:
    """Put a version into production, in the name of `author` or of the bot."""
    name, email = author or (BOT["GIT_AUTHOR_NAME"], BOT["GIT_AUTHOR_EMAIL"])
    try:
        api.assign(
            str(root),
            version.model,
            PRODUCTION,
            version.name,
            message=why,
            force=True,
            author=name,
            author_email=email,
        )
    except GTOException as error:
        raise BadInput(
            f"{version.tag}: GTO cannot put it into production: {' '.join(str(error).split())}"
        ) from None


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
    return [name for name in missing if is_on_remote(root, remote, name)]


def push_tags(root: Path, remote: str, models: Iterable[str]) -> None:
    """Push them, all or none."""
    if names := unpushed_tags(root, remote, models):
        git(root, "push", "--quiet", "--atomic", remote, *(f"{name}:{name}" for name in names))


def _patterns(models: Iterable[str]) -> list[str]:
    return [f"refs/tags/{model}{mark}*" for model in models for mark in "@#"]


def _listed(text: str) -> dict[str, str]:
    rows = (line.split("\t") for line in text.splitlines())
    return {name: value for value, name in rows if not name.endswith("^{}")}


def person(root: Path) -> tuple[str, str] | None:
    """Name and mail of who works here, as Git knows them; None where it does not."""
    try:
        name, _, rest = git(root, "var", "GIT_COMMITTER_IDENT").partition(" <")
    except GitFailed:
        return None
    return name, rest.partition(">")[0]
