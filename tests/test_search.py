"""Folders of embedded sentences: what they hold, that nothing but sentences and model decides it, and who is near to whom."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

import genpipe
from benchmarks import search as benchmark
from genpipe.cli import main
from genpipe.errors import BadInput
from genpipe.files import hash_of, read_json, sha256, write_json
from genpipe.models.similarity import Similarity
from genpipe.training.checkpoint import save_weights
from genpipe.using import nearest
from genpipe.using.model import opened
from genpipe.using.outputs import CARD, GRAPH, GRAPH_CARD, SENTENCES, VECTORS
from genpipe.using.sentences import ROWS, embedded, vectors_of
from tests import tiny

CHARACTERS = tiny.TOKENS[2:]


def write_model(directory: Path, **network) -> Path:
    """A model with random weights, as a training leaves it."""
    facts = tiny.token_facts(num_groups=6, max_length=5)
    torch.manual_seed(0)
    directory.mkdir(parents=True)
    save_weights(
        Similarity(facts["num_tokens"], 6, 5, **network).state_dict(), directory / "weights.safetensors"
    )
    card = {"recipe": "own", "model": "similarity", "train": {"network": network}}
    write_json(directory / "recipe.json", card)
    write_json(directory / "data.json", {"kind": "groups", "splits": ["train", "test"], "facts": facts})
    write_json(directory / "vocabulary.json", tiny.TOKENS)
    write_json(directory / "codec.json", {"tokenizer": "char", "normalise": [], "tokenizer_file": None})
    return directory


def test_recall_is_the_share_of_the_right_places_that_are_found():
    right = [np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8])]
    assert benchmark.recall_of([row[::-1] for row in right], right) == 1
    assert benchmark.recall_of([np.array([4, 9, 10, 11]), np.array([8, 7, 1, 5])], right) == 4 / 8


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "gru", loss="info_nce", dim=16)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> Path:
    network = {"loss": "info_nce", "dim": 16, "encoder": "transformer", "num_blocks": 1, "num_heads": 2}
    return write_model(tmp_path_factory.mktemp("models") / "transformer", **network)


def texts(num: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Distinct texts of known characters."""
    draw = np.random.default_rng(seed)
    found = {"".join(draw.choice(CHARACTERS, draw.integers(1, longest + 1))) for _ in range(2 * num)}
    return sorted(found, key=hash_text)[:num]


