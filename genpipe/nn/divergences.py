"""Losses of two players by name: what a critic and a generator minimise of scores. Scores are high for real examples.

r and f are the scores of real and of generated examples, [batch]; every loss has a value a row, whose mean is minimised.
sp(t) = ln(1 + exp t), so −ln σ(t) = sp(−t): losses are computed from scores, never from probabilities.

sgan, sgan_saturating: Generative Adversarial Networks (Goodfellow et al., 2014, arXiv:1406.2661).
lsgan: Least Squares Generative Adversarial Networks (Mao et al., 2016, arXiv:1611.04076), with targets 1 and 0.
hinge: Geometric GAN (Lim & Ye, 2017, arXiv:1705.02894).
rsgan, rasgan, ralsgan, rahinge: The Relativistic Discriminator (Jolicoeur-Martineau, 2018, arXiv:1807.00734; archives/6110).
wgan: Wasserstein GAN (Arjovsky, Chintala & Bottou, 2017, arXiv:1701.07875; archives/6280).
gan_qp_l1, gan_qp_l2: GAN-QP (Su, 2018, arXiv:1811.07296; archives/6163).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from genpipe.errors import BadInput

Player = Callable[[Tensor, Tensor], Tensor]  # scores of real and of generated examples -> [batch]
LEAST_DISTANCE = 1e-3  # times λ: a generated example may be a copy of its real one
POTENTIAL_SCALE = 10.0  # λ of the quadratic potential in GAN-QP and BiGAN-QP


def potential(gap: Tensor, distance: Tensor) -> Tensor:
    """Δ²/(2 d) of gaps Δ = r − f and distances d, [batch]: Δ minus it is largest at Δ = d, where it is d/2."""
    return gap.square() / (2 * distance.clamp(min=LEAST_DISTANCE))


class Divergence(NamedTuple):
    """What each player minimises; with a `distance`, the critic also pays for the square of each difference of scores."""

    critic: Player
    generator: Player
    of_pairs: bool = False  # the generator's loss depends on the scores of real examples
    distance: Callable[[Tensor, Tensor], Tensor] | None = None

    def critic_loss(self, r: Tensor, f: Tensor, real: Tensor, fake: Tensor, scale: float) -> Tensor:
        """Values, [batch]; `scale` is λ of the quadratic potential of distances λ d."""
        value = self.critic(r, f)
        if self.distance is None:
            return value
        return value + potential(r - f, scale * self.distance(real, fake))


def absolute(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference of each pair, [batch]."""
    return (real - fake).abs().flatten(1).mean(1)


def root_mean_square(real: Tensor, fake: Tensor) -> Tensor:
    """Root of the mean squared difference of each pair, [batch]."""
    return (real - fake).square().flatten(1).mean(1).sqrt()


def _swapped(critic: Player) -> Player:
    """The generator's loss of a game in which it has the critic's loss with the parts of real and generated exchanged."""
    return lambda r, f: critic(f, r)


def _sgan(r: Tensor, f: Tensor) -> Tensor:
    return F.softplus(-r) + F.softplus(f)


def _rasgan(r: Tensor, f: Tensor) -> Tensor:
    return (F.softplus(f.mean() - r) + F.softplus(f - r.mean())) / 2


def _ralsgan(r: Tensor, f: Tensor) -> Tensor:
    return ((r - f.mean() - 1).square() + (f - r.mean() + 1).square()) / 2


def _rahinge(r: Tensor, f: Tensor) -> Tensor:
    return F.relu(1 - (r - f.mean())) + F.relu(1 + (f - r.mean()))


def _rsgan(r: Tensor, f: Tensor) -> Tensor:
    return F.softplus(f - r)


def _gap(r: Tensor, f: Tensor) -> Tensor:
    return f - r


def _raise(_: Tensor, f: Tensor) -> Tensor:
    return -f


# The means of the averaged forms are those of a slice, and gradients flow through them.
DIVERGENCES: Mapping[str, Divergence] = {
    "sgan": Divergence(_sgan, lambda r, f: F.softplus(-f)),
    "sgan_saturating": Divergence(_sgan, lambda r, f: -F.softplus(f)),
    "lsgan": Divergence(lambda r, f: (r - 1).square() + f.square(), lambda r, f: (f - 1).square()),
    "hinge": Divergence(lambda r, f: F.relu(1 - r) + F.relu(1 + f), _raise),
    "rsgan": Divergence(_rsgan, _swapped(_rsgan), of_pairs=True),
    "rasgan": Divergence(_rasgan, _swapped(_rasgan), of_pairs=True),
    "ralsgan": Divergence(_ralsgan, _swapped(_ralsgan), of_pairs=True),
    "rahinge": Divergence(_rahinge, _swapped(_rahinge), of_pairs=True),
    "wgan": Divergence(_gap, _raise),
    "gan_qp_l1": Divergence(_gap, _raise, distance=absolute),
    "gan_qp_l2": Divergence(_gap, _raise, distance=root_mean_square),
}


def divergence(name: str) -> Divergence:
    """The losses of a name; BadInput for a name that is not known."""
    if name not in DIVERGENCES:
        raise BadInput(f"divergence: there is no {name!r}; there is: {', '.join(DIVERGENCES)}")
    return DIVERGENCES[name]
