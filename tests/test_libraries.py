"""A stage depends on the locked versions of the libraries that its code imports and of what these require, and on no others."""

import ast
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from pip._internal.metadata import get_default_environment

from genpipe import yaml_text
from genpipe.cli import main
from genpipe.dependencies import LIBRARIES, NO_LOCK, PACKAGE, WITHOUT_EFFECT, code_of
from genpipe.errors import BadInput, BadState
from genpipe.graph import read_plan
from genpipe.libraries import LOCK, locked, normalised, versions_of
from genpipe.registry.lock import read_lock
from genpipe.syntax import Source
from tests.repository import as_somebody, make_repository
from tests.stale import changed_since

PROJECT = Path(__file__).resolve().parents[1]
CODE = code_of(PROJECT)
TRAINED = ("train", "sample", "evaluate")
RECIPES = {f"{command}@{name}" for command in TRAINED for name in CODE["train"]}
PINS = locked(PROJECT / LOCK)


def with_file(file, *commands):
    """The stages that have a file of genpipe in their code."""
    return {
        f"{command}@{name}" for command in commands for name, entry in CODE[command].items() if file in entry
    }


TORCH = RECIPES | {"prepare@minilm"} | {f"features@{name}" for name in CODE["features"]}
BLEU = with_file("evaluation/texts", "evaluate")
WORDS = {f"{command}@{name}" for command in ("count", "discover", "encode") for name in CODE[command]}
POINTS = with_file("sources/points", "prepare") | with_file("sources/trajectories", "prepare")


@pytest.fixture
def project(tmp_path):
    """The parameters and the lock of this project, whose code is that of this repository."""
    for name in ("params.yaml", LOCK):
        shutil.copy2(PROJECT / name, tmp_path / name)
    return tmp_path


def pin(root, **versions):
    """Write versions into the lock, instead of those that it has (with _ in place of - in their names)."""
    path = root / LOCK
    for name, version in versions.items():
        line = re.compile(rf"^({name.replace('_', '[-_.]')})==.*$", re.MULTILINE | re.IGNORECASE)
        text, count = line.subn(rf"\1=={version}", path.read_text(encoding="utf-8"))
        path.write_text(text if count else f"{text}{name}=={version}\n", encoding="utf-8")


def without(root, name):
    path = root / LOCK
    text, count = re.subn(rf"^{name}==.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def changed(root):
    """The stages whose entry is not what it is in this project, as command@item."""
    return changed_since(root, CODE)


def test_the_sets_of_stages_below_are_not_empty():
    assert {"evaluate@unilm_titles", "evaluate@conditional_lm"} <= BLEU < RECIPES
    assert "evaluate@nice" not in BLEU
    assert {"prepare@ring"} <= POINTS


@pytest.mark.parametrize(
    ("library", "stale"),
    [
        ("not_there_yet", set()),
        ("prefect", set()),
        ("pytest", set()),
        ("transformers", set()),
        ("dvc", set()),
        ("ray", set()),
        ("torch", TORCH),
        ("sympy", TORCH),
        ("mpmath", TORCH),
        ("sacrebleu", BLEU),
        ("lxml", BLEU),
        ("jieba", WORDS),
        ("tokenizers", WORDS),
        ("tqdm", WORDS),
        ("polars_runtime_32", WORDS | POINTS),
        ("resvg_py", {"prepare@emoji", "prepare@emoji_names"}),
    ],
)
def test_another_version_makes_stale_what_imports_the_library_or_what_requires_it(library, stale, project):
    pin(project, **{library: "99.9"})
    assert changed(project) == stale


def test_numpy_counts_for_what_imports_scipy_alone():
    assert {"numpy", "scipy"} <= versions_of({"scipy": "evaluation.transport"}, PINS).keys()


def test_comments_order_and_hashes_of_files_in_the_lock_make_nothing_stale(project):
    lines = (project / LOCK).read_text(encoding="utf-8").splitlines()
    text = "\n".join(f"{line}  # a comment" if line[:1] != "#" else line for line in reversed(lines))
    (project / LOCK).write_text(f"# another comment\n{text}\n", encoding="utf-8")
    assert changed(project) == set()


def test_another_build_of_a_version_counts(project):
    pin(project, torch=f"{PINS['torch']}+cpu")
    assert changed(project) == TORCH


def test_a_lock_file_is_read_as_pip_reads_it(tmp_path):
    text = "# made by pip\nA_b.c==1.0 ; python_version > '3'\ntorch==2.13.0+cpu\nray[default]==2.6  # why\n-e .\n"
    (tmp_path / LOCK).write_text(text, encoding="utf-8")
    assert locked(tmp_path / LOCK) == {"a-b-c": "1.0", "torch": "2.13.0+cpu", "ray": "2.6"}
    assert locked(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("scipy", r"genpipe/\w+/\w+ imports scipy, and requirements.lock does not pin scipy; add the line scipy=="),
        ("pillow", r"genpipe/\w+/\w+ imports PIL, and requirements.lock does not pin pillow; add the line pillow=="),
    ],
)  # fmt: skip
def test_an_import_that_the_lock_does_not_pin_is_one_line(name, line, project):
    without(project, name)
    with pytest.raises(BadInput, match=f"^{line}{re.escape(metadata.version(name))} there$"):
        code_of(project)


