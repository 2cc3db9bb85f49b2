"""Tables of results in docs/, written by `genpipe results`."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from genpipe import yaml_text
from genpipe.cli import main
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.params.project import check_params, read_params
from genpipe.report.results import filled, groups, table, write_pages
from tests import tiny

PROJECT = Path(__file__).parents[1]
PAGE = """# Results

Written by hand.

<!-- results: set=all metrics=frechet_classifier,latent_correlation -->
old figures
<!-- end of results -->

More by hand, 1,509 | and a bar.

<!-- results: set=all -->
<!-- end of results -->
"""


@pytest.fixture
def root(tmp_path):
    """Three seeds of one recipe, another recipe, and one that was not run."""
    own = {"data": "datasets/digits", "judge": "none"}
    blocks = {
        "ogan": tiny.block("ogan") | own,
        "ogan_seed_2": tiny.block("ogan", seed=2) | own,
        "ogan_seed_3": tiny.block("ogan", seed=3) | own,
        "ogan_small": tiny.block("ogan", steps=3) | own,
        "nice": tiny.block("nice") | own,
    }
    datasets = {"digits": {"kind": "digits", "source": "data/digits"}}
    values = {"seed": 1, "datasets": datasets, "recipes": blocks, "sets": {"all": list(blocks)}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    for name, value in (("ogan", 90.0), ("ogan_seed_2", 94.0), ("ogan_seed_3", 98.0), ("ogan_small", 1600.0)):
        measured = {
            "frechet_classifier": value,
            "frechet_real_vs_real": 4.5,
            "frechet_noise": 1500.0,
            "latent_correlation": 0.5,
            "frechet_num_images": 2000.0,
        }
        write_json(tmp_path / "artifacts/metrics" / f"{name}.json", measured)
    (tmp_path / "docs/models").mkdir(parents=True)
    (tmp_path / "docs/results.md").write_text(PAGE)
    (tmp_path / "docs/models/ogan.md").write_text("# O-GAN\n\nBy hand.\n")
    return tmp_path


def test_the_pages_of_this_project_are_what_their_command_writes():
    params = read_params(PROJECT)
    for page in (PROJECT / "docs/results.md", *(PROJECT / "docs/models").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        made = filled(PROJECT, params, page, text)[page].decode()
        assert made == text, f"{page}: run genpipe results --write"
        if page.parent.name == "models":
            assert "<!-- results: " in text, f"{page}: run genpipe results --write"


def test_blocks_that_differ_in_the_seed_alone_are_one_line_with_mean_and_spread(root):
    params = read_params(root)
    found = groups(root, params, list(params.recipes))
    assert [(group.title, group.seeds) for group in found] == [
        ("ogan (3 seeds)", (1, 2, 3)), ("ogan_small", (1,)), ("nice", ()),
    ]  # fmt: skip
    assert found[0].shown("frechet_classifier") == "94.00 ± 4.000"
    assert found[1].shown("frechet_classifier") == "1,600"
    assert found[2].shown("frechet_classifier") == "–"


def test_a_wide_table_says_who_is_not_better_than_a_baseline(root):
    options = {"set": "all", "metrics": "frechet_classifier,latent_correlation"}
    lines = table(root, read_params(root), options, "here")
    assert (
        "`python -m flows.retrain --set all`, seeds 1, 2, 3; written by `genpipe results --write`."
        in lines[0]
    )
    assert "mean ± the standard deviation" in lines[0]
    assert "| ogan (3 seeds) | 94.00 ± 4.000 | 0.500 ± 0 |" in lines
    assert "| *real against real* | 4.500 | – |" in lines
    assert "\nFréchet distance: not better than *noise*: ogan_small." in lines
    assert "\nLatent correlation ρ: all are better than *unrelated codes*." in lines
    assert lines[-3:] == ["\nImages compared: 2,000.", "", "Not run yet: nice."]


def test_what_stands_beside_a_share_is_a_percentage_and_a_sample_size_a_whole_number(root):
    values = {"sample_precision": 0.75, "sample_precision_real": 0.954, "neighbour_num_images": 64.0}
    write_json(root / "artifacts/metrics/nice.json", values)
    lines = table(root, read_params(root), {"set": "all", "metrics": "sample_precision"}, "here")
    assert lines[2:6] == [
        "| recipe | Precision of samples ↑ |",
        "|---|---:|",
        "| nice | 75.0 % |",
        "| *real* | 95.4 % |",
    ]
    assert "neighbours: 64." in "".join(lines)


def test_what_stands_outside_of_the_marks_stays_and_a_second_run_changes_nothing(root, capsys):
    assert main(["--root", str(root), "results", "--write"]) == 0
    text = (root / "docs/results.md").read_text()
    assert text.startswith("# Results\n\nWritten by hand.\n\n<!-- results: set=all metrics=")
    assert "\nMore by hand, 1,509 | and a bar.\n" in text
    assert "old figures" not in text
    page = (root / "docs/models/ogan.md").read_text()
    assert page.startswith(
        "# O-GAN\n\nBy hand.\n\n<!-- results: model=ogan -->\nMeasured by `dvc repro evaluate@ogan "
    )
    assert capsys.readouterr().out.count("wrote ") == 2
    assert main(["--root", str(root), "results", "--write"]) == 0
    assert "all tables are those of artifacts/metrics" in capsys.readouterr().out
    assert (root / "docs/results.md").read_text() == text


def test_a_page_shows_the_picture_of_the_longest_training_and_keeps_it_where_samples_are_gone(root):
    params = read_params(root)
    for name in ("ogan", "ogan_small"):
        folder = root / "artifacts/samples" / name
        rows = [{"file": "points.tsv", "show": "plot"}, {"file": "grid.png", "show": "picture"}]
        write_json(folder / "panels.json", rows)
        (folder / "grid.png").write_bytes(name.encode())
    write_pages(root, params)
    text = (root / "docs/models/ogan.md").read_text()
    assert "\n![What ogan makes](ogan.png)\n<!-- end of results -->\n" in text
    assert (root / "docs/models/ogan.png").read_bytes() == b"ogan"
    shutil.rmtree(root / "artifacts/samples")
    assert write_pages(root, params) == []
    assert (root / "docs/models/ogan.md").read_text() == text


@pytest.mark.parametrize(
    ("mark", "line"),
    [
        ("<!-- results: set=some -->\n<!-- end of results -->", "no set 'some' in params.yaml; it has: all"),
        (
            "<!-- results: set=all metrics=fid -->\n<!-- end of results -->",
            "no metric 'fid'; there is: accuracy",
        ),
        (
            "<!-- results: sets=all -->\n<!-- end of results -->",
            "no option 'sets'; there is: set, model, metrics",
        ),
        (
            "<!-- results: set=all -->\n",
            "a mark of results is not closed; write <!-- end of results --> below",
        ),
        ("<!-- results: set=all -->\n<!-- results: set=all -->\n<!-- end of results -->", "is not closed"),
    ],
)
def test_a_mark_that_cannot_be_filled_is_one_line_and_nothing_is_written(root, capsys, mark, line):
    (root / "docs/results.md").write_text(mark)
    before = (root / "docs/models/ogan.md").read_text()
    assert main(["--root", str(root), "results", "--write"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert "docs/results.md" in said
    assert (root / "docs/models/ogan.md").read_text() == before


def test_a_table_is_printed_without_pages(root, capsys):
    assert main(["--root", str(root), "results", "--metrics", "frechet_classifier"]) == 0
    assert "| ogan (3 seeds) | 94.00 ± 4.000 |" in capsys.readouterr().out
    assert main(["--root", str(root), "results", "--set", "all", "--write"]) == 2
    assert "leave --set out" in capsys.readouterr().err


def test_the_seed_of_a_block_is_that_of_its_training(tmp_path):
    """`--seed` goes before it, and the project's stands where a block has none."""
    data = tiny.data_for("ogan", tmp_path)
    assert data
    blocks = {"ogan": tiny.block("ogan", seed=2), "plain": tiny.block("ogan") | {"judge": "none"}}
    blocks["ogan"]["judge"] = "none"
    values = {"seed": 1, "cluster": {"workers": 0}, "datasets": {}, "recipes": blocks}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    seeds = {}
    for number, (name, more) in enumerate(
        (("ogan", []), ("plain", []), ("plain", ["--seed", "2"]), ("ogan", ["--seed", "5"]))
    ):
        out = tmp_path / str(number)
        assert main(["--root", str(tmp_path), "train", name, *more, "--out", str(out)]) == 0
        seeds[number] = json.loads((out / "recipe.json").read_text())["seed"]
    assert seeds == {0: 2, 1: 1, 2: 2, 3: 5}
    weights = [(tmp_path / str(number) / "weights.safetensors").read_bytes() for number in (0, 1, 2)]
    assert weights[0] == weights[2] != weights[1]


def test_a_seed_is_a_number(root):
    values = yaml_text.read(root / "params.yaml")
    values["recipes"]["ogan"]["train"]["seed"] = -1
    with pytest.raises(
        BadInput, match=r"recipes\.ogan\.train\.seed: Input should be greater than or equal to 0"
    ):
        check_params(values)
