"""Commands compared with each other: alternated rounds, wall and CPU seconds, memory, and equal counts.

The first round is not timed: it warms the page cache, and looks at the memory of each command every 50 ms, which costs
time. The others are timed, each beginning with another command, and looked at four times a second for the CPU seconds
of processes that nobody waits for.
"""

import contextlib
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from genpipe.errors import BadInput

OUT = "{out}"  # in a command: a path without a suffix that it may write its counts to
MEMORY_SECONDS = 0.05
CPU_SECONDS = 0.25
QUIET_CORES = 0.25  # of other programs, at most
QUIET_SECONDS = 600.0  # to wait for that
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """What one run of a command took."""

    wall: float
    cpu: float
    peak: int  # bytes of PSS of the tree of processes; 0 where nobody looked
    work: float | None  # seconds, as the command tells them
    counts: str | None  # hash of the rows it wrote


@dataclass
class Row:
    """The runs of a command."""

    name: str
    megabytes: float | None
    memory: Run
    runs: list[Run] = field(default_factory=list)

    def speeds(self, kind: str) -> list[float]:
        """MB/s, or runs a second where the size is not known, in the order of the rounds."""
        seconds = [getattr(run, kind) for run in self.runs]
        return [(self.megabytes or 1) / value for value in seconds if value is not None]


@dataclass
class Table:
    """The outcome of a comparison."""

    rows: list[Row]
    base: str
    others: float  # most cores that other programs had before a run

    def __str__(self) -> str:
        head = [
            "| command | wall s, median (min-max) | MB/s | x base | work s | x base, work | CPU s | peak PSS MB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        base = next(row for row in self.rows if row.name == self.base)
        rounds = len(base.runs)
        foot = f"{rounds} rounds, alternated; x base: median over the rounds of the ratio of speeds to `{self.base}`;"
        load = f"before a run other programs had at most {self.others:.2f} cores."
        return "\n".join([*head, *(_line(row, base) for row in self.rows), "", f"{foot} {load}"])


def compare(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    base: str | None = None,
    megabytes: Mapping[str, float] | None = None,
    families: Mapping[str, str] | None = None,
    quiet_only: bool = False,
) -> Table:
    """Run the commands `rounds` times in alternation; those of a family (of one, by default) must count alike.

    `{out}` in a command stands for a fresh path without suffix; what the command writes there (TSV or Parquet, token and
    count) is checked. The last line of its output may be JSON with the `seconds` of its work.
    """
    families = families or {}
    others: list[float] = []
    rows: dict[str, Row] = {}
    for number in range(rounds + 1):
        for name in rotated(list(commands), number):
            others.append(wait_for_quiet() if quiet_only else busy_cores())
            run = measured(commands[name], memory=number == 0)
            if number == 0:
                rows[name] = Row(name, (megabytes or {}).get(name), run)
            else:
                rows[name].runs.append(run)
            print(f"round {number} of {rounds}: {name}: {run.wall:.2f} s", file=sys.stderr, flush=True)
        _check_counts(rows, families)
    return Table([rows[name] for name in commands], base or next(iter(commands)), max(others))


def chosen(parts: Sequence[str], known: Iterable[str]) -> list[str]:
    """The parts of a benchmark, all without a choice, or the error that names an unknown one; argparse 3.11 lets no choices be left out."""
    *some, last = known
    for part in parts:
        if part not in (*some, last):
            raise BadInput(f"PART: must be {', '.join(some)} or {last}, not {part}; without one, all run")
    return list(parts) or [*some, last]


def rotated(names: list[str], number: int) -> list[str]:
    """The names in order, beginning with another one each round."""
    start = number % len(names)
    return names[start:] + names[:start]


def measured(command: Sequence[str], *, memory: bool, pause: float | None = None) -> Run:
    """Run a command and look at it, every `pause` seconds."""
    with tempfile.TemporaryDirectory(prefix="measure-") as scratch:
        given = [part.replace(OUT, f"{scratch}/counts") for part in command]
        with open(f"{scratch}/stdout", "w+b") as stdout, open(f"{scratch}/stderr", "w+b") as stderr:
            before = _children_cpu()
            started = time.perf_counter()
            process = subprocess.Popen(given, stdout=stdout, stderr=stderr)
            tree = Tree(process.pid)
            try:
                _look(process, tree, memory, pause or (MEMORY_SECONDS if memory else CPU_SECONDS))
            finally:
                process.kill()  # nothing happens if it has ended
            wall = time.perf_counter() - started
            cpu = max(_children_cpu() - before, tree.cpu)
        if process.returncode:
            last = (Path(scratch) / "stderr").read_text(errors="replace").strip().splitlines()[-1:]
            raise BadInput(
                f"{' '.join(given)}: ended with {process.returncode}: {' '.join(last)}; run it by hand"
            )
        work = _work((Path(scratch) / "stdout").read_text(errors="replace"))
        written = [path for path in Path(scratch).glob("counts*") if path.is_file()]
        return Run(wall, cpu, tree.peak, work, hash_of_counts(written[0]) if written else None)


class Tree:
    """A process and all that descend from it, also those whose parents have ended."""

    def __init__(self, root: int) -> None:
        self.peak = 0
        self._root = root
        self._seen: dict[tuple[int, int], float] = {}  # pid and start: CPU seconds

    @property
    def cpu(self) -> float:
        """CPU seconds of all, as far as they were seen."""
        return sum(self._seen.values())

    def look(self, *, memory: bool) -> None:
        """Note the CPU seconds, and the memory, of those that live."""
        members = self._members()
        if memory:
            self.peak = max(self.peak, sum(map(_pss, members)))

    def _members(self) -> list[int]:
        living = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
        members = {self._root} | {
            pid for pid, start in self._seen if pid in living and living[pid][1] == start
        }
        while more := {pid for pid, stat in living.items() if stat[0] in members and pid not in members}:
            members |= more
        for pid in members & living.keys():
            self._seen[pid, living[pid][1]] = living[pid][2]
        return sorted(members & living.keys())


def busy_cores(seconds: float = 0.5) -> float:
    """Cores that are busy now. The load average would tell of our own last command for a minute."""
    before, started = _busy_ticks(), time.monotonic()
    time.sleep(seconds)
    return (_busy_ticks() - before) / _TICKS / (time.monotonic() - started)


def wait_for_quiet(limit: float = QUIET_SECONDS) -> float:
    """Wait until other programs leave the cores alone, or warn that they did not."""
    deadline = time.monotonic() + limit
    while (busy := busy_cores()) > QUIET_CORES and time.monotonic() < deadline:
        time.sleep(1)
    if busy > QUIET_CORES:
        print(f"other programs have {busy:.2f} cores: the wall times are not usable", file=sys.stderr)
    return busy


def hash_of_counts(path: Path) -> str:
    """SHA-256 of the sorted rows (token, count) of a TSV or Parquet file."""
    if path.suffix == ".parquet":
        table = pq.read_table(path, columns=["token", "count"])
        pairs = zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True)
        lines = [f"{token}\t{count}".encode() for token, count in pairs]
    else:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()


