"""Which code a stage depends on: all that its command imports, as hashes of syntax trees, and versions of libraries.

Comments, blank lines and docstrings are not part of a hash, so editing them makes nothing stale. DVC (through
artifacts/code.json), the keys of trainings and those of counted and encoded shards all take their code from here. The
versions of libraries are for DVC alone: the keys have those that bits depend on.
Imports inside functions are imports; those under `if TYPE_CHECKING` never run and are not followed.
"""

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from genpipe import yaml_text
from genpipe.errors import BadInput
from genpipe.files import new_file, write_json
from genpipe.libraries import LOCK, Versions, locked, versions_of
from genpipe.syntax import Hashes, Source

PACKAGE = Path(__file__).parent
CODE = Path("artifacts") / "code.json"  # below the project
NONE = Path("artifacts") / "none"  # what a stage depends on where a block names no model or no file
NOTHING = b"nothing\n"  # its content

Block = Mapping[str, Any]  # of params.yaml
Chosen = Mapping[str, Collection[str]]  # of registries, by module: the rows that count
Recorded = dict[str, str | Versions]  # what a stage depends on: hashes by file, and LIBRARIES
LIBRARIES = "libraries"
NO_LOCK = f"not pinned: there is no {LOCK}"
ALL: Chosen = MappingProxyType({})


class Entrance(NamedTuple):
    """The block of params.yaml with one item a stage, and the functions and modules that the command runs."""

    block: str
    starts: tuple[str, ...]  # module, or module:function


class Walk(NamedTuple):
    """What some code uses: files with their hashes, and libraries, each with the module that imports it."""

    hashes: Hashes
    libraries: dict[str, str]


class Known(NamedTuple):
    """The files of a package, and what many stages have in common there, so that it is walked once."""

    source: Source
    walks: dict[tuple[str, frozenset[tuple[str, frozenset[str]]]], Walk]  # by command and chosen rows
    fitting: dict[tuple[str, str], Chosen]  # panels and judges, by model and kind of data


ENTRANCES = {
    "prepare": Entrance("datasets", ("sources.datasets:prepare",)),
    "count": Entrance("corpora", ("corpus.counts:count_corpus",)),
    "vocabulary": Entrance("corpora", ("corpus.vocabulary:build_vocabulary",)),
    "encode": Entrance("encodings", ("corpus.encoding:encode",)),
    "discover": Entrance("lexicons", ("discovery.lexicons:discover_dataset",)),
    "features": Entrance("features", ("features:write_features",)),
    "train": Entrance("recipes", ("experiment:train",)),
    "sample": Entrance("recipes", ("experiment:sample",)),
    "evaluate": Entrance("recipes", ("experiment:evaluate",)),
}
REGISTRIES = {  # dicts and tuples that import all their members; of an item only its own rows count
    "models": "RECIPES",
    "sources.datasets": "KINDS",
    "data.opening": "KINDS",
    "sampling.panels": "PANELS",
    "evaluation.judges": "JUDGES",
    "evaluation.validation": "VALIDATIONS",
}
# of these modules only what is imported by name counts
BY_NAME = {"assembly", "capabilities", "evaluation.validation", "files", "sampling.panels"}
WITHOUT_EFFECT = {  # on what an artifact is; neither counted nor followed
    "errors": "exceptions",
    "training.complaints": "checks that only raise",
    "sample_options": "a check that only raises",
    "lease": "locks",
    "progress": "shows progress",
    "training.watching": "shows progress",
    "training.ray": "where trainings run, on which no artifact depends",
    "training.local": "where trainings run, on which no artifact depends",
    "corpus.actors": "where tasks run, on which no artifact depends",
    "metrics": "names and words of metrics, and the check that a name is there",
    "own_code": "which checkout runs",
    "numerics": "its settings are named in params.yaml, which stages depend on",
    "dependencies": "which code counts",
    "libraries": "which versions count",
    "syntax": "which code counts",
    "yaml_text": "reads params.yaml",
    "params.project": "reads params.yaml; of its own values only `seed` has a default, and DVC refuses a params.yaml without it",
    "params.cluster": "where work runs",
    "params.promotion": "which models go into production",
}


def write_code(root: Path) -> None:
    """Write artifacts/code.json, the code of each stage of the project, and artifacts/none."""
    code = code_of(root)
    with new_file(root / NONE) as partial:
        partial.write_bytes(NOTHING)
    write_json(root / CODE, code)
    print(f"wrote {root / CODE}")


