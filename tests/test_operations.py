"""docs/operations.md says what there is: its commands are known, its files are there, its words are those of the programs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genpipe.cli import build_parser

PROJECT = Path(__file__).resolve().parents[1]
PAGE = (PROJECT / "docs/operations.md").read_text(encoding="utf-8")


def commands(program: str) -> list[list[str]]:
    """The words of each call of a program, in blocks and in the text."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    lines = [re.split(r"\s+#", line)[0] for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S))
    found = [part for line in lines for part in line.split("&&")]
    return [words[1:] for part in found if (words := shlex.split(part))[:1] == [program]]


def test_genpipe_knows_every_command_of_the_page():
    called = commands("genpipe")
    assert {words[0] for words in called if words} >= {"doctor", "gc", "unlock", "check", "data", "plan"}
    for words in called:
        build_parser().parse_args(words)


@pytest.mark.parametrize("words", sorted({tuple(words) for words in commands("prefect")}), ids=" ".join)
def test_prefect_knows_every_command_of_the_page(words):
    verbs = [word for word in words if word.islower() and not word.startswith("-")]
    command = [sys.executable, "-m", "prefect", *verbs, "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert all(word in told for word in words if word.startswith("--") and word != "--no-prompt")


def test_the_files_that_the_page_names_are_there():
    named = set(re.findall(r"\b((?:deploy|tests)/[\w./*-]+\w)", PAGE)) - {"deploy/secrets"}
    assert len(named) > 4
    assert all(list(PROJECT.glob(name)) for name in named), named


def test_the_page_quotes_what_the_programs_say():
    quoted = {
        "is being run by process": "genpipe/lease.py",
        "IPAddressAllow=localhost": "deploy/systemd/genpipe-worker.service",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true": "deploy/secrets.sh",
    }
    for words, file in quoted.items():
        assert words in PAGE
        assert words in (PROJECT / file).read_text(encoding="utf-8"), file


def test_the_page_is_linked_from_the_readme():
    assert "docs/operations.md" in (PROJECT / "README.md").read_text(encoding="utf-8")
