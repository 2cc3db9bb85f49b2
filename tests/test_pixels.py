"""Bytes to the units of models and back."""

import numpy as np
import pytest
import torch

from genpipe.capabilities import Invertible, LogProb, Samples
from genpipe.data.opening import open_data
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.likelihood import bits_per_dim
from genpipe.models import RECIPES
from genpipe.nn.pixels import DEQUANTISED, SCALED, Pixels, dequantised
from genpipe.sampling.draw import whole
from genpipe.sampling.panels import Showing, samples
from tests import tiny

BYTES = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("pixels", [SCALED, DEQUANTISED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_come_back(pixels: Pixels, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = BYTES.repeat(1000).view(1000, 16, 16)
    x = pixels.from_bytes(images, dtype)
    assert x.dtype == dtype
    assert torch.equal(pixels.to_bytes(x), images)


def test_noise_never_reaches_the_next_byte() -> None:
    """With the 24 bits of torch.rand, 255 + u rounds to 256 about once in 130,000 times."""
    torch.manual_seed(0)
    white = torch.full((4, 1000, 1000), 255, dtype=torch.uint8)
    x = dequantised(white)
    assert x.max() < 1
    assert torch.equal(DEQUANTISED.to_bytes(x), white)


def test_noise_is_uniform() -> None:
    torch.manual_seed(0)
    u = dequantised(torch.zeros(10**6, dtype=torch.uint8)) * 256
    assert u.mean().item() == pytest.approx(1 / 2, abs=0.002)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_values_outside_are_cut_off() -> None:
    x = torch.tensor([-0.5, 1.0, 1.5])
    assert [pixels.to_bytes(x).tolist() for pixels in (SCALED, DEQUANTISED)] == [[0, 255, 255]] * 2


@pytest.mark.parametrize("name", tiny.names_with(Samples))
def test_what_a_recipe_learns_from_is_what_it_writes(name, tmp_path):
    """A sampler that draws the images it was given, in the units of its losses, writes exactly them."""
    data = tiny.data_for(name, tmp_path)
    recipe = tiny.recipe_of(name, data)
    images = whole(data, "test")["images"]
    assert issubclass(RECIPES[name], Samples)
    units = recipe.pixels.from_bytes(images, torch.float32)
    recipe.sample = lambda n, given: {"images": torch.cat([units] * (n // len(units) + 1))[:n]}
    out = tmp_path / "out"
    out.mkdir()
    showing = Showing(
        recipe=recipe, speller=None, directory=out, data=data, kind="images", num=len(images), seed=1, how={}
    )
    list(samples(showing))
    np.testing.assert_array_equal(np.load(out / "samples.npy"), images.numpy())


def test_models_of_dequantised_images_say_so():
    """Those that add noise to bytes before they learn: the flows, and the chains of the energy model; what draws pixel by pixel has bytes."""
    images = [name for name in tiny.names_with(Samples) if tiny.kind_of(name) == "images"]
    found = {name for name in images if RECIPES[name].pixels == DEQUANTISED}
    assert {*tiny.names_with(Samples, Invertible)} & set(images) <= found
    assert {"nice", "energy"} <= found
    assert not found & {"ogan", "aae", "glann", "gan", "pixelcnn", "pixelrnn"}


def test_a_black_image_is_black_in_the_units_of_a_density(tmp_path):
    """Half of the values (0 + u)/256 are nearer to 1/255 than to 0."""
    seen: list[torch.Tensor] = []

    class Watching(LogProb):
        def log_prob(self, x):
            seen.append(x["images"])
            return torch.zeros(len(x["images"]))

    directory = tiny.write_images(tmp_path / "black")
    np.save(directory / "test_images.npy", np.zeros((100, 1, 8, 8), np.uint8))
    np.save(directory / "test_labels.npy", np.zeros(100, np.uint8))
    trial = Trial(
        recipe=Watching(), data=open_data(directory), kind="images", split="test", samples=tmp_path,
        yardstick=lambda: pytest.fail("not needed"), speller=None, seed=0,
    )  # fmt: skip
    bits_per_dim(trial)
    assert DEQUANTISED.to_bytes(seen[0]).max() == 0
    assert 0.4 < (SCALED.to_bytes(seen[0]) == 1).double().mean() < 0.6
