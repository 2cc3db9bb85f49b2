"""New-word discovery as archives/6920 states it, serially, with dicts: TEXT OUT MIN_COUNT.

All n-grams of one to four characters are counted, those with a solidity of 2, 4 and 6 nats join their characters, and what is joined is
looked back at. The counts of each order are exact, which those of the published program are not.
"""

import json
import math
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

ORDER = 4
NATS = {2: 2.0, 3: 4.0, 4: 6.0}


def pieces(path: str) -> Iterator[str]:
    """Runs of Chinese characters, digits and letters."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield from re.findall("[\u4e00-\u9fa50-9a-zA-Z]+", line)


def main() -> None:
    """Write words and their counts as TSV."""
    path, out, least = sys.argv[1], sys.argv[2], int(sys.argv[3])
    started = time.perf_counter()
    counts: dict[str, int] = defaultdict(int)
    total = 0
    for piece in pieces(path):
        total += len(piece)
        for start in range(len(piece)):
            for end in range(start + 1, min(start + ORDER, len(piece)) + 1):
                counts[piece[start:end]] += 1
    counts = {gram: count for gram, count in counts.items() if count >= least}
    solid = {gram for gram in counts if len(gram) > 1 and is_solid(gram, counts, total)}
    words: dict[str, int] = defaultdict(int)
    for piece in pieces(path):
        for word in joined(piece, solid):
            words[word] += 1
    with open(out, "w", encoding="utf-8") as file:
        for word, count in words.items():
            if count >= least and is_confirmed(word, solid):
                file.write(f"{word}\t{count}\n")
    print(json.dumps({"seconds": time.perf_counter() - started}))


def is_solid(gram: str, counts: dict[str, int], total: int) -> bool:
    """Whether the parts of an n-gram meet far more often than by chance, at each cut."""
    ratio = min(
        total * counts[gram] / (counts[gram[:cut]] * counts[gram[cut:]]) for cut in range(1, len(gram))
    )
    return math.log(ratio) >= NATS[len(gram)]


def joined(piece: str, solid: set[str]) -> Iterator[str]:
    """Characters that a solid n-gram covers together."""
    is_bound = [False] * len(piece)
    for start in range(len(piece) - 1):
        for end in range(start + 2, min(start + ORDER, len(piece)) + 1):
            if piece[start:end] in solid:
                for place in range(start, end - 1):
                    is_bound[place] = True
    start = 0
    for place in range(len(piece)):
        if not is_bound[place]:
            yield piece[start : place + 1]
            start = place + 1


def is_confirmed(word: str, solid: set[str]) -> bool:
    """The look back."""
    if len(word) <= 2:
        return True
    if len(word) <= ORDER:
        return word in solid
    return all(word[start : start + ORDER] in solid for start in range(len(word) - ORDER + 1))


if __name__ == "__main__":
    main()
