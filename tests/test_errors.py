"""The tree of errors: each kind has one exit status, in every command and across processes."""

import errno
import importlib
import multiprocessing
import os
import pkgutil
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.repo import Repo

import flows
import genpipe
import tasks
from flows import direct
from flows.starting import prepare_prefect
from genpipe import lease
from genpipe.cli import main
from genpipe.corpus import processes as corpus_processes
from genpipe.corpus.tasks import Task, supervised
from genpipe.errors import (
    EXIT_STATUS,
    INTERRUPTED,
    BadInput,
    BadState,
    Busy,
    ClusterLost,
    GenpipeError,
    Unavailable,
    WorkFailed,
    exit_status,
    kind_of,
    packed,
    reported,
    unpacked,
)
from genpipe.graph import by_command, in_process
from genpipe.params.project import read_params
from genpipe.registry.promotion import promote
from genpipe.training import logical
from genpipe.training.agreement import together
from genpipe.training.runs import Run
from tasks.publish import publish
from tasks.workspace import Contents, open_workspace
from tests.repository import as_somebody, dvc

PROJECT = Path(genpipe.__file__).parents[1]
KINDS = [(BadInput, 2), (BadState, 2), (WorkFailed, 1), (Unavailable, 69), (ClusterLost, 69), (Busy, 75)]


