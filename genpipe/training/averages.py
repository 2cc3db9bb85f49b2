"""The average of the weights that a training exports; the weights that a training starts from are not in it."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

STATISTICS = ("running_mean", "running_var")


class Average:
    """The mean of the weights after each step, w_1 ... w_t, weighted by decay^(t - i).

    A plain recurrence from the initial weights w_0 leaves decay^t of it to them: 86 % after 150 steps at 0.999. Divided by
    1 - decay^t, as in Adam: A Method for Stochastic Optimization (Kingma & Ba, 2015, arXiv:1412.6980, section 3), nothing is
    left of them; that is the recurrence with decay (1 - decay^(t-1)) / (1 - decay^t) in place of decay. Steps are counted
    from the first phase that trains a weight.

    Statistics of batch normalisation are averaged alike, for those of the last weights are not those of the average; so do
    EfficientNet (Tan & Le, 2019, arXiv:1905.11946) and torch's AveragedModel with `use_buffers`.
    """

    def __init__(self, module: nn.Module, decay: float, starts: Mapping[nn.Parameter, int]) -> None:
        """`starts` are the steps before the first in which a parameter is trained."""
        self._decay = decay
        self._sources: dict[str, Tensor] = {}
        self._groups: dict[int, list[str]] = {}
        for name, source, start in _averaged(module, starts):
            self._sources[name] = source
            self._groups.setdefault(start, []).append(name)
        self.tensors = {name: source.clone() for name, source in self._sources.items()}

    def add(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        for start, names in self._groups.items():
            move = get_ema_multi_avg_fn(corrected(self._decay, max(1, step - start)))
            move([self.tensors[name] for name in names], [self._sources[name] for name in names], 0)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the tensors of a checkpoint."""
        for name, kept in self.tensors.items():
            kept.copy_(tensors[name])


def corrected(decay: float, count: int) -> float:
    """The decay at which the recurrence over `count` values, from 1 on, has the bias correction in it; 0 at the first."""
    return decay * (1 - decay ** (count - 1)) / (1 - decay**count)


def _averaged(module: nn.Module, starts: Mapping[nn.Parameter, int]) -> Iterator[tuple[str, Tensor, int]]:
    """Name, tensor and start of the parameters and batch statistics; what two modules share has two names.

    The statistics of a module start with its parameters.
    """
    for path, part in module.named_modules(remove_duplicate=False):
        own = dict(part.named_parameters(recurse=False, remove_duplicate=False))
        for name, parameter in own.items():
            yield f"{path}.{name}".lstrip("."), parameter.detach(), starts.get(parameter, 0)
        if isinstance(part, _BatchNorm):
            start = min((starts.get(parameter, 0) for parameter in own.values()), default=0)
            kept = [
                (name, buffer) for name, buffer in part.named_buffers(recurse=False) if name in STATISTICS
            ]
            yield from ((f"{path}.{name}".lstrip("."), buffer, start) for name, buffer in kept)
