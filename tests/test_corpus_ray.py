"""Counting on Ray actors: the same bytes for any number of them, and whichever of them die."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from genpipe.corpus import actors
from genpipe.corpus.actors import Actors
from genpipe.corpus.counting import Counting, count_shard
from genpipe.corpus.counts import counted
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.runs import Run, add_up, rows_within
from genpipe.corpus.shards import Shard, cut
from genpipe.corpus.tasks import Task, supervised
from genpipe.corpus.tokenizers import tokenizer
from genpipe.errors import BadInput, Unavailable

pytestmark = pytest.mark.ray

SHARD_BYTES = 20_000
POEMS = [
    "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。",
    "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。",
    "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。",
    "千山鳥飛絕，萬徑人蹤滅。孤舟蓑笠翁，獨釣寒江雪。",
    "紅豆生南國，春來發幾枝。願君多采擷，此物最相思。",
    "空山不見人，但聞人語響。返景入深林，復照青苔上。",
    "國破山河在，城春草木深。感時花濺淚，恨別鳥驚心。",
    "兩個黃鸝鳴翠柳，一行白鷺上青天。窗含西嶺千秋雪，門泊東吳萬里船。",
    "朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不住，輕舟已過萬重山。",
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One local cluster with three CPUs; its directory has a short name, since a Unix socket allows 107 bytes."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    with (
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", directory)
        patch.delenv("RAY_ADDRESS", raising=False)
        with actors.cluster(workers=3):
            yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 kB of poems, no two lines alike, so that no two shards are."""
    path = tmp_path_factory.mktemp("text") / "poems.jsonl"
    size = len(POEMS)
    lines = (
        {"text": [POEMS[i % size], POEMS[i * i % size], POEMS[i // size % size], f"其{i}"]}
        for i in range(1100)
    )
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def count_sha256(text: Path, directory: Path, workers: int, where: str = "ray", **changes) -> str:
    """The hash of the table; nothing is reused."""
    scratch = Path(tempfile.mkdtemp(dir=directory))
    counting = Counting(tokenizer("jieba"), scratch, **changes)
    inputs = find_inputs([str(text)])
    with counted(
        inputs, counting, shard_bytes=SHARD_BYTES, workers=workers, where=where, name="count"
    ) as counts:
        counts.write(scratch / "counts.parquet")
    return hashlib.sha256((scratch / "counts.parquet").read_bytes()).hexdigest()


def ignore(*_: object) -> None:
    """Reports no progress."""


def tasks_of(text: Path, work) -> list[Task]:
    pieces = [piece for item in find_inputs([str(text)]) for piece in cut(item, SHARD_BYTES)]
    return [Task(str(piece), functools.partial(work, piece)) for piece in pieces]


def counted_here(piece: Shard, scratch: Path) -> Run:
    return count_shard(piece, Counting(tokenizer("jieba"), scratch))


def as_dict(runs: list[Run]) -> dict[str, int]:
    total = add_up(rows_within(runs, (None, None)))
    return dict(zip(total["token"], total["count"], strict=True))


@pytest.mark.parametrize("options", [{}, {"orders": (1, 2), "document_frequency": True, "memory": 200_000}])
def test_any_number_of_actors_or_processes_writes_the_bytes_of_the_count_in_process(text, tmp_path, options):
    alone = count_sha256(text, tmp_path, 0, **options)
    assert {count_sha256(text, tmp_path, workers, "ray", **options) for workers in (1, 2, 3)} == {alone}
    assert {count_sha256(text, tmp_path, workers, "local", **options) for workers in (1, 3)} == {alone}


def count_or_be_killed(piece: Shard, scratch: Path, pids: Path, fatal: str) -> Run:
    (pids / str(os.getpid())).touch()
    if str(piece) == fatal:
        with contextlib.suppress(FileExistsError), (scratch / "killed").open("x"):
            os.kill(os.getpid(), signal.SIGKILL)
    return counted_here(piece, scratch)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_actor_killed_half_way_changes_nothing(text, tmp_path, capsys, workers):
    pids = tmp_path / "pids"
    pids.mkdir()
    names = [task.name for task in tasks_of(text, counted_here)]
    fatal = names[len(names) // 2]
    tasks = tasks_of(text, functools.partial(count_or_be_killed, scratch=tmp_path, pids=pids, fatal=fatal))
    finished: list[int] = []
    with supervised(Actors(), workers) as does:
        runs = does.run(tasks, lambda number, _: finished.append(number))
    assert len(list(pids.iterdir())) > 1, "the dead actor was replaced, or another did its work"
    assert sorted(finished) == list(range(len(tasks))), "each shard is finished once"
    assert "handed out again" in capsys.readouterr().err
    assert as_dict(runs) == serial_counts(text)


def serial_counts(text: Path) -> Counter[str]:
    serial: Counter[str] = Counter()
    for record in text.read_text().splitlines():
        serial.update(tokenizer("jieba").split("\n".join(json.loads(record)["text"])))
    return serial


def count_and_die_once(piece: Shard, scratch: Path, fatal: str, delivered: Path) -> Run:
    run = counted_here(piece, scratch)
    first_time = str(run.path) not in delivered.read_text()
    with delivered.open("a") as file:
        file.write(f"{run.path}\n")
    if str(piece) == fatal and first_time:
        os._exit(1)  # after its result was delivered, before anybody was told
    return run


def test_a_shard_delivered_twice_counts_once_and_a_sum_of_deliveries_would_not(text, tmp_path):
    delivered = tmp_path / "delivered"
    delivered.touch()
    fatal = tasks_of(text, counted_here)[3].name
    work = functools.partial(count_and_die_once, scratch=tmp_path, fatal=fatal, delivered=delivered)
    with supervised(Actors(), 2) as does:
        runs = does.run(tasks_of(text, work), ignore)
    serial = serial_counts(text)
    assert as_dict(runs) == serial

    by_path = {str(run.path): run for run in runs}
    deliveries = [by_path[path] for path in delivered.read_text().split()]
    assert Counter(delivered.read_text().split())[str(runs[3].path)] >= 2
    assert sum(run.about["tokens"] for run in deliveries) >= serial.total() + runs[3].about["tokens"]


def die_on_three(number: int) -> int:
    if number == 3:
        os._exit(1)  # as a crash inside a tokenizer's native code would
    return number


def test_a_task_that_kills_three_actors_is_named_after_the_others_are_done():
    finished: list[int] = []
    tasks = [Task(f"shard {number}", functools.partial(die_on_three, number)) for number in range(8)]
    with supervised(Actors(), 2) as does, pytest.raises(BadInput) as raised:
        does.run(tasks, lambda number, _: finished.append(number))
    assert str(raised.value).startswith("shard 3: ended 3 worker processes")
    assert "\n" not in str(raised.value)
    assert sorted(finished) == [number for number in range(8) if number != 3]


def test_bad_text_reaches_the_user_as_one_line(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes("床前明月光\n".encode() * 3000 + b"\xff\n")
    with pytest.raises(BadInput, match=r"not valid UTF-8: byte 48000 is 0xff") as raised:
        count_sha256(path, tmp_path, 2)
    assert "\n" not in str(raised.value)
    assert raised.value.__suppress_context__


def find_a_full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "run")


def test_a_full_disk_reaches_the_user_as_one_line():
    with (
        supervised(Actors(), 1) as does,
        pytest.raises(Unavailable, match=r"^run: No space left on device; make"),
    ):
        does.run([Task("shard", find_a_full_disk)], lambda *_: None)


def test_a_cluster_that_is_already_up_is_used_and_left_running(text, tmp_path):
    count_sha256(text, tmp_path, 1)
    assert ray.is_initialized()
