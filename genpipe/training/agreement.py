"""What the processes of a training tell each other before they start, so that none waits for one that gave up."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from genpipe.errors import BadState, GenpipeError, packed, unpacked
from genpipe.training.logical import Exchange
from genpipe.training.processor import described, libraries, processor

MESSAGE_BYTES = 1000

Result = TypeVar("Result")


Error = TypeVar("Error", bound=GenpipeError)


def agreed(error: Error) -> Error:
    """An error that every process raises."""
    error.is_agreed = True
    return error


def together(exchange: Exchange, device: torch.device, work: Callable[[], Result]) -> Result:
    """What `work` returns; where one process has an error of genpipe, every process raises that kind."""
    mine: GenpipeError | None = None
    results: list[Result] = []
    try:
        results.append(work())
    except GenpipeError as error:
        mine = error
    message = "\n".join(packed(mine)) if mine else ""
    rows = (_text(row) for row in _tell(exchange, device, message.encode()[:MESSAGE_BYTES]))
    if first := next(filter(None, rows), ""):
        raise agreed(mine or unpacked(*first.split("\n", 1)))
    return results[0]


def refuse_other_machines(exchange: Exchange, device: torch.device, machine: Mapping[str, str]) -> None:
    """Raise on every process when one of them is of another kind than the others, or than `machine`, of the command.

    The comparison of states cannot see a mixture: it compares what was already added up.
    """
    mine = {**processor(), **libraries()}
    if device.type == "cuda":
        mine["gpu"] = torch.cuda.get_device_name(device)
    messages = _tell(exchange, device, described(mine).encode()[:MESSAGE_BYTES])
    kinds = {f"process {rank}": _text(row) for rank, row in enumerate(messages)}
    if device.type == "cpu":  # a command need not have a GPU
        kinds = {"the command": described(machine), **kinds}
    first = next(iter(kinds))
    for name, kind in kinds.items():
        if kind != kinds[first]:
            raise agreed(
                BadState(
                    f"machines of two kinds would give a third result: {first} has {kinds[first]}; {name} has {kind}; "
                    "with the same packages and numerics: portable in params.yaml all x86-64 processors with AVX2 are of one kind"
                )
            )


def refuse_other_states(
    exchange: Exchange, device: torch.device, step: int, weights: Mapping[str, Tensor]
) -> None:
    """Raise on every process when they do not all stand at the same step with the same weights."""
    digest = hashlib.sha256(str(step).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    messages = _tell(exchange, device, f"{digest.hexdigest()} step {step}".encode())
    if len(set(messages)) > 1:
        steps = ", ".join(
            f"process {rank}: {_text(row).split(' ', 1)[1]}" for rank, row in enumerate(messages)
        )
        raise agreed(
            BadState(
                f"the processes do not start from the same weights ({steps}); every machine must have the same genpipe, "
                "the same packages and processors of one family"
            )
        )


def _tell(exchange: Exchange, device: torch.device, message: bytes) -> list[bytes]:
    """The messages of all processes, in the order of ranks."""
    padded = message.ljust(MESSAGE_BYTES, b"\0")
    row = torch.frombuffer(bytearray(padded), dtype=torch.uint8).unsqueeze(0).to(device)
    rows = exchange.gather(row, [1] * exchange.size)
    return [bytes(row.cpu().flatten().tolist()).rstrip(b"\0") for row in rows]


def _text(message: bytes) -> str:
    return message.decode(errors="ignore")
