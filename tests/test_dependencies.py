"""An edit of code makes stale what imports it, and nothing else: for DVC, for trainings and for cached shards alike."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genpipe import yaml_text
from genpipe.dependencies import (
    CODE,
    ENTRANCES,
    LIBRARIES,
    NONE,
    PACKAGE,
    WITHOUT_EFFECT,
    code_for,
    code_of,
    digest,
    docstring_of,
    version_of,
)
from genpipe.errors import BadInput
from genpipe.graph import read_plan
from genpipe.params.corpora import NO_FILE
from genpipe.params.project import Params, RecipeParams, Sampling
from genpipe.upkeep import declared
from genpipe.upkeep.declared import check, dynamic_imports, entries, model_imports, stages_of
from tests.repository import make_repository
from tests.stale import changed_since as changed

PROJECT = Path(__file__).resolve().parents[1]
PARAMS = yaml_text.read(PROJECT / "params.yaml")
STAGES = stages_of(PROJECT)
RECIPES = ("train", "sample", "evaluate")
OF_IMAGES = {"datasets/digits", "datasets/glyphs", "datasets/emoji"}
PICTURES = {name for name, block in PARAMS["recipes"].items() if block["data"] in OF_IMAGES}
POINTS = {name for name, block in PARAMS["recipes"].items() if block["data"] == "datasets/ring"}
TITLES, BIOGRAPHIES = (
    {name for name, block in PARAMS["recipes"].items() if block["data"] == f"encoded/{data}"}
    for data in ("titles", "biographies")
)
VOTERS = {name for name, block in PARAMS["recipes"].items() if block["model"] == "unilm"}
CLASSIFIERS = {name for name, block in PARAMS["recipes"].items() if block["model"] == "classifier"}
JUDGED = {
    name for name, block in PARAMS["recipes"].items() if block["judge"].removeprefix("models/") in CLASSIFIERS
}
FLOWS, RASTER, RESTORERS, ENERGIES = (
    {name for name, block in PARAMS["recipes"].items() if block["model"] in models}
    for models in (
        ("nice", "coupling_flow", "glow", "residual_flow"),
        ("pixelcnn", "pixelrnn"),
        ("mae",),
        ("energy",),
    )
)
POEMS = {
    f"prepare@{name}"
    for name, block in PARAMS["datasets"].items()
    if block["kind"] in ("poems", "couplets", "titles", "verses")
}
WRITERS = {name for name, block in PARAMS["recipes"].items() if block["model"] == "conditional_lm"}
CAPTIONS = {name for name in WRITERS if PARAMS["recipes"][name]["data"].startswith("features/")}
VERSES = WRITERS - CAPTIONS
FEATURES = {f"features@{name}" for name in PARAMS["features"]}  # of pictures, by a classifier
MASKED, TAGGERS = (
    {name for name, block in PARAMS["recipes"].items() if block["model"] == model}
    for model in ("masked_lm", "crf_tagger")
)
DYNASTIES = {name for name, block in PARAMS["recipes"].items() if block["model"] == "text_classifier"}
COUPLETS = {name for name, block in PARAMS["recipes"].items() if block["model"] == "couplet"}
SIMILAR = {name for name, block in PARAMS["recipes"].items() if block["model"] == "similarity"}
WITHOUT_CONV = RASTER | FLOWS | RESTORERS  # except where a classifier judges them
CONVOLVED = (PICTURES | POINTS) - WITHOUT_CONV


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The code and parameters of this project in a directory of their own, and what its files were."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(PACKAGE, root / "genpipe", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy2(PROJECT / name, root / name)
    return root, {path: (path.read_bytes(), path.stat()) for path in files(root)}


@pytest.fixture
def copy(originals):
    """The same directory for all tests, to be edited: what a test does not touch is parsed once."""
    root, contents = originals
    yield root
    for part in root.iterdir():
        if part.name.startswith(".") and part.is_dir():
            shutil.rmtree(part)
    for path in files(root) - contents.keys():
        path.unlink()
    for path, (content, stat) in contents.items():
        if not path.exists() or path.stat().st_mtime_ns != stat.st_mtime_ns:
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(scope="module")
def unedited(originals):
    """The code of that project before anything is edited."""
    root, _ = originals
    return code_of(root)


def files(root):
    return {path for path in root.rglob("*") if path.is_file()}


def edit(root, file, pattern, replacement):
    path = root / "genpipe" / file
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count, f"{pattern} is not in {file}"
    path.write_text(text, encoding="utf-8")


def of(names, commands=RECIPES):
    return {f"{command}@{name}" for command in commands for name in names}


ALL = set(code_of(PROJECT)["train"])
EVERY = {f"{command}@{name}" for command, items in code_of(PROJECT).items() for name in items}


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("nn/coupling.py", of(["nice"])),
        ("nn/flow_steps.py", of(FLOWS - {"nice"})),
        ("nn/gated.py", of(COUPLETS | TAGGERS)),
        ("nn/lines.py", of(COUPLETS)),
        ("sampling/lines.py", of(COUPLETS, ["sample", "evaluate"])),
        ("sources/near_lines.py", {"prepare@couplets", "prepare@couplets_full"}),
        ("nn/langevin.py", of(ENERGIES)),
        ("nn/recurrent.py", of(TITLES - VOTERS)),
        ("nn/transformer.py", of(RESTORERS)),
        ("features.py", FEATURES),
        ("data/captions.py", of(CAPTIONS)),
        ("evaluation/captions.py", of(CAPTIONS, ["evaluate"])),
        ("sampling/captions.py", of(CAPTIONS, ["sample"])),
        ("sources/emoji_names.py", {"prepare@emoji_names"}),
        ("nn/conv.py", FEATURES | of(CONVOLVED) | of(WITHOUT_CONV & JUDGED, ["sample", "evaluate"])),
        ("models/nice.py", of(["nice"])),
        ("models/classifier.py", FEATURES | of(CLASSIFIERS) | of(JUDGED, ["sample", "evaluate"])),
        ("data/images.py", of(PICTURES)),
        ("data/pairs.py", of(COUPLETS | TITLES)),
        ("data/tagged.py", of(VERSES | TAGGERS | DYNASTIES)),
        ("evaluation/text_classes.py", of(DYNASTIES, ["evaluate"])),
        ("data/passages.py", of(BIOGRAPHIES)),
        ("nn/votes.py", of(VOTERS) | of(WRITERS | TITLES, ["sample"]) | of(COUPLETS | TITLES | CAPTIONS, ["evaluate"])),
        ("data/points.py", of(POINTS)),
        ("recipe.py", FEATURES | of(ALL)),
        ("training/trainer.py", of(ALL, ["train"])),
        ("training/complaints.py", set()),
        ("evaluation/frechet.py", of(PICTURES - CLASSIFIERS - RESTORERS, ["evaluate"])),
        ("nn/causal.py", of(RASTER)),
        ("evaluation/likelihood.py", of(RASTER | FLOWS & PICTURES, ["evaluate"])),
        ("evaluation/inversion.py", of(FLOWS, ["evaluate"])),
        ("evaluation/retrieval.py", of(SIMILAR, ["evaluate"])),
        ("data/groups.py", of(SIMILAR)),
        ("nn/margins.py", of(SIMILAR)),
        ("sources/near_texts.py", {"prepare@bible", "prepare@bible_full", "prepare@help"}),
        ("sampling/temperatures.py", of(PICTURES | POINTS | TITLES | BIOGRAPHIES | WRITERS, ["sample"]) | of(FLOWS & PICTURES, ["evaluate"])),
        ("sampling/pictures.py", of(PICTURES | POINTS | TITLES | BIOGRAPHIES | WRITERS | MASKED | DYNASTIES, ["sample"])),
        ("sources/poems.py", POEMS),
        ("sources/idx.py", {"prepare@digits"}),
        ("corpus/vocabulary.py", of(PARAMS["corpora"], ["vocabulary"])),
        ("corpus/hidden_markov.py", of(PARAMS["corpora"], ["count"]) | of(PARAMS["encodings"], ["encode"]) | of(PARAMS["lexicons"], ["discover"])),
        ("discovery/branching.py", of(PARAMS["lexicons"], ["discover"])),
        ("files.py", EVERY),
        ("report/plots.py", set()),
    ],
)  # fmt: skip
def test_an_edit_makes_stale_what_imports_the_file_and_nothing_else(file, stale, copy, unedited):
    path = copy / "genpipe" / file
    path.write_text(path.read_text(encoding="utf-8") + "\nassert True\n", encoding="utf-8")
    assert changed(copy, unedited) == stale


@pytest.mark.parametrize(
    "file", ["recipe.py", "nn/coupling.py", "corpus/tokenizers.py", "models/__init__.py"]
)
def test_comments_blank_lines_and_docstrings_make_nothing_stale(file, copy, unedited):
    edit(copy, file, r'^"""', '"""Other words. ')
    path = copy / "genpipe" / file
    path.write_text(f"# a comment\n\n\n{path.read_text(encoding='utf-8')}\n# another\n", encoding="utf-8")
    assert changed(copy, unedited) == set()


def test_docstring_of_a_function_makes_nothing_stale(copy, unedited):
    edit(copy, "recipe.py", r'^    """', '    """Other words. ')
    assert changed(copy, unedited) == set()


def test_docstring_of_a_model_makes_nothing_stale_and_is_in_the_report(copy, unedited):
    edit(copy, "models/nice.py", r'^"""', '"""Other words. ')
    assert changed(copy, unedited) == set()
    assert docstring_of(copy, "nice").startswith("Other words.")
    assert docstring_of(copy, "nicer") == ""


def test_a_text_that_is_no_docstring_counts(copy, unedited):
    edit(copy, "models/nice.py", r"\Z", '\nNAME = "text"\n')
    middle = code_of(copy)
    edit(copy, "models/nice.py", r'"text"', '"another"')
    assert unedited["train"]["nice"] != middle["train"]["nice"] != code_of(copy)["train"]["nice"]


def test_a_constant_in_a_function_of_the_contract_makes_all_trainings_stale(copy, unedited):
    edit(copy, "recipe.py", r"^Batch = ", "SOMETHING = 1\nBatch = ")
    assert changed(copy, unedited) == FEATURES | of(ALL)


def test_a_new_model_makes_nothing_stale(copy, unedited):
    shutil.copy(copy / "genpipe/models/nice.py", copy / "genpipe/models/newer.py")
    edit(
        copy,
        "models/__init__.py",
        r"^from genpipe.recipe",
        "from genpipe.models.newer import NICE as Newer\nfrom genpipe.recipe",
    )
    edit(copy, "models/__init__.py", r"^}", '    "newer": Newer,\n}')
    assert changed(copy, unedited) == set()


def test_another_class_in_the_row_of_a_model_makes_that_model_stale(copy, unedited):
    edit(copy, "models/__init__.py", r'"nice": NICE', '"nice": OGAN')
    assert changed(copy, unedited) == of(["nice"])


def test_an_import_inside_a_function_is_an_import(copy):
    edit(
        copy, "models/nice.py", r"\Z", "\ndef later():\n    from genpipe.nn import gated\n    return gated\n"
    )
    before = code_of(copy)
    edit(copy, "nn/gated.py", r"\Z", "\nassert True\n")
    assert changed(copy, before) == of({"nice"} | COUPLETS | TAGGERS)


@pytest.mark.parametrize(
    ("file", "imports"),
    [
        ("nn/coupling.py", "from genpipe import capabilities\nSOMETHING = capabilities.SOMETHING"),
        ("nn/coupling.py", "import genpipe.capabilities as known\nSOMETHING = known.SOMETHING"),
        ("nn/coupling.py", "from genpipe.capabilities import *\nTWICE = 2 * SOMETHING"),
        ("models/nice.py", "from genpipe import capabilities\nSOMETHING = capabilities.SOMETHING"),
    ],
)
def test_a_module_that_is_imported_whole_counts_whole(file, imports, copy):
    edit(copy, "capabilities.py", r"\Z", "\nSOMETHING = 1\n")
    edit(copy, file, r"\Z", f"\n{imports}\n")
    before = code_of(copy)
    edit(copy, "capabilities.py", "^SOMETHING = 1", "SOMETHING = 2")
    assert changed(copy, before) == of(["nice"])


def test_an_import_of_all_names_counts_where_a_part_of_the_module_is_used(copy):
    shutil.copy(copy / "genpipe/nn/gated.py", copy / "genpipe/nn/newer.py")
    edit(copy, "assembly.py", "^from genpipe.models", "from genpipe.nn.newer import *\nfrom genpipe.models")
    before = code_of(copy)
    edit(copy, "nn/newer.py", r"\Z", "\nSOMETHING = 1\n")
    assert changed(copy, before) == FEATURES | of(ALL)


def test_data_beside_code_counts_for_what_uses_the_package(copy):
    (copy / "genpipe/sampling/frame.css").write_text("a")
    before = code_of(copy)
    (copy / "genpipe/sampling/frame.css").write_text("b")
    assert changed(copy, before) == FEATURES | of(ALL, ["sample", "evaluate"])


@pytest.mark.parametrize("name", [".plots.py.swp", "plots.py~", "README.md", "plots.py.orig"])
def test_what_editors_and_git_leave_beside_code_counts_for_nothing(name, copy, unedited):
    (copy / "genpipe/sampling" / name).write_text("a")
    assert changed(copy, unedited) == set()


def test_the_top_of_the_package_does_nothing_on_import(copy):
    """Every command imports genpipe/__init__.py, and no stage depends on it."""
    assert list(declared._top_of_package()) == []
    path = copy / "genpipe/__init__.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\nprint()\n", encoding="utf-8")
    (line,) = declared._top_of_package(copy / "genpipe")
    assert "__init__.py:" in line


def test_a_count_depends_on_the_file_that_defines_its_tokenizer():
    assert NONE.as_posix() == NO_FILE
    assert "${item.tokenizer_file}" in STAGES["count"]["deps"]
    assert all("tokenizer_file" in block for block in PARAMS["corpora"].values())


def test_fields_that_stages_do_not_count_have_no_defaults_with_a_meaning():
    """The code of params/project.py counts for nothing, so DVC must see each value in params.yaml.

    dvc.yaml names `seed` and `numerics` for its stages, and DVC refuses a params.yaml without them.
    """
    assert [
        name
        for name, field in Params.model_fields.items()
        if field.default_factory is None and not field.is_required()
    ] == ["seed", "numerics"]
    assert all(STAGES[command]["params"][0] == "seed" for command in RECIPES), (
        "DVC refuses a params.yaml without it"
    )
    for block in (RecipeParams, Sampling):
        assert {
            name: field.get_default(call_default_factory=True)
            for name, field in block.model_fields.items()
            if not field.is_required()
        } in ({}, {"how": {}}, {"validator": "none"})
    assert "artifacts/${item.validator}" in STAGES["train"]["deps"], "DVC refuses a recipe without it"


def test_an_unknown_model_is_one_line(copy):
    text = (copy / "params.yaml").read_text(encoding="utf-8")
    (copy / "params.yaml").write_text(text.replace("model: nice", "model: nicer"), encoding="utf-8")
    with pytest.raises(
        BadInput, match=r"params.yaml: recipes.nice: no 'nicer' in RECIPES; there is: aae, ali, classifier, "
    ):
        code_of(copy)


def test_features_of_a_recipe_that_there_is_not_are_one_line(copy):
    params = yaml_text.read(copy / "params.yaml")
    recipes = {name: block for name, block in params["recipes"].items() if name != "classifier_emoji"}
    (copy / "params.yaml").write_text(yaml_text.dump({**params, "recipes": recipes}))
    with pytest.raises(
        BadInput, match=r"features.emoji_names: model: no recipe 'classifier_emoji'; name one of"
    ):
        code_of(copy)


def test_every_stage_depends_on_its_own_code():
    assert set(STAGES) == {"code", *ENTRANCES}
    for name in ENTRANCES:
        assert entries(STAGES[name]) == [f"{name}.${{key}}"]


def test_a_training_and_dvc_count_the_same_code():
    dvc = code_of(PROJECT)["train"]["nice"]
    assert code_for("train", "nice", PARAMS) == {name: sha for name, sha in dvc.items() if name != LIBRARIES}


def test_shards_are_kept_by_the_code_that_dvc_counts_for_them():
    counted = code_for("count", "tang", PARAMS)
    assert "corpus/counting" in counted
    assert version_of("corpus.counting") == digest(
        {k: v for k, v in counted.items() if k not in only_outside(counted)}
    )


def only_outside(counted):
    """What count imports beside the counting of a shard: how results are merged and described."""
    from genpipe.dependencies import closure

    return counted.keys() - closure(["corpus.counting"]).keys()


def test_modules_without_effect_are_modules():
    assert [
        name for name in WITHOUT_EFFECT if not PACKAGE.joinpath(*name.split(".")).with_suffix(".py").exists()
    ] == []


def test_what_python_imports_for_a_model_is_counted():
    """The closure against Python itself, without the modules that import all members of a registry."""
    hashes = code_for("train", "nice", PARAMS)
    modules = [
        f"genpipe.{name.replace('/', '.')}"
        for name in hashes
        if name not in ("experiment", "assembly", "data/opening", "evaluation/validation")
    ]
    script = (
        "import importlib, sys, types\n"
        f"models = types.ModuleType('genpipe.models'); models.__path__ = [{str(PACKAGE / 'models')!r}]\n"
        "sys.modules['genpipe.models'] = models\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(*[name for name in sys.modules if name.startswith('genpipe.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("genpipe.") for name in done.stdout.split()}
    assert "nn.coupling" in loaded
    assert loaded <= {name.replace("/", ".") for name in hashes} | set(WITHOUT_EFFECT)


def test_no_model_imports_another_and_none_imports_dynamically():
    assert list(model_imports()) == []
    assert list(dynamic_imports()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import importlib",
        "from importlib import import_module",
        "x = __import__('math')",
        "exec('import math')",
    ],
)
def test_dynamic_import_below_a_model_is_refused(line, copy):
    path = copy / "genpipe/nn/coupling.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    assert [found.partition(":")[0] for found in dynamic_imports(copy / "genpipe")] == [
        "genpipe/nn/coupling.py"
    ]


def test_a_model_that_imports_another_is_named(copy):
    edit(copy, "models/nice.py", r"\Z", "\nfrom genpipe.models.ogan import OGAN\n")
    assert list(model_imports(copy / "genpipe")) == [
        "genpipe/models/nice.py imports genpipe/models/ogan.py; move what they share to genpipe/nn"
    ]


def test_nothing_is_found_in_this_project():
    assert check(PROJECT) == [], "with raw data or, as in a fresh clone, without"


@pytest.mark.parametrize(
    ("line", "becomes", "complaint"),
    [
        (', {artifacts/code.json: ["count.${key}"]}', "", "count does not depend on its code"),
        ('artifacts/code.json: ["train.${key}"]', 'artifacts/code.json: ["sample.${key}"]', "train does not depend on its code"),
        ("params.yaml, requirements.lock]", "params.yaml]", "code does not depend on requirements.lock, whose versions it writes"),
        ("cmd: genpipe vocabulary ${key}", "cmd: python v.py", "what `python v.py` imports is not known"),
    ],
)  # fmt: skip
def test_genpipe_check_names_what_is_not_declared(line, becomes, complaint, copy):
    text = (copy / "dvc.yaml").read_text(encoding="utf-8")
    assert line in text
    (copy / "dvc.yaml").write_text(text.replace(line, becomes), encoding="utf-8")
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=copy, check=True)
    command = [sys.executable, "-P", "-m", "genpipe.cli", "check"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert complaint in done.stdout


GRAPH = """\
stages:
  code:
    cmd: python -m genpipe.cli code
    deps: [genpipe, params.yaml]
    outs: [artifacts/code.json, artifacts/none]
  train:
    foreach: ${recipes}
    do:
      cmd: mkdir -p artifacts/models && echo ${key} > artifacts/models/${key}
      deps: ["artifacts/${item.start}"]
      params: ["recipes.${key}.train", {artifacts/code.json: ["train.${key}"]}]
      outs: ["artifacts/models/${key}"]
