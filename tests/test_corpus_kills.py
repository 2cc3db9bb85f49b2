"""Counts stay exact whoever is killed, and when: workers, the driver, a node of the cluster."""

import contextlib
import functools
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genpipe.corpus.counting import Counting, count_shard, reduce_range
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.processes import Processes
from genpipe.corpus.runs import Run, by_count, write_table
from genpipe.corpus.shards import Shard, cut
from genpipe.corpus.tasks import Task, supervised
from genpipe.corpus.tokenizers import tokenizer
from tests.clusters import RayCluster, end_family, ray_cluster

WORDS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏"


def count_or_die(piece: Shard, counting: Counting, when: str, mark: Path) -> Run:
    """Count a shard; the first time, be killed before or after its run is written."""
    first = not mark.exists()
    mark.touch()
    if first and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    run = count_shard(piece, counting)
    if first and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return run


def ignore(*_: object) -> None:
    """Reports no progress."""


def table_of(runs: list[Run], counting: Counting, directory: Path) -> bytes:
    part = reduce_range(runs, (None, None), counting, directory / "part.arrow")
    write_table(directory / "table.parquet", by_count([part]))
    return (directory / "table.parquet").read_bytes()


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    documents=st.lists(st.text(st.sampled_from(WORDS), max_size=30), min_size=8, max_size=30),
    shard_bytes=st.sampled_from([40, 150]),
    workers=st.integers(1, 3),
    kills=st.dictionaries(st.integers(0, 40), st.sampled_from(["before", "after"]), max_size=6),
)
def test_any_kill_schedule_gives_the_bytes_of_an_undisturbed_count(
    tmp_path_factory, documents, shard_bytes, workers, kills
):
    directory = tmp_path_factory.mktemp("kills")
    text = directory / "text.txt"
    text.write_text("".join(f"{document}\n" for document in documents), encoding="utf-8")
    pieces = [piece for item in find_inputs([str(text)]) for piece in cut(item, shard_bytes)]
    tables = []
    for name in ("quiet", "killed"):
        counting = Counting(tokenizer("char"), directory / name, orders=(1, 2))
        counting.scratch.mkdir()
        if name == "quiet":
            runs = [count_shard(piece, counting) for piece in pieces]
        else:
            with supervised(Processes(), workers) as does:
                runs = does.run(tasks_with(pieces, counting, kills, directory), ignore)
        tables.append(table_of(runs, counting, directory))
    assert tables[0] == tables[1]


def tasks_with(pieces: list[Shard], counting: Counting, kills: dict[int, str], marks: Path) -> list[Task]:
    work = functools.partial(count_or_die, counting=counting)
    return [
        Task(str(piece), functools.partial(work, piece, when=kills.get(i, ""), mark=marks / f"mark{i}"))
        for i, piece in enumerate(pieces)
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """1.2 MB of four-character words, for a tokenizer that takes its time."""
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", 10_000)


def write_text(path: Path, num_lines: int) -> Path:
    rng = random.Random(0)
    lines = ("".join(rng.choices(WORDS, k=40)) for _ in range(num_lines))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def command(text: Path, root: Path, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "genpipe.cli", "--root", str(root), "count", str(text), "--tokenizer", "jieba_python",
        "--shard-bytes", "20000", "--out", str(root / "counts.parquet"), *words,
    ]  # fmt: skip


def counted(text: Path, root: Path, *words: str) -> str:
    root.mkdir(exist_ok=True)
    done = subprocess.run(command(text, root, *words), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return sha256(root)


def sha256(root: Path) -> str:
    return hashlib.sha256((root / "counts.parquet").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(text, tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("undisturbed")
    found = counted(text, root, "--workers", "0")
    assert pq.read_table(root / "counts.parquet")["count"].to_pylist()[0] > 1
    return found


def runs_written(root: Path) -> int:
    return len(list((root / ".genpipe" / "counts").glob("*.parquet")))


def wait_for_runs(process: subprocess.Popen, root: Path, number: int) -> None:
    wait_until(lambda: runs_written(root) >= number, process)


def wait_until(happened: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not happened():
        assert process.poll() is None, "it ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def actors_of(node: subprocess.Popen) -> list[psutil.Process]:
    return [p for p in psutil.Process(node.pid).children(recursive=True) if "_Actor" in words_of(p)]


def words_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
        return " ".join(process.cmdline())
    return ""


def test_a_killed_driver_loses_nothing_and_leaves_nobody(text, undisturbed, tmp_path):
    for number in (1, 12, 25):
        process = subprocess.Popen(
            command(text, tmp_path, "--workers", "2", "--executor", "local"), stderr=subprocess.DEVNULL
        )
        wait_for_runs(process, tmp_path, number)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=300)
        assert not alive
        assert not (tmp_path / "counts.parquet").exists()
    before = runs_written(tmp_path)
    assert before >= 25
    assert counted(text, tmp_path, "--workers", "1", "--executor", "local") == undisturbed


def test_an_ended_command_leaves_no_scratch_and_a_killed_one_what_the_next_removes(
    text, undisturbed, tmp_path
):
    words = command(text, tmp_path, "--workers", "2", "--executor", "local", "--memory", "1")
    for end in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        wait_for_runs(process, tmp_path, runs_written(tmp_path) + 3)
        process.send_signal(end)
        _, errors = process.communicate(timeout=600)
        if end == signal.SIGTERM:
            assert process.returncode == 130
            assert errors.splitlines()[-1] == "genpipe: interrupted; run the same command again"
            assert not list((tmp_path / ".genpipe/counts").glob("parts-*"))
    assert list((tmp_path / ".genpipe/counts").glob("parts-*"))
    assert counted(text, tmp_path, "--workers", "1", "--executor", "local", "--memory", "1") == undisturbed
    assert not list((tmp_path / ".genpipe/counts").glob("parts-*"))
    assert not list((tmp_path / ".genpipe/counts").glob("spill-*"))


@pytest.mark.ray
def test_a_count_that_loses_its_own_ray_says_so_and_goes_on_with_another(text, undisturbed, tmp_path):
    words = command(text, tmp_path, "--workers", "1", "--executor", "ray")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_runs(process, tmp_path, 1)
    (actor,) = actors_of(process)
    (raylet,) = [p for p in psutil.Process(process.pid).children(recursive=True) if p.name() == "raylet"]
    raylet.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        actor.kill()  # it follows its raylet, but could have counted all before
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 69, errors
    assert errors.splitlines()[-1].startswith(
        "genpipe: the Ray node of this process has died; the same command"
    )
    assert not (tmp_path / "counts.parquet").exists()
    assert counted(text, tmp_path, "--workers", "2", "--executor", "local") == undisturbed


@pytest.fixture
def two_nodes() -> Iterator[RayCluster]:
    """A cluster of two nodes with one CPU each."""
    temp = Path("/tmp") / f"gk-{os.getpid()}"
    with ray_cluster(temp, (1, 1)) as cluster:
        yield cluster
    shutil.rmtree(temp, ignore_errors=True)


@pytest.mark.ray
def test_a_killed_node_costs_time_and_nothing_else(text, undisturbed, tmp_path, two_nodes):
    first, second = two_nodes.nodes
    words = command(text, tmp_path, "--workers", "2", "--address", two_nodes.address)
    process = subprocess.Popen(words, env=two_nodes.environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: actors_of(first), process)
    (held,) = actors_of(first)
    held.suspend()  # it could count all before the other one has started
    wait_for_runs(process, tmp_path, runs_written(tmp_path) + 4)
    assert actors_of(second)
    end_family(second)
    held.resume()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "handed out again" in errors
    assert sha256(tmp_path) == undisturbed
