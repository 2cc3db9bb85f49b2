"""What is tried: a workspace to be, and what is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.workspace import Contents


@dataclass(frozen=True)
class Trial:
    """A workspace and what is told of it; `settings` are what this trial has and the others have not."""

    settings: Mapping[str, Any]
    contents: Contents

    @property
    def name(self) -> str:
        """What sets it apart, in a line."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())