@pytest.fixture
def edited(project):
    """The same project with code of its own, of which one model imports a library that is not there."""
    shutil.copytree(PACKAGE, project / "genpipe", ignore=shutil.ignore_patterns("__pycache__"))
    with (project / "genpipe/models/nice.py").open("a", encoding="utf-8") as file:
        file.write("\ndef later():\n    import nowhere.at_all\n")
    return project


def test_a_library_that_is_neither_pinned_nor_installed_is_one_line(edited):
    line = "genpipe/models/nice imports nowhere, and requirements.lock does not pin nowhere; add the line nowhere==VERSION there"
    with pytest.raises(BadInput, match=f"^{line}$"):
        code_of(edited)


def test_a_pinned_library_that_is_not_installed_is_one_line(edited):
    pin(edited, nowhere="1.0")
    with pytest.raises(
        BadState, match=r"^requirements.lock pins nowhere, which is not installed; python -m pip "
    ):
        code_of(edited)


@pytest.mark.parametrize(
    "text",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere\n",
        "import tomllib\nfrom os import path\n",
        "from . import nice\nfrom ..nn import coupling\n",
    ],
)
def test_what_is_not_imported_or_no_library_is_not_looked_for(text, edited):
    shutil.copy2(PACKAGE / "models/nice.py", edited / "genpipe/models/nice.py")
    with (edited / "genpipe/models/nice.py").open("a", encoding="utf-8") as file:
        file.write(text)
    assert code_of(edited)["train"]["nice"][LIBRARIES] == CODE["train"]["nice"][LIBRARIES]


def test_without_a_lock_versions_are_not_pinned(project):
    (project / LOCK).unlink()
    assert code_of(project)["train"]["nice"][LIBRARIES] == NO_LOCK


def imports():
    """Every import below genpipe, with its module, whether a stage runs it or not."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], module) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield str(node.module).partition(".")[0], module


def test_every_import_of_genpipe_is_pinned_by_the_lock():
    found = {
        top: module for top, module in imports() if top != "genpipe" and top not in sys.stdlib_module_names
    }
    assert {"torch", "PIL", "yaml", "ruamel", "sacrebleu", "ray", "dvc"} <= found.keys()
    makers = metadata.packages_distributions()
    for top, module in found.items():
        by = {normalised(name) for name in makers[top]}
        assert by & versions_of({top: module}, PINS).keys(), f"{top} of {module}"


def test_what_libraries_require_is_what_pip_finds():
    """Pip's own answer for this platform, which the lock was made on too."""
    installed = get_default_environment()
    found = {"torch", "numpy", "safetensors", "pydantic"}
    assert found <= CODE["train"]["nice"][LIBRARIES].keys()
    waiting = [*found]
    while waiting:
        required = {
            normalised(line.name) for line in installed.get_distribution(waiting.pop()).iter_dependencies()
        }
        waiting += required & PINS.keys() - found
        found |= required & PINS.keys()
    assert CODE["train"]["nice"][LIBRARIES] == {name: PINS[name] for name in found}


def distribution(folder, name, *requirements):
    """A package that is installed in a folder, with what it requires."""
    place = folder / f"{name}-1.0.dist-info"
    place.mkdir()
    lines = [f"Requires-Dist: {line}" for line in requirements]
    (place / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *lines, ""])
    )


