"""Every recipe ends on the same weights whatever is done to its processes; one death of each recipe is in test_together.py."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.log import rows_of
from genpipe.training.logical import Fast, Processes
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer
from tests import exactness, toys
from tests.reference import REFERENCE, registered

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")
NAMES = (*exactness.NAMES, *REFERENCE)  # the page has those of genpipe only


@pytest.fixture(scope="module", autouse=True)
def _torch_is_warm():
    torch.optim.SGD([torch.zeros(1)])  # the import of torch's compiler, once for all that are forked


TOYS = (*exactness.TOYS, *exactness.TOKENS)


@pytest.mark.parametrize(
    "name", [name if name in TOYS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_the_same_weights_after_every_disturbance(name):
    found = dict(exactness.digests(name))
    assert len(found) == len(exactness.DISTURBANCES)
    assert len(set(found.values())) == 1, found


def test_the_variants_of_the_toy_do_differ():
    """The control: what the variants add does change the weights."""
    undisturbed = {next(iter(exactness.digests(name)))[1] for name in exactness.TOYS}
    assert len(undisturbed) == len(exactness.TOYS)


def test_the_fast_exchange_is_close_and_does_as_it_says(tmp_path):
    """`exchange: fast` gives up the order of additions, nothing else: losses agree to rounding."""
    results = {}
    for exchange in (Processes, Fast):
        run = tmp_path / exchange.__name__
        attempt = exactness.Attempt(3, exchange=exchange)
        exactness.run_group("toy", run, attempt, tmp_path / f"store-{exchange.__name__}")
        results[exchange] = [
            row["fit.loss"] for row in rows_of(latest_checkpoint(Run(run)).log.text.splitlines()[:4])
        ]
    assert results[Fast] == pytest.approx(results[Processes], rel=1e-4)


class Drifting(exactness.Deadly):
    """Data whose reader moves a weight of its own, as a broken processor might."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, None, trainer.run.directory)
        self._weight = next(trainer.recipe.parameters())

    def train_batch(self, seed, step, batch_size):
        if step == 1:
            self._weight.data[0] += 1
        return super().train_batch(seed, step, batch_size)


def _complain(rank: int, directory: Path, fault: str, complaints) -> None:
    torch.set_num_threads(1)
    store = directory / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    best = {"best": {"metric": "fit.los", "direction": "lowest"}} if fault == "metric" else {}
    try:
        trainer = toys.trainer(Run(directory / "run"), Processes(), **best)
        if fault == "drift" and rank == 1:
            trainer.data = Drifting(trainer)
        trainer.fit()
    except Exception as error:  # noqa: BLE001 - the test would wait for a process that ends without a word
        complaints.put(str(error))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("metric", "no 'fit.los'; there is: fit.loss"),
        ("drift", "the processes do not start from the same weights"),
    ],
)
def test_what_goes_wrong_on_one_process_is_told_by_both_at_the_next_checkpoint(fault, words, tmp_path):
    """The metric is looked up by the first process, the weight drifts on the second; nobody is left waiting."""
    context = multiprocessing.get_context("fork")
    complaints = context.Queue()
    group = [context.Process(target=_complain, args=(rank, tmp_path, fault, complaints)) for rank in (0, 1)]
    for process in group:
        process.start()
    try:
        told = [complaints.get(timeout=600) for _ in group]
    finally:
        for process in group:
            process.kill()
    assert all(words in complaint for complaint in told)


def test_the_table_names_what_ends_elsewhere():
    results = {
        "nice": {
            "1 process": "a" * 32,
            "2 processes": "a" * 32,
            "4 processes": "a" * 32,
            "AMD, emulated": "a" * 32,
        },
        "ogan": {"1 process": "b" * 32, "2 processes": "c" * 32, "4 processes": "b" * 32},
    }
    *_, first, second = exactness.table(results).splitlines()
    assert first == "| nice | aaaaaaaa | 2 of 2 the same | 1 of 1 the same |"
    assert second == "| ogan | bbbbbbbb | 1 of 2 the same; 2 processes on cccccccc | – |"
