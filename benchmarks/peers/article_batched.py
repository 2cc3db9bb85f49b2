"""The article's faster loop: one process, a small dict for 1,000 documents, which is added into the large one."""

import time

from common import arguments, batches, documents, finish, splitter


def main() -> None:
    """Count a batch at a time."""
    given = arguments(["jieba", "rjieba", "whitespace"])
    split = splitter(given.tokenizer)
    started = time.perf_counter()
    total: dict[str, int] = {}
    for batch in batches(documents(given.file)):
        counts: dict[str, int] = {}
        for text in batch:
            for token in split(text):
                counts[token] = counts.get(token, 0) + 1
        for token, count in counts.items():
            total[token] = total.get(token, 0) + count
    finish(total, given.out, started)


if __name__ == "__main__":
    main()
