"""What the doctor finds: a line for each thing that it looked at."""

from dataclasses import dataclass
from typing import Literal

LOCK = "make install, or: python -m pip install -r requirements.lock"  # the remedy for packages

Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and the remedy where it is not ok."""

    subject: str
    level: Level
    found: str
    remedy: str = ""

    def describe(self) -> str:
        """One line; the remedy is part of it."""
        line = f"{self.level:<8} {self.subject}: {self.found}"
        return f"{line}; {self.remedy}" if self.remedy else line


def few(words: list[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
