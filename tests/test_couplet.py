"""Couplets: the search for lines beside all lines there are, tones that couplets teach, near copies, several answers."""

import itertools
import json
import math
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from genpipe.cli import main
from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.evaluation import couplets
from genpipe.files import WEIGHTS
from genpipe.models.couplet import Couplet
from genpipe.sampling import lines
from genpipe.sources.couplets import is_regulated, poem_couplets
from genpipe.sources.near_lines import near_lines
from genpipe.sources.poems import Poem
from genpipe.using.couplets import pseudo_log_likelihoods
from tests import tiny

FORBIDDEN = {0, 1, 7}
NUM_TOKENS = 8
PLACES = 4


@pytest.fixture
def model() -> Couplet:
    torch.manual_seed(3)
    model = Couplet(num_tokens=NUM_TOKENS, start=7, embedding_dim=8, num_layers=2, ngram=3).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        model.lines.level.copy_(torch.tensor([0.0, 0.0, 3.0, 3.0, -3.0, -3.0, 0.1, 0.0]))
    return model


def batch_of(*sources: list[int]) -> dict[str, torch.Tensor]:
    return {"source": torch.tensor(sources)}


def fits(line: tuple[int, ...], source: list[int]) -> bool:
    """Whether a line keeps the article's rules, and repeats where its source does."""
    pairs = list(itertools.combinations(range(len(line)), 2))
    as_answered = all((line[i] == line[j]) == (source[i] == source[j]) for i, j in pairs)
    return as_answered and not {*line} & {*FORBIDDEN, *source}


def score(model: Couplet, source: list[int], line: tuple[int, ...], weight: float) -> float:
    """The score of a line by its definition, a character after the other."""
    tagged = model.tag(batch_of(source))[0].log_softmax(-1)
    before, total = [7, 7], 0.0
    for place, token in enumerate(line):
        vectors = [model.lines.before.weight[token] for token in before]
        mixed = vectors[0] @ model.lines.places[0] + vectors[1] @ model.lines.places[1]
        logits = model.lines.after.weight @ mixed + model.lines.after.bias
        ratio = logits.log_softmax(0)[token] - model.lines.frequency.log_softmax(0)[token]
        total += float(tagged[place, token] + weight * ratio)
        before = [before[1], token]
    return total


@pytest.mark.parametrize("source", [[2, 3, 4, 5], [2, 3, 3, 2], [6, 6, 6, 6], [2, 3, 2, 6]])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_wide_beam_finds_the_best_of_all_lines(model, source, weight):
    with torch.no_grad():
        known = [
            (score(model, source, line, weight), line)
            for line in itertools.product(range(NUM_TOKENS), repeat=PLACES)
            if fits(line, source)
        ]
    known.sort(reverse=True)
    found = lines.search(
        model, batch_of(source), FORBIDDEN, num=4, candidates=NUM_TOKENS, beam=1000, line_weight=weight, differ=1
    )  # fmt: skip
    finite = int(found.scores.isfinite().sum())
    assert finite == min(4, len(known))
    assert [tuple(row) for row in found.ids[0, :finite].tolist()] == [line for _, line in known[:finite]]
    assert found.scores[0, :finite].tolist() == pytest.approx([value for value, _ in known[:finite]])


def test_no_line_has_a_forbidden_token_nor_one_of_its_source(tmp_path):
    data = tiny.data_for("couplet_lines", tmp_path)
    model = tiny.recipe_of("couplet_lines", data).eval()
    for x in data.split("train"):
        assert (x["source"] < data.facts["pad"]).all()  # a batch of one length has no padding
        found = lines.search(model, x, {0, 1}, num=2)
        for source, own in zip(x["source"].tolist(), found.ids.tolist(), strict=True):
            for line in own:
                assert not {*line} & {0, 1, *source}


def test_an_answer_does_not_depend_on_the_other_rows(model):
    sources = [[2, 3, 4, 5], [6, 6, 2, 3], [5, 4, 3, 2]]
    together = lines.search(model, batch_of(*sources), FORBIDDEN, num=3)
    for row, source in enumerate(sources):
        alone = lines.search(model, batch_of(source), FORBIDDEN, num=3)
        finite = alone.scores[0].isfinite()
        assert torch.equal(alone.scores[0].isfinite(), together.scores[row].isfinite())
        assert torch.equal(alone.ids[0][finite], together.ids[row][finite])


