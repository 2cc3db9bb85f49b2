"""Every command of the README is executed, here or in test_deployment.py, in the order of the README."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import RECIPES, make_project

HERE = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ELSEWHERE = {
    "git clone REPOSITORY genpipe && cd genpipe": "the project fixture is a fresh copy",
    "prefect server start": "test_deployment.py",
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": "test_deployment.py, with a port of its own",
    "prefect work-pool create local --type process": "test_deployment.py",
    "prefect --no-prompt deploy --all": "test_deployment.py",
    "python -m flows.automations": "test_schedule.py",
    "prefect worker start --pool local": "test_deployment.py",
    "prefect deployment run 'retrain/manual' --watch": "test_deployment.py",
    'eval "$(deploy/ray/start.sh head --interface 10.0.0.5)"': "test_deploy.py",
    "genpipe train nice --workers 1-4": "test_training_ray.py, on a cluster of its own",
}


def commands() -> list[str]:
    """The lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (HERE / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_commands_that_run_elsewhere_are_in_the_readme():
    assert ELSEWHERE.keys() <= set(commands())


def make_pictures(root: Path) -> None:
    """The reader's own pictures, which the README calls digit.png and pictures/*.png."""
    digits = np.random.default_rng(1).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    (root / "pictures").mkdir()
    for path, digit in zip(["digit.png", *(f"pictures/{i}.png" for i in range(3))], digits, strict=True):
        Image.fromarray(digit).save(root / path)


def test_the_commands_of_the_readme_run_in_their_order(tmp_path):
    project = tmp_path / "project"
    make_project(project, (*RECIPES, "ogan"), {"workers": 0, "max_parallel": 2})
    make_pictures(project)
    # this small project counts no other corpus than that of its couplets
    makefile = project / "Makefile"
    makefile.write_text(
        makefile.read_text(encoding="utf-8").replace("encode@tang", "encode"), encoding="utf-8"
    )
    # Without the make that may run these tests: its own make would greet and say goodbye as a recursive one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in [line for line in commands() if line not in ELSEWHERE]:
        # The environment of the tests stands in for .venv, whose making `make test` itself has shown.
        words = command.replace("make run", "make -o .venv/.installed run")
        done = subprocess.run(
            words, shell=True, cwd=project, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if command == "make run":
            assert "open artifacts/report/index.html" in done.stdout.splitlines()[-1]
    assert (project / "build/nice/weights.safetensors").exists()
    assert (project / "build/counts.parquet").exists()
