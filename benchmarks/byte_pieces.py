"""Learning a tokenizer of bytes from texts, beside Hugging Face's trainers: CPU time, memory, bytes a token on held-out texts.

    python -m benchmarks.byte_pieces FILE … [--field text] [--megabytes 10] [--size 8000] [--rounds 3] [--min-count 2] [--only bpe]

A twentieth of the documents, by the hash of their text, is held out; of the others the first ones are learnt from, about so
many MB of text. All three tokenizers are lossless: their texts come to them as bytes (ByteLevel, no regular expression,
no space before). Hugging Face's trainers get lines with their newlines as words, since a whole document as one word is
beyond them: so no piece goes on behind a newline, as none of BytePiece does. Each training is a process of its own with
one thread, in turns; a ratio is that of CPU seconds, theirs divided by ours.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from benchmarks.measure import Run, busy_cores, measured, rotated
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut, read
from genpipe.errors import BadInput, GenpipeError

HERE = Path(__file__).parent
OURS = "byte_piece"
KINDS = (OURS, "bpe", "unigram")
HELD_OUT = 256 // 20  # of the first byte of a hash
BATCH = 256  # texts that are cut at once


def main() -> None:
    """Print the table; with --train, be one of the contestants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="FILE")
    parser.add_argument("--field", default="text")
    parser.add_argument("--megabytes", type=float, default=10.0, help="of text to learn from")
    parser.add_argument("--size", type=int, default=8000, help="tokens, at most")
    parser.add_argument("--min-count", type=int, default=2, help="of n-grams, of ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=KINDS[1:], help="a peer to measure; default: both")
    parser.add_argument("--train", choices=KINDS[1:], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.train:
            train(given.train, Path(given.names[0]), given.size, given.out)
        else:
            print(table(given))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def table(given: argparse.Namespace) -> str:
    """The rounds, and what came out of them."""
    with tempfile.TemporaryDirectory(prefix="byte-pieces-") as scratch:
        learnt, held_out = split(given, Path(scratch))
        kinds = [OURS, *(given.only or KINDS[1:])]
        files = {kind: Path(scratch) / f"{kind}.json" for kind in kinds}
        commands = {kind: command(kind, learnt, given, file) for kind, file in files.items()}
        runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
        others: list[float] = []
        for number in range(given.rounds):
            for kind in rotated(kinds, number):
                others.append(busy_cores())
                runs[kind].append(measured(commands[kind], memory=True, pause=1.0))
                print(f"round {number + 1}: {kind}: {runs[kind][-1].cpu:.1f} s", file=sys.stderr, flush=True)
        rows = [row(kind, runs, *compression(files[kind], held_out)) for kind in kinds]
    size = sum(len(text.encode()) for text in held_out)
    return "\n".join(
        [
            "| tokenizer | tokens | bytes a token, held out | CPU s, median (min-max) | ratio to ours | peak PSS MB |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"{given.megabytes:g} MB of text learnt from, {size:,} bytes held out, {given.rounds} rounds; "
            f"other programs had at most {max(others):.2f} cores.",
        ]
    )


def split(given: argparse.Namespace, folder: Path) -> tuple[Path, list[str]]:
    """A file of records to learn from, and the texts held out."""
    path = folder / "learnt.jsonl"
    held_out: list[str] = []
    size = 0.0
    with path.open("w", encoding="utf-8") as file:
        for text in texts(given.names, given.field):
            data = text.encode()
            if hashlib.sha256(data).digest()[0] < HELD_OUT:
                held_out.append(text)
            else:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += len(data) / 1e6
            if size >= given.megabytes:
                return path, held_out
    raise BadInput(
        f"--megabytes: the files have only {size:.1f} MB to learn from; name more, or ask for less"
    )


def texts(names: Sequence[str], field: str) -> Iterator[str]:
    """All documents."""
    for item in find_inputs(names, field=field):
        for shard in cut(item, 1 << 21):
            yield from read(shard).documents().to_list()


def command(kind: str, learnt: Path, given: argparse.Namespace, out: Path) -> list[str]:
    """A training as a process."""
    env = ["env", "OMP_NUM_THREADS=1", "POLARS_MAX_THREADS=1", "TOKENIZERS_PARALLELISM=false"]
    env += ["RAYON_NUM_THREADS=1", f"PYTHONPATH={HERE.parent}", sys.executable, "-m"]
    result = ["--size", str(given.size), "--out", str(out)]
    if kind == OURS:
        words = ["genpipe.cli", "--root", str(out.parent), "tokenizer", "train", str(learnt), "--kind", OURS]
        return [*env, *words, *result, "--workers", "0", "--min-count", str(given.min_count)]
    return [*env, "benchmarks.byte_pieces", str(learnt), "--train", kind, *result]


def train(kind: str, learnt: Path, size: int, out: Path) -> None:
    """Train a peer."""
    model: Any = models.BPE() if kind == "bpe" else models.Unigram()
    trainer: Any = trainers.BpeTrainer if kind == "bpe" else trainers.UnigramTrainer
    more = {} if kind == "bpe" else {"unk_token": "<unk>"}
    made = tokenizers.Tokenizer(model)
    lines = pre_tokenizers.Split("\n", "merged_with_previous")
    made.pre_tokenizer = pre_tokenizers.Sequence([lines, as_bytes()])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    with learnt.open(encoding="utf-8") as file:
        made.train_from_iterator(
            (json.loads(line)["text"] for line in file),
            trainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet, **more),
        )
    made.save(str(out))


def as_bytes() -> Any:
    """A character a byte."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def compression(file: Path, held_out: Sequence[str]) -> tuple[int, float]:
    """Tokens of the vocabulary, and bytes of a token of the held-out texts."""
    model = tokenizers.Tokenizer.from_file(str(file))
    tokens = 0
    for start in range(0, len(held_out), BATCH):
        some = model.encode_batch_fast(held_out[start : start + BATCH], add_special_tokens=False)
        tokens += sum(len(one.ids) for one in some)
    return model.get_vocab_size(), sum(len(text.encode()) for text in held_out) / tokens


def row(kind: str, runs: dict[str, list[Run]], size: int, compression: float) -> str:
    """A row of the table."""
    seconds = [run.cpu for run in runs[kind]]
    ratios = [their.cpu / our.cpu for our, their in zip(runs[OURS], runs[kind], strict=True)]
    time = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    peak = max(run.peak for run in runs[kind]) / 1e6
    return f"| {kind} | {size:,} | {compression:.3f} | {time} | {ratio} | {peak:.0f} |"


if __name__ == "__main__":
    main()
