"""Energy model: images drawn by Langevin dynamics (Du, Mordatch, 2019, arXiv:1903.08689; archives/6612).

Energies of real images go down, those of the ends of chains go up; the chains go on from where they ended before, in a
replay buffer whose rows belong to the logical workers. The squares of energies are added, as in the authors' code; the
article subtracts one. The chains are far colder than temperature 1: exp(−energy) is not the density of the samples.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from genpipe.capabilities import Energy, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn.conv import smallest
from genpipe.nn.langevin import langevin
from genpipe.nn.pixels import DEQUANTISED, dequantised, dequantised_to_bytes
from genpipe.params.blocks import Count, DecayRate, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class EnergyModel(Recipe, Samples, Energy):
    """A network whose output is the energy of an image, and the ends of its chains."""

    pixels = DEQUANTISED

    sliced: ClassVar[tuple[str, ...]] = ("replay",)
    replay: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Count = 16,
        num_replay: Count = 2048,
        restart: DecayRate = 0.05,
        chain_steps: Count = 20,
        step: Factor = 10.0,
        noise: Factor = 0.005,
        bound: Factor = 0.03,
        square_weight: Factor = 0.1,
    ) -> None:
        super().__init__()
        self.restart = restart
        self.chain_steps = chain_steps
        self.chain = {"step": step, "noise": noise, "bound": bound}
        self.square_weight = square_weight
        rows, columns = smallest(image_shape)
        self.layers = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(4 * width * ((rows + 1) // 2) * ((columns + 1) // 2), 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, 1),
            nn.Flatten(0),
        )
        self.register_buffer("replay", torch.randint(0, 256, (num_replay, *image_shape), dtype=torch.uint8))

    def phases(self) -> tuple[Phase, ...]:
        """Contrastive divergence from persistent chains."""
        return (Phase("contrastive", (Update("contrastive", self.contrastive_loss, (self.layers,)),)),)

    def contrastive_loss(self, batch: Batch) -> Loss:
        """Mean energy of real images minus that of the ends of chains, plus the weighted squares of both."""
        real = self._dequantised(batch["images"])
        replay = batch["replay"]
        if len(replay) < len(real):
            raise BadInput(
                f"num_replay: must be {len(real)} or more rows for each logical worker, as many as its slice of the "
                f"batch, not {len(replay)}; raise it"
            )
        chosen = torch.randperm(len(replay), device=replay.device)[: len(real)]
        made = langevin(self._energy, self._starts(replay[chosen]), self.chain_steps, **self.chain)
        replay[chosen] = dequantised_to_bytes(made)
        energy_real, energy_made = self._energy(torch.cat([real, made])).chunk(2)
        gap = (energy_made - energy_real).mean()
        square = (energy_real.square() + energy_made.square()).mean()
        metrics = {"energy_gap": gap.detach(), "energy_real": energy_real.mean().detach()}
        return Loss(self.square_weight * square - gap, metrics)

    def energy(self, x: Example) -> Tensor:
        """Energies, [batch]."""
        return self._energy(x["images"])

    def sample(self, n: int, given: Example, steps: Count = 60) -> Example:
        """`n` images in [0, 1] at the ends of chains of `steps` that go on from replayed rows drawn at random."""
        starts = self._dequantised(self.replay[torch.randint(len(self.replay), (n,))])
        return {"images": langevin(self._energy, starts, steps, **self.chain)}

    def _energy(self, images: Tensor) -> Tensor:
        return self.layers(2 * images - 1)

    def _starts(self, stored: Tensor) -> Tensor:
        """Images in [0, 1] of stored rows, uint8 [batch, channels, height, width]; a share `restart` of them is noise instead."""
        anew = torch.rand(len(stored), 1, 1, 1, device=stored.device) < self.restart
        x = self._dequantised(stored)
        return torch.where(anew, torch.rand_like(x), x)

    def _dequantised(self, images: Tensor) -> Tensor:
        """Images in [0, 1), as replayed ones: only so can the energy not tell them by their rounding."""
        return dequantised(images, next(self.parameters()).dtype)