def hash_text(text: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % 1_000_003


def embed(*words: object) -> None:
    assert main(["embed", *map(str, words)]) == 0


def search(capsys, *words: object) -> list[str]:
    capsys.readouterr()
    assert main(["search", *map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def sentences_in(folder: Path) -> list[str]:
    return [
        json.loads(line)["text"] for line in (folder / SENTENCES).read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize("kind", ["model", "transformer"])
def test_vectors_are_the_features_of_the_model(kind, request, tmp_path):
    """Of each sentence alone, at length 1, by the model itself in double precision."""
    where, lines = request.getfixturevalue(kind), texts(70, longest=5)
    embed(where, write(tmp_path / "a.txt", lines), "--out", tmp_path / "out")
    vectors = load_file(tmp_path / "out" / VECTORS)["vectors"]
    assert sentences_in(tmp_path / "out") == lines
    recipe = genpipe.load(where).double()
    for text, vector in zip(lines, vectors, strict=True):
        ids = torch.tensor([[tiny.TOKENS.index(c) for c in text]])
        with torch.no_grad():
            (alone,) = recipe.embed({"ids": ids, "lengths": torch.tensor([len(text)])})
        np.testing.assert_allclose(vector, alone.numpy(), atol=2e-6)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("kind", ["model", "transformer"])
def test_bits_do_not_depend_on_what_stands_beside_a_sentence(kind, request):
    using, lines = opened(request.getfixturevalue(kind)), texts(3 * ROWS, longest=5)
    together = vectors_of(using, lines)
    assert torch.equal(vectors_of(using, lines[::-1]), together.flip(0))
    assert all(
        torch.equal(vectors_of(using, [text])[0], row) for text, row in zip(lines, together, strict=True)
    )


def test_the_same_sentences_give_the_same_bytes_and_known_ones_are_not_embedded_again(
    model, tmp_path, monkeypatch, capsys
):
    first, more = texts(60), texts(90)
    a, b = write(tmp_path / "a.txt", first), write(tmp_path / "b.txt", more)
    embed(model, b, "--out", tmp_path / "at_once")
    embed(model, a, "--out", tmp_path / "grown")
    rows = []
    before = Similarity.embed
    monkeypatch.setattr(Similarity, "embed", lambda self, x: rows.append(len(x["ids"])) or before(self, x))
    embed(model, b, "--out", tmp_path / "grown")
    assert 0 < sum(rows) < len(more) + ROWS * 3
    rows.clear()
    embed(model, b, "--out", tmp_path / "grown")
    assert rows == []
    assert hash_of([tmp_path / "grown"], tmp_path / "grown") == hash_of(
        [tmp_path / "at_once"], tmp_path / "at_once"
    )
    (tmp_path / "grown" / VECTORS).write_bytes(b"damaged")
    embed(model, b, "--out", tmp_path / "grown")
    assert sum(rows) > 0
    assert sha256(tmp_path / "grown" / VECTORS) == sha256(tmp_path / "at_once" / VECTORS)


def test_vectors_of_another_model_are_not_kept(model, transformer, tmp_path):
    """The folder holds the new model, and the vectors by it."""
    lines = write(tmp_path / "a.txt", texts(20))
    embed(model, lines, "--out", tmp_path / "out")
    embed(transformer, lines, "--out", tmp_path / "out")
    embed(transformer, lines, "--out", tmp_path / "new")
    assert hash_of([tmp_path / "out"], tmp_path / "out") == hash_of([tmp_path / "new"], tmp_path / "new")


def test_files_of_each_kind_and_standard_input_are_read(model, tmp_path, monkeypatch):
    lines = texts(20)
    write(tmp_path / "a.txt", [f"  {line} " for line in lines] + [""])
    write(tmp_path / "b.jsonl", [json.dumps({"verse": line}) for line in lines])
    pl.DataFrame({"verse": lines}).write_parquet(tmp_path / "c.parquet")
    made = {}
    for name, more in (("a.txt", ()), ("b.jsonl", ("--field", "verse")), ("c.parquet", ("--field", "verse"))):
        embed(model, tmp_path / name, *more, "--out", tmp_path / "out")
        made[name] = hash_of([tmp_path / "out"], tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    embed(model, "--out", tmp_path / "out")
    assert {*made.values(), hash_of([tmp_path / "out"], tmp_path / "out")} == {made["a.txt"]}


def test_what_is_left_out_is_counted(transformer, tmp_path, capsys):
    lines = ["天地", "地天", "天地", "xyz", "天地日月山水"]
    embed(transformer, write(tmp_path / "a.txt", lines), "--out", tmp_path / "out")
    said = capsys.readouterr().out
    card = read_json(tmp_path / "out" / CARD)
    assert sentences_in(tmp_path / "out") == ["天地", "地天", "天地日月山水"]
    counts = {key: card[key] for key in ("lines", "sentences", "without_a_known_token", "shortened", "dim")}
    assert counts == {"lines": 5, "sentences": 3, "without_a_known_token": 1, "shortened": 1, "dim": 16}
    for line in ("1 lines repeat an earlier one", "1 sentences have no token", "1 sentences are longer than"):
        assert line in said
    assert card["sha256"] == {name: sha256(tmp_path / "out" / name) for name in (SENTENCES, VECTORS)}
    (tmp_path / "out" / GRAPH).write_bytes(b"of another time")
    embed(transformer, tmp_path / "a.txt", "--out", tmp_path / "out")
    assert read_json(tmp_path / "out" / CARD) == card
    assert not (tmp_path / "out" / GRAPH).exists()


def test_the_nearest_sentence_to_one_of_the_folder_is_itself(model, tmp_path, capsys):
    lines = texts(50)
    embed(model, write(tmp_path / "a.txt", lines), "--out", tmp_path / "out")
    found = search(capsys, tmp_path / "out", lines[7], "--num", 3)
    assert found[0] == f"1.0000\t{lines[7]}"
    assert len(found) == 3
    several = search(capsys, tmp_path / "out", lines[7], lines[8], "--num", 2, "--exact")
    assert [line.split("\t")[0] for line in several] == [lines[7]] * 2 + [lines[8]] * 2
    assert several[2] == f"{lines[8]}\t1.0000\t{lines[8]}"
    index = genpipe.open_index(tmp_path / "out")
    assert [f"{cosine:.4f}\t{text}" for cosine, text in index.search([lines[7]], 3)[0]] == found
    # beside the search among inputs, which embeds them all
    assert search(capsys, model, lines[7], *lines, "--num", 3) == found


def test_python_embeds_as_the_command_does(model, tmp_path):
    path = write(tmp_path / "a.txt", texts(30))
    embed(model, path, "--out", tmp_path / "a")
    genpipe.embed(model, [path], tmp_path / "b")
    assert hash_of([tmp_path / "a"], tmp_path / "a") == hash_of([tmp_path / "b"], tmp_path / "b")


def unit(num: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_an_exact_search_is_that_of_sorting_all():
    vectors, queries = np.round(unit(300, 4) * 4) / 4, unit(20, 4, seed=1)  # many are as near as others
    cosines, places = nearest.exact(vectors, queries, 10)
    for query, mine, found in zip(queries, cosines, places, strict=True):
        right = sorted(range(300), key=lambda i: (-np.float32(vectors @ query)[i], i))[:10]
        assert found.tolist() == right
        assert np.array_equal(mine, (vectors @ query)[right])
    assert nearest.exact(vectors[:3], queries, 10)[1].shape == (20, 3)


def test_a_graph_is_built_the_same_again_and_finds_nearly_all(tmp_path):
    vectors, queries = unit(6000), unit(50, seed=1)
    graph = nearest.build(vectors)
    for name in "ab":
        (tmp_path / name).mkdir()
    graph.write(tmp_path / "a", "of")
    nearest.build(vectors).write(tmp_path / "b", "of")
    assert sha256(tmp_path / "a" / GRAPH) == sha256(tmp_path / "b" / GRAPH)
    right = nearest.exact(vectors, queries, 10)
    for one in (graph, nearest.opened(tmp_path / "a", vectors, "of")):
        cosines, places = one.nearest(queries, 10)
        hits = [len({*a} & {*b}) for a, b in zip(places.tolist(), right[1].tolist(), strict=True)]
        assert sum(hits) / 500 > 0.95
        for query, row, values in zip(queries, places, cosines, strict=True):
            np.testing.assert_allclose(values, vectors[row] @ query, atol=1e-6)
            assert (np.diff(values) <= 0).all()


def test_an_index_is_a_cache(model, tmp_path, monkeypatch, capsys):
    """Missing, damaged or of other settings: it is built again, and the answers are the same."""
    monkeypatch.setattr(nearest, "FEW", 10)
    monkeypatch.setattr("genpipe.using.embedding.nearest.FEW", 10)
    lines = texts(60)
    embed(model, write(tmp_path / "a.txt", lines), "--out", tmp_path / "out")
    whole = hash_of([tmp_path / "out"], tmp_path / "out")
    right = search(capsys, tmp_path / "out", lines[3])
    assert right == search(capsys, tmp_path / "out", lines[3], "--exact")
    graph = tmp_path / "out" / GRAPH
    for change in (
        graph.unlink,
        lambda: graph.write_bytes(graph.read_bytes()[:-5]),
        lambda: (tmp_path / "out" / GRAPH_CARD).write_text("[]"),
    ):
        change()
        capsys.readouterr()
        assert main(["search", str(tmp_path / "out"), lines[3]]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines() == right
        assert "out: the index is missing or does not fit; it is built again" in err
        assert hash_of([tmp_path / "out"], tmp_path / "out") == whole
    embed(model, tmp_path / "a.txt", "--out", tmp_path / "out")  # and kept where the vectors are the same
    assert "index" not in capsys.readouterr().err


def test_what_cannot_be_embedded_or_searched_is_one_line(model, tmp_path, refused, monkeypatch):
    path, out = write(tmp_path / "a.txt", texts(20)), tmp_path / "out"
    embed(model, path, "--out", out)
    write(tmp_path / "strange.txt", ["xyz", "abc"])
    write(tmp_path / "empty.txt", ["", " "])
    to = ("--out", tmp_path / "new")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    for words, line in (
        (("embed", model, *to), "standard input: not valid UTF-8 at byte 0; convert it first"),
        (("embed", model, tmp_path / "no.txt", *to), "no.txt: no such file or directory; name a .txt file"),
        (
            ("embed", model, tmp_path / "empty.txt", *to),
            "there is no sentence; name files with a sentence a line",
        ),
        (
            ("embed", model, tmp_path / "strange.txt", *to),
            "'xyz', and all others: no token of it is in the vocabulary",
        ),
        (("embed", out / "no", path, *to), "no such directory; name a recipe that is trained"),
        (("search", out, "xyz"), "'xyz': no token of it is in the vocabulary"),
        (("search", out, "天地", "--texts", path), "has its own sentences; leave it out, or name the model"),
        (
            ("search", model, "天地", "地天", "--exact"),
            "--exact: of use with a folder that genpipe embed wrote",
        ),
    ):
        assert line in refused(*words)
    (out / SENTENCES).write_bytes(b'{"text": "a"}\n')
    assert "sentences.jsonl: not what embedding.json describes: its SHA-256 differs" in refused(
        "search", out, "天"
    )


def test_a_folder_of_other_files_is_not_replaced(model, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("天地\n")
    with pytest.raises(SystemExit):
        main(["embed", str(model), str(tmp_path / "mine/notes.txt"), "--out", str(tmp_path / "mine")])
    assert "replacing it would delete notes.txt" in capsys.readouterr().err


def test_a_model_without_features_of_texts_is_refused(tmp_path):
    tiny_data = tiny.data_for("couplet", tmp_path)
    using = type("Using", (), {"recipe": tiny.recipe_of("couplet", tiny_data), "name": "Couplet"})()
    with pytest.raises(BadInput, match="has no features of texts"):
        embedded(using, ["天"], {})


def test_what_the_index_is_measured_against_sorts_all():
    vectors, queries = unit(500), unit(5, seed=1)
    for query in queries:
        right = np.argsort(-(vectors @ query), kind="stable")[: benchmark.NUM]
        assert benchmark.by_numpy(vectors, query).tolist() == right.tolist()
    times = {"a": [1.0, 2.0, 4.0], "b": [3.0, 4.0, 4.0]}
    assert benchmark.row(times, "a", "b") == "2000.000 | 4000.000 | 2.00 (1.00-3.00)"


def test_a_gru_is_not_measured_beside_a_transformer(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search", "embed", str(model), "lines.txt"])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert "no transformer; name a similarity with encoder: transformer" in capsys.readouterr().err
