"""Copies of the data of a training: several processes on one node want the same one at once."""

import subprocess
import sys
from pathlib import Path

from genpipe.files import hash_of

COPYING = """
import multiprocessing, os, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace
from genpipe.files import hash_of
from genpipe.training import ray
from genpipe.training.keeper import Keeper

given, sha256 = Path(sys.argv[1]), sys.argv[2]
run = SimpleNamespace(pack=lambda directory: Keeper.pack(None, given))

replace = os.replace
os.replace = lambda *paths: (time.sleep(0.01), replace(*paths))  # as on a slow disk

def work(barrier):
    for number in range(10):
        tempfile.tempdir = f"{sys.argv[3]}/{number}"
        Path(tempfile.tempdir).mkdir(exist_ok=True)
        barrier.wait(20)
        place = ray._here(Path("/nowhere"), "", sha256, run)
        assert hash_of([place], place) == sha256

context = multiprocessing.get_context("fork")
barrier = context.Barrier(4)
workers = [context.Process(target=work, args=(barrier,)) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
sys.exit(any(worker.exitcode for worker in workers))
"""


def test_processes_of_one_node_that_want_the_same_copy_at_once_all_get_it(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "data.json").write_text("{}")
    words = [sys.executable, "-c", COPYING, str(given), hash_of([given], given), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
