"""Which code a stage depends on: all that its command imports, as hashes of syntax trees.

Comments, blank lines and docstrings are not part of a hash, so editing them makes nothing stale. DVC (through
artifacts/code.json), the keys of trainings and those of counted and encoded shards all take their code from here.
Imports inside functions are imports; those under `if TYPE_CHECKING` never run and are not followed.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genpipe import yaml_text
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.syntax import Hashes, Source

PACKAGE = Path(__file__).parent
CODE = Path("artifacts") / "code.json"  # below the project

Block = Mapping[str, Any]  # of params.yaml


class Entrance(NamedTuple):
    """The block of params.yaml with one item a stage, and the functions and modules that the command runs."""

    block: str
    starts: tuple[str, ...]  # module, or module:function


class Registry(NamedTuple):
    """A dict or tuple that imports all its members; an item counts only its own, which `chosen` names."""

    module: str
    name: str
    chosen: Callable[
        [Block], Collection[str] | None
    ]  # keys (of a tuple: items as written); None: all of them


ENTRANCES = {
    "prepare": Entrance("datasets", ("sources.datasets:prepare",)),
    "count": Entrance("corpora", ("corpus.counts:count_corpus",)),
    "vocabulary": Entrance("corpora", ("corpus.vocabulary:build_vocabulary",)),
    "encode": Entrance("encodings", ("corpus.encoding:encode",)),
    "train": Entrance("recipes", ("experiment:train",)),
    "sample": Entrance("recipes", ("experiment:sample",)),
    "evaluate": Entrance("recipes", ("experiment:evaluate",)),
}
REGISTRIES = {
    registry.module: registry
    for registry in (
        Registry("models", "RECIPES", lambda block: _named(block, "model")),
        Registry("sources.datasets", "KINDS", lambda block: _named(block, "kind")),
    )
}
BY_NAME = {
    "assembly"
}  # of these only what is imported by name counts: training and sampling need different parts
WITHOUT_EFFECT = {  # on what an artifact is; neither counted nor followed
    "errors": "exceptions",
    "training.complaints": "checks that only raise",
    "files": "whole files under their names",
    "lease": "locks",
    "progress": "shows progress",
    "training.watching": "shows progress",
    "training.ray": "where trainings run, on which no artifact depends",
    "corpus.actors": "where tasks run, on which no artifact depends",
    "own_code": "which checkout runs",
    "dependencies": "which code counts",
    "syntax": "which code counts",
    "yaml_text": "reads params.yaml",
    "params.project": "reads params.yaml; the blocks that a stage uses are modules of their own",
    "params.cluster": "where work runs",
    "params.promotion": "which models go into production",
}


def _named(block: Block, key: str) -> Collection[str] | None:
    return (str(block[key]),) if key in block else None


def write_code(root: Path) -> None:
    """Write artifacts/code.json: the code of each stage of the project."""
    write_json(root / CODE, code_of(root))
    print(f"wrote {root / CODE}")


def code_of(root: Path) -> dict[str, dict[str, Hashes]]:
    """The code of each stage, by command and by item of params.yaml; the genpipe in `root` where it has its own.

    Raises BadInput where params.yaml names a model or a kind that there is no code for.
    """
    own = root / "genpipe"
    package = own if (own / "__init__.py").is_file() else PACKAGE
    params = yaml_text.read(root / "params.yaml")
    return {
        command: {
            name: _checked(command, name, block or {}, package)
            | (_documented(block or {}, package) if command == "train" else {})
            for name, block in _items(params, entrance.block)
        }
        for command, entrance in ENTRANCES.items()
    }


def code_for(command: str, block: Block) -> Hashes:
    """The code of the genpipe that runs which one command uses for one block of params.yaml."""
    return closure(ENTRANCES[command].starts, block)


def version_of(*starts: str) -> str:
    """One SHA-256 over all code that some modules or functions use."""
    return digest(closure(starts))


def digest(hashes: Hashes) -> str:
    """One SHA-256 for many."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _items(params: Any, block: str) -> Iterable[tuple[str, Any]]:
    found = (params or {}).get(block) or {}
    return found.items() if isinstance(found, Mapping) else ()


def _checked(command: str, name: str, block: Block, package: Path) -> Hashes:
    try:
        return closure(ENTRANCES[command].starts, block, package)
    except LookupError as error:
        raise BadInput(f"params.yaml: {ENTRANCES[command].block}.{name}: {error.args[0]}") from None


def _documented(block: Block, package: Path) -> Hashes:
    """The docstring that training copies into the card of a model: another one makes a new card of the same run."""
    name = f"models/{block.get('model')}"
    text = Source(package).docstring(name.replace("/", "."))
    return {f"{name} (docstring)": hashlib.sha256(text.encode()).hexdigest()[:16]}


def closure(starts: Iterable[str], block: Block | None = None, package: Path = PACKAGE) -> Hashes:
    """The hashes of all modules that `starts` (module, or module:function) import, and of the data beside them.

    Of registries only the members that apply to `block` count. Raises LookupError where a registry lacks the member.
    """
    rows = {name: (REGISTRIES[name].name, frozenset(keys)) for name, keys in _choices(block or {})}
    source = Source(package)
    begun = (start.partition(":") for start in starts)
    waiting = [(module, frozenset({function} - {""})) for module, _, function in begun]
    parts = {name for name, functions in waiting if functions} | BY_NAME
    used: dict[str, frozenset[str]] = {}  # an empty set of names: the whole module
    hashes: Hashes = {}
    while waiting:
        name, names = waiting.pop()
        names = names | used.get(name, frozenset()) if name in parts else frozenset[str]()
        if name in WITHOUT_EFFECT or used.get(name) == names:
            continue
        used[name] = names
        module = source.part(name, names, rows.get(name))
        hashes[name.replace(".", "/")] = module.sha256
        waiting += module.imports
    return dict(sorted((hashes | source.data_beside(used)).items()))


def _choices(block: Block) -> Iterator[tuple[str, Collection[str]]]:
    for name, registry in REGISTRIES.items():
        keys = registry.chosen(block)
        if keys is not None:
            yield name, keys
