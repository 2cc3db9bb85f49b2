"""Samples on several processes: the same as on one, and what goes wrong in one of them."""

import os
import signal

import pytest
import torch

from genpipe.errors import BadInput, WorkFailed
from genpipe.sampling.draw import draw
from genpipe.sampling.processes import spread
from tests import tiny


@pytest.mark.parametrize("name", ["energy", "glann", "vae_points"])
def test_samples_are_the_same_on_any_number_of_processes(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).eval()
    made = [draw(model, 450, 7, {}, tiny.how_of(name), processes=size) for size in (1, 2, 3, 9)]
    for other in made[1:]:
        assert made[0].keys() == other.keys()
        assert all(torch.equal(made[0][key], other[key]) for key in other)


def test_results_come_in_the_order_of_their_numbers_from_processes_of_their_own():
    made = spread(lambda number: {"n": torch.tensor([number, os.getpid()])}, range(3, 9), 2)
    assert [int(part["n"][0]) for part in made] == [3, 4, 5, 6, 7, 8]
    assert os.getpid() not in {int(part["n"][1]) for part in made}


def test_an_error_of_a_process_is_raised_here_in_one_line():
    def refuse(number):
        raise BadInput(f"number {number} is not valid")

    with pytest.raises(BadInput, match=r"^number 0 is not valid$"):
        spread(refuse, range(4), 2)


def test_a_process_that_is_killed_is_one_clear_line():
    parent = os.getpid()

    def die(number):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkFailed, match="a process that draws samples has ended itself or was killed"):
        spread(die, range(4), 2)
