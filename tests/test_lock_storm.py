"""Sixteen stages at once; the long version: python -m tests.chaos --storm."""

from pathlib import Path

import pytest

from tests.chaos.storm import as_the_flow_does, make, storm, without_waiting

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def test_none_of_sixteen_stages_is_lost_though_the_lock_is_held_for_longer_than_dvc_waits(
    repository: Path,
) -> None:
    for text in ("first", "second"):
        assert storm(repository, text, as_the_flow_does) == []


def test_without_waiting_for_the_lock_stages_are_lost(repository: Path) -> None:
    """The control: the storm would show it."""
    assert storm(repository, "control", without_waiting) != []
