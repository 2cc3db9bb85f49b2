"""JSON Lines: one object a line, UTF-8."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from genpipe.errors import BadInput


def write_jsonl(file: IO[str], records: Iterable[dict[str, Any]]) -> int:
    """Write compact objects with sorted keys, so that equal records give equal bytes; how many there were."""
    count = 0
    for record in records:
        file.write(json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n")
        count += 1
    return count


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object with the number of its line; blank lines are passed over, any other line is an error."""
    if path.is_dir():
        raise BadInput(f"{path}: a directory, and the source must be a .jsonl file; name one file in it")
    start = 0  # of the line, in bytes
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _parsed(path, number, start, line)
            start += len(line)


def _parsed(path: Path, number: int, start: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise BadInput(
            f"{path}: not valid UTF-8: byte 0x{byte:02x} at offset {start + error.start} (line {number}); "
            "save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}: line {number}: not a JSON object: {error.msg} at column {error.colno}; fix it"
        ) from None
    if not isinstance(record, dict):
        raise BadInput(f"{path}: line {number}: must be a JSON object, not {type(record).__name__}; fix it")
    return record
