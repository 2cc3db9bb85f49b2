"""Text whose words are known, and n-grams counted by hand."""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut
from genpipe.corpus.tasks import InProcess
from genpipe.discovery.gram_counting import GramCounting, count_task, merged
from genpipe.discovery.grams import Grams


def rows(text: str, kind: str = "runs") -> list[list[str]]:
    """Rows of units by regular expressions."""
    letter = r"[^\W\d_]"
    spaced = "[a-zé0-9][a-zé0-9็]*"
    parts = re.findall(r"[^\s，]+", text)
    unit = letter if kind == "characters" else spaced
    return [re.findall(f"{unit}|.", part) for part in parts]


def grams_by_hand(texts: Iterable[str], order: int) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for row in rows(text):
            for size in range(1, order + 1):
                counts.update(tuple(row[i : i + size]) for i in range(len(row) - size + 1))
    return counts


def grams_of(path: Path, order: int = 4, *, shard_bytes: int = 1 << 20, **how) -> Grams:
    counting = GramCounting(order, path.parent / "scratch", **how)
    counting.scratch.mkdir(exist_ok=True)
    shards = [shard for item in find_inputs([str(path)]) for shard in cut(item, shard_bytes)]
    does = InProcess()
    counted = does.run([count_task(shard, counting) for shard in shards], lambda *_: None)
    return merged(counted, counting, does, 0, "test")


def as_counts(grams: Grams) -> dict[tuple[str, ...], int]:
    found = {}
    for order, table in enumerate(grams.orders, start=1):
        for units, count in zip(grams.units_of(order).tolist(), table.counts.tolist(), strict=True):
            found[tuple(grams.names[unit - 1] for unit in units)] = count
    return found


def write(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def planted(shuffle: bool = False) -> tuple[list[str], set[str]]:
    """Sentences of 300 words of one to four characters out of 3,000, by Zipf's law: few words have a character in common."""
    generator = random.Random(6)
    characters = [chr(0x4E00 + number) for number in range(3000)]
    lexicon = ["".join(generator.choices(characters, k=generator.randint(1, 4))) for _ in range(300)]
    weights = [1 / rank for rank in range(1, 301)]
    texts = ["".join(generator.choices(lexicon, weights, k=generator.randint(5, 12))) for _ in range(20_000)]
    if shuffle:
        everything = [*"".join(texts)]
        generator.shuffle(everything)
        following = iter(everything)
        texts = ["".join(itertools.islice(following, len(text))) for text in texts]
    return texts, {word for word in lexicon if len(word) > 1}