def test_extras_count_where_they_are_asked_for_and_markers_as_on_linux(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    distribution(
        tmp_path, "first", "second[fast]>=1", "Not_Pinned", 'windows; sys_platform == "win32"', 'extra_of_first; extra == "all"',
        'old; python_version < "3.11"', 'new; python_version >= "3.11"',
    )  # fmt: skip
    distribution(tmp_path, "second", 'third.one; extra == "fast"', 'slow; extra == "slow"', "first")
    for name in ("third_one", "new"):
        distribution(tmp_path, name)
    pins = dict.fromkeys(
        ("first", "second", "third-one", "windows", "extra-of-first", "slow", "old", "new"), "1.0"
    )
    assert versions_of({"first": "models.nice"}, pins).keys() == {"first", "second", "third-one", "new"}


def test_what_genpipe_reads_of_a_library_without_importing_it_counts():
    """genpipe/corpus/hidden_markov.py takes tables out of the package jieba."""
    using = {
        (command, name)
        for command, items in CODE.items()
        for name, entry in items.items()
        if "corpus/hidden_markov" in entry
    }
    assert using
    assert all("jieba" in CODE[command][name][LIBRARIES] for command, name in using)


ASKING = """\
import builtins, importlib, sys, types
models = types.ModuleType("genpipe.models"); models.__path__ = [sys.argv[1] + "/models"]
sys.modules["genpipe.models"] = models
asked, original = set(), builtins.__import__
def watched(name, globals=None, locals=None, fromlist=(), level=0):
    who = str((globals or {}).get("__name__"))
    if who.startswith("genpipe") and not level:
        asked.add((who, name.partition(".")[0]))
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = watched
for name in sys.argv[2:]: importlib.import_module(name)
for who, name in sorted(asked): print(who, name)
"""


def test_what_python_imports_for_a_training_is_counted():
    """The libraries against Python itself, without the modules that import all members of a registry."""
    entry = CODE["train"]["nice"]
    apart = {"experiment", "assembly", "models", "data/opening", "evaluation/validation", LIBRARIES}
    modules = [f"genpipe.{name.replace('/', '.')}" for name in entry if name not in apart]
    done = subprocess.run(
        [sys.executable, "-c", ASKING, str(PACKAGE), *modules], capture_output=True, text=True, check=True
    )
    asked = [line.split() for line in done.stdout.splitlines()]
    libraries = {
        top
        for who, top in asked
        if top not in sys.stdlib_module_names | {"genpipe"}
        and who.removeprefix("genpipe.") not in WITHOUT_EFFECT
    }
    assert "torch" in libraries
    assert versions_of(dict.fromkeys(libraries, ""), PINS).items() <= entry[LIBRARIES].items()


def test_libraries_of_modules_without_effect_do_not_count():
    source = Source(PACKAGE)
    assert "tqdm" in source.part("progress", frozenset(), None).libraries
    assert "ray" in source.part("training.ray", frozenset(), None).libraries
    assert not {"tqdm", "ray", "ruamel-yaml", "dvc"} & CODE["train"]["nice"][LIBRARIES].keys()


GRAPH = """\
stages:
  code:
    cmd: python -m genpipe.cli code
    deps: [params.yaml, requirements.lock]
    outs: [artifacts/code.json, artifacts/none]
  train:
    foreach: ${recipes}
    do:
      cmd: mkdir -p artifacts/models && echo ${key} > artifacts/models/${key}
      params: ["recipes.${key}.train", {artifacts/code.json: ["train.${key}"]}]
      outs: ["artifacts/models/${key}"]
  evaluate:
    foreach: ${recipes}
    do:
      cmd: mkdir -p artifacts/metrics && echo ${key} > artifacts/metrics/${key}
      params: [{artifacts/code.json: ["evaluate.${key}"]}]
      outs: ["artifacts/metrics/${key}"]
"""


def dvc(root, *words):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True, env=as_somebody()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def repro(root):
    return set(re.findall(r"Running stage '(.*)'", dvc(root, "repro")))


def stale(root):
    return {stage.name: stage.reasons for stage in read_plan(root).stale}


def test_dvc_runs_what_uses_a_library_and_the_plan_says_which(project, capsys):
    make_repository(project)
    params = yaml_text.read(project / "params.yaml")
    recipes = {name: params["recipes"][name] for name in ("nice", "unilm_titles")}
    (project / "params.yaml").write_text(
        yaml_text.dump({**params, "features": {}, "lexicons": {}, "recipes": recipes, "sets": {}})
    )
    (project / "dvc.yaml").write_text(GRAPH)
    every = {f"{command}@{name}" for command in ("train", "evaluate") for name in recipes}
    assert repro(project) == {"code", *every}
    assert stale(project) == {}
    assert json.loads(dvc(project, "status", "--json")) == {}
    recorded = read_lock(project).libraries("train@nice")
    assert recorded == code_of(project)["train"]["nice"][LIBRARIES]
    assert recorded["torch"] == PINS["torch"]

    pin(project, not_there_yet="1.0", pytest="99")
    assert stale(project) == {"code": ("requirements.lock changed",)}
    assert repro(project) == {"code"}

    pin(project, sacrebleu="99.10")
    assert stale(project) == {
        "code": ("requirements.lock changed",),
        "evaluate@unilm_titles": ("library sacrebleu changed",),
    }
    assert repro(project) == {"code", "evaluate@unilm_titles"}

    pin(project, sympy="99")
    assert stale(project) == {
        "code": ("requirements.lock changed",),
        **dict.fromkeys(every, ("library sympy changed",)),
    }
    assert repro(project) == {"code", *every}

    pin(project, torch="99", numpy="99", mpmath="99", safetensors="99")
    assert stale(project)["train@nice"] == ("library mpmath and 3 more changed",)
    assert repro(project) == {"code", *every}
    assert json.loads(dvc(project, "status", "--json")) == {}

    lock = yaml_text.read(project / "dvc.lock")
    del lock["stages"]["train@nice"]["params"]["artifacts/code.json"]["train.nice"][LIBRARIES]
    (project / "dvc.lock").write_text(yaml_text.dump(lock))
    assert stale(project) == {"train@nice": ("libraries changed",)}

    without(project, "torch")
    assert main(["--root", str(project), "plan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"genpipe/\S+ imports torch, and requirements.lock does not pin torch; add the line torch==", line
    )
