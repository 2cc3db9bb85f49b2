"""A Ray node that sees no file of the driver: what its workers read and write travels."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from genpipe.corpus.processes import Processes
from genpipe.corpus.tasks import Away, Event, Task, supervised
from genpipe.errors import BadState
from tests.clusters import RayCluster, can_mount, ray_cluster

ENCODE = """
import sys
from pathlib import Path
from genpipe.corpus.encoding import Encoder, encode_shards
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut
from genpipe.corpus.tokenizers import tokenizer
from genpipe.files import sha256

root, workers = Path(sys.argv[1]), int(sys.argv[2])
vocabulary, scratch = root / "vocabulary.json", root / f"encoded{workers}"
scratch.mkdir()
encoder = Encoder(tokenizer("jieba"), vocabulary, sha256(vocabulary), "<u2", scratch)
shards = [shard for item in find_inputs([str(root / "text.txt")]) for shard in cut(item, 2000)]
for piece in encode_shards(shards, encoder, workers, "ray", "encode"):
    print(piece.path.name, piece.tokens)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    lines = (f"床前明月光，疑是地上霜。其{i}，第{i * i}句" for i in range(400))
    (root / "text.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (root / "vocabulary.json").write_text('["<unk>", "明月光", "，", "其", "地上"]', encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def elsewhere(project) -> Iterator[RayCluster]:
    """A cluster whose workers all live on a node for which the project is an empty directory."""
    if not can_mount():
        pytest.skip("wants the right to mount")
    temp = Path("/tmp") / f"ga-{os.getpid()}"
    with ray_cluster(temp, (0, 2), hidden=project) as cluster:
        yield cluster
    shutil.rmtree(temp, ignore_errors=True)


def run(words: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def count(project: Path, out: Path, environment: dict[str, str], *words: str) -> bytes:
    command = [
        sys.executable,
        "-m",
        "genpipe.cli",
        "--root",
        str(out.parent),
        "count",
        str(project / "text.txt"),
    ]
    run([*command, "--shard-bytes", "2000", "--ngrams", "1,2", "--out", str(out), *words], environment)
    return out.read_bytes()


@pytest.mark.ray
def test_counts_of_a_node_without_our_files_have_the_same_bytes(project, elsewhere, tmp_path):
    here = count(project, tmp_path / "here.parquet", elsewhere.environment, "--workers", "0")
    words = ["--workers", "2", "--address", elsewhere.address]
    there = project / "there"
    there.mkdir()
    assert count(project, there / "counts.parquet", elsewhere.environment, *words, "--memory", "1") == here
    runs = {path: path.stat().st_mtime_ns for path in (there / ".genpipe" / "counts").iterdir()}
    assert len(runs) > 5
    assert count(project, there / "again.parquet", elsewhere.environment, *words) == here
    again = {path: path.stat().st_mtime_ns for path in (there / ".genpipe" / "counts").iterdir()}
    assert again == runs, "what is there is not counted again"


@pytest.mark.ray
def test_ids_of_a_node_without_our_files_are_the_same(project, elsewhere):
    address = elsewhere.environment | {"RAY_ADDRESS": elsewhere.address}
    here, there = (run([sys.executable, "-c", ENCODE, str(project), n], address) for n in ("0", "2"))
    assert there == here
    names = [line.split()[0] for line in here.splitlines()]
    assert len(names) > 5
    for name in names:
        arrays = [np.load(project / directory / name) for directory in ("encoded0", "encoded2")]
        for part in ("ids", "lengths"):
            assert arrays[0][part].dtype == arrays[1][part].dtype
            assert np.array_equal(arrays[0][part], arrays[1][part])


class Blind(Processes):
    """Workers that say they see nothing of ours."""

    def wait(self, workers, seconds):
        events = super().wait(workers, seconds)
        return [Event(event.worker, "ready", False) if event.kind == "ready" else event for event in events]


def ignore(*_: object) -> None:
    """Reports no progress."""


def test_who_sees_nothing_is_sent_the_work_and_what_comes_back_is_kept():
    packed = []

    def pack(number: int) -> Callable[[], int]:
        packed.append(number)
        return int

    tasks = [Task(str(number), fail, Away(functools.partial(pack, number), str)) for number in range(5)]
    with supervised(Blind(), 2) as does:
        assert does.run(tasks, ignore) == ["0"] * 5
    assert set(packed) == set(range(5))  # a slow one may be sent twice


def fail() -> None:
    raise AssertionError("it was not to be done here")


def test_a_task_that_cannot_travel_says_what_it_wants():
    with (
        supervised(Blind(), 1) as does,
        pytest.raises(BadState, match="put it on a disk that all nodes share"),
    ):
        does.run([Task("a", fail)], ignore)
