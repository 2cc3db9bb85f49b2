"""Exact tests of masked language models: words, masks, corruption, the correction of embeddings, and what they are judged by."""

import itertools
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from genpipe.capabilities import Example
from genpipe.corpus.encoding import encode
from genpipe.corpus.words import word_starts
from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.evaluation.bigrams import Bigrams
from genpipe.evaluation.filling import judge_filling
from genpipe.models.masked_lm import MaskedLM
from genpipe.nn.token_masking import (
    corrupted,
    expected_embeddings,
    hide_runs,
    hide_words,
    most_similar,
    neighbours,
    start_rate,
)
from genpipe.params.corpora import Corpus
from genpipe.params.encodings import Encoding
from tests import tiny
from tests.test_encodings import HERE, write_dataset

PAD, MARK, NUM_TOKENS = 12, 16, 17


def frame(documents: list[list[str]]) -> pl.DataFrame:
    rows = [(number, token) for number, document in enumerate(documents) for token in document]
    return pl.DataFrame(rows, schema={"document": pl.UInt32, "token": pl.String}, orient="row")


def test_words_begin_where_the_other_tokenizer_cuts():
    """Line breaks are words of their own; a text with other characters than its words has a word for each."""
    texts = [list("秦川雄帝宅\n函谷"), list("ab"), [], list("山水")]
    words = [["秦川", "雄", "帝宅", "函谷"], ["abc"], [], ["山水"]]
    found = word_starts(frame(texts), frame(words), 4)
    assert found.tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0]


def encoded_stream(root, words: dict | None, texts=("天地日月", "日月山\n水天地", "山水")):
    records = [{"text": text} for text in texts]
    write_dataset(root, train=records, test=records[:1])
    corpus = Corpus(dataset="verses", files=(), tokenizer="char", shard_bytes=40)
    block = {
        "dataset": "verses",
        "corpus": "verses",
        "kind": "stream",
        "fields": {"text": "text"},
        "words": words,
    }
    encode(root, "out", Encoding.model_validate(block), corpus, HERE)
    return root / "artifacts/encoded/out"


def test_a_stream_numbers_the_words_of_its_windows(tmp_path):
    directory = encoded_stream(tmp_path, {"tokenizer": "jieba"}, ("天地日月", "山水", "水天地"))
    marks = np.load(directory / "train.text.words.npy")
    data = open_data(directory, {"time": 5})
    (part,) = data.split("train")
    # as jieba cuts them: 天地|日月, 山水, 水天地 in whatever words it has; an end mark after each text
    ends = part["ids"] == data.facts["end"]
    starts = torch.diff(part["words"], prepend=torch.full((len(part["words"]), 1), -1))
    assert (starts[ends] == 1).all()
    flat, index = starts.flatten().tolist(), 0
    for length in np.diff(np.load(directory / "train.text.offsets.npy")):
        for place in range(length):
            at = index + place
            assert flat[at] == marks[at - sum(ends.flatten()[:at].tolist())] or at % 5 == 0
        index += length + 1
    assert marks[:4].tolist() == [1, 0, 1, 0]
    (batch,) = [open_data(directory, {"time": 5}).train_batch(0, 0, 2)]
    assert batch["words"].shape == (2, 5)
    assert (batch["words"][:, 0] == 0).all()


def test_words_of_anything_but_a_stream_of_characters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="words: of a stream only, not of the kind tagged"):
        Encoding.model_validate(
            {
                "dataset": "d",
                "corpus": "c",
                "kind": "tagged",
                "fields": {"text": "t", "tags": "t"},
                "words": {"tokenizer": "jieba"},
            }
        )
    write_dataset(tmp_path, train=[{"text": "山水"}], test=[{"text": "山水"}])
    block = {
        "dataset": "verses",
        "corpus": "verses",
        "kind": "stream",
        "fields": {"text": "text"},
        "words": {"tokenizer": "jieba"},
    }
    corpus = Corpus(dataset="verses", files=(), tokenizer="jieba")
    with pytest.raises(
        BadInput, match=r"encodings.out.words: words are found among characters.*tokenizer jieba; take char"
    ):
        encode(tmp_path, "out", Encoding.model_validate(block), corpus, HERE)


