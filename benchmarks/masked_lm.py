"""Seconds that a step of a masked language model takes: the trainer beside a plain loop over transformers' BERT of the same shape.

python -m benchmarks.masked_lm [--recipe masked_lm] [--artifacts DIR] [--rounds 5] [--steps 30] [--quiet-only]

Batches, sizes and AdamW are those of a block of params.yaml; both networks normalise after each layer, as BERT does, and have no dropout.
The loop hides 15 % of the tokens by itself and computes the logits of all tokens, as BertForMaskedLM does; genpipe computes those of
hidden tokens, and keeps the documents of a window apart. Each contestant has one process and one thread.
"""

import os
from typing import Any

import torch
from torch import Tensor

from benchmarks.training import (
    PROJECT,
    SEED,
    SLICES,
    WARM_UP,
    Case,
    Clocked,
    Contestant,
    Named,
    Row,
    Setting,
    alternated,
    changed,
    mean_step,
    print_table,
    trainer_steps,
)
from genpipe.errors import BadInput
from genpipe.params.project import read_params

RATE = 0.15
IGNORED = -100  # the label of a token that counts for nothing
SHAPE = ("dim", "num_blocks", "num_heads")


def case_of(setting: Setting, name: str, slices: int) -> Case:
    """A block of params.yaml as a BERT without dropout, for as many steps as are measured."""
    block = read_params(PROJECT).named("recipes", name)
    network = dict(block.train.network)
    if block.model != "masked_lm" or network.keys() - {*SHAPE, "pre_norm", "dropout"}:
        raise BadInput(
            f"--recipe: must be a block of the model masked_lm with {', '.join(SHAPE)}, not {name}"
        )
    solver = block.train.solvers["masked"].model_dump(exclude_unset=True)
    steps = WARM_UP + setting.steps + 1
    values: dict[str, Any] = {
        "steps": steps,
        "checkpoint_every": steps,
        "logical_workers": slices,
        "network": {**network, "pre_norm": False, "dropout": 0},
        "solvers": {"masked": {"optimiser": "adamw", "lr": solver["lr"], "weight_decay": 0.01}},
    }
    train = changed(block.train, **values)
    return Case(Named("masked_lm", train.network), train, setting.artifacts / block.data)


def hidden_batch(ids: Tensor, mark: int, num_ordinary: int) -> tuple[Tensor, Tensor]:
    """Ids with 15 % of the tokens hidden, 80/10/10, and the labels of those, as a data collator makes them."""
    is_hidden = torch.rand(ids.shape) < RATE
    labels = ids.masked_fill(~is_hidden, IGNORED)
    draw = torch.rand(ids.shape)
    read = torch.where(is_hidden & (draw < 0.8), mark, ids)
    other = torch.randint(num_ordinary, ids.shape)
    return torch.where(is_hidden & (draw >= 0.9), other, read), labels


def loop_steps(case: Case) -> list[float]:
    """Seconds of each step of a plain loop over BertForMaskedLM."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import BertConfig, BertForMaskedLM

    data, network = Clocked(case.open()), case.train.network
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=data.facts["num_tokens"],
        hidden_size=network["dim"],
        num_hidden_layers=network["num_blocks"],
        num_attention_heads=network["num_heads"],
        intermediate_size=4 * network["dim"],
        max_position_embeddings=data.facts["time"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=1,
    )
    model = BertForMaskedLM(config).train()
    solver = case.train.solvers["masked"]
    optimiser = torch.optim.AdamW(model.parameters(), solver.lr, weight_decay=0.01, fused=True)
    for step in range(case.train.steps):
        ids = data.train_batch(SEED, step, case.train.batch_size)["ids"]
        read, labels = hidden_batch(ids, data.facts["mask"], data.facts["pad"])
        optimiser.zero_grad()
        model(input_ids=read, labels=labels).loss.backward()
        optimiser.step()
    return data.seconds()


def measured(setting: Setting, name: str) -> list[Row]:
    """The table: ratios are those of speeds, ours by the loop's."""
    one, several = (case_of(setting, name, slices) for slices in (1, SLICES))
    contestants: dict[str, Contestant] = {
        "transformers, loop": lambda: mean_step(loop_steps(one)),
        "trainer, 1 slice": lambda: mean_step(trainer_steps(one)),
        f"trainer, {SLICES} slices": lambda: mean_step(trainer_steps(several)),
    }
    found = alternated(contestants, setting, name)
    base = found["transformers, loop"]
    bars = dict(zip(contestants, ("", ">= 0.95", ">= 0.85"), strict=True))
    return [Row(name, what, taken, base, target=bars[what]) for what, taken in found.items()]


def main() -> None:
    """Measure and print the table."""
    print_table(__doc__, "masked_lm", measured, steps=30)


if __name__ == "__main__":
    main()