def test_shorter_rows_end_before_longer_ones(model):
    x = {"source": torch.tensor([[2, 3, 4, 5], [2, 3, 7, 7]]), "source_lengths": torch.tensor([4, 2])}
    long = lines.search(model, batch_of([2, 3, 4, 5]), FORBIDDEN)
    both = lines.search(model, x, FORBIDDEN, num=1)
    assert torch.equal(both.ids[0], long.ids[0])
    assert both.ids[1, 0, 2:].tolist() == [7, 7]
    assert not {*both.ids[1, 0, :2].tolist()} & {*FORBIDDEN, 2, 3}


def test_several_answers_differ_in_as_many_places_as_asked(model):
    found = lines.search(model, batch_of([2, 3, 4, 2]), {7}, num=5, differ=2, beam=1000, candidates=8)
    kept = found.ids[0][found.scores[0].isfinite()]
    assert len(kept) > 1
    assert all((a != b).sum() >= 2 for a, b in itertools.combinations(kept, 2))
    assert found.scores[0].tolist() == sorted(found.scores[0].tolist(), reverse=True)


def test_tones_of_a_line_oppose_and_its_end_is_level(model):
    source = [6, 2, 6, 4]  # the second level, the last oblique
    free = lines.search(model, batch_of(source), {0, 1}, num=90, repeats="free", differ=1, beam=1000)
    bound = lines.search(
        model, batch_of(source), {0, 1}, num=90, repeats="free", differ=1, beam=1000, tones=True
    )
    of = lambda found: {tuple(row) for row in found.ids[0][found.scores[0].isfinite()].tolist()}
    # of even lines the last place is even too: level because it is the last, and level against the oblique of the source
    assert of(bound) == {line for line in of(free) if line[1] in (5, 7) and line[3] in (3, 7)}
    assert of(bound) < of(free)


def test_tones_of_a_model_without_n_grams_are_refused():
    model = Couplet(num_tokens=NUM_TOKENS, embedding_dim=8, num_layers=1).eval()
    with pytest.raises(
        BadInput, match="tones: Couplet knows none; take a model that was trained with `ngram`"
    ):
        lines.search(model, batch_of([2, 3]), set(), tones=True)


def test_n_grams_leave_the_tagger_as_it_is():
    torch.manual_seed(1)
    plain = Couplet(num_tokens=9, embedding_dim=4, num_layers=2)
    torch.manual_seed(1)
    both = Couplet(num_tokens=9, embedding_dim=4, num_layers=2, ngram=2)
    assert all(torch.equal(value, both.state_dict()[name]) for name, value in plain.state_dict().items())
    with pytest.raises(ValueError, match="ngram: 0 for none, or 2 and more"):
        Couplet(num_tokens=9, ngram=1)


@torch.no_grad()
def test_probabilities_of_n_grams_add_up_to_one(model):
    total = model.lines.follow(torch.tensor([[2, 3], [7, 7]])).exp().sum(-1)
    assert torch.allclose(total, torch.ones(2, dtype=torch.float64))
    ids = torch.tensor([[2, 4, 3]])
    following, alone = model.lines.nats(ids)
    by_hand = [model.lines.follow(torch.tensor(h))[t] for h, t in (([7, 7], 2), ([7, 2], 4), ([2, 4], 3))]
    assert following[0].tolist() == pytest.approx([-float(value) for value in by_hand])
    assert torch.allclose(alone[0], -model.lines.frequency.log_softmax(0)[ids[0]])


def test_the_surprise_of_tones_is_that_of_both_ways_to_oppose(model):
    upper, lower, lengths = torch.tensor([[6, 2, 4]]), torch.tensor([[2, 6, 3]]), torch.tensor([3])
    with torch.no_grad():
        found = model.lines.rules(upper, lower, lengths)[0].tolist()
    level = [1 / (1 + math.exp(-float(value))) for value in model.lines.level.tolist()]
    opposite = level[2] * (1 - level[6]) + (1 - level[2]) * level[6]
    assert found == pytest.approx([0, -math.log(opposite), -math.log((1 - level[4]) * level[3])])


