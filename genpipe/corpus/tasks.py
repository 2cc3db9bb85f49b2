"""Tasks and the supervisor that has them done by processes of which any may die.

A task writes a file that is named by its content, whole or not at all, so doing it twice changes nothing. A worker
holds nothing between tasks: a dead one costs the tasks it had in hand, and these are handed out again. A worker that
does not see our files gets what a task reads, and gives back what it would write.
"""

import contextlib
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from genpipe.errors import BadInput, BadState, Unavailable

IN_HAND = 2  # tasks of a worker: one that runs, one that waits, so that it never idles
MAX_DEATHS = 3  # of workers, before their task is given up
SECONDS_TO_COMPLAIN = 30  # without a worker
SLOW = 2.0  # a task that takes this many medians is done by a second worker too, once nothing else waits

ONE_THREAD = {"POLARS_MAX_THREADS": "1"}  # environment of a worker; to be set before polars is imported

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task(Generic[Result]):
    """A piece of work; `name` is what a person would call it."""

    name: str
    work: Callable[[], Result]
    away: "Away[Result] | None" = None  # the same for a worker that does not see our files


@dataclass(frozen=True)
class Away(Generic[Result]):
    """A task whose bytes travel."""

    pack: Callable[[], Callable[[], Any]]  # reads what the work needs, when it is handed out
    keep: Callable[[Any], Result]  # writes what the work gave


@dataclass(frozen=True)
class Event:
    """What became of a worker's oldest task, or of the worker."""

    worker: "Worker"
    kind: Literal["ready", "done", "died"]
    value: Any = None  # the result, or why it died; of one that is ready, whether it sees our files


class Worker(Protocol):
    """A process that does one task after another; its first event is `ready`."""

    def give(self, work: Callable[[], Any]) -> None:
        """Hand it a task."""
        ...

    def dismiss(self) -> None:
        """End it at once."""
        ...


class Crew(Protocol):
    """Where workers come from."""

    def hire(self) -> Worker:
        """A new worker."""
        ...

    def wait(self, workers: Sequence[Worker], seconds: float) -> list[Event]:
        """What happened to any of them; nothing, where that many seconds pass. A task's error of genpipe is raised."""
        ...


class Executor(Protocol):
    """Does tasks."""

    @property
    def alive(self) -> int:
        """Workers that are up."""
        ...

    def run(self, tasks: Sequence[Task[Result]], done: Callable[[int, Result], None]) -> list[Result]:
        """The results in the order of the tasks; `done(number, result)` hears of each task once."""
        ...


class InProcess:
    """Does tasks here, one after another or on some threads."""

    def __init__(self, threads: int = 1) -> None:
        self.alive = max(threads, 1)

    def run(self, tasks: Sequence[Task[Result]], done: Callable[[int, Result], None]) -> list[Result]:
        """The results in the order of the tasks."""
        results: list[Result] = []
        with contextlib.ExitStack() as stack:
            each = map
            if self.alive > 1:
                pool = ThreadPoolExecutor(self.alive)
                stack.callback(pool.shutdown, cancel_futures=True)
                each = pool.map
            for result in each(lambda task: task.work(), tasks):
                done(len(results), result)
                results.append(result)
        return results


@dataclass(eq=False)
class _Hired:
    """A worker as the supervisor sees it."""

    worker: Worker
    in_hand: deque[int] = field(default_factory=deque)  # numbers of tasks, the running one first
    since: float = 0.0  # when the running one began
    is_ready: bool = False
    is_away: bool = False  # where our files are not seen
    is_heard: bool = False  # in this list of tasks: it may have died before, with nobody to see it


