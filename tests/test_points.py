"""Data sets of points: toys with a known density, and files of a person."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.params.corpora import Dataset
from genpipe.sources.datasets import prepare


def made(root: Path, source: str, **block: Any) -> dict[str, np.ndarray]:
    (root / "source").mkdir(exist_ok=True)
    prepare(root, "points", TypeAdapter(Dataset).validate_python({"source": source, **block}))
    return {path.stem: np.load(path) for path in (root / "artifacts/datasets/points").glob("*.npy")}


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ("two_moons", 2),
        ("eight_gaussians", 8),
        ("ring", 8),
        ("grid", 25),
        ("spirals", 2),
        ("checkerboard", 8),
    ],
)
def test_toys_are_functions_of_seed_and_number(tmp_path: Path, shape: str, parts: int) -> None:
    block = {"kind": "toys", "shape": shape}
    many = made(tmp_path, "source", **block, num_train=500, num_test=50)
    few = made(tmp_path, "source", **block, num_train=100, num_test=50)
    np.testing.assert_array_equal(many["train_points"][:100], few["train_points"])
    assert set(many["train_labels"]) == set(range(parts))
    other = made(tmp_path, "source", **block, num_train=100, num_test=50, seed=1)
    assert not np.array_equal(other["train_points"], few["train_points"])
    data = open_data(tmp_path / "artifacts/datasets/points")
    assert (data.facts["dim"], data.facts["num_classes"]) == (2, parts)


@pytest.mark.parametrize(("shape", "number"), [("eight_gaussians", 8), ("ring", 8), ("grid", 25)])
def test_mixtures_are_drawn_from_the_modes_that_their_facts_name(
    tmp_path: Path, shape: str, number: int
) -> None:
    arrays = made(tmp_path, "source", kind="toys", shape=shape, num_train=20_000)
    facts = open_data(tmp_path / "artifacts/datasets/points").facts
    centres, deviation = np.array(facts["centres"]), facts["deviation"]
    apart = arrays["train_points"] - centres[arrays["train_labels"]]
    assert len(centres) == number
    np.testing.assert_allclose(apart.std(0), deviation, rtol=0.03)
    np.testing.assert_allclose(apart.mean(0), 0, atol=4 * deviation / np.sqrt(20_000))
    counts = np.bincount(arrays["train_labels"], minlength=number)
    assert abs(counts - 20_000 / number).max() < 5 * np.sqrt(20_000 / number)


def test_the_ring_and_the_grid_are_those_of_the_literature(tmp_path: Path) -> None:
    made(tmp_path, "source", kind="toys", shape="ring", num_train=9)
    facts = open_data(tmp_path / "artifacts/datasets/points").facts
    np.testing.assert_allclose(np.linalg.norm(facts["centres"], axis=1), 2)
    assert (facts["deviation"], facts["centres"][0], facts["centres"][2]) == (0.1, [2, 0], [0, 2])
    made(tmp_path, "source", kind="toys", shape="grid", num_train=9)
    facts = open_data(tmp_path / "artifacts/datasets/points").facts
    assert {x for centre in facts["centres"] for x in centre} == {-4, -2, 0, 2, 4}
    assert facts["deviation"] == 0.05


def test_the_checkerboard_has_points_on_its_dark_squares_only(tmp_path: Path) -> None:
    points = made(tmp_path, "source", kind="toys", shape="checkerboard")["train_points"]
    column, row = np.floor(points).astype(int).T + 2
    assert ((column + row) % 2 == 0).all()
    counts = np.bincount(column * 4 + row, minlength=16)
    assert abs(counts[counts > 0] - 1250).max() < 5 * np.sqrt(1250)


def test_a_csv_file_becomes_points_with_classes(tmp_path: Path) -> None:
    lines = [f"{i},{i * 0.5},{'even' if i % 2 == 0 else 'odd'}" for i in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["x,y,name", *lines]))
    arrays = made(tmp_path, "mine.csv", kind="points", label="name", test_share=0.25)
    points = np.concatenate([arrays["train_points"], arrays["test_points"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    assert sorted(points[:, 0].tolist()) == list(range(40))
    assert (labels == points[:, 0] % 2).all()
    assert points.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("x,y\n1,2\n3,\n", None, "row 1 .from 0. holds a value that is missing"),
        ("x,y\n1,a\n", None, "the column y holds no numbers"),
        ("x,y\n1,2\n", "z", "no column 'z'; it has: x, y"),
    ],
)
def test_a_table_that_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path, text: str, label: str | None, said: str
) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(BadInput, match=said):
        made(tmp_path, "mine.csv", kind="points", label=label)
    assert not (tmp_path / "artifacts/datasets/points").exists()
