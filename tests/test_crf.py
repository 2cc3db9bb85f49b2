"""The conditional random field beside sums over all sequences, and the tagger that is built on it."""

import itertools

import pytest
import torch

from genpipe.capabilities import Example
from genpipe.corpus.word_tags import spans
from genpipe.evaluation.words import score_words
from genpipe.models.crf_tagger import CRFTagger
from genpipe.nn.crf import LinearChainCRF

TAGS = 3


def chain(forbidden=()) -> LinearChainCRF:
    torch.manual_seed(0)
    crf = LinearChainCRF(TAGS, forbidden).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return crf


def all_scores(crf, emissions, length) -> dict[tuple[int, ...], float]:
    """The score of each sequence of tags of one text, added up term by term."""
    found = {}
    emissions, crf = emissions.detach(), crf.requires_grad_(False)
    for tags in itertools.product(range(TAGS), repeat=length):
        terms = [crf.start[tags[0]], crf.end[tags[-1]], *(emissions[t, tag] for t, tag in enumerate(tags))]
        terms += [crf.transitions[pair] for pair in itertools.pairwise(tags)]
        found[tags] = float(sum(terms))
    return found


LENGTHS = torch.tensor([5, 1, 3])


def drawn() -> tuple[LinearChainCRF, torch.Tensor]:
    crf = chain()
    return crf, torch.randn(3, 5, TAGS, dtype=torch.float64)


def test_the_partition_function_is_the_sum_over_all_sequences():
    crf, emissions = drawn()
    found = crf.log_partition(emissions, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        scores = torch.tensor([*all_scores(crf, emissions[row], length).values()], dtype=torch.float64)
        assert found[row].item() == pytest.approx(scores.logsumexp(0).item(), abs=1e-12)


def test_probabilities_of_all_sequences_sum_to_one():
    crf, emissions = drawn()
    for row, length in enumerate(LENGTHS.tolist()):
        tags = torch.tensor([*itertools.product(range(TAGS), repeat=length)])
        each = emissions[row, :length].expand(len(tags), -1, -1)
        found = crf.log_prob(each, tags, torch.full((len(tags),), length))
        assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)
        scores = all_scores(crf, emissions[row], length)
        expected = torch.tensor([scores[tuple(each)] for each in tags.tolist()], dtype=torch.float64)
        assert torch.allclose(found, expected - expected.logsumexp(0), atol=1e-12)


