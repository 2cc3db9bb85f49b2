"""Files and directories that are whole or not there, whoever is killed."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from genpipe.errors import BadInput
from genpipe.files import new_directory, new_file, refuse_inputs, remove_remains

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


LINKS = {
    "the same name": lambda real, other: real,
    "a symbolic link": lambda real, other: other.symlink_to(real) or other,
    "a hard link": lambda real, other: os.link(real, other) or other,
    "a linked folder": lambda real, other: other.symlink_to(real.parent) or other / real.name,
}


@pytest.mark.parametrize("link", LINKS)
def test_no_output_is_an_input_by_whatever_name(link: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "text.txt"
    real.write_text("a b")
    other = LINKS[link](real, tmp_path / "other")
    for out, source in ((real, other), (other, real)):
        with pytest.raises(BadInput, match="this is the input"):
            refuse_inputs(out, [tmp_path / "missing", source])
    refuse_inputs(tmp_path / "real" / "another.txt", [real, other])


def test_no_output_lies_above_or_below_an_input_directory(tmp_path: Path) -> None:
    (tmp_path / "data" / "digits").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data" / "digits")
    for out in ("data", "data/digits", "data/digits/new/model", "link/new"):
        with pytest.raises(BadInput, match="or lies below it; name another output"):
            refuse_inputs(tmp_path / out, [tmp_path / "link"])
    refuse_inputs(tmp_path / "data" / "new", [tmp_path / "link"])


def test_a_directory_is_replaced_only_if_all_that_is_in_it_is_ours(tmp_path: Path) -> None:
    ours = ("*.json", "card.md")
    (tmp_path / "model").mkdir()
    for name in ("recipe.json", "card.md", "notes.txt"):
        (tmp_path / "model" / name).write_text("old")
    with (
        pytest.raises(BadInput, match=r"would delete notes\.txt"),
        new_directory(tmp_path / "model", ours),
    ):
        pytest.fail("the work is not even begun")
    (tmp_path / "model" / "notes.txt").unlink()
    with new_directory(tmp_path / "model", ours) as partial:
        (partial / "new.json").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new.json"]


def test_notes_that_are_added_while_the_work_is_done_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with contextlib.ExitStack() as writing:
        partial = writing.enter_context(new_directory(out, ("*.json",)))
        (partial / "new.json").write_text("new")
        out.mkdir()
        (out / "notes.txt").write_text("years of work")
        with pytest.raises(BadInput, match=r"would delete notes\.txt"):
            writing.close()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "notes.txt"]


def test_a_command_that_writes_a_name_of_which_it_did_not_tell_is_a_defect(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"more\.txt is written there"),
        new_directory(tmp_path / "out", ("*.json",)) as partial,
    ):
        (partial / "more.txt").write_text("new")


def test_a_link_to_a_directory_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.json").write_text("old")
    (tmp_path / "out").symlink_to(tmp_path / "kept")
    with new_directory(tmp_path / "out", ("*.json",)) as partial:
        (partial / "a.json").write_text("new")
    assert (tmp_path / "kept" / "a.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "out"]
    assert not (tmp_path / "out").is_symlink()