def _check_counts(rows: Mapping[str, Row], families: Mapping[str, str]) -> None:
    found: dict[str, dict[str, str]] = {}
    for row in rows.values():
        for run in (row.memory, *row.runs):
            if run.counts is not None:
                found.setdefault(families.get(row.name, ""), {})[run.counts] = row.name
    for hashes in found.values():
        if len(hashes) > 1:
            counts = ", ".join(f"{name}: {digest[:12]}" for digest, name in hashes.items())
            raise BadInput(f"the counts differ: {counts}; a ratio of unequal work means nothing")


def _look(process: subprocess.Popen[bytes], tree: Tree, memory: bool, pause: float) -> None:
    while process.poll() is None:
        tree.look(memory=memory)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)


def _line(row: Row, base: Row) -> str:
    walls = [run.wall for run in row.runs]
    work = [run.work for run in row.runs if run.work is not None]
    speed = f"{statistics.median(row.speeds('wall')):.1f}" if row.megabytes else "-"
    cells = [
        row.name,
        f"{statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})",
        speed,
        _ratio(row.speeds("wall"), base.speeds("wall")),
        f"{statistics.median(work):.2f}" if work else "-",
        _ratio(row.speeds("work"), base.speeds("work")),
        f"{statistics.median(run.cpu for run in row.runs):.1f}",
        f"{row.memory.peak / 1e6:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(speeds: list[float], base: list[float]) -> str:
    if not speeds or len(speeds) != len(base):
        return "-"
    return f"{statistics.median(ours / theirs for ours, theirs in zip(speeds, base, strict=True)):.2f}"


def _work(output: str) -> float | None:
    lines = output.strip().splitlines()
    try:
        return float(json.loads(lines[-1])["seconds"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _stat(pid: int) -> tuple[int, int, float] | None:
    """Parent, start, and CPU seconds of a process; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS


def _pss(pid: int) -> int:
    """Bytes, each shared page divided by the number of processes that have it; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _busy_ticks() -> int:
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return user + nice + system + irq + softirq
