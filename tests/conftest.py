import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.registered_project import copy_template, make_template
from tests.repository import be_somebody
from tests.small_project import make_project

if TYPE_CHECKING:
    from tests.reference.project import Results

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
# in the background of a shell it is ignored, also by what is started here, and a Prefect worker would never end
signal.signal(signal.SIGINT, signal.default_int_handler)

# an example may take long on a busy machine, and may share a test's directory
settings.register_profile(
    "busy",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: processes take one after the other, and none should be left with a long one."""
    long = {
        item.path for item in items if any(item.get_closest_marker(name) for name in ("e2e", "ray", "long"))
    }
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def one_torch_thread_and_seed(request):
    """Two busy threads made tiny steps 40 times slower. No test may pass by luck. One that needs no torch does not import it."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def in_double_precision():
    """New tensors are float64, and seeded."""
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def refused(tmp_path, capsys):
    """A command that ends with status 2 and one line, which it returns; the directory of the test stays as it is."""
    from genpipe.cli import main
    from genpipe.files import hash_of

    def refused(*words: object) -> str:
        capsys.readouterr()
        before = hash_of([tmp_path], tmp_path), sorted(tmp_path.rglob("*"))
        assert main([*map(str, words)]) == 2
        assert (hash_of([tmp_path], tmp_path), sorted(tmp_path.rglob("*"))) == before
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        return line

    return refused


@pytest.fixture(scope="session")
def small_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small_project(small_template: Path, tmp_path: Path) -> Path:
    """A copy of tests/small_project.py's, for a test to change."""
    return Path(shutil.copytree(small_template, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def registered_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("registered")
    make_template(home)
    return home


@pytest.fixture(scope="session")
def reference_project(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, Results]":
    """tests/reference/project.py's after all its stages, with the exit status and the words of each; not to be changed."""
    from tests.reference import project  # imports torch

    root = project.make_project(tmp_path_factory.mktemp("reference") / "project")
    return root, project.run_commands(root, project.commands_of(root))


@pytest.fixture
def registered_project(registered_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of tests/registered_project.py's, for a test to change, and a name to commit with."""
    be_somebody(monkeypatch)
    return copy_template(registered_template, tmp_path)