def windows(n: int = 2000, time: int = 24) -> Example:
    """Texts of words of one to three characters, three documents a row."""
    torch.manual_seed(0)
    starts = torch.rand(n, time) < 0.5
    starts[:, 0] = True
    documents = torch.arange(time).expand(n, -1) // 8
    starts[:, [8, 16]] = True
    ids = torch.randint(1, PAD, (n, time))
    ids[:, [7, 15, 23]] = PAD + 2
    starts[:, [7, 15, 23]] = True
    return {
        "ids": ids,
        "documents": documents,
        "words": starts.cumsum(1) - 1,
        "positions": torch.arange(time).expand(n, -1) % 8,
    }


def by_word(hidden: torch.Tensor, x: Example) -> list[bool]:
    """Whether each word that may be hidden is; a word that is cut apart fails."""
    found = []
    for row, numbers, may in zip(
        hidden.tolist(), x["words"].tolist(), (x["ids"] < PAD).tolist(), strict=True
    ):
        for _, places in itertools.groupby(range(len(row)), key=numbers.__getitem__):
            kinds = {row[place] for place in places if may[place]}
            assert len(kinds) <= 1
            found += kinds
    return found


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_whole_words_are_hidden_at_their_rate(rate):
    x = windows()
    hidden = hide_words(x["words"], x["ids"] < PAD, rate)
    assert not hidden[x["ids"] >= PAD].any()
    words = by_word(hidden, x)
    assert stats.binomtest(sum(words), len(words), rate).pvalue > 0.001


def test_runs_hide_words_at_their_rate_and_end_with_their_document():
    n, time = 4000, 40
    torch.manual_seed(0)
    words = torch.arange(time).expand(n, -1)
    whole = torch.zeros(n, time, dtype=torch.int64)
    may = torch.ones(n, time, dtype=torch.bool)
    hidden = hide_runs(words, whole, may, 0.15)
    far = hidden[:, 3:].double().mean(1)
    assert abs(float(far.mean()) - 0.15) < 4 * float(far.std()) / n**0.5
    start = start_rate(0.15)
    assert 1 - (1 - start) * (1 - 0.6 * start) * (1 - 0.3 * start) * (1 - 0.1 * start) == pytest.approx(0.15)
    # runs that do not touch another one: 40, 30, 20 and 10 % have 1, 2, 3 and 4 words
    lengths = [
        sum(1 for _ in run)
        for row in hidden[:, :36].tolist()
        for is_hidden, run in itertools.groupby(row)
        if is_hidden
    ]
    counts = np.bincount(lengths, minlength=6)
    assert counts[1] > counts[2] > counts[3] > counts[4] > 0
    assert not hide_runs(words, words, may, 0.15).equal(hidden)
    # a document for each word: no run is longer than one word
    torch.manual_seed(1)
    alone = hide_runs(words, words, may, 0.5).double().mean()
    assert float(alone) == pytest.approx(start_rate(0.5), abs=0.01)
    x = windows()
    by_word(hide_runs(x["words"], x["documents"], x["ids"] < PAD, 0.3), x)


def test_hidden_tokens_become_marks_random_ones_and_themselves():
    x = windows(4000)
    hidden = hide_words(x["words"], x["ids"] < PAD, 0.3)
    read = corrupted(x["ids"], hidden, MARK, PAD)
    assert torch.equal(read[~hidden], x["ids"][~hidden])
    put, was = read[hidden], x["ids"][hidden]
    others = 0.1 * 10 / 11  # a random token is the right one now and then
    counts = [int((put == MARK).sum()), int(((put != MARK) & (put != was)).sum()), int((put == was).sum())]
    expected = np.array([0.8, others, 0.2 - others]) * len(put)
    assert stats.chisquare(counts, expected).pvalue > 0.001
    changed = put[(put != MARK) & (put != was)]
    assert changed.min() == 1
    assert changed.max() == PAD - 1
    stand_in = corrupted(x["ids"], hidden, MARK, PAD, torch.full_like(x["ids"], 3))
    assert not (stand_in == MARK).any()
    assert float((stand_in[hidden] == 3).double().mean()) == pytest.approx(0.8 + 0.2 / 11, abs=0.01)


