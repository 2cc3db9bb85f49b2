"""One tensor in the place of a tensor for each slice: a loss that is written for a slice runs once for several.

What a loss computes of each slice has the bits that it has alone: operations that treat rows alike run once over all
slices (genpipe/training/rules.py), all others slice by slice, with the leaves of the parameters, the random generator and
the values that are the slice's own. `Refused` where a loss does what cannot be done so; nothing was changed then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genpipe.training.layers import Uses
from genpipe.training.logical import Node


class Refused(Exception):
    """Slices that cannot be computed together; the words say why, after "the loss"."""


class Stacked(Tensor):
    """A tensor of the shape that each slice has, which stands for as many as there are slices."""

    _whole: Tensor | None
    _parts: Sequence[Tensor] | None

    @staticmethod
    def of_whole(whole: Tensor) -> "Stacked":
        """[slices, *shape]."""
        return _stand_in(whole.shape[1:], whole.stride()[1:], whole, whole, None)

    @staticmethod
    def of_parts(parts: Sequence[Tensor]) -> "Stacked":
        """A tensor for each slice, of one shape."""
        like = parts[0]
        if any(part.shape != like.shape for part in parts):
            raise Refused("makes tensors whose shape depends on what is in the slice")
        return _stand_in(like.shape, like.stride(), like, None, parts)

    @property
    def whole(self) -> Tensor | None:
        """[slices, *shape], where that is what it holds."""
        return self._whole

    @property
    def parts(self) -> Sequence[Tensor]:
        """The tensor of each slice.

        New views for each use where there are gradients: these add up in the order of the uses, as those of a slice do.
        """
        if self._parts is not None:
            return self._parts
        assert self._whole is not None
        parts = self._whole.unbind()
        if not self._whole.requires_grad:
            self._parts = parts
        return parts

    def stacked(self) -> Tensor:
        """[slices, *shape], a copy where it holds a tensor for each slice; only for what makes new memory."""
        return torch.stack(list(self.parts)) if self._whole is None else self._whole

    # the mode below does it
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @classmethod
    def __torch_dispatch__(cls, func: object, *rest: object) -> Tensor:
        raise Refused(f"calls {func} on tensors that no slice has")


class Leaf(Stacked):
    """A parameter: an alias of its memory for each slice, by which its gradient is taken."""

    uses: Uses


def leaf_of(parameter: Tensor, num_slices: int, nodes: Sequence[Node] = ()) -> Leaf:
    """The aliases of a parameter; `nodes` as in `Uses`, empty until it is known that they may be."""
    leaves = [parameter.detach().requires_grad_() for _ in range(num_slices)]
    made = _stand_in(parameter.shape, parameter.stride(), parameter, None, leaves, Leaf)
    made.uses = Uses(nodes)
    return made


def _stand_in(
    shape: Sequence[int],
    strides: Sequence[int],
    like: Tensor,
    whole: Tensor | None,
    parts: Sequence[Tensor] | None,
    kind: type = Stacked,
) -> Any:
    made = Tensor._make_wrapper_subclass(kind, shape, strides, dtype=like.dtype, device=like.device)
    made._whole, made._parts = whole, parts
    return made


def _named(names: str, *owners: object) -> frozenset[Any]:
    return frozenset(
        getattr(owner, name) for name in names.split() for owner in owners if hasattr(owner, name)
    )


F = torch.nn.functional
# what stand-ins answer themselves: shape, type, device
FACTS = frozenset(
    [
        *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout")),
        *_named(
            "dim size numel nelement __len__ is_floating_point is_complex element_size ndimension", Tensor
        ),
        *_named("is_tensor is_floating_point is_complex numel", torch),
    ]
)
RANDOM = frozenset(
    [
        *_named(
            "rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial",
            torch,
        ),
        *_named("poisson binomial rrelu dropout alpha_dropout feature_dropout native_dropout", torch),
        *_named("feature_alpha_dropout gru lstm rnn_tanh rnn_relu", torch, torch._VF),
        *_named(
            "bernoulli_ bernoulli normal_ uniform_ exponential_ log_normal_ geometric_ cauchy_ random_",
            Tensor,
        ),
        *_named("multinomial", Tensor),
        *_named("dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout rrelu", F),
        *_named("gumbel_softmax scaled_dot_product_attention multi_head_attention_forward", F),
    ]
)
# what reaches past the aliases of a parameter, or needs derivatives of derivatives
REFUSED = {
    torch.autograd.grad: "takes a gradient itself",
    torch.autograd.backward: "takes a gradient itself",
    Tensor.backward: "takes a gradient itself",
    Tensor.data.__get__: "uses .data",  # type: ignore[attr-defined]
    Tensor.requires_grad_: "takes a gradient itself",
}


class Rule(NamedTuple):
    """How an operation runs over all slices at once: of their number and its arguments; NotImplemented where it cannot."""

    run: Callable[..., Any]
    exact: bool  # its bits cannot depend on the number of rows


Trusted = Callable[[Rule, int, Any, Sequence[Any], Mapping[str, Any]], bool]


class Together(TorchFunctionMode):
    """While it is on, torch's functions take stand-ins, and parameters are their aliases."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        frozen: Iterable[Tensor],
        seeds: Sequence[int],
        rules: Mapping[Any, Rule],
        trusted: Trusted,
    ) -> None:
        """`parameters` are those of the update, `frozen` all others; a seed for each slice; the rules that are trusted."""
        super().__init__()
        self.num_slices = len(seeds)
        self.nodes: list[Node] = []  # what a backward pass may sum over
        self.leaves = [leaf_of(p, self.num_slices, self.nodes) for p in parameters]
        self._known: dict[int, Tensor] = {id(p): p.detach() for p in frozen}
        self._known |= {id(p): leaf for p, leaf in zip(parameters, self.leaves, strict=True)}
        self._rules, self._trusted = rules, trusted
        self._seeds = seeds
        self._states: list[Tensor] = []
        self.trace = 0  # tells which functions were called, and in which order

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FACTS:
            return func(*args, **kwargs)
        if func in REFUSED:
            raise Refused(REFUSED[func])
        self.trace = hash((self.trace, func))
        found: list[Stacked] = []
        args = [self._mine(x, found) for x in args]
        kwargs = {name: self._mine(x, found) for name, x in kwargs.items()} if kwargs else {}
        if not found and func not in RANDOM:
            return func(*args, **kwargs)
        self._refuse_writing(func, args, kwargs)
        if func in RANDOM:
            return self._drawn(func, args, kwargs)
        rule, n = self._rules.get(func), self.num_slices
        if rule and (rule.exact or self._trusted(rule, n, func, args, kwargs)):
            made = rule.run(n, *args, **kwargs)
            if made is not NotImplemented:
                return made
        return each(n, func, args, kwargs)

    def refuse_other_draws(self) -> None:
        """Raise where something drew numbers that is not known to be random."""
        if not torch.equal(torch.default_generator.get_state(), self._standing):
            raise Refused("draws random numbers in an operation that is not known to be random")

    def __enter__(self) -> "Together":
        torch.default_generator.manual_seed(self._seeds[0])
        self._standing = torch.default_generator.get_state()
        return super().__enter__()

    def _mine(self, x: Any, found: list[Stacked]) -> Any:
        """An argument with stand-ins in the place of parameters; they are noted."""
        if isinstance(x, Tensor):
            known = self._known.get(id(x), x)
            if isinstance(known, Stacked):
                found.append(known)
                if isinstance(known, Leaf):
                    known.uses.count += 1
            return known
        if type(x) in (list, tuple):
            return type(x)(self._mine(item, found) for item in x)
        return x

    def _refuse_writing(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        name = getattr(func, "__name__", "")
        if name in RESHAPING:
            raise Refused(f"changes a tensor by {name}")
        writes = (name.endswith("_") and not name.endswith("__")) or name in WRITING
        if kwargs.get("out") is not None or (writes and not (args and type(args[0]) is Stacked)):
            raise Refused(f"writes to a tensor that all slices share, by {name}")

    def _drawn(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Each slice draws from its own stream."""
        if kwargs.get("generator") is not None:
            raise Refused("has a random generator of its own")
        generator = torch.default_generator
        self.refuse_other_draws()  # the line below would hide them
        if not self._states:
            self._states = [generator.manual_seed(seed).get_state() for seed in self._seeds]
        made, named, args = [], apart(kwargs), apart(args)
        for v in range(self.num_slices):
            generator.set_state(self._states[v])
            made.append(func(*of_slice(args, v), **of_slice(named, v)))
            self._states[v] = generator.get_state()
        generator.set_state(self._standing)
        return joined(made)


IN_PLACE = "setitem iadd isub imul itruediv ifloordiv ipow imod iand ior ixor"
WRITING = frozenset(f"__{name}__" for name in IN_PLACE.split())
# what changes not the numbers but the tensor, which stand-ins do not follow
RESHAPES = "resize_ resize_as_ set_ squeeze_ unsqueeze_ t_ transpose_ swapaxes_ swapdims_ as_strided_"
RESHAPING = frozenset(["__set__", *RESHAPES.split()])


def each(num_slices: int, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation slice by slice."""
    named, args = apart(kwargs), apart(args)
    return joined([func(*of_slice(args, v), **of_slice(named, v)) for v in range(num_slices)])


class Parts(tuple[Tensor, ...]):
    """The tensors of all slices in the place of a stand-in."""


def apart(x: Any) -> Any:
    """Arguments with `Parts` in the place of stand-ins; the last first: the gradients of one that is there twice come in order."""
    if isinstance(x, Stacked):
        return Parts(x.parts)
    if type(x) in (list, tuple):
        return type(x)([apart(item) for item in reversed(x)][::-1])
    return {name: apart(item) for name, item in x.items()} if isinstance(x, dict) else x


def of_slice(x: Any, v: int) -> Any:
    """What slice `v` has of what `apart` gave."""
    if type(x) is Parts:
        return x[v]
    if type(x) in (list, tuple):
        return type(x)(of_slice(item, v) for item in x)
    return {name: of_slice(item, v) for name, item in x.items()} if isinstance(x, dict) else x


def settle(attributes: Iterable[dict[str, Any]]) -> None:
    """Leave the tensor of the last slice where a loss left a stand-in, as one slice after the other does."""
    for values in attributes:
        for name, value in values.items():
            if isinstance(value, Stacked):
                values[name] = value.parts[-1]


def joined(results: Sequence[Any]) -> Any:
    """What an operation gave for each slice, as one; what is no tensor must be the same for all."""
    first = results[0]
    if isinstance(first, Tensor):
        return Stacked.of_parts(results)
    if isinstance(first, (list, tuple)) and any(isinstance(item, Tensor) for item in first):
        if any(len(result) != len(first) for result in results):
            raise Refused("makes as many tensors as its slice decides")
        items = [joined(column) for column in zip(*results, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    if any(result != first for result in results):
        raise Refused("decides by what is in a slice")
    return first