def code_of(root: Path) -> dict[str, dict[str, Recorded]]:
    """The code and the libraries of each stage, by command and by item of params.yaml; the genpipe in `root` if it has its own.

    Raises BadInput where params.yaml names a model or a kind that there is no code for, or where code imports a library
    that requirements.lock does not pin; BadState where one that it pins is not installed.
    """
    package = _package_of(root)
    params = yaml_text.read(root / "params.yaml")
    params = params if isinstance(params, Mapping) else {}
    pins = locked(root / LOCK)
    known = _known(package)
    return {
        command: {
            name: _recorded(_code_for(command, name, params, known), pins)
            for name in _names(params, entrance.block)
        }
        for command, entrance in ENTRANCES.items()
    }


def _recorded(code: Walk, pins: Versions | None) -> Recorded:
    return {**code.hashes, LIBRARIES: NO_LOCK if pins is None else versions_of(code.libraries, pins)}


def _package_of(root: Path) -> Path:
    own = root / "genpipe"
    return own if (own / "__init__.py").is_file() else PACKAGE


def code_for(command: str, name: str, params: Block) -> Hashes:
    """The code that one command uses for one item of params.yaml.

    Raises BadInput where the item names a model or a kind that there is no code for.
    """
    return _code_for(command, name, params, _known(PACKAGE)).hashes


def _known(package: Path) -> Known:
    return Known(Source(package), {}, {})


def _code_for(command: str, name: str, params: Block, known: Known) -> Walk:
    """The same with its libraries."""
    entrance = ENTRANCES[command]
    block = _item(params, entrance.block, name)
    try:
        chosen = _chosen(command, block, params, known)
        key = (command, frozenset((module, frozenset(rows)) for module, rows in chosen.items()))
        if key not in known.walks:
            known.walks[key] = _closure(entrance.starts, chosen, known.source)
        return known.walks[key]
    except LookupError as error:
        raise BadInput(f"params.yaml: {entrance.block}.{name}: {error.args[0]}") from None


def docstring_of(root: Path, model: str) -> str:
    """What the file of a model says of it; nothing where there is no such model."""
    source = Source(_package_of(root))
    try:
        used, _ = _walk(source, ["models:RECIPES"], {"models": {model}})
    except LookupError:
        return ""
    return next((source.docstring(name) for name in used if name.startswith("models.")), "")


def version_of(*starts: str) -> str:
    """One SHA-256 over all code that some modules or functions use."""
    return digest(closure(starts))


