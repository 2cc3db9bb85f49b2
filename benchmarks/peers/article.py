"""The article's loop: one process, one dict."""

import time

from common import arguments, documents, finish, splitter


def main() -> None:
    """Count a token at a time."""
    given = arguments(["jieba", "rjieba", "whitespace"])
    split = splitter(given.tokenizer)
    started = time.perf_counter()
    counts: dict[str, int] = {}
    for text in documents(given.file):
        for token in split(text):
            counts[token] = counts.get(token, 0) + 1
    finish(counts, given.out, started)


if __name__ == "__main__":
    main()
