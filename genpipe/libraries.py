"""The versions of libraries that code depends on: those that it imports, and what these require, as requirements.lock pins them.

What a library requires is read from the metadata of the installed one. Its markers are judged as on the platform that
requirements.lock was made on, so that a stage depends on the same versions on every machine.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement

from genpipe.errors import BadInput, BadState

LOCK = "requirements.lock"  # in the project
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)
PLATFORM: Mapping[str, str] = MappingProxyType(
    {
        "python_version": "3.11",
        "python_full_version": "3.11.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
)
# Others are looked up among the files of all packages, which takes 0.4 seconds.
DISTRIBUTIONS = {"PIL": "pillow", "ruamel": "ruamel-yaml", "yaml": "pyyaml"}

Versions = dict[str, str]  # by normalised name
Needed = tuple[str, frozenset[str]]  # a normalised name, and the extras that are asked of it


def locked(path: Path) -> Versions | None:
    """The versions that a file as `pip freeze` writes it pins, with their local part (+cpu); None where there is no file."""
    if not path.exists():
        return None
    return {normalised(name): version for name, version in PIN.findall(path.read_text(encoding="utf-8"))}


def normalised(name: str) -> str:
    """The name of a library as pip compares it: lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions_of(imported: Mapping[str, str], pins: Versions) -> Versions:
    """The versions of the libraries that are imported under these names, each by a module, and of what they require.

    What `pins` lacks of the requirements belongs to another platform, or to another build of a library.
    Raises BadInput where it lacks an imported library, BadState where a pinned one is not installed.
    """
    waiting: list[Needed] = [
        (name, frozenset()) for top, module in imported.items() for name in _pinned(top, module, pins)
    ]
    seen: set[Needed] = set()
    while waiting:
        needed = waiting.pop()
        if needed not in seen and needed[0] in pins:
            seen.add(needed)
            waiting += _required(*needed)
    return {name: pins[name] for name in sorted({name for name, _ in seen})}


def _pinned(top: str, module: str, pins: Versions) -> list[str]:
    """The libraries, one but for packages that several share, that are imported as `top`."""
    usual = DISTRIBUTIONS.get(top, normalised(top))
    if usual in pins:
        return [usual]
    installed = [normalised(name) for name in _all_distributions().get(top, [])]
    if found := sorted({name for name in installed if name in pins}):
        return found
    name = installed[0] if installed else usual
    version = metadata.version(name) if installed else "VERSION"
    where = f"genpipe/{module.replace('.', '/')}"
    raise BadInput(
        f"{where} imports {top}, and {LOCK} does not pin {name}; add the line {name}=={version} there"
    )


@cache
def _all_distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@cache
def _required(name: str, extras: frozenset[str]) -> tuple[Needed, ...]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise BadState(
            f"{LOCK} pins {name}, which is not installed; python -m pip install -r {LOCK}"
        ) from None
    return tuple(_applying(lines, extras))


def _applying(lines: list[str], extras: frozenset[str]) -> Iterator[Needed]:
    for line in lines:
        # most lines are of extras that nobody asks for, and parsing takes time
        if not extras and "extra ==" in line:
            continue
        needed = Requirement(line)
        environments = [{**PLATFORM, "extra": extra} for extra in extras or {""}]
        if needed.marker is None or any(needed.marker.evaluate(each) for each in environments):
            yield normalised(needed.name), frozenset(needed.extras)
