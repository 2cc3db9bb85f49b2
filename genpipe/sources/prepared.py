"""What a kind of data set reports about what it wrote, and what it left out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Prepared(NamedTuple):
    """The result of a `prepare_*` function: it goes into data.json, source.json and the printed lines."""

    splits: Sequence[str]
    facts: Mapping[str, Any]  # what models are built from, JSON values
    counts: Mapping[str, int]  # rows of each file
    left_out: Mapping[str, int] = {}  # reason, as "copies of another image" -> how many
    notes: Sequence[str] = ()  # what was decided or lost otherwise, a line each
    classes: Sequence[str] = ()  # by label

    def record(self) -> dict[str, Any]:
        """The entries of source.json; what does not apply is not in it."""
        entries = {key: self._asdict()[key] for key in ("notes", "classes")}
        left_out = {reason: number for reason, number in self.left_out.items() if number}
        entries |= {"left_out": left_out}
        return {"counts": self.counts} | {key: value for key, value in entries.items() if value}

    def description(self, kind: str) -> dict[str, Any]:
        """What data.json says of data of a kind."""
        return {"kind": kind, "splits": list(self.splits), "facts": dict(self.facts)}

    def lines(self) -> list[str]:
        """The printed lines: files and their rows, then one for each reason and note."""
        written = ", ".join(f"{number:,} in {file}" for file, number in self.counts.items())
        return [
            written,
            *(f"left out {n:,}: {reason}" for reason, n in sorted(self.left_out.items()) if n),
            *self.notes,
        ]
