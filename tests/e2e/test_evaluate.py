"""The flow evaluate on a copy of this project: real digits, a real training, a real version in the registry.

pytest tests/e2e/test_evaluate.py -m e2e
"""

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest

from genpipe.files import hash_of
from tests.e2e.conftest import output

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.org")


@pytest.fixture
def root(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with the first version of a model in its registry."""
    pytest.importorskip("genpipe.registry")
    root = tmp_path / "project"
    shutil.copytree(project, root, symlinks=True)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in ("AUTHOR", "COMMITTER"):  # GTO makes a tag in somebody's name
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    flow(root, "retrain", "evaluate@nice")
    output(root, "git", "add", "--all")
    output(root, "git", *IDENTITY, "commit", "--quiet", "--allow-empty", "-m", "trained")
    output(root, str(Path(sys.executable).parent / "gto"), "register", "nice")
    return root


def flow(root: Path, name: str, *words: str) -> str:
    return output(root, sys.executable, "-m", f"flows.{name}", *words)


def judged(root: Path) -> dict[str, str]:
    with (root / ".genpipe/judged/models.tsv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
        return row


def test_a_version_is_judged_on_the_data_of_now_and_artifacts_stay_as_they_are(root: Path) -> None:
    artifacts = hash_of([root / "artifacts"], root)
    flow(root, "evaluate", "nice")
    row = judged(root)
    assert (row["model"], row["version"]) == ("nice", "v0.0.1")
    assert float(row["bits_per_dim"]) == float(row["bits_per_dim (recorded)"])  # the same data, the same bits
    assert hash_of([root / "artifacts"], root) == artifacts

    images = root / "data/digits/test-images-idx3-ubyte"
    changed = bytes(255 - value for value in images.read_bytes()[-784_000:])  # a thousand pictures, inverted
    content = images.read_bytes()[:-784_000] + changed
    images.unlink()  # it may be a link into the cache of DVC
    images.write_bytes(content)
    output(root, sys.executable, "-m", "dvc", "add", "--quiet", "data")
    flow(root, "retrain", "train@classifier")
    flow(root, "evaluate", "nice@v0.0.1")
    row = judged(root)
    assert float(row["bits_per_dim"]) > float(row["bits_per_dim (recorded)"])
    assert os.listdir(root / ".genpipe/judged/nice@v0.0.1/samples")
