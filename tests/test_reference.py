"""A recipe of each kind of data, added to a project as a person adds one, through all its stages; and how their texts are decoded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genpipe.data.loader import Data
from genpipe.errors import BadInput
from genpipe.evaluation.judge import Trial, judged
from genpipe.evaluation.judges import JUDGES
from genpipe.metrics import explained, find
from genpipe.report.metrics import rows
from genpipe.sampling import decoding
from genpipe.sampling.draw import conditions, draw
from genpipe.sampling.panels import Showing, show_all
from genpipe.sampling.text import marks_of, speller_in
from tests import tiny
from tests.reference import PARAMS, REFERENCE, registered
from tests.reference.project import commands_of, run_commands

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")
TONES = "character\ttone\tcount\tshare\n天\t平\t3\t1.0\n地\t仄\t3\t1.0\n"


@pytest.mark.parametrize("name", REFERENCE)
def test_a_recipe_of_each_kind_goes_from_raw_data_to_the_report(name, reference_project):
    """With no edit outside its file, its row and its blocks."""
    root, results = reference_project
    row, block = REFERENCE[name], PARAMS["recipes"][name]
    _, _, data = block["data"].partition("/")
    needed = {data, PARAMS["encodings"].get(data, {}).get("dataset"), name, "report"}
    mine = {words: result for words, result in results.items() if words[-1] in needed}
    assert {"prepare", "train", "sample", "evaluate", "report"} <= {words[0] for words in mine}
    for words, (status, said) in mine.items():
        assert status == 0, (words, said)
    assert json.loads((root / "artifacts" / block["data"] / "data.json").read_text())["kind"] == row.kind
    panels = json.loads((root / f"artifacts/samples/{name}/panels.json").read_text())
    metrics = json.loads((root / f"artifacts/metrics/{name}.json").read_text())
    assert panels[0]["file"] == row.panel
    assert row.metric in metrics
    assert all(find(key) for key in metrics)
    page = (root / "artifacts/report/index.html").read_text()
    assert all(panel["caption"] in page for panel in panels)
    assert find(row.metric).label in page


def test_the_stages_are_those_of_the_graph_and_none_is_left_out(reference_project):
    root, results = reference_project
    assert set(results) == set(commands_of(root))
    # captions need a trained model before their data is made: tests/test_captions.py runs their stages
    kinds = {*map(tiny.kind_of, [*tiny.BLOCKS, *tiny.VARIANTS])} - {"captions"}
    assert {row.kind for row in REFERENCE.values()} == kinds


def test_the_panel_of_tags_has_their_names(reference_project):
    root, _ = reference_project
    facts = json.loads((root / "artifacts/models/tagger/data.json").read_text())["facts"]
    lines = (root / "artifacts/samples/tagger/tags.tsv").read_text().splitlines()[1:]
    shown = {tag for line in lines for column in line.split("\t")[1:] for tag in column.split()}
    assert shown
    assert shown <= {*facts["classes"]}


def test_an_unknown_sampling_option_is_one_line_and_leaves_nothing(reference_project):
    root, _ = reference_project
    path = root / "params.yaml"
    written = path.read_text()
    before = sorted((root / "artifacts/samples").iterdir())
    path.write_text(written.replace("scale: 0.5", "scal: 0.5"))
    words = ("sample", "conditional_vae")
    try:
        status, said = run_commands(root, [words])[words]
    finally:
        path.write_text(written)
    assert status == 2
    assert "sample.how.scal: not an option of ConditionalVAE.sample; its options: scale" in said
    assert sorted((root / "artifacts/samples").iterdir()) == before


def model_and_data(name: str, root: Path) -> tuple[Any, Data]:
    """An untrained model, whose capabilities follow from its name, and its data."""
    data = tiny.data_for(name, root)
    return tiny.recipe_of(name, data).eval(), data


def test_every_judge_writes_only_metrics_of_the_table(tmp_path):
    """Each judge measures a model that it fits; every metric has a place in the report, and words where it has a row."""
    used = set()
    for name in tiny.MODELS:
        model, data = model_and_data(name, tmp_path / name)
        kind, how = tiny.kind_of(name), tiny.how_of(name)
        (data.directory / "tones.tsv").write_text(TONES)
        speller = speller_in(data.directory)
        show_all(Showing(model, speller, tmp_path / name, data, kind, num=24, seed=0, how=how))
        yardstick: Any = tiny.recipe_of("classifier", data).eval() if kind == "images" else None
        trial = Trial(
            model, data, kind, "test", tmp_path / name, lambda judge=yardstick: judge, speller, 0, how=how
        )
        for split in set(data.splits) - {"train"}:
            metrics = judged(replace(trial, split=split), JUDGES, name)
            assert [key for key in metrics if find(key) is None] == []
            assert [key for key in metrics if explained(key).label == key] == []
            assert [row.label for row in rows(metrics) if not row.explanation] == []
        used |= {judge for judge in JUDGES if judge.fits(trial)}
    assert used == set(JUDGES)


def test_a_condition_that_is_missing_or_not_taken_is_one_line(tmp_path):
    for name, given, words in (
        ("conditional_vae", {}, "takes the condition 'labels', which is missing"),
        ("plane_flow", {"labels": torch.zeros(3)}, "does not take the condition 'labels'; it takes: none"),
    ):
        model, _ = model_and_data(name, tmp_path)
        with pytest.raises(BadInput, match=words):
            draw(model, 3, 0, given)


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_a_decoded_text_has_no_mark_in_it_and_nothing_after_its_end(method, tmp_path):
    model, data = model_and_data("translator", tmp_path)
    marks, given = marks_of(data.facts, "pairs"), conditions(model, data, 5)
    with torch.no_grad():
        made = decoding.write(model, 5, given, marks, method, 8)
    for row, length in zip(made["ids"], made["lengths"].tolist(), strict=True):
        assert not set(row[:length].tolist()) & {*marks.opening, marks.end, marks.pad}
        assert set(row[length:].tolist()) <= {marks.pad}


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_a_text_of_a_stream_begins_after_the_end_of_another(method, tmp_path):
    """Windows begin anywhere in a document, so after `<s>` alone a model would go on in the middle of one."""
    model, data = model_and_data("stream_model", tmp_path)
    fed = []
    step = model.next
    model.next = lambda ids, state: (fed.append(ids.clone()), step(ids, state))[1]
    with torch.no_grad():
        decoding.write(model, 3, {}, marks_of(data.facts, "stream"), method, 4)
    first, second = fed[:2]
    assert set(first.tolist()) == {data.facts["start"]}
    assert set(second.tolist()) == {data.facts["end"]}
    assert marks_of(data.facts, "pairs").opening == (data.facts["start"],)


def test_a_beam_of_one_is_greedy_and_a_full_beam_finds_the_most_likely_text(tmp_path):
    model, data = model_and_data("translator", tmp_path)
    marks, given = marks_of(data.facts, "pairs"), conditions(model, data, 5)

    def score(ids):
        state, newest, total = model.begin(given, 5), torch.full((5,), marks.opening[0]), torch.zeros(5)
        over = torch.zeros(5, dtype=torch.bool)
        for column in ids.T:
            logits, state = model.next(newest, state)
            newest = column.where(column != marks.pad, torch.tensor(marks.end))
            gain = decoding.without(logits, marks).log_softmax(-1).gather(1, newest.unsqueeze(1)).squeeze(1)
            total = total + gain.masked_fill(over, 0)
            over = over | (newest == marks.end)
        return total

    with torch.no_grad():
        greedy, one, wide = (
            decoding.write(model, 5, given, marks, method, 2, beam=beam)["ids"]
            for method, beam in (("greedy", 1), ("beam", 1), ("beam", 15))
        )
        assert torch.equal(greedy, one)
        assert (score(wide) >= score(greedy) - 1e-6).all()
