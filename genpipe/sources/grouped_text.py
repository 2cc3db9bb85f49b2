"""Texts in groups of the same meaning: translations of one sentence, or ways to ask one question."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from genpipe.errors import BadInput
from genpipe.params.corpora import GroupedText
from genpipe.sources.documents import Record, file_counts, write_sides
from genpipe.sources.jsonl import read_jsonl
from genpipe.sources.near_texts import near_copies, pairs_of, words_of
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import content_order, digest, split_by_group
from genpipe.sources.text import documents
from genpipe.sources.verse import LINE

REMEDY = "fix the line"
Line = tuple[str, str, Sequence[str]]  # where it stands, the name of a group, and texts of it


class Group(NamedTuple):
    """Texts of one meaning, no two of them the same, and a hash of them that their order does not change."""

    name: str
    texts: tuple[str, ...]
    content: bytes


def prepare_grouped_text(source: Path, directory: Path, dataset: GroupedText) -> Prepared:
    """Write train.jsonl and test.jsonl with group and text, the texts of a group one after another; a group is on one side.

    Texts of a group that are equal but for case, width and punctuation are one. A group with a near copy of a text of an earlier group,
    in the order of a hash of the texts, is left out, so no test text is nearly a training text and no other group is as right.
    """
    left_out: dict[str, int] = {}
    groups = _of_some(_groups(source, dataset), dataset, left_out)
    if not groups:
        raise BadInput(
            f"{source}: no group with two different texts; give each text the group that it belongs to"
        )
    order = content_order([group.content for group in groups])
    kept = _without_near_copies([groups[i] for i in order], left_out)
    tested = split_by_group([group.content for group in kept], dataset.test_share)
    if dataset.train_groups is not None:
        kept, tested = _at_most(kept, tested, dataset.train_groups, left_out)
    # Hashed once more: the texts of one group stand together, and the groups in an order of their own.
    rows = [(group, text, test) for group, test in zip(kept, tested, strict=True) for text in group.texts]
    records: list[Record] = [{"group": group.name, "text": text} for group, text, _ in rows]
    places = [digest(b"order" + group.content) for group, *_ in rows]
    counts = write_sides(directory, records, places, [test for *_, test in rows])
    notes = [f"{len(kept) - sum(tested):,} groups to train and {sum(tested):,} to test"]
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, notes)


def _groups(source: Path, dataset: GroupedText) -> dict[str, list[str]]:
    """The texts of each group, in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for place, name, texts in (_of_tables if source.suffix == ".tsv" else _of_objects)(source, dataset):
        if not all(text.strip() for text in texts):
            raise BadInput(f"{place}: a text is empty; {REMEDY}")
        found[name] += [" ".join(text.split()) for text in texts]
    return found


def _of_objects(source: Path, dataset: GroupedText) -> Iterator[Line]:
    for number, record in read_jsonl(source):
        place = f"{source}: line {number}"
        texts = record.get("texts") if dataset.line == "group" else [record.get("text")]
        if not isinstance(texts, list) or not texts or not _are_texts(texts):
            what = "a list of texts under 'texts'" if dataset.line == "group" else "a text under 'text'"
            raise BadInput(f"{place}: must have {what}, as datasets.*.line: {dataset.line} says; {REMEDY}")
        name = str(number) if dataset.line == "group" else record.get("group")
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise BadInput(
                f"{place}: must have a name or a whole number under 'group', not {name!r:.40}; {REMEDY}"
            )
        yield place, str(name), texts


def _are_texts(values: list[Any]) -> TypeGuard[list[str]]:
    return all(isinstance(value, str) for value in values)


def _of_tables(source: Path, dataset: GroupedText) -> Iterator[Line]:
    for record in documents([source], source):
        number = record["id"].rpartition(":")[2]
        place, cells = f"{source}: line {number}", record["text"].split("\t")
        if len(cells) < 2 or (dataset.line == "text" and len(cells) > 2):
            what = "two or more texts" if dataset.line == "group" else "a group and a text"
            raise BadInput(
                f"{place}: has {len(cells)} columns, and must have {what} with a tab between; {REMEDY}"
            )
        yield (place, number, cells) if dataset.line == "group" else (place, cells[0], cells[1:])


def _of_some(found: dict[str, list[str]], dataset: GroupedText, left_out: dict[str, int]) -> list[Group]:
    """The groups that have two different texts, each with the Chinese characters that are asked for."""
    groups: list[Group] = []
    short = equal = alone = 0
    for name, texts in found.items():
        long = [text for text in texts if sum(map(len, LINE.findall(text))) >= dataset.min_han]
        distinct = {tuple(words_of(text)): text for text in reversed(long)}
        short += len(texts) - len(long)
        equal += len(long) - len(distinct)
        if len(distinct) < 2:
            alone += 1
            continue
        own = tuple(text for text in long if text in distinct.values())
        contents = sorted(digest(text.encode()) for text in {*own})
        groups.append(Group(name, tuple(dict.fromkeys(own)), digest(b"".join(contents))))
    left_out[f"text of fewer than {dataset.min_han} Chinese characters"] = short
    left_out["text that equals another one of its group, but for case and punctuation"] = equal
    left_out["group with fewer than two texts left"] = alone
    return groups


def _without_near_copies(groups: Sequence[Group], left_out: dict[str, int]) -> list[Group]:
    """Each group that has no near copy of a text of a group before it that is kept."""
    owners = [number for number, group in enumerate(groups) for _ in group.texts]
    near: dict[int, set[int]] = defaultdict(set)
    for i, j in near_copies([pairs_of(text) for group in groups for text in group.texts]):
        near[max(owners[i], owners[j])].add(min(owners[i], owners[j]))
    kept: list[int] = []
    known: set[int] = set()
    for number in range(len(groups)):
        if not near[number] & known:
            kept.append(number)
            known.add(number)
    left_out["group with a near copy of a text of another group"] = len(groups) - len(kept)
    return [groups[number] for number in kept]


def _at_most(
    groups: Sequence[Group], tested: Sequence[bool], most: int, left_out: dict[str, int]
) -> tuple[list[Group], list[bool]]:
    """All groups to test, and the first `most` to train on."""
    trained = [number for number, test in enumerate(tested) if not test]
    left_out[f"group beyond the {most:,} to train on"] = len(trained[most:])
    dropped = {*trained[most:]}
    kept = [number for number in range(len(groups)) if number not in dropped]
    return [groups[number] for number in kept], [tested[number] for number in kept]
