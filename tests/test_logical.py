"""Logical workers: one order of additions, whoever computes which slice; and what processes agree on before they start."""

import threading
import weakref

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput, GenpipeError
from genpipe.recipe import Loss, Phase, Recipe, Update
from genpipe.training.agreement import refuse_other_states, together
from genpipe.training.buffers import Buffers
from genpipe.training.logical import Alone, owned, subtrees, sum_over_slices
from genpipe.training.runs import Run
from genpipe.training.slices import own_memory
from genpipe.training.trainer import Trainer
from tests import toys


class Room:
    """An exchange between threads."""

    def __init__(self, rank, size, rows, barrier):
        self.rank, self.size, self.rows, self.barrier = rank, size, rows, barrier

    def gather(self, rows, counts):
        self.rows[self.rank] = rows
        self.barrier.wait(timeout=600)
        assert [len(self.rows[rank]) for rank in range(self.size)] == counts
        received = [self.rows[rank].clone() for rank in range(self.size)]
        self.barrier.wait(timeout=600)
        return received

    def combine(self, rows, counts, add):
        return add(torch.cat(self.gather(rows, counts)))


def on_threads(size: int, do) -> list:
    """What `do(exchange)` returns on each of `size` processes."""
    rows, results, barrier = {}, {}, threading.Barrier(size)

    def work(rank):
        results[rank] = do(Room(rank, size, rows, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(size)]


def summed(terms: torch.Tensor, size: int) -> list[torch.Tensor]:
    """What each of `size` processes makes of the sum; a leaf is three tensors of two types."""

    def leaf(v):
        return [terms[v, :300].clone().view(3, 100), terms[v, 300:].double(), terms[v].clone()]

    sums = on_threads(size, lambda room: sum_over_slices(len(terms), leaf, room))
    return [torch.cat([total.flatten().double() for total in parts]) for parts in sums]


@pytest.mark.parametrize("num_slices", range(1, 10))
def test_the_sum_over_slices_has_the_same_bits_on_any_number_of_processes(num_slices):
    terms = torch.randn(num_slices, 1000) * torch.logspace(-4, 4, num_slices)[:, None]
    alone = summed(terms, 1)[0]
    exact = terms.double().sum(0)
    assert torch.allclose(alone, torch.cat([exact, exact]), rtol=1e-3, atol=1e-3)
    for size in range(2, num_slices + 1):
        assert all(torch.equal(alone, total) for total in summed(terms, size))


def test_a_sum_in_the_order_of_processes_has_other_bits():
    """The control: without the fixed tree, three processes do differ from one, so the test above can fail."""
    terms = torch.randn(8, 1000)
    by_process = [terms[slice(*owned(rank, 3, 8))].sum(0) for rank in range(3)]
    in_order = by_process[0] + by_process[1] + by_process[2]
    assert not torch.equal(in_order.double(), summed(terms, 1)[0][1000:])


def test_every_slice_belongs_to_one_process():
    for num_slices in range(1, 12):
        for size in range(1, num_slices + 1):
            nodes = [
                n for rank in range(size) for n in subtrees(owned(rank, size, num_slices), (0, num_slices))
            ]
            assert [v for first, last in nodes for v in range(first, last)] == list(range(num_slices))


def test_the_memory_of_a_sum_grows_with_the_logarithm_of_the_slices():
    """As many gradient lists are alive at once as the tree is deep, and one; not as many as there are slices."""
    alive: set[int] = set()
    most = 0

    def leaf(v):
        nonlocal most
        tensor = torch.full((3,), float(v))
        alive.add(v)
        weakref.finalize(tensor, alive.discard, v)
        most = max(most, len(alive))
        return [tensor]

    assert sum_over_slices(64, leaf, Alone())[0].tolist() == [2016.0] * 3
    assert most <= 6 + 1


def test_gradients_that_share_memory_can_be_added_to_one_by_one():
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    one_number = list(torch.autograd.grad((a + b).sum(), [a, b]))
    one_tensor = list(torch.autograd.grad((a + b).tanh().sum(), [a, b]))
    assert one_number[0].stride() == (0,)
    assert one_tensor[0].is_contiguous()
    for gradients in (one_number, one_tensor):
        assert gradients[0].data_ptr() == gradients[1].data_ptr()
        first, second = own_memory(gradients)
        first.add_(1)
        assert first.tolist() == [2, 2, 2]
        assert second.tolist() == [1, 1, 1]


def complaints(size: int, do) -> list[str]:
    """The line that each process ends with."""

    def work(room):
        with pytest.raises(GenpipeError) as error:
            do(room)
        return str(error.value)

    return on_threads(size, work)


def test_bad_input_to_one_process_is_raised_by_all():
    def do(room):
        def read():
            if room.rank == 2:
                raise BadInput("disk 2 is empty; mount it")

        together(room, torch.device("cpu"), read)

    assert complaints(3, do) == ["disk 2 is empty; mount it"] * 3


def test_processes_that_stand_at_different_weights_do_not_start():
    def do(room, step=7, weight=0.0):
        refuse_other_states(room, torch.device("cpu"), step, {"a": torch.tensor([1.0, weight])})

    assert on_threads(3, do) == [None] * 3
    (words,) = set(complaints(2, lambda room: do(room, step=4 * room.rank)))
    assert "process 0: step 0, process 1: step 4" in words
    assert len(complaints(2, lambda room: do(room, weight=float(room.rank)))) == 2


# -------------------------------------------------------------------------------------------------------- buffers


def test_rows_that_belong_to_slices_reach_every_process():
    def do(room):
        recipe = toys.TwoPlayers()
        buffers = Buffers(recipe, 4)
        for v in range(*owned(room.rank, room.size, 4)):
            buffers.rows(v)["replay"].fill_(v + 1)
        buffers.share(room)
        return recipe.replay[:, 0].tolist()

    assert on_threads(3, do) == [[1.0] * 6 + [2.0] * 6 + [3.0] * 6 + [4.0] * 6] * 3


def test_rows_that_slices_do_not_divide_are_refused():
    with pytest.raises(
        BadInput, match=r"TwoPlayers.replay: 7 logical workers do not divide its 24 rows; take 21"
    ):
        Buffers(toys.TwoPlayers(), 7)


def test_shared_buffers_move_by_the_mean_of_their_changes():
    recipe = toys.TwoPlayers()
    buffers = Buffers(recipe, 4)
    opening = buffers.opening()
    changes = []
    for v in range(4):
        buffers.restore(opening)
        assert recipe.mean.tolist() == [0, 0]
        recipe.mean += v
        recipe.generator[1].num_batches_tracked += 2
        changes.append(buffers.changes(opening))
    buffers.settle(opening, [torch.stack(change).mean(0) for change in zip(*changes, strict=True)])
    assert recipe.mean.tolist() == [1.5, 1.5]
    assert recipe.generator[1].num_batches_tracked == 2


class Holding(Recipe):
    """A buffer of any kind, and what its loss does to it."""

    def __init__(self, buffer, do, persistent=True):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.do = do
        self.register_buffer("held", buffer, persistent=persistent)

    def phases(self):
        return (Phase("only", (Update("sum", self.loss, (self.layer,)),)),)

    def loss(self, batch):
        self.do(self)
        return Loss(self.layer(batch["points"]).sum())


def held(tmp_path, *arguments) -> torch.Tensor:
    """The buffer after one step."""
    recipe = Holding(*arguments)
    params = toys.training(solvers={"sum": {}}, steps=1)
    trainer = Trainer(recipe, toys.Points(), params, 0, Alone(), Run(tmp_path))
    trainer.turns.ways.never = "the loss counts its calls"
    trainer.fit()
    return recipe.held


def test_a_mask_of_infinities_stays(tmp_path):
    mask = torch.full((3, 3), -torch.inf).triu(1)
    assert torch.equal(held(tmp_path, mask.clone(), lambda recipe: None), mask)


def test_small_integers_do_not_wrap(tmp_path):
    steps = iter([-2, 2, 2, 2])
    buffer = torch.tensor([5], dtype=torch.uint8)
    assert held(tmp_path, buffer, lambda recipe: recipe.held.add_(next(steps))).tolist() == [6]


def test_buffers_that_would_depend_on_the_processes_are_refused(tmp_path):
    def reassign(recipe):
        recipe.held = recipe.held + 1

    cases = {
        "is another tensor than at the start; change it in place": (torch.zeros(2), reassign),
        "is made of booleans and changes": (torch.zeros(2).bool(), lambda r: r.held.logical_not_()),
        "changes and is not persistent": (torch.zeros(2), lambda r: r.held.add_(1), False),
    }
    for words, arguments in cases.items():
        with pytest.raises(BadInput, match=f"Holding.held: the buffer {words}"):
            held(tmp_path, *arguments)