def test_max_marginals_are_the_best_scores_through_each_tag():
    """So their argmax is the path of Viterbi."""
    crf, emissions = drawn()
    found = crf.max_marginals(emissions, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        scores = all_scores(crf, emissions[row], length)
        best = max(scores, key=scores.__getitem__)
        assert tuple(found[row, :length].argmax(-1).tolist()) == best
        for time, tag in itertools.product(range(length), range(TAGS)):
            expected = max(score for tags, score in scores.items() if tags[time] == tag)
            assert found[row, time, tag].item() == pytest.approx(expected, abs=1e-12)


def test_what_stands_behind_a_text_has_no_effect():
    crf, emissions = drawn()
    tags = torch.randint(TAGS, (3, 5))
    other, other_tags = emissions.clone(), tags.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        other[row, length:] = 100 * torch.randn(5 - length, TAGS, dtype=torch.float64)
        other_tags[row, length:] = (tags[row, length:] + 1) % TAGS
    assert torch.equal(crf.log_prob(emissions, tags, LENGTHS), crf.log_prob(other, other_tags, LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        found, again = (crf.max_marginals(x, LENGTHS)[row, :length] for x in (emissions, other))
        assert torch.equal(found, again)


def test_gradients_of_the_partition_function_are_the_marginals():
    """d ln Z/d emission[t, j] is p(y_t = j | x)."""
    crf, emissions = drawn()
    emissions.requires_grad_()
    (found,) = torch.autograd.grad(crf.log_partition(emissions, LENGTHS).sum(), emissions)
    for row, length in enumerate(LENGTHS.tolist()):
        scores = all_scores(crf, emissions[row], length)
        total = torch.tensor([*scores.values()], dtype=torch.float64).logsumexp(0)
        for time, tag in itertools.product(range(length), range(TAGS)):
            of = [score for tags, score in scores.items() if tags[time] == tag]
            expected = (torch.tensor(of, dtype=torch.float64).logsumexp(0) - total).exp()
            assert found[row, time, tag].item() == pytest.approx(expected.item(), abs=1e-12)
        assert not found[row, length:].any()


def test_forbidden_pairs_never_follow_one_another():
    crf = chain(forbidden=[(0, 1), (2, 2)])
    emissions = 5 * torch.randn(200, 7, TAGS, dtype=torch.float64)
    lengths = torch.full((200,), 7)
    best = crf.max_marginals(emissions, lengths).argmax(-1)
    pairs = {*zip(best[:, :-1].flatten().tolist(), best[:, 1:].flatten().tolist(), strict=True)}
    assert pairs == {*itertools.product(range(TAGS), repeat=2)} - {(0, 1), (2, 2)}
    tags = torch.tensor([[0, 1, 0, 0, 0, 0, 0]])
    assert crf.log_prob(emissions[:1], tags, lengths[:1]).exp() == 0


def tagger(**options) -> CRFTagger:
    torch.manual_seed(0)
    return CRFTagger(
        30, 4, ("B", "E", "M", "S"), embedding_dim=8, num_layers=3, num_pairs=50, **options
    ).eval()


def test_words_that_are_found_begin_and_end():
    """B and M are followed by M or E, E and S by B or S, whatever the emissions are."""
    model = tagger()
    with torch.no_grad():
        model.emissions.weight.mul_(50)
    ids = torch.randint(30, (100, 9))
    with torch.no_grad():
        found = model.tag({"ids": ids, "lengths": torch.full((100,), 9)}).argmax(-1)
    names = "BEMS"
    pairs = {
        names[i] + names[j] for i, j in zip(found[:, :-1].flatten(), found[:, 1:].flatten(), strict=True)
    }
    assert pairs == {"BM", "BE", "MM", "ME", "EB", "ES", "SB", "SS"}


def test_a_text_has_the_same_tags_alone_and_beside_longer_ones():
    model = tagger()
    ids = torch.randint(30, (4, 11))
    lengths = torch.tensor([11, 3, 7, 1])
    x: Example = {"ids": ids, "lengths": lengths}
    with torch.no_grad():
        together = model.tag(x)
        for row, length in enumerate(lengths.tolist()):
            alone = model.tag({"ids": ids[row : row + 1, :length], "lengths": lengths[row : row + 1]})
            assert torch.allclose(alone[0], together[row, :length], atol=1e-5)


def test_the_loss_is_the_nats_of_all_texts_over_their_tokens():
    model = tagger()
    x = {"ids": torch.randint(30, (4, 6)), "lengths": torch.tensor([6, 2, 5, 1])}
    x["tags"] = torch.tensor([[0, 1, 0, 1, 3, 3], [0, 1, 0, 0, 0, 0], [3, 0, 2, 2, 1, 0], [3, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        loss = model.nats(x).value
        emissions = model._emissions(x)
        whole = -model.chain.log_prob(emissions, x["tags"], x["lengths"]).sum()
    assert loss.item() == pytest.approx(whole.item() / 14, rel=1e-5)


def test_words_are_those_between_the_tags():
    assert spans("BESBME") == [(0, 2), (2, 3), (3, 6)]
    # any sequence of tags cuts a text: M after S begins a word
    assert spans("SMMB") == [(0, 1), (1, 3), (3, 4)]
    scores = score_words([("BESS", "BEBE"), ("S", "S")])
    # right: the first word and the last; found 4, in the data 3
    assert scores["word_precision"] == 2 / 4
    assert scores["word_recall"] == 2 / 3
    assert scores["word_f1"] == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    # a word for each of five characters: one of three is one
    assert scores["word_f1_singles"] == pytest.approx(2 * (1 / 5) * (1 / 3) / (1 / 5 + 1 / 3))
