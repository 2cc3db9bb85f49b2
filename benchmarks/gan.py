"""Seconds that a pair of updates of a GAN takes: one loss for both players beside turns, the trainer beside a loop by hand.

python -m benchmarks.gan [--recipe gan] [--artifacts DIR] [--rounds 5] [--steps 60] [--quiet-only]

Networks, batches and Adam are those of a block of params.yaml; each contestant has one process, one thread and one slice. The
loops are what one would write for one model with torch alone. `cut gradients` is the single loss as the article
has it (archives/6387): the critic sees the generated images twice, once cut off from the generator.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training import (
    PROJECT,
    SEED,
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
from genpipe.data.loader import Batches
from genpipe.errors import BadInput
from genpipe.models.gan import GAN
from genpipe.params.project import read_params
from genpipe.params.training import Training

Step = Callable[[GAN, "Optimisers", Tensor], None]
Optimisers = Mapping[str, torch.optim.Optimizer]
PLAYERS = ("critic", "generator")


def codes(model: GAN, real: Tensor) -> Tensor:
    """Gaussian codes for as many examples."""
    return torch.randn(len(real), model.latent_dim, dtype=real.dtype)


def move(optimiser: torch.optim.Optimizer, loss: Tensor, network: nn.Module) -> None:
    """One step of one network."""
    optimiser.zero_grad()
    loss.backward(inputs=list(network.parameters()))
    optimiser.step()


def in_turns(model: GAN, optimisers: Optimisers, real: Tensor) -> None:
    """The critic's step against images that are cut off from the generator, then the generator's."""
    with torch.no_grad():
        fake = model.generator(codes(model, real))
    r, f = model.critic(torch.cat([real, fake])).chunk(2)
    move(optimisers["critic"], model.divergence.critic(r, f).mean(), model.critic)
    f = model.critic(model.generator(codes(model, real)))
    move(optimisers["generator"], model.divergence.generator(f, f).mean(), model.generator)


def at_once(model: GAN, optimisers: Optimisers, real: Tensor) -> None:
    """Both steps from one pass of the generator and one of the critic over its images."""
    fake = model.generator(codes(model, real))
    cut = fake.detach().requires_grad_()
    r, f = model.critic(real), model.critic(cut)
    (slope,) = torch.autograd.grad(model.divergence.generator(r.detach(), f).mean(), cut, retain_graph=True)
    loss = model.divergence.critic(r, f).mean() + ((fake - fake.detach()) * slope).sum()
    move(optimisers["both"], loss, model)


def by_cut_gradients(model: GAN, optimisers: Optimisers, real: Tensor) -> None:
    """Both steps from three passes of the critic; of the third, less the second, the critic's gradients cancel."""
    fake = model.generator(codes(model, real))
    r, stopped, f = model.critic(torch.cat([real, fake.detach(), fake])).chunk(3)
    mine = model.divergence.generator
    loss = model.divergence.critic(r, stopped) + mine(r.detach(), f) - mine(r.detach(), stopped)
    move(optimisers["both"], loss.mean(), model)


def loop(model: GAN, data: Batches, train: Training, step: Step) -> None:
    """A training by hand."""
    parts: dict[str, nn.Module] = {"critic": model.critic, "generator": model.generator}
    names = PLAYERS if step is in_turns else ("both",)
    solver = next(iter(train.solvers.values()))
    optimisers = {
        name: torch.optim.Adam(
            parts.get(name, model).parameters(), solver.lr, solver.betas, solver.eps, fused=True
        )
        for name in names
    }
    for number in range(train.steps):
        images = data.train_batch(SEED, number, train.batch_size)["images"]
        step(model, optimisers, 2 * (images.to(next(model.parameters()).dtype) / 255) - 1)


def loop_steps(case: Case, step: Step) -> list[float]:
    """Seconds of each step of a loop."""
    data = Clocked(case.open())
    model = case.make(data.facts)
    assert isinstance(model, GAN)
    loop(model, data, case.train, step)
    return data.seconds()


def cases(setting: Setting, name: str) -> dict[str, Case]:
    """A block of params.yaml by either schedule, with one update of each player a step."""
    block = read_params(PROJECT).named("recipes", name)
    network = {**block.train.network, "schedule": "alternating", "critic_steps": 1, "generator_steps": 1}
    if block.model != "gan" or network.keys() & {"penalty", "conditional", "potential_scale", "old_weight"}:
        raise BadInput(
            f"--recipe: must be a block of the model gan with a divergence and nothing beside it, not {name}"
        )
    solver = next(iter(block.train.solvers.values())).model_dump(exclude_unset=True)
    if solver.get("optimiser", "adam") != "adam":
        raise BadInput(f"--recipe: must be trained with adam, not {solver['optimiser']}; name another one")
    made: dict[str, Case] = {}
    for schedule, updates in (("alternating", PLAYERS), ("single", ("gan",))):
        steps = WARM_UP + setting.steps + 1
        values: dict[str, Any] = {
            "steps": steps,
            "checkpoint_every": steps,
            "logical_workers": 1,
            "network": {**network, "schedule": schedule},
            "solvers": dict.fromkeys(updates, solver),
        }
        train = changed(block.train, **values)
        made[schedule] = Case(Named("gan", train.network), train, setting.artifacts / block.data)
    return made


def measured(setting: Setting, name: str) -> list[Row]:
    """The table: ratios are those of speeds, so 1.25 is 0.8 of the time."""
    turns, single = cases(setting, name).values()
    contestants: dict[str, Contestant] = {
        "turns, loop": lambda: mean_step(loop_steps(turns, in_turns)),
        "turns, trainer": lambda: mean_step(trainer_steps(turns)),
        "single loss, loop": lambda: mean_step(loop_steps(single, at_once)),
        "single loss, trainer": lambda: mean_step(trainer_steps(single)),
        "cut gradients, loop": lambda: mean_step(loop_steps(single, by_cut_gradients)),
    }
    found = alternated(contestants, setting, name)
    pairs = {  # what is beside what, and the bar
        ("turns, trainer", "turns, loop"): ">= 0.95",
        ("single loss, trainer", "single loss, loop"): ">= 0.95",
        ("single loss, trainer", "turns, trainer"): ">= 1.25",
        ("single loss, loop", "turns, loop"): "",
        ("cut gradients, loop", "turns, loop"): "",
    }
    rows = [Row(name, what, taken) for what, taken in found.items()]
    beside = [
        Row(name, f"{what}, beside {base}", found[what], found[base], target=bar)
        for (what, base), bar in pairs.items()
    ]
    return [*rows, *beside]


def main() -> None:
    """Measure and print the table."""
    print_table(__doc__, "gan", measured)


if __name__ == "__main__":
    main()
