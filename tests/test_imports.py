"""A command imports nothing heavy that its work does not need: each of these costs a stage between 0.3 and 3 CPU seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import tiny

HEAVY = ("torch", "ray", "pandas", "dvc", "prefect", "datasets", "scipy")
RUN = (
    "import sys\nfrom genpipe.cli import main\nstatus = main(sys.argv[1:])\n"
    f"print('imported:', *sorted({{*{HEAVY}}} & {{*sys.modules}}))\nsys.exit(status)"
)
PARAMS = {
    "datasets": {"poems": {"kind": "poems", "source": "data/poems.jsonl", "test_share": 0.25}},
    "corpora": {
        "poems": {"dataset": "poems", "files": ["train.jsonl"], "field": "paragraphs", "tokenizer": "char"}
    },
    "encodings": {
        "poems": {"dataset": "poems", "corpus": "poems", "kind": "stream", "fields": {"text": "paragraphs"}}
    },
    "recipes": {"classifier": tiny.block("classifier") | {"judge": "none"}},
}
POEM = '{"title": "%d", "author": "a", "paragraphs": ["白日依山盡，黃河入海流。%d"]}\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "data").mkdir()
    (root / "data" / "poems.jsonl").write_text("".join(POEM % (n, n) for n in range(20)), encoding="utf-8")
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    tiny.write_images(root / "artifacts" / "encoded" / "images")
    return root


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("prepare poems", ""),
        ("count --corpus poems", ""),
        # pyarrow imports pandas by itself
        ("vocabulary poems", "pandas"),
        ("encode poems", "pandas"),
        ("train classifier --workers 2", "torch"),
        ("sample classifier", "torch"),
        ("evaluate classifier", "torch"),
    ],
    ids=lambda words: words.replace(" ", "_"),
)
def test_a_stage_imports_what_it_needs_and_no_more(words: str, needed: str, project: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", RUN, *words.split()]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split()[1:] == needed.split()


def test_a_count_outside_a_project_does_not_import_what_reads_one(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two\n")
    code = RUN.replace("print(", "assert 'genpipe.params.project' not in sys.modules\nprint(", 1)
    words = ["count", "text.txt", "--tokenizer", "whitespace", "--out", "counts.parquet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_what_keeps_the_files_of_a_training_on_ray_does_without_torch() -> None:
    program = f"import sys, genpipe.training.keeper\nprint(*sorted({{*{HEAVY}}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "\n"