def subclasses(kind: type[GenpipeError]) -> Iterator[type[GenpipeError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def closed_port() -> int:
    """A port of this machine on which nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def end_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The status that a command ends with, and its last line."""
    status = main(["--root", ".", *command])
    return f"{status} {capsys.readouterr().err.splitlines()[-1]}"


def run_command(root: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env={**as_somebody(), "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_every_subclass_has_one_status() -> None:
    prepare_prefect()
    for package in (genpipe, tasks, flows):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # The first replaces a function of DVC, and the second runs a command.
            if module.name != "tasks.atomic_dvc" and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = list(subclasses(GenpipeError))
    assert {"GitFailed", "DvcFailed", "StageFailed", "Locked", "NotSent", "RunFailed"} <= {
        kind.__name__ for kind in found
    }
    for kind in found:
        parents = [parent for parent in kind.__bases__ if issubclass(parent, GenpipeError)]
        assert len(parents) == 1, kind
        assert any(parent in EXIT_STATUS for parent in kind.__mro__), kind


def test_help_and_documentation_list_each_status_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    expected = {0, *EXIT_STATUS.values(), INTERRUPTED}
    assert main([]) == 0
    shown = re.findall(r"^  (\d+)  ", capsys.readouterr().out, re.MULTILINE)
    assert [int(status) for status in shown] == sorted(expected)
    page = (PROJECT / "docs/operations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", page, re.MULTILINE))
    assert {int(status) for status in rows} == expected
    for kind, status in EXIT_STATUS.items():
        assert f"`{kind.__name__}`" in rows[str(status)]


def test_a_directory_without_parameters_is_the_state_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert end_of(capsys, "prepare", "digits").startswith(f"2 genpipe: {tmp_path}/params.yaml: no such file")
    done = run_command(tmp_path, "-m", "flows.corpus")
    assert done.returncode == 2
    assert done.stderr.startswith(f"genpipe: {tmp_path}/params.yaml: no such file")


def test_what_a_person_gave_is_bad_input(
    small_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small_project)
    assert (
        end_of(capsys, "prepare", "digits")
        == "2 genpipe: no 'digits' in datasets of params.yaml; it has: numbers"
    )
    done = run_command(small_project, "-m", "flows.corpus", "three")
    assert (done.returncode, done.stderr) == (
        2,
        "genpipe: no 'three' in corpora of params.yaml; it has: one, two\n",
    )


def test_a_lease_that_is_held_is_busy(
    small_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small_project)
    with lease.hold(small_project, "vocabulary@one"), lease.hold(small_project, direct.LEASE):
        assert end_of(capsys, "vocabulary", "one").startswith(
            "75 genpipe: vocabulary@one is being run by process"
        )
        done = run_command(small_project, "-m", "flows.corpus")
    assert (done.returncode, done.stderr.count("\n")) == (75, 1), done.stderr


def test_the_lock_of_dvc_is_busy_in_process_and_by_its_command(
    small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "PATIENCE", 0)
    with Repo(str(small_project)) as repo, repo.lock:
        for read in (in_process.read_plan, by_command.read_plan):
            with pytest.raises(Busy, match="another DVC command is at work here"):
                read(small_project)


def test_a_data_remote_that_does_not_answer_is_unavailable(
    registered_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(registered_project)
    published = publish(registered_project, "run")
    promote(registered_project, published.commit, read_params(registered_project).promotion, None)
    dvc(registered_project, "remote", "modify", "store", "url", f"http://127.0.0.1:{closed_port()}")
    shutil.rmtree(registered_project / ".dvc/cache")
    shutil.rmtree(registered_project / "artifacts/models")
    assert end_of(capsys, "pull", "nice@prod", "--out", "nice").startswith(
        "69 genpipe: artifacts/models/nice of "
    )
    assert not Path("nice").exists()
    with pytest.raises(Unavailable, match=r"data\.dvc: the raw data is not in the cache of DVC"):
        open_workspace(registered_project, Contents({}, (), pins=("data.dvc",)))


def test_a_server_that_does_not_answer_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"http://127.0.0.1:{closed_port()}"
    assert end_of(capsys, "count", f"{url}/a.txt", "--out", "counts").startswith(
        f"69 genpipe: {url}/a.txt: no answer"
    )
    done = run_command(PROJECT, "-m", "flows.automations", PREFECT_API_URL=f"{url}/api")
    assert done.returncode == 69
    assert done.stderr.splitlines()[-1].startswith("genpipe: automations: no Prefect server answers")


def test_a_full_disk_is_unavailable(small_project: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "genpipe.cli", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr.count("\n")) == (69, 1), done.stderr
    assert done.stderr.startswith("genpipe: writing: No space left on device; make room")


@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError(number, os.strerror(number), "file"), 69) for number in (errno.ENOSPC, errno.EDQUOT)]
    + [
        (OSError(number, os.strerror(number), "file"), 2)
        for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
    ]
    + [(KeyboardInterrupt(), 130)],
)
def test_disks_rights_and_interrupts_have_a_status(error: BaseException, status: int) -> None:
    end = exit_status(error)
    assert end is not None
    assert end[0] == status


def test_a_defect_has_no_status() -> None:
    assert exit_status(ZeroDivisionError()) is None
    assert exit_status(OSError(errno.EIO, "file")) is None


@pytest.mark.parametrize(("kind", "status"), KINDS)
def test_a_kind_survives_the_way_to_another_process(kind: type[GenpipeError], status: int) -> None:
    there = unpacked(*packed(kind("one line")))
    assert exit_status(there) == (status, "one line")


def write_to_a_full_disk() -> None:
    try:
        Path("/dev/full").write_text("text")
    except OSError as error:
        raise known if (known := reported(error)) else error from None


def test_a_worker_process_reports_the_kind() -> None:
    with (
        supervised(corpus_processes.Processes(), 1) as executor,
        pytest.raises(
            Unavailable, match=r"^/dev/full: No space left on device|^writing: No space left on device"
        ),
    ):
        executor.run([Task("one", write_to_a_full_disk)], lambda *_: None)


def _train(rank: int, directory: Path, ends: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2
    )
    run = Run(directory / "run")
    try:
        together(logical.Processes(), torch.device("cpu"), lambda: run.append(b"row") if rank == 1 else None)
    except GenpipeError as error:
        ends.put((rank, kind_of(error), error.is_agreed, exit_status(error)))


def test_all_processes_of_a_training_raise_the_kind_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").symlink_to("/dev/full")
    context = multiprocessing.get_context("fork")
    ends = context.Queue()
    group = [context.Process(target=_train, args=(rank, tmp_path, ends)) for rank in (0, 1)]
    for process in group:
        process.start()
    try:
        found = sorted(ends.get(timeout=600) for _ in group)
    finally:
        for process in group:
            process.kill()
    (_, *first), (_, *second) = found
    assert first == second
    assert first[:2] == [Unavailable, True]
    assert first[2][0] == 69
    assert "No space left on device" in first[2][1]
