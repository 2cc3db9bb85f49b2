"""The syntax trees of a package: what each module imports of it, and a hash that comments and docstrings leave alone."""

import ast
import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

NOT_DATA = (".py", ".pyc", ".md", ".orig", ".rej", ".swp")  # code, and what editors and Git leave beside it
SKIPPED = frozenset(
    {"ctx", "kind", "type_comment"}
)  # fields of the syntax tree without a meaning of their own

Hashes = dict[str, str]  # by file below the package, without .py
Rows = tuple[
    str, frozenset[str]
]  # the name of a registry, a dict or a tuple, and those of its keys that count


Stamp = tuple[int, int]  # when a file was changed, in nanoseconds, and its size in bytes


class Module(NamedTuple):
    """A module, or the part of one that counts: its hash, and what it imports of genpipe and of libraries."""

    sha256: str
    imports: tuple[
        tuple[str, frozenset[str]], ...
    ]  # modules of genpipe, and the names that it takes from them
    libraries: frozenset[str]  # as they are imported: PIL, not pillow


class Source:
    """The files of a package, each as it is when this object first looks at it."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._paths: dict[str, Path] = {}
        self._stamps: dict[str, Stamp] = {}
        self._data: dict[Path, Hashes] = {}

    def part(self, name: str, names: frozenset[str], rows: Rows | None) -> Module:
        """A module; with names, only what those use there; of a registry, only the chosen rows."""
        return _part(self.package, name, names, rows, self._stamp(name))

    def path(self, name: str) -> Path:
        """The file of a module, named below the package."""
        if name not in self._paths:
            place = self.package.joinpath(*name.split(".")) if name else self.package
            self._paths[name] = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return self._paths[name]

    def docstring(self, name: str) -> str:
        """What a module says of itself."""
        return ast.get_docstring(_tree(self.path(name), self._stamp(name))) or ""

    def table(self, name: str, registry: str) -> dict[str, ast.expr]:
        """The rows of a registry of a module by their keys; those of a tuple by their own text."""
        return _table(self.path(name), registry, self._stamp(name))

    def bases(self, name: str) -> dict[str, list[str]]:
        """The classes of a module, each with the names of its bases."""
        tree = _tree(self.path(name), self._stamp(name))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        return {node.name: [ast.unparse(base) for base in node.bases] for node in classes}

    def has(self, name: str) -> bool:
        """Whether the package has such a module."""
        return self.path(name).is_file()

    def data_beside(self, names: Iterable[str]) -> Hashes:
        """The hashes of the files that are not code in the directories of modules, as the template of a page."""
        hashes: Hashes = {}
        for folder in {self.path(name).parent for name in names}:
            if folder not in self._data:
                self._data[folder] = _data_in(folder, self.package)
            hashes |= self._data[folder]
        return hashes

    def _stamp(self, name: str) -> Stamp:
        if name not in self._stamps:
            found = self.path(name).stat()
            self._stamps[name] = found.st_mtime_ns, found.st_size
        return self._stamps[name]


def _data_in(folder: Path, package: Path) -> Hashes:
    files = [
        path
        for path in folder.iterdir()
        if path.suffix not in NOT_DATA and not path.name.startswith(".") and not path.name.endswith("~")
    ]
    return {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in files
        if path.is_file()
    }


@cache
def _tree(path: Path, stamp: Stamp) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


@cache
def _table(path: Path, registry: str, stamp: Stamp) -> dict[str, ast.expr]:
    for statement in _tree(path, stamp).body:
        if registry in _bound(statement) and isinstance(statement, ast.Assign | ast.AnnAssign):
            return {key: row for key, (_, row) in _rows(statement.value, registry).items()}
    raise LookupError(f"no {registry} in {path}")


@cache
def _part(package: Path, name: str, names: frozenset[str], rows: Rows | None, stamp: Stamp) -> Module:
    source = Source(package)
    statements: list[ast.stmt] = _tree(source.path(name), stamp).body
    if rows:
        statements = [_with_rows(statement, *rows) for statement in statements]
    if names or rows:
        statements = _used(statements, names)
    words: list[str] = []
    for statement in _without_docstring(statements):
        _add_words(statement, words)
    sha256 = hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()
    imported = [found for statement in statements for found in _imported(source, name, statement)]
    return Module(sha256[:16], tuple(_modules(source, imported)), _libraries(source, imported))


def _with_rows(statement: ast.stmt, registry: str, chosen: Collection[str]) -> ast.stmt:
    """The assignment of a registry with its chosen rows only; another statement as it is."""
    if registry not in _bound(statement) or not isinstance(statement, ast.Assign | ast.AnnAssign):
        return statement
    rows = _rows(statement.value, registry)
    if unknown := sorted(set(chosen) - set(rows)):
        raise LookupError(f"no {unknown[0]!r} in {registry}; there is: {', '.join(sorted(rows))}")
    kept = [row for key, row in rows.items() if key in chosen]
    smaller = ast.Dict([key for key, _ in kept], [item for _, item in kept])
    if isinstance(statement, ast.Assign):
        return ast.Assign(statement.targets, smaller)
    return ast.AnnAssign(statement.target, statement.annotation, smaller, statement.simple)


def _rows(value: ast.expr | None, registry: str) -> dict[str, tuple[ast.expr | None, ast.expr]]:
    """The rows of a dict by their keys, of a tuple by their own text: of each its key and its value."""
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values, strict=True)
        return {str(getattr(key, "value", None)): (key, item) for key, item in pairs}
    if isinstance(value, ast.Tuple | ast.List):
        return {ast.unparse(item): (None, item) for item in value.elts}
    raise LookupError(f"{registry} is not one dict or tuple that is written out, row by row")


def _one_by_one(statement: ast.stmt) -> list[ast.stmt]:
    """An import of several names as imports of one each; another statement as it is."""
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]
    return [statement]


def _used(statements: list[ast.stmt], names: Collection[str]) -> list[ast.stmt]:
    """The statements of a module that `names` need, or, without names, all but the imports that nothing there uses."""
    statements = [part for statement in statements for part in _one_by_one(statement)]
    definitions: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for name in _bound(statement):
            definitions.setdefault(name, []).append(statement)
    whole = [] if names else [s for s in statements if not isinstance(s, ast.Import | ast.ImportFrom)]
    waiting = [*whole, *(s for s in statements if not _bound(s))]
    waiting += [statement for name in names for statement in definitions.get(name, [])]
    kept: set[ast.stmt] = set()
    while waiting:
        statement = waiting.pop()
        if statement not in kept:
            kept.add(statement)
            read = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            waiting += [found for name in read for found in definitions.get(name, [])]
    return [statement for statement in statements if statement in kept]


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module binds; none of what has an effect by itself."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        names = [(alias.asname or alias.name).partition(".")[0] for alias in statement.names]
        return [name for name in names if name != "*"]  # nobody sees which names that binds
    if isinstance(statement, ast.AnnAssign):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    if isinstance(statement, ast.Assign):
        nodes = [node for target in statement.targets for node in ast.walk(target)]
        return [node.id for node in nodes if isinstance(node, ast.Name)]
    return []


def _add_words(node: ast.AST, words: list[str]) -> None:
    """What a syntax tree says, the same for all versions of Python: no empty fields, which newer versions add."""
    words.append(type(node).__name__)
    for field in node._fields:
        value = getattr(node, field, None)
        if field in SKIPPED or value is None or value == []:
            continue
        words.append(field)
        if field == "body" and isinstance(value, list):
            value = _without_docstring(value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                _add_words(part, words)
            else:
                words.append(repr(part))
    words.append(")")


def _without_docstring(statements: list[ast.stmt]) -> list[ast.stmt]:
    first = statements[0] if statements else None
    is_text = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return statements[1:] if is_text else statements


def _imported(source: Source, name: str, statement: ast.stmt) -> Iterator[tuple[str, frozenset[str]]]:
    """The full names that a statement of a module imports, and the names taken from them."""
    for node in _nodes(statement):
        yield from _names(node, source, name)


def _modules(
    source: Source, imported: Iterable[tuple[str, frozenset[str]]]
) -> Iterator[tuple[str, frozenset[str]]]:
    """The modules of genpipe among them, named below it; the packages that a module lies in are imported with it."""
    top = source.package.name
    for full, names in imported:
        if full.partition(".")[0] == top:
            yield from _with_packages(source, full.removeprefix(top).removeprefix("."), names)


def _libraries(source: Source, imported: Iterable[tuple[str, frozenset[str]]]) -> frozenset[str]:
    """The names at the top of what is neither genpipe nor Python's own."""
    tops = {full.partition(".")[0] for full, _ in imported}
    return frozenset(tops - {source.package.name} - sys.stdlib_module_names)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but not below `if TYPE_CHECKING`."""
    yield node
    is_typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    below = node.orelse if is_typing and isinstance(node, ast.If) else ast.iter_child_nodes(node)
    for child in below:
        yield from _nodes(child)


def _names(node: ast.AST, source: Source, name: str) -> Iterator[tuple[str, frozenset[str]]]:
    """What a statement imports, as full names; of `from a import b` both a, from which it takes b, and a.b."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, frozenset[str]()) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        here = [source.package.name, *name.split(".")]
        is_package = source.path(name).name == "__init__.py"
        above = here[: len(here) - node.level + is_package] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        names = frozenset(alias.name for alias in node.names)
        yield base, frozenset[str]() if "*" in names else names
        yield from ((f"{base}.{alias.name}", frozenset[str]()) for alias in node.names)


def _with_packages(source: Source, name: str, names: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        is_last = length == len(parts)
        if module and source.has(module) and (is_last or source.path(module).name == "__init__.py"):
            yield module, names if is_last else frozenset()