def test_corrected_embeddings_are_the_mean_of_what_a_training_shows():
    """Coefficients of 0.865 and 0.015/num_tokens for the token itself, 0.12 for the mark, 0.015 for the mean."""
    torch.manual_seed(0)
    weight = torch.randn(NUM_TOKENS, 5, dtype=torch.float64)
    found = expected_embeddings(weight, MARK, 0.15)
    expected = 0.865 * weight + 0.12 * weight[MARK] + 0.015 * weight.mean(0)
    assert torch.allclose(found[:MARK], expected[:MARK], rtol=0, atol=1e-15)
    assert torch.equal(found[MARK], weight[MARK])
    same = torch.ones(NUM_TOKENS, 1, dtype=torch.float64)
    assert torch.allclose(expected_embeddings(same, MARK, 0.15), same)
    # the mean over many trainings, whose random tokens are those of the whole table here
    ids = torch.full((1, 200_000), 4)
    read = corrupted(ids, torch.rand(ids.shape) < 0.15, MARK, NUM_TOKENS)
    assert torch.allclose(weight[read[0]].mean(0), expected[4], atol=0.02)


def test_a_trained_model_reads_corrected_embeddings_where_it_is_asked_to(tmp_path):
    """The logits are those of a network with that table, and are taken by the table as it was trained."""
    model, x = model_of("masked_lm", tmp_path)
    hidden = torch.rand(x["ids"].shape) < 0.3
    plain, tokens = model.fill(x, hidden), model.bert.embeddings.tokens
    model.expected = True
    found, trained = model.fill(x, hidden), tokens.weight.detach().clone()
    assert not torch.allclose(found, plain, atol=1e-3)
    model.expected = False
    head = model.bert.logits
    model.bert.logits = lambda hidden: model.bert.head(hidden, trained, None)
    with torch.no_grad():
        tokens.weight.copy_(expected_embeddings(trained, MARK, 0.15))
        assert torch.allclose(model.fill(x, hidden), found, atol=1e-6)
        tokens.weight.copy_(trained)
    model.bert.logits = head
    model.train()
    model.expected, model.bert.embeddings.dropout.p = True, 0.0
    for block in model.bert.blocks:
        block.dropout.p = block.attention.dropout = 0.0
    assert torch.allclose(model.fill(x, hidden), plain, atol=1e-6)


def test_similar_tokens_are_those_with_similar_neighbours():
    """2 and 3 stand in the same places, 4 and 5 in others; what is rare stays itself."""
    random = np.random.default_rng(0)
    first, second = random.choice([2, 3], 500), random.choice([4, 5], 500)
    ids = np.stack([np.full(500, 6), first, np.full(500, 7), np.full(500, 8), second, np.full(500, 9)], 1)
    ids[0, 0] = 10
    x = torch.from_numpy(ids)
    counts = neighbours(x, torch.zeros_like(x), PAD, 10)
    expected = np.zeros((PAD, PAD))
    for row in ids:
        for i, j in itertools.permutations(range(6), 2):
            expected[row[i], row[j]] += abs(i - j) <= 2
    assert np.array_equal(counts.numpy(), expected[:, :10])
    best = most_similar(counts)
    assert best[[2, 3, 4, 5]].tolist() == [3, 2, 5, 4]
    assert best[10] == 10
    apart = neighbours(x, torch.arange(6).expand(500, -1), PAD, PAD)
    assert not apart.any()


