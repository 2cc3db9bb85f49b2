"""How much an example tells of the code that it was made from, I(x; z): the entropy of x but for a constant.

For a generator without noise H(G(z)) = I(G(z); z) + a constant, so a network that finds z in x measures the entropy that a
generator is to keep (Kumar, Ozair, Goyal, Courville, Bengio, *Maximum Entropy Generators for Energy-Based Models*, 2019,
arXiv:1901.08508). The true I is infinite for every injective generator: what is measured is what a smooth network can read.
Both losses are minimised by the network and by the generator alike.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def pairs_loss(paired: Tensor, unpaired: Tensor) -> Tensor:
    """Cross entropy in nats of telling pairs (x, z) from unrelated ones, [n], given the log-odds of each.

    2 ln 2 − 2 JSD between joint and product at its least, where the log-odds are ln p(x, z)/(p(x) p(z)); 2 ln 2 where the
    two cannot be distinguished. Hjelm et al., *Learning deep representations by mutual information estimation and maximization*, 2019.
    """
    return F.softplus(-paired) + F.softplus(unpaired)


def code_loss(z: Tensor, code: Tensor) -> Tensor:
    """‖z − code‖², [n]: but for a constant and a factor −ln q(z|x) of a Gaussian about the code (Barber & Agakov, 2003)."""
    return (z - code).square().sum(1)


def information_of_pairs(paired: Tensor) -> Tensor:
    """Mean log-odds of pairs, [n] → nats: I(x; z) where they are ln p(x, z)/(p(x) p(z)), and an estimate elsewhere."""
    return paired.mean()


def information_of_codes(z: Tensor, code: Tensor) -> Tensor:
    """Lower bound of I(x; z) in nats for z ~ N(0, I), [n, dim]: −dim/2 ln of the mean square of z − code over all of it.

    H(z) + E ln N(z; code, v I) with the best variance v (Barber & Agakov, *The IM algorithm*, 2003).
    """
    return -z.shape[1] / 2 * torch.log((z - code).square().mean())
