"""What every generator that is measured has in common: the shape, its numbers, what it reads, and how a call is timed."""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WARM_UP = 1  # calls before those that count
PAD, START, END = 0, 1, 2


class Shape(NamedTuple):
    """A causal model of BERT's shape, and what it writes: `new` tokens for each of `rows` texts of `read` tokens."""

    num_tokens: int
    dim: int
    num_blocks: int
    num_heads: int
    rows: int
    read: int
    new: int
    beam: int

    @staticmethod
    def parse(text: str) -> "Shape":
        """8000x256x6x4x8x8x64x4."""
        return Shape(*map(int, text.split("x")))

    @property
    def num_positions(self) -> int:
        """Of all that is read and written."""
        return self.read + self.new


def numbers_of(a: Shape) -> dict[str, Tensor]:
    """The weights by the names that a checkpoint of BERT has, the same for all; no text has a mark in it."""
    rng = np.random.default_rng(0)
    found: dict[str, Tensor] = {}

    def tensor(name: str, *shape: int, size: float = 0.08, mean: float = 0.0) -> None:
        found[name] = torch.from_numpy((mean + size * rng.standard_normal(shape)).astype(np.float32))

    def linear(name: str, out: int, inside: int) -> None:
        tensor(f"{name}.weight", out, inside)
        tensor(f"{name}.bias", out)

    def norm(name: str) -> None:
        tensor(f"{name}.weight", a.dim, mean=1.0)
        tensor(f"{name}.bias", a.dim)

    embeddings = "bert.embeddings"
    for part, number in (("word", a.num_tokens), ("position", a.num_positions), ("token_type", 2)):
        tensor(f"{embeddings}.{part}_embeddings.weight", number, a.dim)
    norm(f"{embeddings}.LayerNorm")
    for block in range(a.num_blocks):
        layer = f"bert.encoder.layer.{block}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", a.dim, a.dim)
        linear(f"{layer}.attention.output.dense", a.dim, a.dim)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", 4 * a.dim, a.dim)
        linear(f"{layer}.output.dense", a.dim, 4 * a.dim)
        norm(f"{layer}.output.LayerNorm")
    linear("cls.predictions.transform.dense", a.dim, a.dim)
    norm("cls.predictions.transform.LayerNorm")
    tensor("cls.predictions.bias", a.num_tokens)
    found["cls.predictions.bias"][[PAD, START, END]] = -1e4
    return found


def texts_of(a: Shape) -> Tensor:
    """What is read, int64 [rows, read], a start mark last."""
    ids = np.random.default_rng(1).integers(3, a.num_tokens, (a.rows, a.read))
    ids[:, -1] = START
    return torch.from_numpy(ids)


Write = Callable[[Tensor], Tensor]  # texts, [n, read] → the tokens that follow, [n, new]


def main(make: Callable[[Shape], Mapping[str, Write]]) -> None:
    """Time one operation of a generator, or write its tokens; the last line of the output is JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", type=Shape.parse)
    parser.add_argument("operation", choices=["greedy", "beam", "beam_one_by_one"])
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--write", type=Path, help="tokens, .npy, in the place of a time")
    given = parser.parse_args()
    torch.set_num_threads(1)
    name, _, one_by_one = given.operation.partition("_")
    write, texts = make(given.shape)[name], texts_of(given.shape)
    call = (
        (lambda: torch.cat([write(row) for row in texts.split(1)])) if one_by_one else (lambda: write(texts))
    )
    with torch.no_grad():
        if given.write:
            np.save(given.write, call().numpy())
        else:
            print(json.dumps({"seconds": seconds(call, given.calls)}))


def seconds(call: Callable[[], Tensor], calls: int) -> float:
    """CPU seconds of a call of this thread, the median."""
    taken = []
    for _ in range(WARM_UP + calls):
        begun = time.thread_time()
        call()
        taken.append(time.thread_time() - begun)
    return float(np.median(taken[WARM_UP:]))
