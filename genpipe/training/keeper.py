"""What the processes of a training on Ray leave with the driver's node; without torch, which would be half of its memory."""

from pathlib import Path

from genpipe.errors import WorkFailed, packed
from genpipe.training.runs import Run

MAX_STARTS = 4  # of a group of processes, from one checkpoint

Complaint = tuple[str, str]  # the kind of an error, and its line


class Keeper(Run):
    """What runs on the driver's node: the files of the run, and the data for nodes that do not see it."""

    def __init__(self, directory: Path, storage: str | None) -> None:
        super().__init__(directory, storage)
        self._starts = 0  # since the last checkpoint
        self._complaint: Complaint | None = None
        self._last_words = ""

    def start(self) -> Complaint | None:
        """What forbids another start, if anything does."""
        self._starts += 1
        if self._complaint or self._starts <= MAX_STARTS:
            return self._complaint
        return packed(given_up(self._last_words))

    def write(self, name: str, content: bytes) -> None:
        """Store a file."""
        super().write(name, content)
        self._starts = 0

    def complain(self, complaint: Complaint) -> None:
        """An error of genpipe in one process: another start would meet it again."""
        self._complaint = complaint

    def say(self, words: str) -> None:
        """What a process says before it dies."""
        self._last_words = words

    def pack(self, directory: Path) -> dict[str, bytes]:
        """The files below a directory."""
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def given_up(words: str) -> WorkFailed:
    """The error of a group that has died too often."""
    return WorkFailed(
        f"training processes died {MAX_STARTS} times before the next checkpoint: {words or 'killed, or out of memory'}; "
        "fix that (--workers 0 shows where it happens), then the same command goes on"
    )
