from pathlib import Path

import pytest
import yaml
from gto.tag import parse_name

from genpipe.errors import BadInput, BadState
from genpipe.params.project import read_params

PROJECT = Path(__file__).parent.parent


def project_with(change, tmp_path: Path) -> Path:
    """A project whose params.yaml is ours after `change`."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    change(params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return tmp_path


def test_our_own_parameters_are_valid():
    params = read_params(PROJECT)
    assert {"classifier", "nice", "ogan", "couplet"} <= set(params.recipes)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda p: p["recipes"]["nice"]["train"]["solvers"]["nll"].update(lr_multipliers={"(": 2}),
            "'(' is not a valid regular expression",
        ),
        (
            lambda p: p["recipes"]["nice"]["train"]["solvers"]["nll"].update(betas=[1.5, 0.9]),
            "recipes.nice.train.solvers.nll.betas.0: Input should be less than 1, not 1.5",
        ),
        (
            lambda p: p["recipes"]["nice"]["train"]["solvers"]["nll"].update(lr=float("inf")),
            "recipes.nice.train.solvers.nll.lr: Input should be a finite number, not inf",
        ),
        (
            lambda p: p["recipes"]["nice"]["sample"].update(how={"temperature": float("inf")}),
            "recipes.nice.sample.how.temperature: Input should be a finite number",
        ),
        (
            lambda p: p["recipes"]["nice"]["train"]["solvers"]["nll"].update(momentum=0.9),
            "recipes.nice.train.solvers.nll: momentum has no effect on adam; take it out",
        ),
        (lambda p: p.update(seed=2**64), "seed: Input should be less than"),
        (
            lambda p: p["recipes"]["nice"].update(latent_dims=3),
            "recipes.nice.latent_dims: Extra inputs are not permitted",
        ),
        (
            lambda p: p["recipes"]["nice"]["train"]["solvers"]["nll"].update(lr="fast"),
            "recipes.nice.train.solvers.nll.lr: Input should be a valid number",
        ),
        (
            lambda p: p["recipes"]["nice"]["train"].update(batch_size=30),
            "batch_size 30 is not a multiple of logical_workers 4; take 28",
        ),
        (
            lambda p: p["recipes"]["nice"].update(start="models/nice"),
            "recipes.nice: its training would need itself, by start, validator or features: nice ← nice",
        ),
        (
            lambda p: p["recipes"]["nice"].update(judge="models/me"),
            "recipes.nice.judge: no recipe of 'models/me' (has: none, models/",
        ),
        (lambda p: p["recipes"]["nice"].update(data="../../etc"), "a path stays inside the project"),
        (
            lambda p: p["datasets"].update({"../up": {"kind": "poems", "source": "a"}}),
            "a name is made of a-z, 0-9 and _",
        ),
        (lambda p: p["datasets"]["digits"].update(source="/etc/passwd"), "a path stays inside the project"),
        (lambda p: p.update(recipe={}), "recipe: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(change, complaint, tmp_path):
    with pytest.raises(BadInput) as error:
        read_params(project_with(change, tmp_path))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(BadState, match=r"params.yaml: no such file; run genpipe from the root"):
        read_params(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: [")
    with pytest.raises(BadInput, match="not valid YAML"):
        read_params(tmp_path)


def test_a_number_in_either_yaml_dialect_is_a_number(tmp_path):
    """PyYAML reads 1e-3 as text, DVC as a number; both must do."""
    params = read_params(
        project_with(lambda p: p["recipes"]["nice"]["train"]["solvers"]["nll"].update(lr="1e-3"), tmp_path)
    )
    assert params.recipes["nice"].train.solvers["nll"].lr == 1e-3


@pytest.mark.parametrize("block", ["datasets", "corpora", "recipes"])
@pytest.mark.parametrize("name", ["nice_", "_nice", "n" * 65, "Nice", "ni-ce", "ni.ce"])
def test_a_name_of_which_no_tag_can_be_made_is_refused_before_anything_is_made(name, block, tmp_path):
    def rename(params):
        params[block][name] = next(iter(params[block].values()))

    with pytest.raises(
        BadInput, match="a name is made of a-z, 0-9 and _, begins and ends with a letter or digit"
    ):
        read_params(project_with(rename, tmp_path))


@pytest.mark.parametrize("name", ["n", "n" * 64, "n_1", "1"])
def test_gto_reads_the_tag_of_every_name_that_is_taken(name, tmp_path):
    def rename(params):
        params["recipes"][name] = next(iter(params["recipes"].values()))

    assert name in read_params(project_with(rename, tmp_path)).recipes
    assert parse_name(f"{name}@v0.0.1")["name"] == parse_name(f"{name}#prod#1")["name"] == name
