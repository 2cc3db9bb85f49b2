"""Counting on Ray actors: the same bytes for any number of them, and whichever of them die."""

import functools
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from ray import cloudpickle

from genpipe.corpus import actors, counting, shards
from genpipe.corpus.shards import Shard
from genpipe.corpus.tokenizers import Simple, split_chinese, tokenizer
from genpipe.errors import BadInput

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


def count_sha256(text: Path, directory: Path, workers: int) -> str:
    out = directory / f"{workers}.parquet"
    counting.count_files(
        [text], field="text", tokenizer=tokenizer("jieba"), shard_bytes=SHARD_BYTES, workers=workers,
        scratch=directory / f"scratch{workers}", out=out,
    )  # fmt: skip
    return hashlib.sha256(out.read_bytes()).hexdigest()


def table_sha256(runs: list[counting.Run], directory: Path) -> str:
    pq.write_table(counting.merge(runs), directory / "table.parquet", compression="zstd")
    return hashlib.sha256((directory / "table.parquet").read_bytes()).hexdigest()


def count_here(shard: Shard, scratch: Path) -> counting.Run:
    return counting.count_shard(shard, field="text", tokenizer=tokenizer("jieba"), scratch=scratch)


def ignore(*_: object) -> None:
    """Nobody wants to hear of progress."""


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_actors_writes_the_bytes_of_the_count_in_process(text, tmp_path, workers):
    assert count_sha256(text, tmp_path, workers) == count_sha256(text, tmp_path, 0)


def count_slowly(shard: Shard, scratch: Path, pids: Path) -> counting.Run:
    (pids / str(os.getpid())).touch()
    time.sleep(0.1)
    return count_here(shard, scratch)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_actor_killed_half_way_changes_nothing(text, tmp_path, capsys, workers):
    pids = tmp_path / "pids"
    pids.mkdir()
    pieces = shards.cut(text, SHARD_BYTES)
    finished: list[Shard] = []

    def kill_one() -> None:
        while len(finished) < len(pieces) // 2:
            time.sleep(0.01)
        os.kill(int(next(pids.iterdir()).name), signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    count = functools.partial(count_slowly, scratch=tmp_path, pids=pids)
    runs = actors.count_on_actors(count, pieces, workers, lambda shard, _: finished.append(shard))
    killer.join()
    assert len(list(pids.iterdir())) > 1, "the dead actor was replaced, or another did its work"
    assert sorted(finished, key=pieces.index) == pieces, "each shard is finished once"
    assert "handed out again" in capsys.readouterr().err
    assert table_sha256(runs, tmp_path) == table_sha256(
        [count_here(piece, tmp_path) for piece in pieces], tmp_path
    )


def count_and_die_once(shard: Shard, scratch: Path, fatal: Shard, delivered: Path) -> counting.Run:
    run = count_here(shard, scratch)
    first_time = str(run.path) not in delivered.read_text()
    with delivered.open("a") as file:
        file.write(f"{run.path}\n")
    if shard == fatal and first_time:
        os._exit(1)  # after its result was delivered, before anybody was told
    return run


def test_a_shard_delivered_twice_counts_once_and_a_sum_of_deliveries_would_not(text, tmp_path):
    pieces = shards.cut(text, SHARD_BYTES)
    delivered = tmp_path / "delivered"
    delivered.touch()
    count = functools.partial(count_and_die_once, scratch=tmp_path, fatal=pieces[3], delivered=delivered)
    runs = actors.count_on_actors(count, pieces, 2, ignore)
    serial: Counter[str] = Counter()
    for record in text.read_text().splitlines():
        serial.update(split_chinese("\n".join(json.loads(record)["text"])))
    assert as_dict(runs) == serial

    by_path = {str(run.path): run for run in runs}
    naive = as_dict([by_path[path] for path in delivered.read_text().split()])
    assert sum(naive.values()) == sum(serial.values()) + runs[3].tokens


def as_dict(runs: list[counting.Run]) -> dict[str, int]:
    table = counting.merge(runs)
    return dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True))


def split_or_die(text: str) -> list[str]:
    if "毒" in text:
        os._exit(1)  # as a crash inside a tokenizer's native code would
    return split_chinese(text)


def test_a_shard_that_kills_three_actors_is_named_after_the_others_are_done(tmp_path):
    path = tmp_path / "poems.txt"
    path.write_text("".join(f"{poem}\n" for poem in [*POEMS[:4], "毒", *POEMS[4:]]), encoding="utf-8")
    pieces = shards.cut(path, 1)
    finished: list[Shard] = []
    poisonable = Simple("poisonable", "t", (), split_or_die)
    count = functools.partial(counting.count_shard, field="text", tokenizer=poisonable, scratch=tmp_path)
    with pytest.raises(BadInput) as raised:
        actors.count_on_actors(count, pieces, 2, lambda shard, _: finished.append(shard))
    poison = pieces[4]
    assert str(raised.value).startswith(
        f"{path}: bytes {poison.start} to {poison.end}: ended 3 worker processes"
    )
    assert "\n" not in str(raised.value)
    assert set(finished) == {piece for piece in pieces if piece != poison}


def test_bad_text_reaches_the_user_as_one_line(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes("床前明月光\n".encode() * 3 + b"\xff\n")
    with pytest.raises(BadInput, match=r"wanted UTF-8, but byte 48 is 0xff") as raised:
        counting.count_files(
            [path],
            field="",
            tokenizer=tokenizer("jieba"),
            shard_bytes=1,
            workers=2,
            scratch=tmp_path,
            out=tmp_path / "out.parquet",
        )
    assert "\n" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert not (tmp_path / "out.parquet").exists()


def test_a_cluster_that_is_already_up_is_used_and_left_running(text, tmp_path):
    count_sha256(text, tmp_path, 1)
    assert ray.is_initialized()