def digest(hashes: Hashes) -> str:
    """One SHA-256 for many."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def closure(starts: Iterable[str], chosen: Chosen = ALL, package: Path = PACKAGE) -> Hashes:
    """The hashes of all modules that `starts` (module, or module:function) import, and of the data beside them.

    Of the registries in `chosen` only those rows count. Raises LookupError where a registry lacks one.
    """
    return _closure(starts, chosen, Source(package)).hashes


def _closure(starts: Iterable[str], chosen: Chosen, source: Source) -> Walk:
    used, (hashes, libraries) = _walk(source, starts, chosen)
    return Walk(dict(sorted((hashes | source.data_beside(used)).items())), libraries)


def _walk(source: Source, starts: Iterable[str], chosen: Chosen) -> tuple[dict[str, frozenset[str]], Walk]:
    """The modules that `starts` use, each with the names that they take from it (none: all), and what they are."""
    rows = {name: (REGISTRIES[name], frozenset(keys)) for name, keys in chosen.items()}
    begun = (start.partition(":") for start in starts)
    waiting = [(module, frozenset({function} - {""})) for module, _, function in begun]
    parts = {name for name, functions in waiting if functions} | BY_NAME
    used: dict[str, frozenset[str]] = {}
    hashes: Hashes = {}
    libraries: dict[str, str] = {}
    while waiting:
        name, names = waiting.pop()
        before = used.get(name, names)
        # who imports it whole may use all of it: then names count no more
        names = names | before if name in parts and names and before else frozenset[str]()
        if name in WITHOUT_EFFECT or used.get(name) == names:
            continue
        used[name] = names
        module = source.part(name, names, rows.get(name))
        hashes[name.replace(".", "/")] = module.sha256
        libraries |= dict.fromkeys(module.libraries, name)
        waiting += module.imports
    return used, Walk(hashes, libraries)


def _names(params: Block, block: str) -> Iterable[str]:
    """The names of the items of a block of params.yaml; what is not valid there is refused where params.yaml is read."""
    items = params.get(block)
    return items if isinstance(items, Mapping) else ()


def _item(params: Block, block: str, name: str) -> Block:
    """One item of a block of params.yaml; an empty one where it is missing or not valid."""
    items = params.get(block)
    item = items.get(name) if isinstance(items, Mapping) else None
    return item if isinstance(item, Mapping) else {}


def _chosen(command: str, block: Block, params: Block, known: Known) -> Chosen:
    """The rows of the registries that a stage uses: its model and its judge's, its kind of data, what fits them."""
    if command == "prepare":
        return {"sources.datasets": {str(block["kind"])}} if "kind" in block else {}
    if command == "features":
        name = str(block.get("model")).removeprefix("models/")
        recipe = _item(params, "recipes", name)
        if "model" not in recipe:
            raise LookupError(f"model: no recipe {name!r}; name one of recipes, or take the block out")
        return {"models": {str(recipe["model"])}, "data.opening": (), "evaluation.validation": ()}
    if "model" not in block:
        return {}
    model, kind = str(block["model"]), _kind_of_data(str(block.get("data")), params, known.source)
    of = {"evaluate": "judge", "sample": "judge", "train": "validator"}.get(command, "")
    judge = _item(params, "recipes", str(block.get(of)).removeprefix("models/")).get("model")
    chosen = {"models": {model, str(judge)} if judge else {model}}
    chosen["evaluation.validation"] = (
        _validation(block) & known.source.table("evaluation.validation", "VALIDATIONS").keys()
    )
    if kind is None:
        return chosen
    if (model, kind) not in known.fitting:
        known.fitting[model, kind] = _fitting(model, kind, known.source)
    opened = {kind} & known.source.table("data.opening", "KINDS").keys()
    return {**chosen, **known.fitting[model, kind], "data.opening": opened}


def _fitting(model: str, kind: str, source: Source) -> Chosen:
    """The panels and the judges for a model and a kind of data."""
    can = _capabilities(model, source)
    return {
        module: {
            text for text, row in source.table(module, REGISTRIES[module]).items() if _fits(row, can, kind)
        }
        for module in ("sampling.panels", "evaluation.judges")
    }


def _validation(block: Block) -> set[str]:
    """The metric of a judge that picks the best checkpoint of a recipe, if any."""
    train = block.get("train")
    best = train.get("best") if isinstance(train, Mapping) else None
    prefix, _, name = str(best.get("metric") if isinstance(best, Mapping) else "").partition(".")
    return {name} if prefix == "validation" else set()


def _kind_of_data(data: str, params: Block, source: Source) -> str | None:
    """The kind of the data at `data`, below artifacts/, as its data.json will say; None where params.yaml does not."""
    folder, _, name = data.partition("/")
    if folder == "features":
        return "captions"
    kind = _item(params, {"encoded": "encodings"}.get(folder, folder), name).get("kind")
    if folder == "encoded" or kind is None:
        return kind
    row = source.table("sources.datasets", "KINDS").get(kind)
    return str(ast.literal_eval(row.args[0])) if isinstance(row, ast.Call) else None


def _capabilities(model: str, source: Source) -> set[str]:
    """The names of the capabilities that a model, or a brick of it, imports, and of those that these inherit."""
    used, _ = _walk(source, ["models:RECIPES"], {"models": {model}})
    bases = source.bases("capabilities")
    found: set[str] = set()
    waiting = [*(used.get("capabilities", frozenset()) or bases)] if "capabilities" in used else []
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting += bases.get(name, [])
    return found


def _fits(row: ast.expr, can: Collection[str], kind: str) -> bool:
    """Whether a row of judges or panels, CLASS((capabilities), (kinds), …), is for a model and a kind of data."""
    if not isinstance(row, ast.Call) or not isinstance(row.args[0], ast.Tuple):
        raise LookupError(f"{ast.unparse(row)} is not CLASS((capabilities), (kinds), function), written out")
    kinds = ast.literal_eval(row.args[1])
    return {ast.unparse(need) for need in row.args[0].elts} <= {*can} and (not kinds or kind in kinds)
