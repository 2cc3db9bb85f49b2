"""Logical workers: the sum over the slices of a batch has one order of additions, whoever computes which slice.

The slices are the leaves of one fixed binary tree. A process that holds a run of slices adds up the whole subtrees it
owns; each process then adds the subtree sums of all of them, in the order of the tree, for its part of the numbers, and
hands that part to the others. So 1, 2, 3 or 4 processes end on the same bits, and as much travels as in an all-reduce.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Node = tuple[int, int]  # a subtree: its first slice, and one past its last
Term = TypeVar("Term")
Row = list[
    Tensor | None
]  # what a slice adds to each sum; None: nothing, a sum over an earlier slice has it already


class Exchange(Protocol):
    """How the processes of a training hand each other what they have."""

    rank: int
    size: int

    def gather(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows, [counts[rank], n], of every process, in the order of ranks."""
        ...

    def combine(self, rows: Tensor, counts: Sequence[int], add: Callable[[Tensor], Tensor]) -> Tensor:
        """`add` of the rows, [counts[rank], n], of all processes below each other; it treats every column alike."""
        ...


class Alone:
    """One process holds all slices."""

    rank = 0
    size = 1

    def gather(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Its own rows."""
        return [rows]

    def combine(self, rows: Tensor, counts: Sequence[int], add: Callable[[Tensor], Tensor]) -> Tensor:
        """`add` of its own rows."""
        return add(rows)


class Processes:
    """The processes of the current torch.distributed group."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def gather(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows of every process; each sends its own to all: with gloo half the time of all_gather."""
        received = [
            rows.contiguous() if r == self.rank else rows.new_empty(n, *rows.shape[1:])
            for r, n in enumerate(counts)
        ]
        for rank, part in enumerate(received):
            if part.numel():
                dist.broadcast(part, src=rank)
        return received

    def combine(self, rows: Tensor, counts: Sequence[int], add: Callable[[Tensor], Tensor]) -> Tensor:
        """Each process adds a part of the columns, and sends the sum to all."""
        num_rows, num_columns = rows.shape
        width = -(-num_columns // self.size)
        padded = torch.nn.functional.pad(rows, (0, width * self.size - num_columns))
        parts = padded.view(num_rows, self.size, width).transpose(0, 1).contiguous()
        received = rows.new_empty(sum(counts), width)
        dist.all_to_all_single(
            received.view(-1), parts.view(-1), [n * width for n in counts], [num_rows * width] * self.size
        )
        total = rows.new_empty(self.size, width)
        total[self.rank] = add(received)
        for rank, part in enumerate(total):
            dist.broadcast(part, src=rank)
        return total.view(-1)[:num_columns]


class Fast(Processes):
    """The opt-out: a plain all-reduce, whose order of additions depends on the number of processes."""

    def combine(self, rows: Tensor, counts: Sequence[int], add: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of all rows, in an order that the library chooses."""
        total = rows.sum(0)
        dist.all_reduce(total)
        return total


def middle(node: Node) -> int:
    """Where a subtree splits: the left half is the largest power of two below its size."""
    first, last = node
    return first + (1 << ((last - first - 1).bit_length() - 1))


def owned(rank: int, size: int, num_slices: int) -> Node:
    """The run of slices that a process computes."""
    return rank * num_slices // size, (rank + 1) * num_slices // size


def subtrees(run: Node, node: Node) -> list[Node]:
    """The largest subtrees of `node` that lie inside `run`, in order."""
    if run[0] <= node[0] and node[1] <= run[1]:
        return [node]
    if node[1] <= run[0] or run[1] <= node[0]:
        return []
    cut = middle(node)
    return subtrees(run, (node[0], cut)) + subtrees(run, (cut, node[1]))


def tree_sum(node: Node, term: Callable[[Node], Term | None], add: Callable[[Term, Term], Term]) -> Term:
    """The sum over a subtree; at most log2(slices) + 1 partial sums are alive at once.

    `term` knows some subtrees, among them at least all single slices that no other one holds.
    """
    known = term(node)
    if known is not None:
        return known
    cut = middle(node)
    left = tree_sum((node[0], cut), term, add)
    return add(left, tree_sum((cut, node[1]), term, add))


def sum_over_slices(num_slices: int, leaf: Callable[[int], Row], exchange: Exchange) -> list[Tensor]:
    """The sums of `leaf(v)`, tensor by tensor, over all slices v; the same bits for every number of processes.

    Each tensor that `leaf` gives must be new: it is added to in place. Shapes and types are those of every slice. The
    first slice of a subtree that a process holds has all its tensors.
    """
    whole = (0, num_slices)
    shares = [subtrees(owned(rank, exchange.size, num_slices), whole) for rank in range(exchange.size)]
    mine = [
        [
            x
            for x in tree_sum(node, lambda n: leaf(n[0]) if n[1] - n[0] == 1 else None, _add_all)
            if x is not None
        ]
        for node in shares[exchange.rank]
    ]
    if exchange.size == 1:
        return mine[0]
    row_of = {node: row for row, node in enumerate(node for share in shares for node in share)}

    def add(rows: Tensor) -> Tensor:
        return tree_sum(
            whole, lambda node: rows[row_of[node]] if node in row_of else None, lambda a, b: a + b
        )

    return _combined(mine, [len(share) for share in shares], add, exchange)


def _add_all(left: Row, right: Row) -> Row:
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    torch._foreach_add_([a for a, _ in pairs], [b for _, b in pairs])
    return left


def added(left: Row, right: Row) -> Row:
    """The sum of two rows in new memory."""
    return [a if a is None or b is None else a + b for a, b in zip(left, right, strict=True)]


def _combined(
    mine: list[list[Tensor]], counts: list[int], add: Callable[[Tensor], Tensor], exchange: Exchange
) -> list[Tensor]:
    """The tensors of each type travel as one row."""
    like = mine[0]
    totals: dict[torch.dtype, list[Tensor]] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in like):
        rows = torch.stack([torch.cat([t.flatten() for t in row if t.dtype == dtype]) for row in mine])
        sizes = [tensor.numel() for tensor in like if tensor.dtype == dtype]
        totals[dtype] = list(exchange.combine(rows, counts, add).split(sizes))
    return [_aligned(totals[tensor.dtype].pop(0)).view(tensor.shape) for tensor in like]


def _aligned(part: Tensor) -> Tensor:
    """A GPU adds up a tensor that starts between two words in another order: give it memory of its own."""
    return part.clone() if part.is_cuda else part