class Supervisor:
    """Has tasks done by the workers of a crew: replaces dead ones, gives up on a task that kills three."""

    def __init__(self, crew: Crew, workers: int) -> None:
        self._crew = crew
        self._wanted = workers
        self._hired: list[_Hired] = []

    @property
    def alive(self) -> int:
        """Workers that are up."""
        return sum(hired.is_ready for hired in self._hired)

    def run(self, tasks: Sequence[Task[Result]], done: Callable[[int, Result], None]) -> list[Result]:
        """The results in the order of the tasks; a task given up is a BadInput, raised when all others are done."""
        shift = _Shift(tasks, done)
        for hired in self._hired:
            hired.is_heard = False
        while len(self._hired) < min(self._wanted, len(tasks)):
            self._hire()
        self._hand_out(shift)
        while not shift.is_over:
            events = self._crew.wait([hired.worker for hired in self._hired], SECONDS_TO_COMPLAIN)
            for event in events:
                self._settle(event, shift)
            if not events and not self.alive:
                _tell("waiting for a worker process; has the cluster a free CPU?")
            self._hand_out(shift)
        self._forget_doubles()
        shift.raise_given_up()
        return [shift.results[number] for number in range(len(tasks))]

    def dismiss(self) -> None:
        """End the workers that are left."""
        for hired in self._hired:
            hired.worker.dismiss()
        self._hired.clear()

    def _hire(self) -> None:
        self._hired.append(_Hired(self._crew.hire()))

    def _hand_out(self, shift: "_Shift") -> None:
        """Tasks go only to workers that are up: one that a cluster has no room for must not hold any."""
        for most in range(1, IN_HAND + 1):  # nobody gets a second one while another has none
            for hired in self._hired:
                if hired.is_ready and len(hired.in_hand) < most and shift.has_next(hired.in_hand):
                    self._give(hired, shift.waiting.popleft(), shift)
        for hired in self._hired:
            if hired.is_ready and not hired.in_hand:
                slow = shift.slowest(self._hired)
                if slow is not None:
                    self._give(hired, slow, shift)

    def _give(self, hired: _Hired, number: int, shift: "_Shift") -> None:
        if not hired.in_hand:
            hired.since = time.monotonic()
        hired.in_hand.append(number)
        task = shift.tasks[number]
        hired.worker.give(_away(task).pack() if hired.is_away else task.work)

    def _settle(self, event: Event, shift: "_Shift") -> None:
        hired = next(hired for hired in self._hired if hired.worker is event.worker)
        hired.is_heard = hired.is_heard or event.kind != "died"
        if event.kind == "died":
            self._bury(hired, str(event.value), shift)
        elif event.kind == "ready":
            hired.is_ready = True
            hired.is_away = not event.value
            shift.deaths.pop(None, None)
        else:
            number = hired.in_hand.popleft()
            now = time.monotonic()
            result = _away(shift.tasks[number]).keep(event.value) if hired.is_away else event.value
            shift.keep(number, result, now - hired.since)
            hired.since = now

    def _bury(self, hired: _Hired, reason: str, shift: "_Shift") -> None:
        self._hired.remove(hired)
        hired.worker.dismiss()  # one that is only out of reach must not go on
        elsewhere = {number for other in self._hired for number in other.in_hand}
        shift.suspects.update(hired.in_hand)
        if not hired.is_ready:
            shift.blame(None, reason)
        elif hired.is_heard and hired.in_hand:
            shift.blame(hired.in_hand[0], reason)
        shift.take_back([number for number in hired.in_hand if number not in elsewhere])
        if shift.waiting:
            self._hire()

    def _forget_doubles(self) -> None:
        """Who still works at what another has finished is let go, so that no old result meets a new task."""
        for hired in [hired for hired in self._hired if hired.in_hand]:
            hired.worker.dismiss()
            self._hired.remove(hired)


class _Shift(Generic[Result]):
    """The state of one list of tasks."""

    def __init__(self, tasks: Sequence[Task[Result]], done: Callable[[int, Result], None]) -> None:
        self.tasks = tasks
        self.done = done
        self.waiting = deque(range(len(tasks)))
        self.results: dict[int, Result] = {}
        self.seconds: list[float] = []
        self.deaths: Counter[int | None] = Counter()
        # handed out alone: a worker that dies takes the results with it that are under way, so another task may be to blame
        self.suspects: set[int] = set()
        self.given_up: dict[int, str] = {}

    @property
    def is_over(self) -> bool:
        return len(self.results) + len(self.given_up) == len(self.tasks)

    def has_next(self, in_hand: Collection[int]) -> bool:
        """Whether the task that waits first may be handed to a worker that has these."""
        if not self.waiting or not in_hand:
            return bool(self.waiting)
        return self.suspects.isdisjoint((self.waiting[0], *in_hand))

    def keep(self, number: int, result: Result, seconds: float) -> None:
        self.seconds.append(seconds)
        if number not in self.results:
            self.given_up.pop(number, None)
            self.results[number] = result
            self.done(number, result)

    def slowest(self, everybody: Sequence[_Hired]) -> int | None:
        """The task to do twice: in one pair of hands only, for longer than others took, or queued behind such a one."""
        if not self.seconds:
            return None
        limit = time.monotonic() - SLOW * statistics.median(self.seconds)
        held = Counter(number for hired in everybody for number in hired.in_hand)
        late = [hired for hired in everybody if hired.in_hand and hired.since < limit]
        for hired in sorted(late, key=lambda hired: hired.since):
            for number in reversed(hired.in_hand):  # the one that has not begun first
                if held[number] == 1 and number not in self.results:
                    return number
        return None

    def take_back(self, numbers: Sequence[int]) -> None:
        lost = [number for number in numbers if number not in self.results and number not in self.given_up]
        self.waiting.extendleft(reversed(lost))

    def blame(self, number: int | None, reason: str) -> None:
        self.deaths[number] += 1
        if self.deaths[number] < MAX_DEATHS:
            _tell(f"a worker process ended ({reason}); its work is handed out again")
        elif number is None:
            raise Unavailable(
                f"{MAX_DEATHS} worker processes ended before they were ready ({reason}); free some memory, "
                "or use 0 workers"
            )
        elif number not in self.results:
            self.given_up[number] = reason

    def raise_given_up(self) -> None:
        if self.given_up:
            raise BadInput(
                "; ".join(
                    f"{self.tasks[number].name}: ended {MAX_DEATHS} worker processes ({reason}), everything else is "
                    "done; find the document with smaller shards (shard_bytes), or see what happens with 0 workers"
                    for number, reason in sorted(self.given_up.items())
                )
            )


@contextlib.contextmanager
def supervised(crew: Crew, workers: int) -> Iterator[Supervisor]:
    """A supervisor whose workers end with the block."""
    supervisor = Supervisor(crew, workers)
    try:
        yield supervisor
    finally:
        supervisor.dismiss()


def _away(task: Task[Result]) -> Away[Result]:
    if task.away is None:
        raise BadState(
            f"{task.name}: a worker does not see this project; put it on a disk that all nodes share"
        )
    return task.away


def _tell(line: str) -> None:
    print(f"genpipe: {line}", file=sys.stderr, flush=True)
