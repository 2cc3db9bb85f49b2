"""What all peers share: the arguments, the documents, the tokenizers, the table that is written, the line that is printed."""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

Split = Callable[[str], list[str]]


def arguments(tokenizers: Iterable[str]) -> argparse.Namespace:
    """FILE --tokenizer NAME --out FILE --workers N."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--tokenizer", choices=list(tokenizers), required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def splitter(name: str) -> Split:
    """The tokenizer of that name, its dictionary loaded; white space is no token."""
    if name == "whitespace":
        return str.split
    if name == "rjieba":
        import rjieba

        rjieba.cut("词", True)
        return lambda text: [word for word in rjieba.cut(text, True) if not word.isspace()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba

    jieba.setLogLevel(60)
    jieba.initialize()
    return lambda text: [word for word in jieba.lcut(text) if not word.isspace()]


def documents(file: str) -> Iterator[str]:
    """The lines of a file without their newlines."""
    with open(file, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield line.removesuffix("\n")


def batches(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    """The article's batches of 1,000 documents."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def finish(counts: Mapping[str, int], out: str, started: float) -> None:
    """Write token and count, by count descending, then by token, and say what it took since `started`."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    with open(out, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{token}\t{count}\n" for token, count in rows)
    report(started, sum(counts.values()), len(rows))


def report(started: float, tokens: int, types: int) -> None:
    """The line that benchmarks.measure reads: seconds of work, start-up and dictionaries not included."""
    print(json.dumps({"seconds": time.perf_counter() - started, "tokens": tokens, "types": types}))
    sys.stdout.flush()
