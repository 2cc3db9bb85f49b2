"""A feature network in a TorchScript file as the judge of samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from genpipe.cli import main
from genpipe.errors import BadInput, BadState
from genpipe.evaluation.frechet import frechet_distance
from genpipe.evaluation.given import GivenNetwork
from genpipe.files import write_json
from genpipe.sampling.draw import in_chunks
from tests import tiny


class Blocks(torch.nn.Module):
    """Mean brightness of four quarters, in each channel."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class Maps(torch.nn.Module):
    def forward(self, x):
        return x * 2


class Wrong(torch.nn.Module):
    def forward(self, x):
        return x.sum()


def network(directory: Path, module: torch.nn.Module, **facts) -> GivenNetwork:
    directory.mkdir(parents=True, exist_ok=True)
    facts = {"channels": 3, "size": 0, "values": "unit", **facts}
    torch.jit.trace(module, torch.zeros(2, facts["channels"], 8, 8)).save(str(directory / "network.pt"))
    write_json(directory / "data.json", {"kind": "network", "splits": [], "facts": facts})
    return GivenNetwork(directory)


def test_images_come_as_the_network_takes_them(tmp_path):
    grey = torch.rand(5, 1, 8, 8)
    expected = Blocks()(grey.expand(-1, 3, -1, -1))
    assert torch.allclose(network(tmp_path / "a", Blocks()).embed({"images": grey}), expected)
    signed = network(tmp_path / "b", Blocks(), values="signed").embed({"images": grey})
    assert torch.allclose(signed, 2 * expected - 1, atol=1e-6)
    bytes_ = network(tmp_path / "c", Blocks(), values="bytes").embed({"images": grey})
    assert torch.allclose(bytes_, 255 * expected, atol=1e-3)
    large = network(tmp_path / "d", Blocks(), size=16).embed({"images": grey})
    assert large.shape == (5, 12)
    assert torch.allclose(large, expected, atol=0.1)
    maps = network(tmp_path / "e", Maps()).embed({"images": grey})
    assert torch.allclose(maps, 2 * grey.mean((2, 3)).expand(-1, 3), atol=1e-6)


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(BadInput, match="takes images of 1 channel, and these have 3"):
        network(tmp_path / "a", Blocks(), channels=1).embed({"images": torch.rand(2, 3, 8, 8)})
    with pytest.raises(BadState, match=r"answers with no tensor \[images, feature\]"):
        network(tmp_path / "b", Wrong()).embed({"images": torch.rand(2, 3, 8, 8)})
    (tmp_path / "b" / "network.pt").write_bytes(b"weights")
    with pytest.raises(BadState, match=r"network\.pt: not a TorchScript file"):
        GivenNetwork(tmp_path / "b")


def project(root: Path, **dataset) -> list[str]:
    tiny.write_images(root / "artifacts" / "encoded" / "images")
    values = {
        "datasets": {"blocks": {"kind": "feature_network", "source": "blocks.pt", **dataset}},
        "recipes": {"ogan": tiny.block("ogan") | {"judge": "datasets/blocks"}},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return ["--root", str(root)]


def test_samples_are_judged_in_a_given_network(tmp_path, capsys):
    torch.jit.trace(Blocks(), torch.zeros(2, 1, 8, 8)).save(str(tmp_path / "blocks.pt"))
    root = project(tmp_path, channels=1)
    for words in (
        ["prepare", "blocks"],
        ["train", "ogan", "--workers", "0"],
        ["sample", "ogan"],
        ["evaluate", "ogan"],
    ):
        assert main([*root, *words]) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "artifacts/metrics/ogan.json").read_text())
    test = np.load(tmp_path / "artifacts/encoded/images/test_images.npy")[:24]
    drawn = np.load(tmp_path / "artifacts/samples/ogan/samples.npy")
    features = [
        in_chunks(lambda x: Blocks()(x["images"]), {"images": torch.from_numpy(x) / 255}).numpy()
        for x in (test, drawn)
    ]
    assert metrics["frechet_network"] == pytest.approx(frechet_distance(*features), rel=1e-5)
    assert "frechet_classifier" not in metrics
    assert "kernel_distance" in metrics
    assert "left out: class_coverage: the judge finds no classes" in capsys.readouterr().out


def test_a_file_that_is_no_network_is_refused_when_it_is_prepared(tmp_path, capsys):
    root = project(tmp_path)
    (tmp_path / "blocks.pt").write_bytes(b"no network")
    assert main([*root, "prepare", "blocks"]) == 2
    assert "blocks.pt: not a TorchScript file" in capsys.readouterr().err
    assert not (tmp_path / "artifacts/datasets/blocks").exists()
    (tmp_path / "blocks.pt").unlink()
    assert main([*root, "prepare", "blocks"]) == 2
    assert "blocks.pt" in capsys.readouterr().err


def test_only_a_feature_network_is_a_judge_among_data_sets(tmp_path, capsys):
    root = project(tmp_path)
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["recipes"]["ogan"]["judge"] = "datasets/other"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    assert main([*root, "evaluate", "ogan"]) == 2
    assert (
        "no recipe of 'datasets/other' (has: none, models/ogan, datasets/blocks)" in capsys.readouterr().err
    )
