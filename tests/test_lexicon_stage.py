"""Lexicons of params.yaml: found in data sets by a stage of the pipeline, compared, counted with, and shown in the report."""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genpipe import yaml_text
from genpipe.cli import main
from genpipe.discovery import words
from genpipe.errors import BadInput
from genpipe.graph import read_plan
from genpipe.params.lexicons import Lexicon
from genpipe.params.project import check_params, read_params
from genpipe.report.page import write_report
from tests.repository import make_repository

PROJECT = Path(__file__).resolve().parents[1]
BLOCK = {"dataset": "poems", "files": ["train.jsonl"], "known": "artifacts/none", "beside": "none"}
QUICK = {
    "method": "solidity",
    "order": 2,
    "thresholds": [0.5],
    "min_count": 2,
    "examples": 1,
    "shard_bytes": 4000,
}


def params(**lexicons: dict[str, Any]) -> dict[str, Any]:
    return {
        "cluster": {"workers": 0, "executor": "local"},
        "datasets": {
            name: {"kind": "records", "source": f"data/{name}.jsonl", "test_share": 0.1}
            for name in ("poems", "news")
        },
        "corpora": {
            "poems": {
                "dataset": "poems",
                "files": ["train.jsonl"],
                "tokenizer": "lexicon",
                "tokenizer_file": "artifacts/lexicons/poems/lexicon.tsv",
            }
        },
        "encodings": {},
        "features": {},
        "lexicons": lexicons,
        "recipes": {},
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two texts of random words; 天地 is in both."""
    generator = random.Random(4)
    for name, known in (("poems", ["天地", "春風", "江", "月"]), ("news", ["天地", "經濟", "江", "月"])):
        lines = ["".join(generator.choices(known, k=8)) for _ in range(400)]
        (tmp_path / "data").mkdir(exist_ok=True)
        text = "".join(json.dumps({"text": line}) + "\n" for line in lines)
        (tmp_path / f"data/{name}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "data/known.tsv").write_text("天地\n春風\n江月\n", encoding="utf-8")
    blocks = {
        "poems": {**BLOCK, **QUICK, "known": "data/known.tsv"},
        "news": {**BLOCK, **QUICK, "dataset": "news", "beside": "lexicons/poems"},
    }
    yaml_text_of = yaml_text.dump(params(**blocks))
    (tmp_path / "params.yaml").write_text(yaml_text_of, encoding="utf-8")
    return tmp_path


def run(root: Path, *command: str) -> int:
    return main(["--root", str(root), *command])


def test_the_stage_finds_the_words_of_a_data_set_and_compares_them(project, capsys):
    for name in ("poems", "news"):
        assert run(project, "prepare", name) == 0
        assert run(project, "discover", "--lexicon", name) == 0
    folder = project / "artifacts/lexicons"
    table = pl.read_csv(folder / "poems/words.tsv", separator="\t", quote_char=None)
    assert {"天地", "春風"} <= set(table["word"])
    about = json.loads((folder / "poems/statistics.json").read_bytes())
    assert about["recall"] == pytest.approx(2 / 3)
    assert 0 < about["precision"] <= 1
    assert (folder / "news/typical.tsv").read_text(encoding="utf-8").split() == ["word", "經濟"]
    assert not (folder / "poems/typical.tsv").exists()
    # what was found is a tokenizer of the corpora
    assert run(project, "count", "--corpus", "poems") == 0
    counted = pl.read_parquet(project / "artifacts/counts/poems/counts.parquet")
    assert {"天地", "春風"} <= set(counted["token"])
    assert "precision against" in capsys.readouterr().out


def test_the_same_bytes_on_any_number_of_workers(project):
    assert run(project, "prepare", "poems") == 0
    found = []
    for workers in ("0", "2"):
        assert run(project, "discover", "--lexicon", "poems", "--workers", workers) == 0
        folder = project / "artifacts/lexicons/poems"
        found.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert found[0] == found[1]


def test_what_is_counted_with_found_words_and_what_stands_beside_them_waits_for_them(project):
    make_repository(project)
    shutil.copy(PROJECT / "dvc.yaml", project)
    upstream = {stage.name: set(stage.upstream) for stage in read_plan(project).stages}
    assert {"prepare@poems", "code"} <= upstream["discover@poems"]
    assert "discover@poems" in upstream["count@poems"]
    assert {"prepare@news", "discover@poems"} <= upstream["discover@news"]


def test_the_report_shows_words_by_count_and_by_evidence(project):
    write_report(project, read_params(project))
    page = project / "artifacts/report/index.html"
    assert "dvc repro discover@poems" in page.read_text(encoding="utf-8")
    for name in ("poems", "news"):
        run(project, "prepare", name)
        run(project, "discover", "--lexicon", name)
    write_report(project, read_params(project))
    shown = page.read_text(encoding="utf-8")
    poems, news = shown.split('<section id="lexicon-')[1:]
    assert "dvc repro discover@" not in shown
    assert "66.7 %" in poems
    for title in ("Most frequent words found", "Words with the strongest evidence"):
        assert poems.count(title) == 1
    assert "[春風]" in poems
    strongest = poems.split("Words with the strongest evidence")[1]
    evidence = [
        float(cell)
        for cell in re.findall(r"<tr><td[^>]*>[^<]*</td><td[^>]*>[^<]*</td><td[^>]*>([^<]*)</td>", strongest)
    ]
    assert len(evidence) > 1
    assert evidence == sorted(evidence, reverse=True)
    assert "Typical of this text beside poems" in news
    assert "經濟" in news


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ([], "discover needs either files or --lexicon NAME"),
        (["--lexicon", "poems", "a.txt"], "discover needs either files or --lexicon NAME"),
        (["--lexicon", "odes"], "no 'odes' in lexicons of params.yaml; it has: poems, news"),
        (["--lexicon", "poems", "--order", "3"], "--order: not valid beside --lexicon poems"),
        (["--lexicon", "poems", "--out", "words"], "--out: not valid beside --lexicon poems"),
        (["--lexicon", "poems"], "make it first: genpipe prepare poems"),
    ],
)
def test_a_wrong_command_is_one_line(project, capsys, command, line):
    assert run(project, "discover", *command) == 2
    errors = capsys.readouterr().err
    assert line in errors
    assert errors.count("\n") == 1
    assert not (project / "artifacts/lexicons").exists()


def test_a_lexicon_beside_one_that_is_not_there_is_refused(project, capsys):
    assert run(project, "prepare", "news") == 0
    capsys.readouterr()
    assert run(project, "discover", "--lexicon", "news") == 2
    assert "make it first: genpipe discover --lexicon poems" in capsys.readouterr().err


def test_a_file_that_the_data_set_lacks_is_named(project, capsys):
    assert run(project, "prepare", "poems") == 0
    values = params(poems={**BLOCK, **QUICK, "files": ["all.jsonl"]})
    (project / "params.yaml").write_text(yaml_text.dump(values), encoding="utf-8")
    capsys.readouterr()
    assert run(project, "discover", "--lexicon", "poems") == 2
    line = "correct lexicons.poems.files: the data set has test.jsonl, train.jsonl"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"dataset": "odes"}, "lexicons.poems.dataset: no data set 'odes' (has: poems, news)"),
        ({"files": ["../up.jsonl"]}, "lexicons.poems: a file is named below its data set"),
        (
            {"beside": "lexicons/odes"},
            "lexicons.poems.beside: no 'lexicons/odes' (has: none, lexicons/poems)",
        ),
        ({"beside": "lexicons/poems"}, "lexicons.poems.beside: it would need itself: poems ← poems"),
        ({"method": "entropy", "order": 3}, "lexicons.poems: order: not an option of the method entropy"),
        (
            {"method": "solidity", "freedom": 1},
            "lexicons.poems: freedom: not an option of the method solidity",
        ),
        ({"min_pmi": 1}, "lexicons.poems: min_pmi: not an option of the method combined"),
        ({"order": 7}, "lexicons.poems.order: Input should be less than or equal to 6"),
        ({"thresholds": [1, -1]}, "lexicons.poems.thresholds.1: Input should be greater than or equal to 0"),
        ({"words": 3}, "lexicons.poems.words: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_block_is_one_line_that_names_it(change, line):
    with pytest.raises(BadInput) as error:
        check_params(params(poems={**BLOCK, **change}))
    assert line in str(error.value)


def test_too_few_thresholds_are_refused_before_anything_is_counted(project, capsys):
    assert run(project, "prepare", "poems") == 0
    values = params(poems={**BLOCK, "thresholds": [1.0]})
    (project / "params.yaml").write_text(yaml_text.dump(values), encoding="utf-8")
    capsys.readouterr()
    assert run(project, "discover", "--lexicon", "poems") == 2
    assert "thresholds: 1 given, and n-grams of 2 to 4 units need 3" in capsys.readouterr().err
    assert not (project / ".genpipe/counts").exists()


def test_a_block_has_the_defaults_of_the_command():
    block = Lexicon.model_validate(BLOCK)
    settings = words.Settings()
    for name, value in vars(settings).items():
        assert getattr(block, name) == value
    assert block.shard_bytes == words.USUAL_SHARD
