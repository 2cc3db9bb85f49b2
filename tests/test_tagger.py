"""The words of a trained tagger as a tokenizer: those of the model itself, the same beside any text, counted the same by any number of workers."""

import importlib.metadata
import math
import random
import shutil
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import genpipe
from genpipe import cli
from genpipe.assembly import build
from genpipe.corpus import tagger as tagger_module
from genpipe.corpus.tagger import FINE, STEEP, Tagger, read_definition
from genpipe.corpus.tokenizers import tokenizer
from genpipe.errors import BadInput, BadState
from genpipe.files import hash_of, read_json, sha256, write_json
from genpipe.nn.crf import FORBIDDEN
from tests import tiny
from tests.test_segmented import words_data

CHARACTERS = "".join(tiny.TOKENS[2:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A trained tagger: the first two characters of three are a word, and the third is one."""
    root = tmp_path_factory.mktemp("project")
    words_data(root)
    block = tiny.block("crf_tagger", steps=60) | {"data": "encoded/words", "judge": "none"}
    params = {"cluster": {"workers": 0}, "datasets": {"tiny": {"kind": "text", "source": "data"}}}
    write_json(root / "params.yaml", params | {"recipes": {"crf_tagger": block}})
    assert cli.main(["--root", str(root), "train", "crf_tagger"]) == 0
    return root / "artifacts/models/crf_tagger"


@pytest.fixture(scope="module")
def wild(folder, tmp_path_factory) -> Path:
    """A tagger with random weights that are large, so that tags of all kinds appear."""
    copy = tmp_path_factory.mktemp("wild") / "tagger"
    shutil.copytree(folder, copy)
    torch.manual_seed(3)
    weights = load_file(copy / "weights.safetensors")
    save_file(
        {
            name: torch.randn(tensor.shape) * (0.5 if tensor.dim() > 1 else 0.2)
            for name, tensor in weights.items()
        },
        copy / "weights.safetensors",
    )
    return copy


def texts(num: int, longest: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(CHARACTERS + "xé", k=draw.randint(1, longest))) for _ in range(num)]


def tagger_of(folder: Path) -> Tagger:
    return Tagger(read_definition(folder))


def recipe_of(folder: Path):
    """The model by torch, in double precision."""
    facts, card = read_json(folder / "data.json")["facts"], read_json(folder / "recipe.json")
    recipe = build("crf_tagger", card["train"]["network"], facts, 0)
    recipe.load_state_dict(load_file(folder / "weights.safetensors"))
    return recipe.double().eval()


def test_words_are_those_of_the_model(folder):
    lines = ["天地日", "山水花", "月"]
    cut = tokenizer("tagged", file=folder)
    assert [" ".join(words) for words in cut.split_all(lines)] == genpipe.answer(folder, lines)
    assert cut.split("天地日 山水花\n\n花鳥春") == ["天地", "日", "山水", "花", "花鳥", "春"]
    assert cut.split("") == cut.split(" \n") == []


@pytest.mark.parametrize("longest", [1, 30])
def test_scores_and_tags_are_those_of_torch(wild, longest):
    """Of the model in double precision, up to the rounding of weights and values; tags where no other path is as good."""
    mine, recipe = tagger_of(wild), recipe_of(wild)
    numbers = {token: number for number, token in enumerate(tiny.TOKENS)}
    runs = texts(60, longest)
    for run, scores, tags in zip(runs, mine.scores(runs), mine.tags(runs), strict=True):
        ids, lengths = torch.tensor([[numbers.get(c, 0) for c in run]]), torch.tensor([len(run)])
        with torch.no_grad():
            found = recipe._emissions({"ids": ids, "lengths": lengths})
            best = recipe.chain.max_marginals(found, lengths)[0]
        np.testing.assert_allclose(scores, found[0].numpy(), rtol=2e-3, atol=200 * FINE)
        two = best.topk(2, dim=-1).values
        if (two[:, 0] - two[:, 1]).min() > 0.3:
            assert tags == best.argmax(-1).tolist()
    assert len({tag for tags in mine.tags(runs) for tag in tags}) == 4


def test_the_path_is_the_best_of_all_paths(wild):
    """Beside a look at all paths, whose sums are exact too."""
    mine = tagger_of(wild)
    runs = texts(20, 6, seed=1)
    for scores, tags in zip(mine.scores(runs), mine.tags(runs), strict=True):

        def total(path, scores=scores):
            steps = sum(mine._steps[i, j] for i, j in pairwise(path))
            return mine._start[path[0]] + sum(scores[range(len(path)), path]) + steps + mine._end[path[-1]]

        assert total(tags) == max(total(path) for path in product(range(4), repeat=len(scores)))
        assert all(mine._steps[i, j] > FORBIDDEN for i, j in pairwise(tags))


def test_of_two_equal_paths_one_rule_decides(folder, tmp_path):
    """All scores are 0: each tag is the first, seen from the end, that may come before the next."""
    copy = tmp_path / "tagger"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "weights.safetensors")
    save_file(
        {name: torch.zeros_like(tensor) for name, tensor in weights.items()}, copy / "weights.safetensors"
    )
    assert tagger_of(copy).tags(["天地日月", "天"]) == [[1, 0, 1, 0], [0]]  # E B E B


def test_bits_do_not_depend_on_what_stands_beside_a_text(wild, monkeypatch):
    """Alone, in another order, in blocks of another size and across them: the very same numbers."""
    mine = tagger_of(wild)
    runs = [*texts(150, 40), *texts(3, 1500, seed=2)]
    alone = [mine.scores([run])[0] for run in runs]
    for seed, rows in enumerate((tagger_module.ROWS, 64, 100, 4000)):
        monkeypatch.setattr(tagger_module, "ROWS", rows)
        order = random.Random(seed).sample(range(len(runs)), len(runs))
        for place, scores in zip(order, mine.scores([runs[i] for i in order]), strict=True):
            assert np.array_equal(scores, alone[place])


def test_sums_of_the_largest_values_are_exact():
    """All bits that a value and a weight may have, and no cancellation."""
    draw = np.random.default_rng(0)
    values = tagger_module._rounded(draw.uniform(256, 512, (64, 384)))
    layer = tagger_module._matrix(draw.uniform(0.5, 1, (384, 32)), np.zeros(32))
    parts = np.stack([values[:, i : i + 1] * layer[0][i] for i in range(384)])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(384)
        assert np.array_equal(np.add.accumulate(parts[order])[-1], tagger_module._product(values, layer))


def test_the_best_path_of_a_long_text_is_exact(wild):
    """What is added to all tags of a place changes no path, though differences are in the last bits and sums grow with the text."""
    mine = tagger_of(wild)
    mine._start = mine._end = np.zeros(4)
    mine._steps = np.where(mine._steps > FORBIDDEN, 0.0, FORBIDDEN)
    scores = np.random.default_rng(0).integers(0, 8, (2000, 4)) * 2.0**-31
    assert mine._best(scores + 2.0**20) == mine._best(scores)


def test_what_makes_sums_exact_is_needed(wild, monkeypatch):
    """A control: without rounding, the sums of this size depend on the place of a row, or this test would prove nothing."""
    draw = np.random.default_rng(0)
    values, weights = draw.normal(size=(512, 384)), draw.normal(size=(384, 256))
    rounded = tagger_module._rounded(values.copy())
    layer = tagger_module._matrix(weights, np.zeros(256))
    exact = np.stack([(rounded[:, i : i + 1] * layer[0][i]) for i in range(384)])
    assert np.array_equal(tagger_module._product(rounded, layer), exact.sum(0))
    assert np.array_equal(exact.sum(0), exact[::-1].sum(0))
    plain = np.stack([(values[:, i : i + 1] * weights[i]) for i in range(384)])
    assert not np.array_equal(plain.sum(0), plain[::-1].sum(0))


def test_no_entry_of_the_table_is_near_a_tie():
    """Else another library's exponential could round it the other way."""
    steps = np.arange(-round(12 / FINE), round(12 / FINE) + 1)
    share = 1 / (1 + np.exp(-steps * FINE)) / FINE
    assert np.abs(share % 1 - 0.5).min() > 1e-10  # of a double, whose last bit is worth 2e-12 here
    assert np.array_equal(tagger_module._table(), np.rint(share) * FINE)


def count(root: Path, folder: Path, workers: int, *names: object) -> str:
    out = root / f"counts-{workers}.parquet"
    words = ["--tokenizer", "tagged", "--tokenizer-file", folder, "--shard-bytes", 3000, "--out", out]
    command = ["--root", root, "count", *names, *words, "--workers", workers, "--executor", "local"]
    assert cli.main([str(word) for word in command]) == 0
    return sha256(out)


def test_counts_are_the_same_on_any_number_of_workers(wild, tmp_path):
    lines = [f"{a} {b}" for a, b in pairwise(texts(400, 30))]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    found = set()
    for workers in (0, 1, 2):
        shutil.rmtree(tmp_path / ".genpipe", ignore_errors=True)
        found.add(count(tmp_path, wild, workers, tmp_path / "lines.txt"))
    assert len(found) == 1


def test_a_corpus_names_the_folder_of_a_tagger(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "artifacts/models/tagger")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("天地日\n花鳥春\n", encoding="utf-8")
    corpus = {"dataset": "own", "files": ["documents.jsonl"], "tokenizer": "tagged"}
    params = {
        "seed": 1,
        "cluster": {"workers": 0},
        "datasets": {"own": {"kind": "text", "source": "data"}},
        "corpora": {"own": {**corpus, "tokenizer_file": "artifacts/models/tagger"}},
        "recipes": {},
    }
    write_json(tmp_path / "params.yaml", params)
    for words in (("prepare", "own"), ("count", "--corpus", "own"), ("vocabulary", "own")):
        assert cli.main(["--root", str(tmp_path), *words]) == 0, capsys.readouterr().err
    words = read_json(tmp_path / "artifacts/vocabularies/own/vocabulary.json")
    assert sorted(words[1:]) == sorted(["天地", "日", "花鳥", "春"])
    noted = read_json(tmp_path / "artifacts/counts/own/tokenizer_file.json")
    assert noted == {"sha256": read_definition(folder).sha256}
    params["encodings"] = {
        "own": {"dataset": "own", "corpus": "own", "kind": "stream", "fields": {"text": "text"}}
    }
    write_json(tmp_path / "params.yaml", params)
    assert cli.main(["--root", str(tmp_path), "encode", "own"]) == 2
    assert "encodings.own.corpus: own has the tokenizer tagged, by which" in capsys.readouterr().err


def test_no_rounding_of_exponentials_changes_the_table():
    """No value is so near to the middle between two multiples that another library's last bits would round it otherwise."""
    steps = round(STEEP / FINE)
    values = [1 / (1 + math.exp(-number * FINE)) / FINE for number in range(-steps, steps + 1)]
    assert min(abs(value % 1 - 0.5) for value in values) > 100 * math.ulp(1 / FINE)


def test_the_version_names_the_weights_and_the_vocabulary(folder, wild, tmp_path):
    other = tmp_path / "tagger"
    shutil.copytree(folder, other)
    assert tokenizer("tagged", file=other).version == tokenizer("tagged", file=folder).version
    words = read_json(other / "vocabulary.json")
    write_json(other / "vocabulary.json", [*words[:-1], "新"])
    assert len({tokenizer("tagged", file=each).version for each in (folder, wild, other)}) == 3


def test_the_version_names_no_library_that_rounds(folder, monkeypatch):
    """Sums are exact, so words counted with one NumPy are those of another."""
    before = tokenizer("tagged", file=folder).version
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99")
    assert tokenizer("tagged", file=folder).version == before


def changed(name: str, **values):
    def change(copy: Path) -> None:
        write_json(copy / name, {**read_json(copy / name), **values})

    return change


def tear(copy: Path) -> None:
    (copy / "weights.safetensors").write_bytes((copy / "weights.safetensors").read_bytes()[:-9])


@pytest.mark.parametrize(
    ("change", "kind", "line"),
    [
        (
            lambda copy: (copy / "recipe.json").unlink(),
            BadInput,
            "recipe.json: no such file; name the folder of",
        ),
        (
            changed("recipe.json", model="similarity"),
            BadInput,
            "a model similarity, and words come from a crf_tagger",
        ),
        (changed("data.json", facts={}), BadInput, "its tags are None, and words are marked by B, E, M, S"),
        (
            changed("codec.json", tokenizer="word"),
            BadInput,
            "it tags tokens of the tokenizer word, and words are made",
        ),
        (tear, BadState, "weights.safetensors has not the weights of a crf_tagger"),
        (
            lambda copy: save_file({"a": torch.ones(1)}, copy / "weights.safetensors"),
            BadState,
            "has not the weights of",
        ),
    ],
)
def test_a_folder_that_is_no_tagger_is_refused(folder, tmp_path, change, kind, line, capsys):
    copy = tmp_path / "tagger"
    shutil.copytree(folder, copy)
    change(copy)
    with pytest.raises(kind, match=line):
        tokenizer("tagged", file=copy)
    (tmp_path / "a.txt").write_text("天地\n", encoding="utf-8")
    before = hash_of([tmp_path], tmp_path)
    words = [
        "count",
        tmp_path / "a.txt",
        "--tokenizer",
        "tagged",
        "--tokenizer-file",
        copy,
        "--out",
        tmp_path / "c",
    ]
    assert cli.main([str(word) for word in ["--root", tmp_path, *words]]) == 2
    assert hash_of([tmp_path], tmp_path) == before
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(BadInput, match=r"no such file; name the folder of a trained crf_tagger"):
        tokenizer("tagged", file=tmp_path / "a.json")


def test_counting_by_a_tagger_loads_no_torch(folder, tmp_path):
    import subprocess

    code = (
        "import sys; from pathlib import Path; from genpipe.corpus.tokenizers import tokenizer; "
        "tokenizer('tagged', file=Path(sys.argv[1])).split('天地'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 0
