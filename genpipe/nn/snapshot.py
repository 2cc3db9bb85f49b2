"""What a network computed some steps ago."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genpipe.errors import BadInput


class Snapshot(nn.Module):
    """The parameters that a module had when `take` was called; buffers, so no optimiser moves them and checkpoints have them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = [name for name, _ in module.named_parameters()]
        for number, (_, parameter) in enumerate(module.named_parameters()):
            self.register_buffer(str(number), parameter.detach().clone())

    def refuse_other_names(self, module: nn.Module) -> None:
        """BadInput where weights of the module are by now computed from others, which have other names and shapes."""
        if self.names != [name for name, _ in module.named_parameters()]:
            raise BadInput(
                "train.normalisations: what a network made some steps ago is not known of one with normalised weights; take "
                "the generator out of the patterns, or old_weight out of the network"
            )

    def take(self, module: nn.Module) -> None:
        """Remember the parameters as they are now."""
        for buffer, parameter in zip(self.buffers(), module.parameters(), strict=True):
            buffer.copy_(parameter.detach())

    def call(self, module: nn.Module, *args: Any) -> Tensor:
        """What the module gave for `args` with those parameters, without gradients; its own buffers stay as they are."""
        values = dict(zip(self.names, self.buffers(), strict=True))
        values |= {name: buffer.clone() for name, buffer in module.named_buffers()}
        with torch.no_grad():
            return functional_call(module, values, args)
