"""The automations of deploy/prefect as files, and what their command says about bad input; on a server: tests/e2e/test_schedule.py."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore

from flows.automations import AUTOMATIONS, BLOCK, NOTIFICATIONS
from tests.clusters import free_port

PROJECT = Path(__file__).resolve().parents[1]


def test_prefect_takes_every_automation_and_their_names_differ() -> None:
    text = "".join((PROJECT / path).read_text(encoding="utf-8") for path in (AUTOMATIONS, NOTIFICATIONS))
    assert text.count(f"block_document_id: {BLOCK}") == 4
    names: list[str] = []
    for path in (AUTOMATIONS, NOTIFICATIONS):
        text = (PROJECT / path).read_text(encoding="utf-8").replace(f" {BLOCK}\n", f" {uuid4()}\n")
        names += [AutomationCore.model_validate(each).name for each in yaml.safe_load(text)["automations"]]
    assert len(set(names)) == len(names) == 7


@pytest.mark.parametrize(
    ("address", "words", "status", "complaint"),
    [
        (None, (), 2, "automations: no Prefect server is set"),
        ("nowhere", (), 69, "automations: no Prefect server answers"),
        ("nowhere", ("--notify", "slack"), 2, "--notify: slack is not valid; name a block as TYPE/NAME"),
    ],
)
def test_bad_input_gets_one_line(
    address: str | None,
    words: tuple[str, ...],
    status: int,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    if address:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    command = [sys.executable, "-m", "flows.automations", *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"genpipe: {complaint}")
    assert done.stderr.count("\n") == 1
