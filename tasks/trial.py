"""A trial: its workspace, and what is reported about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.workspace import Contents


@dataclass(frozen=True)
class Trial:
    """A workspace and its report; `settings` are those that differ from the other trials."""

    settings: Mapping[str, Any]
    contents: Contents

    @property
    def name(self) -> str:
        """What sets it apart, in a line."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())