def model_of(name: str, root) -> tuple[MaskedLM, Example]:
    data = tiny.data_for(name, root)
    model = tiny.recipe_of(name, data).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, next(iter(data.split("test")))


NAMES = ["masked_lm", "masked_lm_permuted", "masked_lm_replaced", "masked_lm_runs"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_hidden_is_not_looked_at(name, tmp_path):
    """Nor is another document, nor what stands beside a token that is hidden alone."""
    model, x = model_of(name, tmp_path)
    torch.manual_seed(0)
    hidden = model.draw_hidden(x)
    assert hidden.any()
    with torch.no_grad():
        logits = model.fill(x, hidden)
        other = {**x, "ids": torch.where(hidden, x["ids"] % 10 + 1, x["ids"])}
        assert torch.equal(model.fill(other, hidden), logits)
        one = torch.zeros_like(hidden)
        one[0, 3] = True
        seen = {**x, "ids": x["ids"].clone()}
        seen["ids"][0, 2] = x["ids"][0, 2] % 10 + 1
        assert not torch.allclose(model.fill(seen, one), model.fill(x, one), atol=1e-6)
        far = {**x, "ids": torch.where(x["documents"] == 0, x["ids"], torch.ones_like(x["ids"]))}
        assert torch.allclose(model.fill(far, one), model.fill(x, one), atol=1e-6)
    made = model.restore(x, ~hidden)["ids"]
    assert torch.equal(made[~hidden], x["ids"][~hidden])
    assert torch.equal(made[hidden], logits[:, : model.num_ordinary].argmax(-1))


def test_a_permuted_model_sees_no_token_that_comes_later_in_the_order(tmp_path):
    model, x = model_of("masked_lm_permuted", tmp_path)
    model.double()
    ranks = torch.rand(x["ids"].shape).argsort(1)
    places = torch.arange(x["ids"].shape[1]).expand(x["ids"].shape)
    with torch.no_grad():
        before = model._asked(x, ranks, places)
        for place in range(x["ids"].shape[1]):
            ids = x["ids"].clone()
            ids[:, place] = ids[:, place] % 10 + 1
            moved = (model._asked({**x, "ids": ids}, ranks, places) - before).abs().amax(-1) > 1e-9
            may = (ranks > ranks[:, place : place + 1]) & (
                x["documents"] == x["documents"][:, place : place + 1]
            )
            changed = (ids != x["ids"])[:, place]
            assert torch.equal(moved[changed], may[changed])


def test_replaced_tokens_come_from_the_generator_and_right_ones_count_as_real(tmp_path):
    """A generator that always knows the token replaces none; one that always says 3 replaces all others."""
    model, x = model_of("masked_lm_replaced", tmp_path)
    torch.manual_seed(0)
    num_hidden = model.draw_hidden(x).sum()
    for answer, share in ((None, 0.0), (3, float(num_hidden) / float(model._may(x["ids"]).sum()))):

        def fill(read, batch, hidden, answer=answer):
            target = batch["ids"][hidden] if answer is None else torch.full_like(batch["ids"][hidden], answer)
            return 1e4 * torch.nn.functional.one_hot(target, NUM_TOKENS).double()

        model._filled = fill
        torch.manual_seed(0)
        found = model.replaced_nats({**x, "ids": x["ids"].masked_fill(x["ids"] == 3, 4)})
        assert float(found.metrics["replaced"]) == pytest.approx(share)
    assert float(found.weight) == float(model._may(x["ids"]).sum())


def test_a_shared_table_of_tokens_is_one(tmp_path):
    model, _ = model_of("masked_lm_replaced", tmp_path)
    assert model.discriminator.embeddings.tokens.weight is model.bert.embeddings.tokens.weight


def test_options_of_another_objective_are_refused():
    facts = {"num_tokens": NUM_TOKENS, "time": 12, "pad": PAD, "mask": MARK}
    with pytest.raises(BadInput, match="drop_token: of the objective masked, not of permuted"):
        MaskedLM(**facts, objective="permuted", drop_token=0.1)
    with pytest.raises(BadInput, match="generator_dim: of the objective replaced, not of masked"):
        MaskedLM(**facts, generator_dim=8)


def test_a_chain_of_pairs_gives_the_posterior_of_hidden_tokens_by_enumeration():
    random = np.random.default_rng(0)
    train = torch.from_numpy(random.integers(1, 6, (40, 7)))
    train[::5, 5:] = 6  # <pad>
    train[::3, 2] = 7  # an end mark
    chain = Bigrams([{"ids": train[:20]}, {"ids": train[20:]}], 6, 9)
    pairs = [(a, b) for row in train.tolist() for a, b in itertools.pairwise(row) if 6 not in (a, b)]
    p = np.zeros(9)
    p[1:6] = [1 + int((train == token).sum()) for token in range(1, 6)]
    p /= p.sum()

    def follows(a: int, b: int) -> float:
        own = [right for left, right in pairs if left == a]
        share = len(own) / (len(own) + len(set(own))) if own else 0.0
        return share * own.count(b) / max(len(own), 1) + (1 - share) * p[b]

    ids = torch.tensor([[2, 3, 4, 1, 5, 2, 6], [1, 1, 7, 4, 3, 3, 2]])
    hidden = torch.tensor([[0, 1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 1, 0, 1]], dtype=torch.bool)
    expected = []
    for row, gaps in zip(ids.tolist(), hidden.tolist(), strict=True):
        places = [place for place, gap in enumerate(gaps) if gap]
        sums = np.zeros((len(places), 9))
        for values in itertools.product(range(1, 6), repeat=len(places)):
            text = [
                values[places.index(place)] if gap else token
                for place, (token, gap) in enumerate(zip(row, gaps, strict=True))
            ]
            weight = p[text[0]] if gaps[0] else 1.0
            for a, b in itertools.pairwise(text):
                weight *= follows(a, b) if 6 not in (a, b) else 1.0
            for number, value in enumerate(values):
                sums[number, value] += weight
        expected += list(sums / sums.sum(1, keepdims=True))
    assert np.allclose(chain.posterior(ids, hidden).numpy(), np.array(expected), rtol=0, atol=1e-12)


def test_the_judge_hides_the_same_tokens_from_model_and_baselines(tmp_path):
    """A model that knows the truth has accuracy 1 and 0 bits; one that is uniform has the bits of as many tokens."""
    data = tiny.data_for("masked_lm", tmp_path)
    texts = {tuple(row.tolist()): row for x in data.split("test") for row in x["ids"]}

    class Knowing:
        def __init__(self, sharpness: float) -> None:
            self.sharpness = sharpness

        def draw_hidden(self, x):
            return (torch.rand(x["ids"].shape) < 0.3) & (x["ids"] < PAD)

        def fill(self, x, hidden):
            assert all(tuple(row.tolist()) in texts for row in x["ids"])
            return self.sharpness * torch.nn.functional.one_hot(x["ids"][hidden], NUM_TOKENS).float()

    found = {}
    for sharpness in (1e3, 0.0):
        trial = SimpleNamespace(recipe=Knowing(sharpness), data=data, split="test", seed=0)
        found[sharpness] = judge_filling(trial)
    assert found[1e3]["masked_accuracy"] == 1
    assert found[1e3]["bits_per_masked_token"] == 0
    assert found[0.0]["bits_per_masked_token"] == pytest.approx(np.log2(NUM_TOKENS))
    for name in ("masked_accuracy_bigram", "bits_per_masked_token_bigram", "masked_accuracy_unigram"):
        assert found[1e3][name] == found[0.0][name]
    # documents count up, so a neighbour says nearly all
    assert found[0.0]["masked_accuracy_bigram"] > 0.9 > 0.5 > found[0.0]["masked_accuracy_unigram"]
