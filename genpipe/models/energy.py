"""Energy model: examples drawn by Langevin dynamics (Du, Mordatch, 2019, arXiv:1903.08689; archives/6612).

Energies of real examples go down, those of the ends of chains go up; the chains go on from where they ended before, in a
replay buffer whose rows belong to the logical workers. The squares of energies are added, as in the authors' code; the
article subtracts one. `preset` says how chains move: only at temperature 1 is exp(−energy) the density of the samples.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from genpipe.capabilities import Energy, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn import chains
from genpipe.nn.classes import condition_classes, labels_of, labels_of_batch
from genpipe.nn.conv import smallest
from genpipe.nn.examples import examples_of
from genpipe.nn.langevin import Slope, by_autograd, langevin
from genpipe.nn.pixels import DEQUANTISED, dequantised, dequantised_to_bytes
from genpipe.nn.slopes import slope
from genpipe.params.blocks import Count, DecayRate, Factor, Positive
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

Preset = Literal["cold", "igebm", "langevin"]
MOST_GAP = (
    1000.0  # nats between real examples and ends of chains: no chain that samples exp(−energy) is so far off
)
NUM_MEASURED = 4096  # points that say where the data lies


class Chain(NamedTuple):
    """How chains move, and the weight of the squares of energies."""

    step: float
    noise: float
    bound: float
    square_weight: float


PRESETS: Mapping[str, Chain] = {
    "cold": Chain(10.0, 0.005, 0.03, 0.1),  # what trains in a minute
    "igebm": Chain(10.0, 0.005, 0.01, 1.0),  # the authors' code
    "langevin": Chain(0.002, math.sqrt(2 * 0.002), math.inf, 0.0),  # temperature 1: noise² = 2 · step
}


def chain_of(preset: Preset, **given: float | None) -> Chain:
    """The chain of a preset, with what is given in its place; BadInput where that would be another temperature than it says."""
    known = {name: value for name, value in given.items() if value is not None}
    if preset != "langevin":
        return PRESETS[preset]._replace(**known)
    for name in ("noise", "bound"):
        if name in known:
            raise BadInput(
                f"train.network.{name} has no effect on the preset langevin, whose noise is √(2 step) and whose gradients are "
                "not clipped; take it out, or take another preset"
            )
    chain = PRESETS[preset]._replace(**known)
    return chain._replace(noise=math.sqrt(2 * chain.step))


class EnergyModel(Recipe, Samples, Energy):
    """A network whose output is the energy of an image or a point, under the condition of a class if asked, and the ends of its chains."""

    pixels = DEQUANTISED

    replay: Tensor
    replay_labels: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        width: Count = 16,
        num_replay: Count = 2048,
        restart: DecayRate = 0.05,
        chain_steps: Count = 20,
        preset: Preset = "cold",
        step: Positive | None = None,
        noise: Factor | None = None,
        bound: Factor | None = None,
        square_weight: Factor | None = None,
        conditional: bool = False,
    ) -> None:
        """`step`, `noise`, `bound` and `square_weight` are those of the preset where nothing else is said."""
        super().__init__()
        self.key, shape = examples_of(image_shape, dim)
        if self.key == "points" and preset != "langevin":
            raise BadInput(
                f"train.network.preset: {preset} takes images, and these are points; take langevin"
            )
        self.num_classes = condition_classes(conditional, num_classes)
        self.given = ("labels",) if conditional else ()
        self.restart, self.chain_steps, self.preset = restart, chain_steps, preset
        chain = chain_of(preset, step=step, noise=noise, bound=bound, square_weight=square_weight)
        self.chain = {"step": chain.step, "noise": chain.noise, "bound": chain.bound}
        self.square_weight = chain.square_weight
        if image_shape is not None:
            self.layers = _of_images(image_shape, width)
            self.register_buffer("replay", torch.randint(0, 256, (num_replay, *shape), dtype=torch.uint8))
        else:
            self.layers = _of_points(shape[0], width)
            self.register_buffer(
                "replay", torch.randn(num_replay, *shape)
            )  # in units of `scale` about `middle`
            self.register_buffer("middle", torch.zeros(shape))
            self.register_buffer("scale", torch.ones(()))
        if self.num_classes:
            self.gains = _gains(self.layers, self.num_classes)
            self.register_buffer("replay_labels", torch.arange(num_replay) % self.num_classes)

    @property
    def sliced(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The ends of chains, and their classes."""
        return ("replay", "replay_labels") if self.num_classes else ("replay",)

    def phases(self) -> tuple[Phase, ...]:
        """Contrastive divergence from persistent chains."""
        modules = (self.layers, self.gains) if self.num_classes else (self.layers,)
        update = Update("contrastive", self.contrastive_loss, modules, watch=self.runs_away)
        prepare = self.measure if self.key == "points" else None
        return (Phase("contrastive", (update,), prepare=prepare),)

    def measure(self, batches: Iterable[Batch]) -> None:
        """Where the points lie: their middle, and their root mean square distance from it along a coordinate."""
        number = 0
        found: list[Tensor] = []
        for batch in batches:
            found.append(batch["points"].double())
            number += len(found[-1])
            if number >= NUM_MEASURED:
                break
        points = torch.cat(found)
        self.middle.copy_(points.mean(0))
        self.scale.copy_((points - points.mean(0)).square().mean().sqrt().clamp(min=1e-6))

    def contrastive_loss(self, batch: Batch) -> Loss:
        """Mean energy of real examples minus that of the ends of chains, plus the weighted squares of both."""
        real, labels = self._real(batch), labels_of_batch(batch, self.num_classes)
        replay = batch["replay"]
        if len(replay) < len(real):
            raise BadInput(
                f"num_replay: must be {len(real)} or more rows for each logical worker, as many as its slice of the "
                f"batch, not {len(replay)}; raise it"
            )
        chosen = torch.randperm(len(replay), device=replay.device)[: len(real)]
        starts, anew = self._starts(replay[chosen])
        others = labels
        if labels is not None:  # a chain keeps its class; one that starts anew has that of a real example
            others = torch.where(anew, labels, batch["replay_labels"][chosen])
            batch["replay_labels"][chosen] = others
        made = self._ends(starts, others, self.chain_steps)
        replay[chosen] = self._stored(made)
        both = None if labels is None or others is None else torch.cat([labels, others])
        energy_real, energy_made = self._energy(torch.cat([real, made]), both).chunk(2)
        gap = (energy_made - energy_real).mean()
        square = (energy_real.square() + energy_made.square()).mean()
        metrics = {"energy_gap": gap.detach(), "energy_real": energy_real.mean().detach()}
        return Loss(self.square_weight * square - gap, metrics)

    def runs_away(self, metrics: Mapping[str, float]) -> str | None:
        """What is wrong where chains end so far from the real examples that energies will go on to infinity; else None."""
        gap = metrics["energy_gap"]
        if abs(gap) <= MOST_GAP:
            return None
        where = "above" if gap > 0 else "below"
        return (
            f"the chains run away: their ends have energies {abs(gap):,.0f} nats {where} those of real examples; lower the "
            "learning rate, or raise chain_steps or square_weight"
        )

    def energy(self, x: Example) -> Tensor:
        """Energies, [batch]."""
        values = x[self.key]
        inputs = values if self.key == "images" else (values - self.middle) / self.scale
        return self._energy(inputs, labels_of(x, self.num_classes))

    def sample(self, n: int, given: Example, steps: Count = 60) -> Example:
        """`n` images in [0, 1], or points, at the ends of chains of `steps` that go on from replayed rows drawn at random.

        Under a class they are rows of it; where there are none, noise.
        """
        labels = labels_of(given, self.num_classes)
        if labels is None:
            starts = self._values(self.replay[torch.randint(len(self.replay), (n,))])
        else:
            starts = self._starts_of(labels)
        ends = self._ends(starts, labels, steps, self._slope(labels))
        if self.key == "points":
            return {"points": self.middle + self.scale * ends}
        return {"images": ends.clamp(0, 1)}

    def _energy(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Of images in [0, 1], or of points in units of `scale` about `middle`."""
        if self.key == "images":
            return self._through(2 * x - 1, labels)
        # with a Gaussian as factor exp(−energy) has an integral, whatever the network says far away
        return self._through(x, labels) + x.square().sum(1) / 2

    def _through(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            return self.layers(x)
        gains = iter(self.gains)
        for layer in self.layers:
            x = layer(x)
            table = next(gains, None) if isinstance(layer, nn.Conv2d | nn.Linear) else None
            if table is not None:
                gain, bias = table(labels).view(len(x), -1, *[1] * (x.dim() - 2)).chunk(2, 1)
                x = x * (1 + gain) + bias
        return x

    def _ends(self, x: Tensor, labels: Tensor | None, steps: int, slope: Slope | None = None) -> Tensor:
        energy = lambda x: self._energy(x, labels)
        if self.preset == "langevin":
            return chains.langevin(energy, x, steps, 2 * self.chain["step"]).z
        return langevin(slope or by_autograd(energy), x, steps, **self.chain)

    def _slope(self, labels: Tensor | None) -> Slope | None:
        """The gradient of the energies of images, faster than by autograd; None where classes or points need that."""
        if labels is not None or self.key != "images":
            return None
        of = slope(self.layers)
        return lambda x: 2 * of(2 * x - 1)

    def _starts(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """Where chains go on, of stored rows, and which of them start anew, bool [batch]: a share `restart`, from noise."""
        each = (len(stored), *[1] * (stored.dim() - 1))
        anew = torch.rand(each, device=stored.device) < self.restart
        x = self._values(stored)
        return torch.where(anew, self._noise(x), x), anew.flatten()

    def _starts_of(self, labels: Tensor) -> Tensor:
        """Where chains of classes, int64 [n], go on: from a row of the class, each equally likely, or from noise."""
        is_own = self.replay_labels == labels.unsqueeze(1)
        chosen = torch.where(is_own, torch.rand(is_own.shape, device=labels.device), -1).argmax(1)
        x = self._values(self.replay[chosen])
        has_none = ~is_own.any(1).view(-1, *[1] * (x.dim() - 1))
        return torch.where(has_none, self._noise(x), x)

    def _noise(self, x: Tensor) -> Tensor:
        return torch.rand_like(x) if self.key == "images" else torch.randn_like(x)

    def _real(self, batch: Batch) -> Tensor:
        """Images in [0, 1), or points in units of `scale`."""
        if self.key == "images":
            return self._values(batch["images"])
        return ((batch["points"] - self.middle) / self.scale).to(self.replay.dtype)

    def _values(self, stored: Tensor) -> Tensor:
        """Images in [0, 1), as replayed ones: only so can the energy not tell them by their rounding; or points as they are."""
        return dequantised(stored, next(self.parameters()).dtype) if self.key == "images" else stored

    def _stored(self, made: Tensor) -> Tensor:
        return dequantised_to_bytes(made) if self.key == "images" else made


def _of_images(image_shape: tuple[int, int, int], width: int) -> nn.Sequential:
    """[batch, *image_shape] → [batch]."""
    rows, columns = smallest(image_shape)
    return nn.Sequential(
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


def _of_points(dim: int, width: int) -> nn.Sequential:
    """[batch, dim] → [batch]."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((dim, width, width, width)):
        layers += [nn.Linear(before, after), nn.SiLU()]
    # without a last bias: a constant is no part of a density
    return nn.Sequential(*layers, nn.Linear(width, 1, bias=False), nn.Flatten(0))


def _gains(layers: nn.Sequential, num_classes: int) -> nn.ModuleList:
    """For each layer but the last a gain and a bias of each feature map by class, 0 at first."""
    weighted = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    tables = nn.ModuleList(nn.Embedding(num_classes, 2 * len(layer.weight)) for layer in weighted[:-1])
    for table in tables:
        nn.init.zeros_(table.weight)  # pyright: ignore[reportArgumentType]
    return tables
