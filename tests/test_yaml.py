"""params.yaml has one reading: DVC's, which is what dvc.lock records."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml
from hypothesis import given
from hypothesis import strategies as st

from genpipe.errors import BadInput
from genpipe.params.project import read_params
from genpipe.params.training import Training
from genpipe.yaml_text import dump, parse, read
from tasks.sweeping import read_setting

PROJECT = Path(__file__).parent.parent
# read by YAML 1.1 and 1.2 as different values
DIFFERING = (
    "010", "0o10", "0200", "08", "1:30", "1:30.5", "on", "off", "yes", "no", "1e-4", "1E5", "12e03", "1.e3", "-.5", "1e400",
)  # fmt: skip


@pytest.mark.parametrize("text", DIFFERING)
def test_a_scalar_is_what_dvc_reads(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"seed: {text}\n")
    recorded = load_yaml(str(tmp_path / "params.yaml"))
    assert read(tmp_path / "params.yaml") == recorded
    assert yaml.safe_load(f"seed: {text}") != recorded  # else this text shows nothing
    try:
        path, values = read_setting(f"seed={text}")
    except BadInput:
        assert ":" in text  # not allowed in a list without quotes
    else:
        assert (path, values) == ("seed", [recorded["seed"]])


@pytest.mark.parametrize(("text", "seed"), [("010", 10), ("0o10", 8), ("0200", 200), ("1e3", 1000)])
def test_the_seed_that_trains_is_the_one_that_dvc_records(text: str, seed: int, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"seed: {text}\ndatasets: {{}}\n")
    assert read_params(tmp_path).seed == seed == load_yaml(str(tmp_path / "params.yaml"))["seed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\ndatasets: {}\nseed: 2\n", 'line 3 is not valid YAML, found duplicate key "seed"'),
        ("datasets: {a: {kind: text, kind: poems}}\n", 'found duplicate key "kind" with value "poems"'),
        ("seed: 2026-99-99\n", "month must be in 1..12"),
        ("seed: !!int x\n", "invalid literal for int"),
        ("seed: !!bool 3\n", "'3'"),
        ("seed: *other\n", "found undefined alias"),
        ("seed: 1\n---\nseed: 2\n", "line 2"),
    ],
)
def test_what_has_no_single_reading_is_one_line_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        read_params(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path / "params.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes("seed: 1 # Größe\n".encode("latin-1"))
    with pytest.raises(BadInput, match="not valid UTF-8"):
        read_params(tmp_path)


def test_our_own_parameters_have_one_reading_in_both_dialects() -> None:
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    assert repr(parse(text, "params.yaml")) == repr(yaml.safe_load(text))


def same(first: Any, second: Any) -> bool:
    """Equal, and 1 is neither 1.0 nor true."""
    return json.dumps(first) == json.dumps(second)


TEXTS = st.one_of(st.sampled_from(DIFFERING), st.text())
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)


@given(st.dictionaries(TEXTS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=3))
def test_what_we_write_is_read_alike_by_every_reader(values: dict[str, Any]) -> None:
    text = dump({"block": values})
    assert same(parse(text, "here"), {"block": values})
    assert same(yaml.safe_load(text), {"block": values})


def test_values_that_dvc_takes_for_equal_make_the_same_parameters() -> None:
    solvers = {"nll": {"lr": 1}}
    first, *others = (
        Training.model_validate(
            {"batch_size": 8, "steps": one, "network": {"width": one, "shape": [one]}, "solvers": solvers}
        ).model_dump_json()
        for one in (1, 1.0, True)
    )
    assert {first} == {*others}
    assert '"width":1,' in first
