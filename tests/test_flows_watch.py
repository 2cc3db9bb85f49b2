"""What the watcher sees, and that it tells each change once, whatever ends it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.commands import watch_main
from genpipe import lease
from tasks import watching
from tasks.watching import Change, announce, data_state, look
from tests.small_project import write_data, write_params


@pytest.fixture
def project(small_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(small_project)
    monkeypatch.setattr(watching, "SETTLED", 0.1)
    return small_project


def test_the_first_look_remembers_and_a_change_is_announced_once(project: Path) -> None:
    assert look(project) is None
    assert look(project) is None
    (project / "data/numbers.txt").write_text("4 5 6\n")
    change = look(project)
    assert change is not None
    assert change.names == ["data/numbers.txt"]
    sent: list[Change] = []
    announce(project, change, sent.append)
    assert sent == [change]
    assert look(project) is None


def test_a_new_pin_is_a_change_and_so_is_data_that_goes_back(project: Path) -> None:
    look(project)
    identities = []
    for text in ("4 5 6\n", "1 2 3\n"):
        write_data(project, text)
        change = look(project)
        assert change is not None
        assert change.names == ["data.dvc", "data/numbers.txt"]
        announce(project, change, lambda _: None)
        identities.append(change.identity)
    assert len(set(identities)) == 2


def test_an_announcement_that_was_cut_off_is_made_again_with_the_same_identity(project: Path) -> None:
    look(project)
    (project / "data/numbers.txt").write_text("4 5 6\n")
    program = (
        "import os, pathlib; from tasks.watching import announce, look\n"
        "root = pathlib.Path.cwd(); change = look(root); print(change.identity, flush=True)\n"
        "announce(root, change, lambda _: os.kill(os.getpid(), 9))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    change = look(project)
    assert change is not None
    assert change.identity == done.stdout.strip()
    announce(project, change, lambda _: None)
    assert look(project) is None


def test_what_is_still_being_written_is_no_change_yet(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(project)
    data = project / "data/numbers.txt"
    data.write_text("4\n")
    texts = iter(["4 5\n", "4 5 6\n"])

    def write_on(_: float) -> None:
        if text := next(texts, None):
            data.write_text(text)

    monkeypatch.setattr("tasks.watching.time.sleep", write_on)
    change = look(project)
    assert change is not None
    assert change.state == data_state(project)
    assert next(texts, None) is None  # it looked until nothing was written any more


def test_unchanged_files_are_not_read_again(project: Path) -> None:
    before = data_state(project)
    data = project / "data/numbers.txt"
    stat = data.stat()
    with data.open("r+") as file:  # the same size, and the same time below: only its bytes would tell
        file.write("9")
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data_state(project) == before
    os.utime(data)
    assert data_state(project) != before


def test_a_folder_outside_data_is_watched_too(project: Path) -> None:
    (project / "photos/cats").mkdir(parents=True)
    write_params(
        project, datasets={"pictures": {"kind": "image_folder", "source": "photos"}}, corpora={}, recipes={}
    )
    look(project)
    (project / "photos/cats/one.png").write_bytes(b"1")
    change = look(project)
    assert change is not None
    assert change.names == ["photos"]


def test_without_a_server_the_watcher_says_so_and_forgets_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(project / ".genpipe/prefect"))
    assert watch_main([]) == 0
    (project / "data/numbers.txt").write_text("4 5 6\n")
    assert watch_main([]) == 69
    assert "no Prefect server to tell" in capsys.readouterr().err
    assert look(project) is not None


def test_a_second_watcher_is_told_of_the_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lease.hold(project, "watch"):
        assert watch_main(["--every", "1"]) == lease.BUSY
    assert "watch is being run by process" in capsys.readouterr().err
    assert [watch_main(["--every", every]) for every in ("0", "nan", "inf")] == [2, 2, 2]
