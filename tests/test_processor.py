"""Kinds of processors: in the card and the run key, and never mixed. torch takes another set of instructions where told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from genpipe.cli import main
from genpipe.training.processor import libraries, processor
from tests import tiny

OTHER = {"ATEN_CPU_CAPABILITY": "default"}
ONE_OF_TWO = """
import json, sys
from pathlib import Path
import torch
from genpipe.assembly import fit
from genpipe.errors import GenpipeError
from genpipe.files import hash_of
from genpipe.params.training import Training
from genpipe.training.job import Job
from genpipe.training.logical import Processes
from genpipe.training.runs import Run
from tests import tiny

rank, place = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
data = place / "data"
job = Job("classifier", data, "", Training.model_validate(tiny.training("classifier")), 1, json.loads(sys.argv[3]))
try:
    fit(Processes(), torch.device("cpu"), job, Run(place / "run"))
    print("trained")
except GenpipeError as error:
    print(error)
"""

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch has one set of instructions here"
)


def environment(changes: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]), **changes}


@pytest.mark.parametrize("other", [OTHER, {}])
def test_a_process_with_another_set_of_instructions_is_refused_by_all(other, tmp_path):
    tiny.write_images(tmp_path / "data")
    machine = json.dumps({**processor(), **libraries()})
    words = [sys.executable, "-c", ONE_OF_TWO]
    group = [
        subprocess.Popen(
            [*words, str(rank), str(tmp_path), machine],
            env=environment(changes),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, changes in enumerate(({}, other))
    ]
    said = [process.communicate(timeout=300)[0].splitlines()[-1] for process in group]
    if not other:
        assert said == ["trained", "trained"]
        return
    assert said[0] == said[1]
    assert "the command has numerics portable" in said[0]
    assert "process 1 has numerics native, maker " in said[0]
    assert "instructions DEFAULT" in said[0]
    assert "numerics: portable in params.yaml" in said[0]
    assert not (tmp_path / "run").exists()


def test_a_finished_run_of_other_instructions_is_not_exported_as_one_of_these(tmp_path, monkeypatch):
    tiny.write_images(tmp_path / "artifacts" / "encoded" / "images")
    blocks = {
        "numerics": "native",
        "datasets": {"tiny": {"kind": "digits", "source": "data/digits"}},
        "recipes": {"classifier": tiny.block("classifier") | {"judge": "none"}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(blocks))
    words = ["train", "classifier", "--workers", "0", "--out"]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "here"]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "genpipe.cli", *words, "there"],
        env=environment(OTHER),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "finished already" not in done.stdout
    assert len(list((tmp_path / ".genpipe" / "runs").iterdir())) == 2
    cards = [json.loads((tmp_path / place / "recipe.json").read_text()) for place in ("here", "there")]
    assert cards[0]["processor"] == processor()
    assert cards[1]["processor"]["instructions"].startswith("DEFAULT")
    assert {key for key in cards[0] if cards[0][key] != cards[1][key]} == {"processor"}
    assert "instructions DEFAULT" in (tmp_path / "there" / "card.md").read_text()
