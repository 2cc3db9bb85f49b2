"""The tree of errors: each kind has one exit status, in every command and across processes."""

import errno
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import genpipe
import tasks
from flows.starting import status_of
from genpipe.cli import main
from genpipe.corpus.processes import Processes
from genpipe.corpus.tasks import Task, supervised
from genpipe.errors import (
    EXIT_STATUS,
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
    unpacked,
)  # fmt: skip
from genpipe.training.agreement import together

KINDS = [(BadInput, 2), (BadState, 2), (WorkFailed, 1), (Unavailable, 69), (ClusterLost, 69), (Busy, 75)]


def subclasses(kind: type[GenpipeError]) -> Iterator[type[GenpipeError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def raising(error: BaseException) -> Callable[..., Any]:
    def work(*_: object) -> None:
        raise error

    return work


def test_every_subclass_has_one_status() -> None:
    for package in (genpipe, tasks):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name not in ("atomic_dvc",):
                importlib.import_module(f"{package.__name__}.{module.name}")
    found = list(subclasses(GenpipeError))
    assert len(found) > len(EXIT_STATUS)
    for kind in found:
        assert [parent for parent in kind.__bases__ if issubclass(parent, GenpipeError)] == [
            kind.__bases__[0]
        ]
        assert any(parent in EXIT_STATUS for parent in kind.__mro__), kind


@pytest.mark.parametrize(("kind", "status"), KINDS)
def test_command_line_and_flows_end_with_the_status_of_the_kind(
    kind: type[GenpipeError], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("genpipe.own_code.require", raising(kind("one line")))
    assert main(["--root", str(tmp_path), "recipes"]) == status
    assert capsys.readouterr().err == "genpipe: one line\n"
    assert status_of(raising(kind("one line"))) == status
    assert capsys.readouterr().err == "genpipe: one line\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError(number, os.strerror(number), "file"), 69) for number in (errno.ENOSPC, errno.EDQUOT)]
    + [
        (OSError(number, os.strerror(number), "file"), 2)
        for number in (errno.EACCES, errno.EPERM, errno.EROFS)
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


def storage_fails() -> None:
    raise Unavailable("the storage does not answer")


def test_a_worker_process_reports_the_kind() -> None:
    with (
        supervised(Processes(), 1) as executor,
        pytest.raises(Unavailable, match=r"^the storage does not answer$"),
    ):
        executor.run([Task("one", storage_fails)], lambda *_: None)


class _OtherFails:
    """An exchange of two processes, of which the other one has sent `message`."""

    rank, size = 0, 2

    def __init__(self, message: bytes) -> None:
        self.message = message

    def gather(self, row: torch.Tensor, _counts: list[int]) -> torch.Tensor:
        other = torch.zeros_like(row)
        other[0, : len(self.message)] = torch.tensor(list(self.message), dtype=torch.uint8)
        return torch.cat([row, other])


def test_the_other_processes_of_a_training_raise_the_kind_of_the_first() -> None:
    exchange: Any = _OtherFails(b"Unavailable\nthe storage does not answer")
    with pytest.raises(Unavailable, match=r"^the storage does not answer$") as caught:
        together(exchange, torch.device("cpu"), lambda: 1)
    assert caught.value.is_agreed
    assert kind_of(caught.value) is Unavailable
