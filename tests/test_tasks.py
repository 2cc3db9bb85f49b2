"""Tasks on processes that die: every result once, in order."""

import contextlib
import errno
import functools
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from genpipe.corpus.executors import choose, executor
from genpipe.corpus.processes import Process, Processes
from genpipe.corpus.tasks import Event, InProcess, Supervisor, Task, supervised
from genpipe.errors import BadInput, Unavailable


def square(number: int) -> int:
    return number * number


def tasks_of(work, numbers=range(12)) -> list[Task]:
    return [Task(f"task {number}", functools.partial(work, number)) for number in numbers]


def ignore(*_: object) -> None:
    """Reports no progress."""


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_tasks_and_are_told_once(workers):
    heard = []
    with supervised(Processes(), workers) as does:
        results = does.run(tasks_of(square), lambda number, result: heard.append((number, result)))
        assert does.run(tasks_of(square, range(3)), ignore) == [0, 1, 4], "the workers do a second list"
    assert results == [number * number for number in range(12)]
    assert sorted(heard) == [(number, number * number) for number in range(12)]


def die_first(number: int, marks: Path) -> int:
    if number % 4 == 1 and not (marks / str(number)).exists():
        (marks / str(number)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_dead_process_costs_time_and_nothing_else(tmp_path, capsys):
    work = functools.partial(die_first, marks=tmp_path)
    with supervised(Processes(), 2) as does:
        assert does.run(tasks_of(work), ignore) == [number * number for number in range(12)]
    assert (
        "a worker process ended (killed by SIGKILL); its work is handed out again" in capsys.readouterr().err
    )
    assert len(list(tmp_path.iterdir())) == 3


def die_on_five(number: int) -> int:
    return os._exit(7) if number == 5 else number


def test_a_task_that_kills_three_processes_is_named_after_the_others_are_done():
    heard = []
    with supervised(Processes(), 2) as does, pytest.raises(BadInput) as error:
        does.run(tasks_of(die_on_five), lambda number, _: heard.append(number))
    assert str(error.value).startswith(
        "task 5: ended 3 worker processes (exit status 7), everything else is done"
    )
    assert sorted(heard) == [number for number in range(12) if number != 5]


def complain(number: int) -> int:
    if number == 3:
        raise BadInput("line 3 is no text; fix it")
    return number


def find_a_full_disk(number: int) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", f"run{number}")


def crash(number: int) -> int:
    raise ZeroDivisionError(number)


def test_bad_input_is_one_line_and_a_defect_keeps_its_traceback():
    with supervised(Processes(), 2) as does, pytest.raises(BadInput, match=r"^line 3 is no text; fix it$"):
        does.run(tasks_of(complain), ignore)
    with (
        supervised(Processes(), 1) as does,
        pytest.raises(Unavailable, match=r"^run0: No space left on device; make"),
    ):
        does.run(tasks_of(find_a_full_disk), ignore)
    with supervised(Processes(), 2) as does, pytest.raises(RuntimeError, match=r"in crash"):
        does.run(tasks_of(crash), ignore)


def hang_first(number: int, marks: Path) -> int:
    if number == 0:
        with contextlib.suppress(FileExistsError), (marks / "hung").open("x"):
            time.sleep(86400)
    return number * number


def test_a_slow_task_and_what_waits_behind_it_are_done_by_another(tmp_path):
    with supervised(Processes(), 2) as does:
        does.run(tasks_of(square, range(2)), ignore)
        results = does.run(tasks_of(functools.partial(hang_first, marks=tmp_path)), ignore)
    assert results == [number * number for number in range(12)]


def large(number: int, given: bytes) -> bytes:
    time.sleep(0.05)
    return given + bytes(2 << 20)


def test_large_tasks_and_large_results_do_not_wait_for_each_other():
    work = functools.partial(large, given=bytes(3 << 20))
    with supervised(Processes(), 2) as does:
        assert [len(result) for result in does.run(tasks_of(work), ignore)] == [5 << 20] * 12


class Ended:
    """A process that was killed."""

    exitcode = -signal.SIGKILL

    def join(self, timeout=None):
        """It has ended."""


def test_a_message_that_was_cut_off_is_a_death():
    worker = object.__new__(Process)
    worker.connection, theirs = multiprocessing.Pipe()
    worker._process = Ended()
    os.write(theirs.fileno(), struct.pack("!i", 1000) + b"the beginning of a result")
    theirs.close()
    event = worker.event()
    assert (event.kind, event.value) == ("died", "killed by SIGKILL")
    worker.connection.close()


class FakeWorker:
    """Does a task when it is waited for, unless it died in the night."""

    def __init__(self):
        self.work = ["ready"]
        self.is_dead = False

    def give(self, work):
        self.work.append(work)

    def dismiss(self):
        self.is_dead = True

    def event(self):
        if self.is_dead:
            return Event(self, "died", "killed by SIGKILL")
        first = self.work.pop(0)
        return Event(self, "ready", True) if first == "ready" else Event(self, "done", first())


class FakeCrew:
    """Its workers' deaths are seen only when they have work, as with Ray's actors."""

    def __init__(self):
        self.hired = []

    def hire(self):
        self.hired.append(FakeWorker())
        return self.hired[-1]

    def wait(self, workers, seconds):
        return [worker.event() for worker in workers if worker.work]


def test_workers_that_died_between_two_lists_are_nobody_s_fault():
    crew = FakeCrew()
    supervisor = Supervisor(crew, 4)
    assert supervisor.run(tasks_of(square), ignore) == [number * number for number in range(12)]
    for worker in crew.hired:
        worker.is_dead = True
    assert supervisor.run(tasks_of(square, range(1)), ignore) == [0]


class LosingWorker(FakeWorker):
    """Dies of the task 3, and takes the result of the task before with it, as a process of Ray may."""

    def event(self):
        if any(work != "ready" and work.args == (3,) for work in self.work[:2]):
            return Event(self, "died", "exit status 1")
        return super().event()


class LosingCrew(FakeCrew):
    def hire(self):
        self.hired.append(LosingWorker())
        return self.hired[-1]


def test_a_task_whose_results_are_lost_with_another_is_not_blamed():
    heard = []
    with pytest.raises(BadInput) as error:
        Supervisor(LosingCrew(), 1).run(tasks_of(square, range(8)), lambda number, _: heard.append(number))
    assert str(error.value).startswith("task 3: ended 3 worker processes")
    assert str(error.value).count("task ") == 1
    assert sorted(heard) == [number for number in range(8) if number != 3]


def nap(number: int) -> None:
    time.sleep(0.3)


def meet(number: int, marks: Path) -> None:
    """Ends when two processes have come here."""
    (marks / str(os.getpid())).touch()
    while len(list(marks.iterdir())) < 2:
        time.sleep(0.01)


def test_two_tasks_go_to_two_workers(tmp_path):
    with supervised(Processes(), 2) as does:
        while does.alive < 2:  # both are up
            does.run(tasks_of(nap, range(4)), ignore)
        does.run(tasks_of(functools.partial(meet, marks=tmp_path), range(2)), ignore)
    assert len(list(tmp_path.iterdir())) == 2


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    code = (
        "import functools, time\nfrom genpipe.corpus.processes import Processes\n"
        "from genpipe.corpus.tasks import Task, supervised\n"
        "if __name__ == '__main__':\n"
        "    with supervised(Processes(), 2) as does:\n"
        "        does.run([Task('nap', functools.partial(time.sleep, 86400))] * 4, print)\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    driver = subprocess.Popen([sys.executable, str(script)])
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 600
    while (
        len(children) < 3 and time.monotonic() < deadline
    ):  # two workers and multiprocessing's resource tracker
        children = psutil.Process(driver.pid).children()
        time.sleep(0.1)
    time.sleep(1)
    driver.kill()
    driver.wait()
    gone, alive = psutil.wait_procs(children, timeout=300)
    assert not alive
    assert len(gone) == 3


def test_auto_takes_what_the_work_is_worth(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose("auto", 2, 100, seconds=1) == "here"
    assert choose("auto", 2, 100, seconds=10) == "local"
    assert choose("auto", 2, 100, seconds=1000) == "ray"
    assert choose("local", 2, 100, seconds=1000) == "local"
    assert choose("ray", 0, 100, seconds=1000) == "here"
    assert choose("ray", 2, 1, seconds=1000) == "here"
    assert choose("auto", 2, 100, seconds=1000, threads=True) == "here"
    assert choose("local", 2, 100, seconds=1000, threads=True) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert choose("auto", 2, 100, seconds=1) == "ray"


def test_one_task_needs_no_second_process():
    with executor("local", 4, 1, 100) as does:
        assert isinstance(does, InProcess)


class Unreadable:
    """A task that no worker can unpickle."""

    def __call__(self):
        """Never done."""

    def __reduce__(self):
        return int, ("no number",)


def test_a_task_that_cannot_be_unpickled_is_named_and_nobody_waits_for_ever():
    tasks = [*tasks_of(square, range(3)), Task("the bad one", Unreadable())]
    with supervised(Processes(), 2) as does, pytest.raises(BadInput, match="the bad one: ended 3 worker"):
        does.run(tasks, ignore)


def test_threads_work_at_once_and_give_results_in_order():
    meeting = threading.Barrier(2, timeout=600)

    def work(number: int) -> int:
        meeting.wait()
        return number

    heard: list[tuple[int, int]] = []
    tasks = tasks_of(work, range(8))
    with executor("auto", 2, len(tasks), 100, threads=True) as does:
        assert does.run(tasks, lambda number, result: heard.append((number, result))) == list(range(8))
    assert heard == [(i, i) for i in range(8)]


def test_a_thread_s_error_ends_the_work():
    done: list[int] = []

    def work(number: int) -> None:
        if number == 1:
            raise BadInput("no")
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(BadInput, match="no"):
        InProcess(2).run(tasks_of(work, range(20_000)), ignore)
    assert len(done) < 19_998, "all the others were done, which takes 100 seconds"


def threads_of_polars() -> int:
    import polars

    return polars.thread_pool_size()


def test_polars_has_one_thread_in_a_worker_and_all_cores_outside():
    before = dict(os.environ)
    tasks = [Task(str(i), threads_of_polars) for i in range(4)]
    with executor("local", 2, len(tasks), 100) as does:
        assert does.run(tasks, ignore) == [1] * 4
    assert dict(os.environ) == before
    code = "import polars, genpipe.corpus.counting; print(polars.thread_pool_size())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(os.sched_getaffinity(0))
