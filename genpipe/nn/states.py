"""States of next-token models: tensors with a row a text, and tuples, lists and mappings of them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def mapped(state: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`function` of every tensor of a state; what is no tensor stays as it is."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, dict):
        return {name: mapped(part, function) for name, part in state.items()}
    if isinstance(state, tuple) and hasattr(state, "_make"):
        return type(state)(*(mapped(part, function) for part in state))
    if isinstance(state, list | tuple):
        return type(state)([mapped(part, function) for part in state])
    return state


def take(state: Any, rows: Tensor) -> Any:
    """These rows of every tensor of a state."""
    return mapped(state, lambda tensor: tensor.index_select(0, rows))