def test_couplets_teach_the_tones_of_their_characters():
    """Of characters that never end a line, the tones follow from what they oppose."""
    rng = torch.Generator().manual_seed(0)
    level, oblique = torch.arange(0, 20), torch.arange(20, 40)  # the first ten of each end lines
    model = Couplet(num_tokens=40, embedding_dim=2, num_layers=1, ngram=2)
    optimiser = torch.optim.Adam([model.lines.level], lr=0.2)
    draw = lambda tokens, n=64: tokens[torch.randint(len(tokens), (n, 1), generator=rng)]
    for _ in range(100):
        swap = torch.rand(64, 1, generator=rng) < 0.5
        a, b = draw(level), draw(oblique)
        upper = torch.cat([draw(torch.arange(40)), torch.where(swap, a, b), draw(oblique[:10])], 1)
        lower = torch.cat([draw(torch.arange(40)), torch.where(swap, b, a), draw(level[:10])], 1)
        loss = model.lines.rules(upper, lower, torch.full((64,), 3)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (model.lines.level[:20] > lines.KNOWN).all()
    assert (model.lines.level[20:] < -lines.KNOWN).all()


def test_near_lines_are_those_of_a_comparison_of_all():
    rng = torch.Generator().manual_seed(1)
    texts = [
        "".join("天地日月"[i] for i in torch.randint(4, (5 + 2 * (n % 2),), generator=rng))
        for n in range(120)
    ]
    for most in (1, 2, 3):
        known = {
            (i, j)
            for (i, a), (j, b) in itertools.combinations(enumerate(texts), 2)
            if len(a) == len(b) and 0 < sum(x != y for x, y in zip(a, b, strict=True)) <= most
        }
        found = list(near_lines(texts, most))
        assert set(found) == known
        assert len(found) == len(known) > 0


@pytest.mark.parametrize(
    ("tones", "regulated"),
    [
        ("仄仄平平仄\n平平仄仄平", True),
        ("平仄平平仄\n仄平仄仄平", True),  # odd places are free
        ("仄○平平仄\n平平仄○平", True),  # of a character with both readings either
        ("仄仄平平仄\n平仄仄仄平", False),  # the second characters are alike
        ("仄仄平平仄\n平平仄平平", False),  # the fourth ones
        ("仄仄平平平\n平平仄仄平", False),  # the upper line ends level
        ("仄仄平平仄\n平平仄仄仄", False),  # the lower one oblique
        ("平平仄仄平平仄\n仄仄平平仄仄平", True),
        ("平平仄仄平平仄\n仄仄平平仄平平", False),  # the sixth characters are alike
    ],
)
def test_the_filter_of_tones(tones, regulated):
    upper, lower = ("國破山河在", "城春草木深")
    poem = Poem("a", "", "", [f"{upper}，{lower}。"] * 4, ["仄仄平平仄，平平仄仄平。"] * 4)
    couplet = next(poem_couplets(poem))
    assert is_regulated(couplet._replace(tones=tones)) == regulated


def test_a_folder_gives_the_couplets_of_its_dynasties_and_near_copies_are_on_one_side(tmp_path, capsys):
    tones = ["仄仄平平仄，平平仄仄平。"] * 4
    letters = iter(chr(0x4E00 + number) for number in range(20_000))
    (tmp_path / "poems").mkdir()
    for dynasty in ("tang", "song"):
        with (tmp_path / f"poems/{dynasty}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(60):
                lines = ["".join(itertools.islice(letters, 5)) for _ in range(8)]
                poems = [
                    lines,
                    [line[:4] + next(letters) for line in lines],
                ]  # 2 of 10 characters are other ones
                for copy, own in enumerate(poems):
                    paragraphs = [f"{own[i]}，{own[i + 1]}。" for i in (0, 2, 4, 6)]
                    record = {"id": f"{dynasty}-{number}-{copy}", "paragraphs": paragraphs, "tones": tones}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    sides = {}
    for near in (0, 2):
        block = {"kind": "couplets", "source": "poems", "test_share": 0.3, "near": near}
        (tmp_path / "params.yaml").write_text(json.dumps({"datasets": {"pairs": block}}), encoding="utf-8")
        assert main(["--root", str(tmp_path), "prepare", "pairs"]) == 0, capsys.readouterr().err
        ids = [
            {
                json.loads(line)["id"]
                for line in (tmp_path / "artifacts/datasets/pairs" / name).open(encoding="utf-8")
            }
            for name in ("train.jsonl", "test.jsonl")
        ]
        assert sum(map(len, ids)) == 480
        sides[near] = [{(*name.split("-")[:2], name[-1]) for name in side} for side in ids]
    assert sides[0][0] & sides[0][1]
    assert not sides[2][0] & sides[2][1]
    assert "240 pairs of couplets differ in 2 characters or fewer" in capsys.readouterr().out


def test_numerals_colours_and_directions_answer_their_kind():
    pairs = [("東一紅", "西二青"), ("上三綠", "中人白"), ("前山黃", "鳥水月")]
    rates = [couplets.antithesis(pairs, kind) for kind in ("direction", "numeral", "colour")]
    assert rates == pytest.approx([2 / 3, 1 / 2, 2 / 3])
    tones = dict(zip("青白月", "平仄平", strict=True))
    assert couplets.level_endings(pairs, tones) == pytest.approx(2 / 3)


def test_lines_are_judged_as_they_are_shown(tmp_path, capsys):
    """By `genpipe evaluate`, which asks the model again, under the options of the samples."""
    pairs = tiny.write_pairs(tmp_path / "artifacts" / "encoded" / "pairs")
    tones = {token: "平" if i % 2 else "仄" for i, token in enumerate(tiny.TOKENS) if len(token) == 1}
    rows = "".join(f"{character}\t{tone}\t1\t1.0\n" for character, tone in tones.items())
    (pairs / "tones.tsv").write_text(f"character\ttone\tcount\tshare\n{rows}", encoding="utf-8")
    options = {"free": {}, "bound": {"tones": True}}
    block = {**tiny.block("couplet_lines"), "judge": "none"}
    blocks = {name: {**block, "sample": {"num": 100, "how": how}} for name, how in options.items()}
    datasets = {"none": {"kind": "digits", "source": "data/digits"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"datasets": datasets, "recipes": blocks}))
    found = {}
    for name in blocks:
        root = ["--root", str(tmp_path)]
        assert main([*root, "train", name, "--workers", "0"]) == 0, capsys.readouterr().err
        teach_tones(tmp_path / "artifacts" / "models" / name / WEIGHTS)
        assert main([*root, "sample", name]) == main([*root, "evaluate", name]) == 0, capsys.readouterr().err
        shown = pl.read_csv(
            tmp_path / "artifacts/samples" / name / "answers.tsv", separator="\t", quote_char=None
        )
        metrics = json.loads((tmp_path / "artifacts/metrics" / f"{name}.json").read_text())
        for suffix, column in (("", "generated"), ("_real", "real")):
            couples = list(zip(shown["source"], shown[column], strict=True))
            for key, value in couplets.judge_form(couples, tones, suffix).items():
                assert math.isnan(value) or metrics[key] == pytest.approx(value, rel=1e-5)
        assert metrics["shared_character"] == 0 < metrics["shared_character_singly"]
        found[name] = shown["generated"].to_list()
    assert found["free"] != found["bound"]


def teach_tones(weights: Path) -> None:
    """Half of the characters level and half oblique, for certain."""
    tensors = load_file(weights)
    tensors["lines.level"] = torch.linspace(-3, 3, len(tensors["lines.level"]))
    save_file(tensors, weights)


class Uniform:
    """Fills gaps with probabilities of its own for each text about a gap."""

    def fill(self, x, hidden):
        around = x["ids"].masked_fill(hidden, 0).sum(1, keepdim=True)
        return torch.sin(around * torch.arange(1, 12))


def test_a_pseudo_likelihood_hides_each_character_alone():
    ids = torch.tensor([[3, 5, 9, 2], [4, 4, 8, 1]])
    found = pseudo_log_likelihoods(Uniform(), ids, [1, 3])
    for row, total in zip(ids, found.tolist(), strict=True):
        parts = [torch.sin((row.sum() - row[i]) * torch.arange(1, 12)).log_softmax(0)[row[i]] for i in (1, 3)]
        assert total == pytest.approx(float(sum(parts)))


def test_batches_of_one_length_have_no_padding(tmp_path):
    tiny.write_pairs(tmp_path / "pairs")
    data = open_data(Path(tmp_path / "pairs"), {"aligned": True})
    for step in range(20):
        x = data.train_batch(1, step, 8)
        assert (x["source_lengths"] == x["source"].shape[1]).all()
        assert (x["target_lengths"] == x["source"].shape[1]).all()
        assert not ((x["source"] == data.facts["pad"]) | (x["target"] == data.facts["pad"])).any()
