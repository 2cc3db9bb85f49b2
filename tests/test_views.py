"""Pictures of what a model makes: walks, neighbours, maps, and frames of a training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genpipe.capabilities import Energy, Scores
from genpipe.data.loader import Held
from genpipe.errors import BadInput
from genpipe.nn.pixels import scaled_to_bytes
from genpipe.recipe import Recipe
from genpipe.sampling import plane
from genpipe.sampling.draw import as_values, coder_of, draw, first, interpolate, reconstruct, spherical
from genpipe.sampling.images import nearest, rows_at
from genpipe.sampling.over_training import chosen, over_training
from genpipe.sampling.panels import show_all
from genpipe.sampling.pictures import write_animation
from genpipe.sampling.showing import Showing
from genpipe.training.checkpoint import latest_checkpoint, save_weights
from genpipe.training.frames import NUM_IMAGES, frame_steps, stacked
from tests import tiny
from tests.reference import registered

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")


def showing(recipe, data, directory: Path, kind: str = "images", **changes) -> Showing:
    directory.mkdir(parents=True, exist_ok=True)
    common = {"how": {}, "speller": None, "num": 24, "seed": 0}
    return Showing(recipe=recipe, data=data, kind=kind, directory=directory, **{**common, **changes})


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_spherical_steps_are_equal_angles_from_code_to_code():
    a, b = torch.randn(3, 8).double(), 2 * torch.randn(3, 8).double()
    way = spherical(a, b, 5)
    assert torch.allclose(way[:, 0], a)
    assert torch.allclose(way[:, -1], b)
    directions = torch.nn.functional.normalize(way, dim=-1)
    cosines = (directions[:, 1:] * directions[:, :-1]).sum(-1)
    assert torch.allclose(cosines, cosines[:, :1].expand_as(cosines))
    lengths = way.norm(dim=-1)
    assert torch.allclose(lengths.diff(dim=1), lengths.diff(dim=1)[:, :1].expand(3, 4))


def test_standardised_codes_stay_standardised_on_the_way():
    a, b = (torch.nn.functional.layer_norm(torch.randn(2, 16).double(), (16,), eps=0) for _ in range(2))
    way = spherical(a, b, 7)
    assert torch.allclose(way.mean(-1), torch.zeros(2, 7, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(way.std(-1, correction=0), torch.ones(2, 7, dtype=torch.float64))


@pytest.mark.parametrize(
    ("a", "b"), [([1.0, 2.0], [2.0, 4.0]), ([0.0, 0.0], [1.0, 1.0]), ([1.0, 0.0], [-1.0, 0.0])]
)
def test_codes_without_an_angle_are_joined_by_a_straight_line(a, b):
    way = spherical(torch.tensor([a]), torch.tensor([b]), 3)[0]
    assert torch.allclose(way[1], (torch.tensor(a) + torch.tensor(b)) / 2)


@pytest.mark.parametrize("name", ["aae", "ogan", "nice", "conditional_vae"])
def test_a_walk_begins_and_ends_with_the_reconstructions(name, tmp_path):
    """A code whose deviation is not 1 was scaled before it was decoded: a walk began with another image."""
    data = tiny.data_for(name, tmp_path)
    model = tiny.recipe_of(name, data).eval()
    coder = coder_of(model)
    x = as_values(first(data, 4))
    with torch.no_grad():
        codes = coder.encode(x)
        steps = interpolate(coder.decode, codes, codes.flip(0), x, 5)
        expected = coder.decode(codes, x)["images"]
    assert torch.allclose(steps[:, 0], expected, atol=1e-5)
    if name != "conditional_vae":  # whose walks stay in the class of the first
        assert torch.allclose(steps[:, -1], expected.flip(0), atol=1e-5)


@pytest.mark.parametrize("name", ["glann", "wgan_gp", "ogan", "aae"])
def test_codes_of_samples_decode_to_samples(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).eval()
    made = []
    for make in (lambda: model.sample(4, {}), lambda: model.decode(model.draw_codes(4, {}), {})):
        torch.manual_seed(3)
        with torch.no_grad():
            made.append(make()["images"])
    assert torch.equal(*made)


def test_the_nearest_training_image_is_that_of_brute_force_and_the_first_of_equals(tmp_path):
    data = tiny.data_for("ogan", tmp_path)
    train = torch.from_numpy(np.array(data.images["train"]))
    asked = torch.cat([train[[5, 40]], torch.from_numpy(np.array(data.images["test"][:6]))])
    rows, distances = nearest(data, asked, None)
    brute = ((asked[:, None].double() - train[None]) / 255).square().flatten(2).sum(2).sqrt()
    assert torch.equal(rows, brute.argmin(1))
    assert torch.allclose(distances, brute.min(1).values, atol=1e-4)
    assert rows[:2].tolist() == [5, 40]
    assert np.array_equal(rows_at(data, rows[:2]), train[[5, 40]].numpy())


def test_of_training_images_that_are_equal_the_first_is_the_nearest(tmp_path):
    """Also where a chunk of the data lies between them."""
    data = tiny.data_for("ogan", tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (250, 1, tiny.SIDE, tiny.SIDE), dtype=np.uint8)
    images[[30, 120, 130, 249]] = images[10]
    data.images["train"], data.labels["train"] = images, np.zeros(250, np.uint8)
    data.held = Held.out(0, 250)
    asked = torch.from_numpy(images[[249, 200]])
    rows, distances = nearest(data, asked, None)
    assert rows.tolist() == [10, 200]
    assert distances.tolist() == [0, 0]
    assert np.array_equal(rows_at(data, rows), images[[10, 200]])


def test_neighbours_are_looked_for_in_the_features_of_the_judge_where_there_is_one(tmp_path):
    data = tiny.data_for("ogan", tmp_path)
    model = tiny.recipe_of("ogan", data).eval()
    captions = {}
    for name, judge in (("pixels", None), ("judge", tiny.recipe_of("classifier", data).eval())):
        rows = show_all(showing(model, data, tmp_path / name, features=judge))
        captions[name] = next(row.caption for row in rows if row.file == "nearest.png")
    assert "pixel by pixel" in captions["pixels"]
    assert "in the features of the judge" in captions["judge"]


def test_samples_by_class_have_a_class_a_row(tmp_path):
    data = tiny.data_for("conditional_vae", tmp_path)
    model = tiny.recipe_of("conditional_vae", data).eval()
    rows = show_all(showing(model, data, tmp_path / "out", how=tiny.how_of("conditional_vae")))
    assert "by_class.png" in [row.file for row in rows]
    picture = pixels(tmp_path / "out/by_class.png")
    labels = torch.arange(2).repeat_interleave(10)
    made = draw(model, 20, 0, {"labels": labels}, tiny.how_of("conditional_vae"))["images"]
    tile = scaled_to_bytes(made).numpy()[10]  # the first of the second row
    side = tiny.SIDE
    assert np.array_equal(picture[side + 4 : 2 * side + 4, 2 : side + 2], tile[0])


class Bowl(Recipe, Energy, Scores):
    """Energies that are least at (1, 0.5); its scores are their negatives."""

    def phases(self):
        return ()

    def energy(self, x):
        return (x["points"] - torch.tensor([1.0, 0.5])).square().sum(1)

    def score(self, x):
        return -self.energy(x)


def test_a_map_is_brightest_where_points_are_likely_and_has_the_points_of_the_data(tmp_path):
    data = tiny.data_for("plane_flow", tmp_path)
    rows = show_all(showing(Bowl(), data, tmp_path / "out", "points"))
    assert [row.file for row in rows] == ["map_energy.png", "map_critic.png"]
    assert "low where the model finds points likely" in rows[0].caption
    energy, critic = (pixels(tmp_path / "out" / row.file) for row in rows)
    assert np.array_equal(energy, critic), "an energy is a score with the other sign"
    frame = plane.frame_of(data)
    row, column = frame.places(np.array([[1.0, 0.5]]), len(energy))[0]
    values = plane.values_on(frame, Bowl().score)
    assert np.unravel_index(values.argmax(), values.shape) == (row // plane.SCALE, column // plane.SCALE)
    plain = plane.painted(frame._replace(points=frame.points[:0]), values)
    assert tuple(plain[row, column]) == plane.COLOURS[-1]
    assert tuple(plain[0, 0]) == plane.COLOURS[0]
    point = frame.places(frame.points[-1:], len(energy))[0]
    assert tuple(energy[tuple(point)]) == plane.POINT


def test_a_map_without_a_finite_value_is_grey(tmp_path):
    frame = plane.frame_of(tiny.data_for("plane_flow", tmp_path))
    nothing = frame._replace(points=frame.points[:0])
    values = np.full((8, 8), np.nan)
    assert (plane.painted(nothing, values) == 128).all()
    values[0, 0] = 1.0
    assert tuple(plane.painted(nothing, values)[0, 0]) == plane.COLOURS[-1]


def test_the_density_of_a_flow_in_the_plane_is_a_map(tmp_path):
    data = tiny.data_for("plane_flow", tmp_path)
    rows = show_all(showing(tiny.recipe_of("plane_flow", data).eval(), data, tmp_path / "out", "points"))
    assert [row.file for row in rows] == ["points.tsv", "map_log_density.png"]


def test_an_animation_holds_every_picture_and_is_the_same_file_each_time(tmp_path):
    pictures = [np.full((6, 6, 3), 17 * i, dtype=np.uint8) for i in range(4)]
    for name in ("a.png", "b.png"):
        write_animation(tmp_path / name, pictures, 100)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.n_frames == 4
        for i, picture in enumerate(pictures):
            image.seek(i)
            assert np.array_equal(np.array(image.convert("RGB")), picture)


def test_frames_begin_dense_with_the_untrained_model_and_end_with_the_last_step():
    assert frame_steps(100, 5) == (0, 6, 25, 56, 100)
    assert frame_steps(100, 0) == ()
    assert frame_steps(3, 16) == (0, 1, 2, 3)
    assert frame_steps(100, 1) == (0,)
    assert chosen(16) == [0, 2, 4, 6, 9, 11, 13, 15]
    assert chosen(1) == [0]


@pytest.mark.parametrize("name", ["energy", "ogan", "plane_flow", "conditional_vae"])
def test_frames_change_nothing_in_a_training_and_are_the_same_after_a_resume(name, tmp_path):
    """The last frame is what the exported weights make of the noise."""
    data = tiny.data_for(name, tmp_path)
    whole, without = (tiny.trainer_of(name, data, tmp_path / str(n), frames=n, ema=0.5) for n in (4, 0))
    stopped = tiny.trainer_of(name, data, tmp_path / "part", frames=4, ema=0.5)
    stopped.params = stopped.params.model_copy(update={"steps": 4})
    for trainer in (whole, without, stopped):
        trainer.fit()
    rest = tiny.trainer_of(name, data, tmp_path / "part", frames=4, ema=0.5)
    rest.fit()
    ends = [latest_checkpoint(trainer.run) for trainer in (whole, without, rest)]
    weights = [{**end.weights, **end.average} for end in ends]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    assert not ends[1].frames
    assert sorted(ends[0].frames) == [f"step-0000000{step}" for step in (0, 1, 3, 6)]
    assert all(torch.equal(frame, ends[2].frames[key]) for key, frame in ends[0].frames.items())
    assert not torch.equal(ends[0].frames["step-00000000"], ends[0].frames["step-00000006"])
    model = tiny.recipe_of(name, data)
    model.load_state_dict(weights[0])
    whole.frames.take(7, model, {})
    assert torch.equal(whole.frames.taken["step-00000007"], ends[0].frames["step-00000006"])


def test_frames_become_an_animation_and_a_still(tmp_path):
    data = tiny.data_for("ogan", tmp_path)
    trainer = tiny.trainer_of("ogan", data, tmp_path / "run", frames=3)
    trainer.fit()
    taken = latest_checkpoint(trainer.run).frames
    save_weights(stacked(taken), tmp_path / "frames.safetensors")
    out = showing(trainer.recipe.eval(), data, tmp_path / "out", model=tmp_path)
    moving, still = over_training(out)
    assert (moving.show, still.show) == ("animation", "picture")
    assert "after 3 steps of the training, from 0 to 6" in moving.caption
    with Image.open(tmp_path / "out/training.png") as image:
        assert image.n_frames == 3
    last, side = taken["step-00000006"], tiny.SIDE
    assert len(last) == NUM_IMAGES
    bottom = pixels(tmp_path / "out/stages.png")[-side - 2 : -2, 2 : side + 2]
    assert np.array_equal(bottom, last[0, 0].numpy())


def test_frames_of_points_are_plots(tmp_path):
    data = tiny.data_for("plane_flow", tmp_path)
    trainer = tiny.trainer_of("plane_flow", data, tmp_path / "run", frames=3)
    trainer.fit()
    save_weights(stacked(latest_checkpoint(trainer.run).frames), tmp_path / "frames.safetensors")
    out = showing(trainer.recipe.eval(), data, tmp_path / "out", "points", model=tmp_path)
    assert [row.file for row in over_training(out)] == ["training.png", "stages.png"]
    assert pixels(tmp_path / "out/stages.png").shape == (164, 4 * 162 + 2, 3)


def test_a_model_that_draws_nothing_has_no_frames(tmp_path):
    data = tiny.data_for("classifier", tmp_path)
    with pytest.raises(
        BadInput, match=r"^train.frames: Classifier draws nothing, so it has no frames; set frames: 0$"
    ):
        tiny.trainer_of("classifier", data, tmp_path / "run", frames=3)


def test_reconstructions_are_those_of_the_coder(tmp_path):
    data = tiny.data_for("aae", tmp_path)
    model = tiny.recipe_of("aae", data).eval()
    x = as_values(first(data, 3))
    with torch.no_grad():
        assert torch.allclose(
            reconstruct(model, model, x), model.decode(model.encode(x), x)["images"], atol=1e-6
        )
    assert math.isclose(float(x["images"].max()), float(first(data, 3)["images"].max()) / 255, rel_tol=1e-6)
