"""Reading comprehension about biographies of poets: a question, passages of several biographies each, and what is right.

What a biography says is found by the wording that these biographies share: 字, 號, the place before 人, the years in the
bracket after the name, the examination, the number of poems. Answers stand in the passage as they are.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from genpipe.errors import BadInput
from genpipe.params.corpora import Biographies
from genpipe.sources.documents import Record, file_counts, write_sides
from genpipe.sources.jsonl import read_jsonl
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import content_order, digest, distinct, split_by_group

# brackets with a reference or an editor's word; those with years and with the name of a place today stay
REFERENCE = re.compile(r"（[^（）]*(?:《|卷|同上|全唐|見|據|參)[^（）]*）")
COMPOSED = re.compile("[{}/?□\ue000-\uf8ff]")
PLAIN, YEAR = "[^，。（）、；：《》]", "[一二三四五六七八九○〇]{3,4}"


class Relation(NamedTuple):
    """What is asked of a person: `found` has the answer as a group, and where `unsaid` finds nothing a biography is silent."""

    question: str
    found: re.Pattern[str]
    unsaid: re.Pattern[str]
    suffix: str = ""  # with which the answer is right too


RELATIONS = {
    "courtesy": Relation("{}字什麼？", re.compile(f"(?<![名文八數作小二大])字({PLAIN}{{1,3}})[，。（；]"), re.compile("字")),
    "pseudonym": Relation("{}號什麼？", re.compile(f"(?<!年)號({PLAIN}{{2,6}})[，。（；]"), re.compile("號")),
    "origin": Relation("{}是哪裏人？", re.compile(f"，({PLAIN}{{2,6}})(?:（[^）]*今[^）]*）)?人[，。；]"), re.compile("人"), "人"),
    "birth": Relation("{}生於哪一年？", re.compile(f"^[^（，。]+（({YEAR})～"), re.compile("[～生]"), "年"),
    "death": Relation("{}卒於哪一年？", re.compile(f"^[^（，。]+（[^（）～]*～({YEAR})）"), re.compile("[～卒死]"), "年"),
    "examination": Relation(
        "{}哪一年中進士？",
        re.compile(f"[，。]登?({PLAIN}{{2,4}}[元一二三四五六七八九十]{{1,3}}年)(?:（({YEAR})）)?，?(?:登)?進士"),
        re.compile("[第舉士]"),
    ),
    "poems": Relation("{}存詩多少？", re.compile("詩([一二三四五六七八九十百]{1,4}[首卷])"), re.compile("詩")),
}  # fmt: skip


class Person(NamedTuple):
    """A name, a biography, and what it says by relation: the answers that are right, the one to learn first."""

    name: str
    text: str
    answers: Mapping[str, Sequence[str]]
    silent: Sequence[str]  # relations of which the biography says nothing


def prepare_biographies(source: Path, directory: Path, dataset: Biographies) -> Prepared:
    """Write train.jsonl and test.jsonl with question, relation, passages, a list, and answer, a list that may be empty.

    The biographies of a side, those that are asked about and those that are only in the way, are on that side only.
    """
    left_out: Counter[str] = Counter()
    people = list(_people(source, dataset.max_characters, left_out))
    contents = [digest(f"{person.name}\n{person.text}".encode()) for person in people]
    people = [people[i] for i in content_order(contents)]
    tested = split_by_group(sorted(contents), dataset.test_share)
    records: list[Record] = []
    sides: list[bool] = []
    for side in (False, True):
        own = [person for person, test in zip(people, tested, strict=True) if test == side]
        _require(source, own, dataset)
        made = list(_questions(own, dataset))
        records += made
        sides += [side] * len(made)
    counts = write_sides(directory, records, [digest(r["question"].encode()) for r in records], sides)
    notes = [f"{len(people):,} biographies, {sum(tested):,} of them to test", _relations(records)]
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, notes)


def person_of(name: str, raw: str, longest: int) -> Person:
    """What a biography says, without references, cut after the last sentence that fits."""
    text = re.sub(r"\s+", "", raw)
    while (shorter := REFERENCE.sub("", text)) != text:  # brackets in brackets
        text = shorter
    text = text[: text.rfind("。", 0, longest) + 1]
    answers = {key: _answers(relation, text) for key, relation in RELATIONS.items()}
    silent = [key for key, relation in RELATIONS.items() if not relation.unsaid.search(text)]
    return Person(name, text, {key: found for key, found in answers.items() if found}, silent)


def _answers(relation: Relation, text: str) -> list[str]:
    """All that is right, in the order of the text, each once."""
    found = [part for match in relation.found.finditer(text) for part in match.groups() if part]
    return [*dict.fromkeys([*found, *(part + relation.suffix for part in found)])]


def _people(source: Path, longest: int, left_out: Counter[str]) -> Iterator[Person]:
    """The biographies that say something of the one that they name; the others are counted."""
    found = [
        (_text(path, number, row, "name"), _text(path, number, row, "text"))
        for path, number, row in _rows(source)
    ]
    copies = distinct([digest("\n".join(pair).encode()) for pair in found])
    left_out["copy of another biography"] = copies.copies
    found = [found[i] for i in copies.items]
    several = Counter(name for name, _ in found)
    for name, raw in found:
        person = person_of(name, raw, longest)
        if several[name] > 1:
            left_out["biography of a name that several people have"] += 1
        elif COMPOSED.search(name):
            left_out["name with a character that has no code point"] += 1
        elif not person.text.startswith(name):
            left_out["biography that does not begin with the name, or whose first sentence is too long"] += 1
        elif not person.answers:
            left_out["biography that answers no question"] += 1
        else:
            yield person


def _rows(source: Path) -> Iterator[tuple[Path, int, Record]]:
    paths = sorted(source.glob("*.jsonl"))
    if not paths:
        raise BadInput(f"{source}: no .jsonl file in it; put one there with `name` and `text` a line")
    return ((path, number, row) for path in paths for number, row in read_jsonl(path))


def _text(path: Path, number: int, row: Record, key: str) -> str:
    if not isinstance(row.get(key), str):
        raise BadInput(
            f"{path}: line {number}: {key!r} must be a string, not {str(row.get(key))[:40]}; fix the line"
        )
    return row[key]


def _require(source: Path, people: Sequence[Person], dataset: Biographies) -> None:
    needed = dataset.num_passages * dataset.per_passage + 1
    if len(people) < needed:
        raise BadInput(
            f"{source}: {len(people)} biographies on a side, and the passages of a question take {needed}; add some, or "
            "take fewer passages"
        )


def _questions(people: Sequence[Person], dataset: Biographies) -> Iterator[Record]:
    """All questions that biographies answer; of these half of `no_answer` without the biography, and as many to silent ones."""
    half = dataset.no_answer / 2
    rates = {key: _rate(people, key) for key in RELATIONS}
    for number, person in enumerate(people):
        for key in RELATIONS:
            own = random.Random(f"{person.name}\n{key}\n{person.text}")
            place = own.random()
            if key in person.answers:
                is_absent = place < half
                answer = [] if is_absent else list(person.answers[key])
                yield _record(person, key, answer, _passages(people, number, is_absent, own, dataset))
            elif key in person.silent and place < half * rates[key]:
                yield _record(person, key, [], _passages(people, number, False, own, dataset))


def _rate(people: Sequence[Person], key: str) -> float:
    """How many biographies answer for each one that is silent: so many questions of a relation have no answer as lose theirs."""
    answering = sum(key in person.answers for person in people)
    return answering / max(1, sum(key in person.silent for person in people))


def _passages(
    people: Sequence[Person], number: int, is_absent: bool, own: random.Random, dataset: Biographies
) -> list[str]:
    """Passages of so many biographies each; that of the person stands anywhere, unless it is absent."""
    total = dataset.num_passages * dataset.per_passage
    others = [i for i in own.sample(range(len(people)), total + 1) if i != number]
    chosen = others[:total] if is_absent else [*others[: total - 1], number]
    own.shuffle(chosen)
    texts = [people[i].text for i in chosen]
    return [
        "".join(texts[start : start + dataset.per_passage]) for start in range(0, total, dataset.per_passage)
    ]


def _record(person: Person, key: str, answer: list[str], passages: list[str]) -> Record:
    question = RELATIONS[key].question.format(person.name)
    return {"question": question, "relation": key, "passages": passages, "answer": answer}


def _relations(records: Sequence[Record]) -> str:
    """How many questions there are of each relation, and how many have no answer, in words."""
    counts = Counter(record["relation"] for record in records)
    unanswered = sum(not record["answer"] for record in records)
    listed = ", ".join(f"{key} {counts[key]:,}" for key in RELATIONS)
    return f"{len(records):,} questions: {listed}; {unanswered:,} of them have no answer in their passages"
