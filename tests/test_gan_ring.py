"""A ring of eight Gaussians, three seeds for each adversarial loss: most of an hour of one core.

    python -m pytest -m slow tests/test_gan_ring.py -rP      # with the table of what each training found

Eight Gaussians of deviation 0.1 on a circle of radius 2; perceptrons of three layers of 128, four latent dimensions, batches of
256. A mode counts where 2 % of 10,000 samples are nearest to its centre and within four deviations of it. Real points find 8, and all
of them are so close.
"""

import math
from pathlib import Path

import pytest
import torch

from genpipe.assembly import build
from genpipe.params.training import Training
from genpipe.sampling.draw import draw
from genpipe.training.logical import Alone
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer

STD = 0.1
SEEDS = (1, 2, 3)
FAST = {"lr": 1e-3, "betas": [0.5, 0.9]}
TURNS = {"critic": FAST, "generator": FAST}
VARIANTS = {  # network, steps, solvers, normalisations
    "sgan": ({"divergence": "sgan"}, 3000, TURNS, {}),
    "sgan_saturating": ({"divergence": "sgan_saturating"}, 3000, TURNS, {}),
    "lsgan": ({"divergence": "lsgan"}, 3000, TURNS, {}),
    "hinge": ({"divergence": "hinge"}, 3000, TURNS, {}),
    "rsgan": ({"divergence": "rsgan"}, 3000, TURNS, {}),
    "rasgan": ({"divergence": "rasgan"}, 3000, TURNS, {}),
    "ralsgan": ({"divergence": "ralsgan"}, 3000, TURNS, {}),
    "rahinge": ({"divergence": "rahinge"}, 3000, TURNS, {}),
    "sgan, r1": ({"divergence": "sgan", "penalty": "r1", "penalty_weight": 2.0}, 3000, TURNS, {}),
    "wgan, two_sided": (
        {"divergence": "wgan", "penalty": "two_sided", "penalty_weight": 0.1, "critic_steps": 5},
        5000,
        TURNS,
        {},
    ),
    "wgan, wgan_div": ({"divergence": "wgan", "penalty": "wgan_div"}, 3000, TURNS, {}),
    "gan_qp_l1": ({"divergence": "gan_qp_l1", "critic_steps": 2}, 5000, TURNS, {}),
    "gan_qp_l2": ({"divergence": "gan_qp_l2", "critic_steps": 2}, 5000, TURNS, {}),
    "hinge, spectral": (
        {"divergence": "hinge", "critic_steps": 5},
        12500,
        TURNS,
        {r"critic.*weight$": "spectral"},
    ),
    "hinge, single": (
        {"divergence": "hinge", "schedule": "single"},
        4000,
        {"gan": {"optimiser": "rmsprop", "lr": 1e-3}},
        {},
    ),
    "energy_gan": (
        {"energy_steps": 5, "penalty_weight": 0.1, "entropy": "jsd"},
        5000,
        {name: {**FAST, "decay": "linear"} for name in ("energy", "generator")},
        {},
    ),
    "ogan": ({}, 4000, {"ogan": {"optimiser": "rmsprop", "lr": 5e-4}}, {}),
}


class Ring:
    """Fresh points of the ring for each step."""

    def __init__(self):
        self.facts = {"dim": 2}

    def train_batch(self, seed, step, batch_size):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        angle = math.pi / 4 * torch.randint(8, (batch_size,), generator=generator)
        points = 2 * torch.stack([angle.cos(), angle.sin()], 1)
        return {"points": points + STD * torch.randn(batch_size, 2, generator=generator)}


def found(points):
    """How many modes points have, and the share of points near one."""
    angle = math.pi / 4 * torch.arange(8)
    centres = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    distance, nearest = torch.cdist(points, centres).min(1)
    near = distance < 4 * STD
    shares = torch.bincount(nearest[near], minlength=8) / len(points)
    return int((shares >= 0.02).sum()), near.double().mean().item()


def trained(name, seed, directory, steps=None):
    """What 10,000 samples of a training find."""
    network, own_steps, solvers, normalisations = VARIANTS[name]
    recipe = name if name in ("energy_gan", "ogan") else "gan"
    common = {"architecture": "mlp", "latent_dim": 4, "width": 128}
    common |= {"feature_dim": 128} if recipe == "gan" else {}
    steps = steps or own_steps
    params = Training.model_validate(
        {
            "batch_size": 256,
            "logical_workers": 1,
            "steps": steps,
            "checkpoint_every": steps,
            "solvers": solvers,
            "normalisations": normalisations,
        }
    )
    model = build(recipe, {**common, **network}, {"dim": 2}, seed, params.normalisations)
    Trainer(model, Ring(), params, seed, Alone(), Run(directory)).fit()
    return found(draw(model.eval(), 10_000, seed)["points"])


def test_real_points_find_all_modes():
    assert found(Ring().train_batch(1, 0, 10_000)["points"]) == (8, pytest.approx(1, abs=0.002))


def test_a_training_finds_something_of_the_ring(tmp_path):
    """The command of the table, on a budget that anyone has: near a mode are then more points than of noise."""
    noise = found(3 * torch.randn(10_000, 2, generator=torch.Generator().manual_seed(0)))[1]
    modes, near = trained("rsgan", 1, Path(tmp_path), steps=300)
    assert modes >= 1
    assert near > noise


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", VARIANTS)
def test_most_trainings_find_most_modes(name, tmp_path):
    results = [trained(name, seed, tmp_path / str(seed)) for seed in SEEDS]
    for seed, (modes, near) in zip(SEEDS, results, strict=True):
        print(f"| {name} | {seed} | {modes} | {near:.3f} |")
    assert sum(modes >= 6 and near >= 0.6 for modes, near in results) >= 2
