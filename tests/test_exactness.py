"""Every recipe ends on the same weights whatever is done to its processes."""

import pytest
import torch

from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.log import rows_of
from genpipe.training.logical import Fast, Processes
from genpipe.training.runs import Run
from tests import exactness


@pytest.fixture(scope="module", autouse=True)
def _torch_is_warm():
    torch.optim.SGD([torch.zeros(1)])  # the import of torch's compiler, once for all that are forked


@pytest.mark.parametrize("name", exactness.NAMES)
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
            row["fit.loss"] for row in rows_of(latest_checkpoint(Run(run)).log.splitlines()[:4])
        ]
    assert results[Fast] == pytest.approx(results[Processes], rel=1e-4)
