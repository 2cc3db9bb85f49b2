"""Questions about paragraphs, in the format of SQuAD.

SQuAD 1.1 (Rajpurkar et al., 2016, arXiv:1606.05250) and 2.0 (Rajpurkar, Jia, Liang, 2018, arXiv:1806.03822), where a question
may be `is_impossible`. CMRC 2018 and DRCD have the same format.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from genpipe.errors import BadInput
from genpipe.files import is_hidden
from genpipe.params.corpora import Squad
from genpipe.sources.documents import Record, file_counts, write_documents
from genpipe.sources.folders import SPLITS
from genpipe.sources.jsonl import write_jsonl
from genpipe.sources.prepared import Prepared


class _Answer(BaseModel):
    text: str


class _Question(BaseModel):
    question: str
    id: str | int = ""
    answers: list[_Answer] = []
    is_impossible: bool = False


class _Paragraph(BaseModel):
    context: str
    qas: list[_Question]


class _Article(BaseModel):
    title: str = ""
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


def prepare_squad(source: Path, directory: Path, dataset: Squad) -> Prepared:
    """Write records with id, title, question, passages, a list of one paragraph, and answer, a list; empty where there is none.

    A folder has a file for each split, whose name says which: train-v2.0.json, dev-v2.0.json. Of a file all questions of an
    article, and of equal paragraphs, are on one side.
    """
    left_out: Counter[str] = Counter()
    if source.is_dir():
        counts = _by_file(source, directory, dataset, left_out)
    else:
        records = list(_records(source, left_out))
        counts = write_documents(
            directory,
            lambda: iter(records),
            dataset.test_share,
            lambda record: [("title", record["title"] or record["passages"][0]), record["passages"][0]],
        )
    if not any(counts.values()):
        raise BadInput(f"{source}: no question with an answer in it; see to `data`, `paragraphs` and `qas`")
    return Prepared(tuple(counts), {}, file_counts(counts), left_out)


def _by_file(source: Path, directory: Path, dataset: Squad, left_out: Counter[str]) -> dict[str, int]:
    if dataset.test_share is not None:
        raise BadInput(f"{source}: its files are the splits, so test_share has no use; remove test_share")
    files = _by_split(source)
    counts: dict[str, int] = {}
    for split in sorted(files, key=lambda name: (name != "train", name)):
        with (directory / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            counts[split] = sum(write_jsonl(file, _records(path, left_out)) for path in files[split])
        if not counts[split]:
            raise BadInput(f"{files[split][0]}: no questions in it; add some, or remove the file")
    return counts


def _by_split(source: Path) -> dict[str, list[Path]]:
    """The files of each split; where there is no test file, those of dev are for testing."""
    found: dict[str, list[Path]] = {}
    for path in sorted(source.glob("*.json")):
        if is_hidden(Path(path.name)):
            continue
        words = path.stem.casefold().replace("_", "-").split("-")
        named = [SPLITS[word] for word in words if word in SPLITS]
        if not named:
            raise BadInput(f"{path}: its name says no split; call it train-….json, dev-….json or test-….json")
        found.setdefault(named[0].replace("validation", "dev"), []).append(path)
    if "train" not in found:
        raise BadInput(
            f"{source}: no file to train on; call it train-….json, or name one .json file as the source"
        )
    if "test" not in found and "dev" in found:
        found["test"] = found.pop("dev")
    return found


def _records(path: Path, left_out: Counter[str]) -> Iterator[Record]:
    for article in _read(path).data:
        for paragraph in article.paragraphs:
            for asked in paragraph.qas:
                answers = [] if asked.is_impossible else [answer.text.strip() for answer in asked.answers]
                right = [*dict.fromkeys(text for text in answers if text)]
                if not asked.is_impossible and not right:
                    left_out["question without an answer that is not marked is_impossible"] += 1
                elif not asked.question.strip() or not paragraph.context.strip():
                    left_out["empty question or paragraph"] += 1
                else:
                    yield {
                        "id": str(asked.id),
                        "title": article.title,
                        "question": asked.question.strip(),
                        "passages": [paragraph.context],
                        "answer": right,
                    }


def _read(path: Path) -> _File:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        return _File.model_validate(content)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not valid UTF-8 at offset {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON: {error.msg} in line {error.lineno}; fix it") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise BadInput(
            f"{path}: not in the format of SQuAD: {place}: {fault['msg']}; it must be data, paragraphs, qas as in SQuAD"
        ) from None