"""


def repro(root):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=root, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"Running stage '(.*)'", done.stdout))


def test_dvc_runs_only_what_imports_an_edited_brick(copy):
    """By hand, `dvc repro` derives the code first; the plan knows the outcome before anything has run."""
    make_repository(copy)
    params = yaml_text.read(copy / "params.yaml")
    quick = params["sets"]["quick"]
    recipes = {name: params["recipes"][name] for name in quick}
    (copy / "params.yaml").write_text(
        yaml_text.dump(
            {**params, "features": {}, "lexicons": {}, "recipes": recipes, "sets": {"quick": quick}}
        )
    )
    (copy / "dvc.yaml").write_text(GRAPH)
    (copy / ".dvcignore").write_text("__pycache__\n")
    assert {stage.name for stage in read_plan(copy).stale} == {"code", *of(quick, ["train"])}
    assert repro(copy) == {"code", *of(quick, ["train"])}
    assert repro(copy) == set()
    assert read_plan(copy).stale == ()
    edit(copy, "nn/coupling.py", r"\Z", "\nassert True\n")
    plan = {stage.name: stage.reasons for stage in read_plan(copy).stale}
    assert plan == {"code": ("genpipe changed",), "train@nice": ("code nn/coupling changed",)}
    assert repro(copy) == {"code", "train@nice"}
    edit(copy, "nn/coupling.py", r"\Z", "\n# a comment\n")
    assert [stage.name for stage in read_plan(copy).stale] == ["code"]
    assert repro(copy) == {"code"}
    for none in (lambda path: path.unlink(), lambda path: path.write_text("x")):
        none(copy / NONE)
        assert [stage.name for stage in read_plan(copy).stale] == ["code"]
    (copy / CODE).unlink()
    assert [stage.name for stage in read_plan(copy).stale] == ["code"]


def test_where_a_training_runs_is_no_part_of_its_code() -> None:
    code = code_for("train", "nice", PARAMS)
    assert not {"training/ray", "training/local", "training/group"} & set(code)
