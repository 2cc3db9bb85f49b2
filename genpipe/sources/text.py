"""Plain text as documents."""

from collections.abc import Iterator
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.files import is_hidden
from genpipe.params.corpora import Text
from genpipe.sources.documents import file_counts, write_documents
from genpipe.sources.prepared import Prepared


def prepare_text(source: Path, directory: Path, dataset: Text) -> Prepared:
    """Write documents (id, text) out of a .txt file, or of all of them in a folder: a document a line."""
    files = text_files(source) if source.is_dir() else [source]
    if next(documents(files, source), None) is None:
        raise BadInput(f"{source}: no text in it; put .txt files with a document a line there")
    counts = write_documents(
        directory,
        lambda: documents(files, source),
        dataset.test_share,
        lambda record: [record["text"]],
    )
    return Prepared(tuple(counts), {}, file_counts(counts))


def text_files(source: Path) -> list[Path]:
    """The .txt files of a folder and its sub-folders."""
    return sorted(path for path in source.rglob("*.txt") if not is_hidden(path.relative_to(source)))


def documents(files: list[Path], source: Path) -> Iterator[dict[str, str]]:
    """A document for each line with text: `text`, and `id`, its file below `source` and its line."""
    for path in files:
        name = path.relative_to(source).as_posix() if path != source else path.name
        start = 0  # of the line, in bytes
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if text := _decoded(path, start, line).strip():
                    yield {"id": f"{name}:{number}", "text": text}
                start += len(line)


def _decoded(path: Path, start: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: not UTF-8: byte 0x{line[error.start]:02x} at offset {start + error.start}; "
            "convert it, for instance with iconv -f GB18030 -t UTF-8"
        ) from None
