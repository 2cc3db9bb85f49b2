"""Files and directories that are whole or not there, whoever is killed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from genpipe.files import new_directory, new_file, remove_remains

KILLED = """
import os, signal, sys
from pathlib import Path
from genpipe import files
with files.{maker}(Path(sys.argv[1])) as partial:
    (partial / "part" if partial.is_dir() else partial).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_writing(maker: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED.format(maker=maker), str(path)])
    assert done.returncode < 0


def test_what_killed_writers_of_this_machine_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    killed_while_writing("new_file", tmp_path / "a" / "table")
    killed_while_writing("new_directory", tmp_path / "model")
    assert len(list(tmp_path.rglob("*.partial"))) == 2
    elsewhere = tmp_path / f".model.not-{socket.gethostname()}-1-01234567.partial"
    elsewhere.mkdir()
    with new_file(tmp_path / "mine") as mine, new_directory(tmp_path / "ours") as ours:
        mine.write_text("half")
        remove_remains(tmp_path)
        assert sorted(tmp_path.rglob("*.partial")) == sorted([elsewhere, mine, ours])
        assert str(os.getpid()) in mine.name


def test_a_killed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("whole")
    killed_while_writing("new_file", tmp_path / "table")
    assert (tmp_path / "table").read_text() == "whole"
