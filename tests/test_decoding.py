"""Decoding beside brute force, and the vote of several passages beside a plain loop over lists."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from genpipe.capabilities import Votes
from genpipe.errors import BadInput
from genpipe.models.unilm import UniLM
from genpipe.nn.sources import Part, joined
from genpipe.nn.votes import has_vote, scores
from genpipe.sampling import decoding
from genpipe.sampling.marks import Marks, unended

PAD, START, END, SEP = 4, 5, 6, 7  # after a vocabulary of four tokens
MARKS, NUM = Marks((START,), END, PAD), 9
WRITABLE = [token for token in range(NUM) if token not in (PAD, START, END)]
TEXTS = [text for length in range(4) for text in itertools.product(WRITABLE, repeat=length)]


def unilm(**network) -> UniLM:
    """An untrained model whose probabilities are far from equal."""
    torch.manual_seed(2)
    model = UniLM(NUM, START, END, SEP, max_length=5, width=16, num_blocks=2, num_heads=2, **network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def sources(n: int) -> dict[str, torch.Tensor]:
    lengths = 1 + torch.arange(n) % 4
    ids = torch.randint(0, 4, (n, 4)).masked_fill(torch.arange(4) >= lengths.unsqueeze(1), PAD)
    return {"source": ids, "source_lengths": lengths}


def texts(made: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    return [
        tuple(row[:length])
        for row, length in zip(made["ids"].tolist(), made["lengths"].tolist(), strict=True)
    ]


def log_score(model: UniLM, given: dict[str, torch.Tensor], text: tuple[int, ...], longest: int) -> float:
    """The log-probability of a text by one forward pass over all of it; one of `longest` tokens is cut off there."""
    source = joined([Part(given["source"], given["source_lengths"])], START, SEP)
    ids = torch.tensor([text], dtype=torch.int64).view(1, -1)
    logits = decoding.without(model.logits(source, Part(ids, torch.tensor([len(text)]))), MARKS)[0]
    written = [*text, END] if len(text) < longest else [*text]
    return sum(
        float(row.log_softmax(-1)[token]) for row, token in zip(logits[: len(written)], written, strict=True)
    )


def test_a_wide_beam_finds_the_most_likely_of_all_texts():
    model, given = unilm(), sources(3)
    with torch.no_grad():
        wide = texts(decoding.write(model, 3, given, MARKS, "beam", 3, beam=400))
        narrow = texts(decoding.write(model, 3, given, MARKS, "beam", 3, beam=2))
        for row in range(3):
            one = {key: value[row : row + 1] for key, value in given.items()}
            found = {text: log_score(model, one, text, 3) for text in TEXTS}
            assert wide[row] == max(found, key=found.__getitem__)
            assert found[narrow[row]] <= found[wide[row]]
    assert any(len(text) > 0 for text in wide)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_batch_is_decoded_as_its_rows_one_by_one(method):
    model, given = unilm(), sources(8)
    with torch.no_grad():
        together = texts(decoding.write(model, 8, given, MARKS, method, 5))
        for row in range(8):
            length = int(given["source_lengths"][row])
            one = {
                "source": given["source"][row : row + 1, :length],
                "source_lengths": torch.tensor([length]),
            }
            assert texts(decoding.write(model, 1, one, MARKS, method, 5)) == [together[row]]
    assert len(set(together)) > 1


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_texts_are_as_long_as_the_limits_say(method):
    model, given = unilm(), sources(8)
    assert model.bert.head is not None
    with torch.no_grad():
        model.bert.head.bias[END] += 3  # so that a free text ends early
        free = decoding.write(model, 8, given, MARKS, method, 6)
        made = decoding.write(model, 8, given, MARKS, method, 4, min_tokens=3)
    assert free["lengths"].min() < 3
    assert made["lengths"].min() >= 3
    assert made["lengths"].max() <= 4


def test_the_likeliest_text_of_a_least_length_is_found():
    model, given = unilm(), sources(1)
    with torch.no_grad():
        made = texts(decoding.write(model, 1, given, MARKS, "beam", 3, beam=400, min_tokens=2))
        found = {text: log_score(model, given, text, 3) for text in TEXTS if len(text) >= 2}

        # no end mark before two tokens: those two places have other probabilities, and the same order
        def without_end(text):
            source = joined([Part(given["source"], given["source_lengths"])], START, SEP)
            logits = decoding.without(
                model.logits(source, Part(torch.tensor([text]), torch.tensor([len(text)]))), MARKS
            )[0]
            written = [*text, END] if len(text) < 3 else [*text]
            return sum(
                float(row.log_softmax(-1)[t]) for row, t in zip(logits[: len(written)], written, strict=True)
            )

        assert made[0] == max(found, key=without_end)


def test_limits_that_contradict_each_other_are_one_line():
    model, given = unilm(), sources(1)
    with pytest.raises(BadInput, match="min_tokens: 5 are more than max_tokens, 4"):
        decoding.write(model, 1, given, MARKS, "greedy", 4, min_tokens=5)
    with pytest.raises(BadInput, match="extractive: UniLM reads no passages"):
        decoding.write(model, 1, given, MARKS, "greedy", 4, extractive=True)


def test_a_text_that_can_only_end_ends():
    logits = torch.tensor([[0.0] * NUM, [-math.inf] * NUM])
    logits[1, END] = 0.0
    made = unended(logits, MARKS)
    assert made[0, END] == -math.inf
    assert made[1, END] == 0


def test_top_k_comes_before_the_nucleus():
    """Beside a loop over a list: the likeliest k, shares of these, then the least set that reaches top_p."""
    logits = torch.tensor([1.0, 3.0, 0.5, 2.5, 2.0, -1.0])
    weights = {i: math.exp(v) for i, v in enumerate(logits.tolist())}
    order = sorted(weights, key=weights.__getitem__, reverse=True)[:3]
    total, kept = sum(weights[i] for i in order), []
    for i in order:
        kept.append(i)
        if sum(weights[j] for j in kept) / total >= 0.75:
            break
    n = 20_000
    uniform = (torch.arange(n) + 0.5) / n
    drawn = decoding.nucleus(logits.expand(n, -1), 0.75, uniform, 3)
    shares = np.bincount(drawn.numpy(), minlength=6) / n
    assert len(kept) == 2  # and three with the shares of all tokens
    for i in range(6):
        assert shares[i] == pytest.approx(
            weights[i] / sum(weights[j] for j in kept) if i in kept else 0, abs=1e-4
        )
    assert torch.equal(
        decoding.nucleus(logits.expand(n, -1), 0.75, uniform),
        decoding.nucleus(logits.expand(n, -1), 0.75, uniform, 6),
    )


class Passages(Votes):
    """Probabilities that are a function of a passage and of what was written: those of a hash. The state is what was written."""

    given = ("passages", "passage_lengths")

    def begin(self, given, n):
        return {
            **given,
            "votes": given["passage_lengths"] > 0,
            "written": torch.zeros(n, 0, dtype=torch.int64),
        }

    def next(self, ids, state):
        logits, votes, state = self.next_of_each(ids, state)
        return scores(logits.softmax(-1), votes, END).log(), state

    def next_of_each(self, ids, state):
        written = torch.cat([state["written"], ids.unsqueeze(1)], 1)
        logits = torch.stack(
            [
                torch.stack(
                    [
                        logits_after(tuple(p[:length]), tuple(text[1:]))
                        for p, length in zip(passages, lengths, strict=True)
                    ]
                )
                for passages, lengths, text in zip(
                    state["passages"].tolist(),
                    state["passage_lengths"].tolist(),
                    written.tolist(),
                    strict=True,
                )
            ]
        )
        votes = has_vote(logits, state["votes"], END) if written.shape[1] == 1 else state["votes"]
        return logits, votes, {**state, "written": written, "votes": votes}


def logits_after(passage: tuple[int, ...], written: tuple[int, ...]) -> torch.Tensor:
    """A passage that begins with two equal tokens has no answer."""
    draw = random.Random(repr((passage, written)))
    logits = torch.tensor([3 * draw.random() for _ in range(NUM)], dtype=torch.float64)
    begins_twice = len(passage) > 1 and passage[0] == passage[1]
    if not written:
        logits[END] = 9.0 if begins_twice else -9.0
    return logits


def question(*passages: list[int]) -> dict[str, torch.Tensor]:
    longest = max(map(len, passages))
    rows = [[*passage, *[PAD] * (longest - len(passage))] for passage in passages]
    return {
        "passages": torch.tensor([rows]),
        "passage_lengths": torch.tensor([[len(passage) for passage in passages]]),
    }


def by_lists(passages: list[list[int]], beam: int, longest: int, extractive: bool) -> tuple[int, ...]:
    """The voted beam of archives/7115, as a loop over lists of tokens."""
    shares = lambda passage, text: decoding.without(logits_after(tuple(passage), text), MARKS).softmax(-1)
    left = [p for p in passages if int(logits_after(tuple(p), ()).argmax()) != END]
    if not left:
        return ()
    beams: list[tuple[float, tuple[int, ...], bool]] = [(0.0, (), False)]
    for time in range(longest):
        found = []
        for score, text, is_over in beams:
            if is_over:
                found.append((score, text, True))
                continue
            grams = {tuple(p[i : i + time + 1]) for p in left for i in range(len(p) - time)}
            for token in range(NUM):
                each = [
                    float(shares(p, text)[token])
                    if not extractive or token == END or (*text, token) in grams
                    else 0.0
                    for p in left
                ]
                value = sum(p * p for p in each) / (1 + sum(each))
                if value > 0:
                    found.append(
                        (
                            score + math.log(value),
                            text if token == END else (*text, token),
                            token == END,
                        )
                    )
        beams = sorted(found, key=lambda row: -row[0])[:beam]
    return beams[0][1]


def random_passages(draw: random.Random) -> list[list[int]]:
    return [[draw.randrange(4) for _ in range(draw.randint(1, 6))] for _ in range(draw.randint(1, 4))]


@pytest.mark.parametrize("extractive", [False, True])
@pytest.mark.parametrize("beam", [1, 3])
def test_the_voted_beam_is_that_of_a_loop_over_lists(beam, extractive):
    draw, answered = random.Random(beam), 0
    for passages in [[[1, 1]], *(random_passages(draw) for _ in range(20))]:
        options = {"beam": beam, "extractive": extractive}
        made = texts(decoding.write(Passages(), 1, question(*passages), MARKS, "beam", 4, **options))
        assert made == [by_lists(passages, beam, 4, extractive)], passages
        answered += len(made[0]) > 0
        if beam == 1:
            greedy = decoding.write(
                Passages(), 1, question(*passages), MARKS, "greedy", 4, extractive=extractive
            )
            assert texts(greedy) == made
    assert 5 < answered < 21


def is_part(text: tuple[int, ...], passages: list[list[int]]) -> bool:
    return any(tuple(p[i : i + len(text)]) == text for p in passages for i in range(len(p) + 1))


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_an_extractive_answer_is_a_part_of_a_passage(method):
    draw, parts = random.Random(0), 0
    for seed in range(20):
        passages = random_passages(draw)
        torch.manual_seed(seed)
        with_rule, free = (
            texts(decoding.write(Passages(), 1, question(*passages), MARKS, method, 5, extractive=extractive))
            for extractive in (True, False)
        )
        assert is_part(with_rule[0], passages)
        parts += is_part(free[0], passages)
    assert parts < 20  # without the rule some are not


@pytest.mark.parametrize("extractive", [False, True])
def test_the_order_of_passages_and_one_without_an_answer_change_nothing(extractive):
    draw, answers, changed = random.Random(1), set(), 0
    write = lambda passages: texts(
        decoding.write(Passages(), 1, question(*passages), MARKS, "beam", 4, extractive=extractive)
    )
    for _ in range(10):
        passages = [[0, 1, *row] for row in random_passages(draw)]
        made = write(passages)
        assert all(write(list(other)) == made for other in itertools.permutations(passages))
        assert write([*passages, [2, 2, 3, 1, 0, 1, 2]]) == made
        changed += write([*passages, [2, 3, 3, 1, 0, 1, 2]]) != made
        answers |= {*made}
    assert len(answers) > 3
    assert changed  # by a passage with an answer


def test_no_answer_where_no_passage_has_one():
    given = question([2, 2, 1], [3, 3])
    for method in ("greedy", "beam"):
        for extractive in (False, True):
            made = decoding.write(Passages(), 1, given, MARKS, method, 4, min_tokens=2, extractive=extractive)
            assert texts(made) == [()]


def test_one_passage_ranks_tokens_by_their_probabilities():
    shares = torch.rand(50, 1, NUM, dtype=torch.float64).softmax(-1)
    voted = scores(shares, torch.ones(50, 1, dtype=torch.bool), END)
    assert torch.equal(voted.argsort(-1), shares[:, 0].argsort(-1))
    expected = [p * p / (1 + p) for p in shares[0, 0].tolist()]
    assert voted[0].tolist() == pytest.approx(expected, rel=1e-14)


def test_a_row_of_passages_is_answered_as_alone():
    """Rows with more passages, and longer ones, beside it only pad its own."""
    draw = random.Random(3)
    rows = [random_passages(draw) for _ in range(6)]
    num, time = max(map(len, rows)), max(len(p) for row in rows for p in row)
    ids, lengths = torch.full((6, num, time), PAD), torch.zeros(6, num, dtype=torch.int64)
    for i, row in enumerate(rows):
        for j, passage in enumerate(row):
            ids[i, j, : len(passage)], lengths[i, j] = torch.tensor(passage), len(passage)
    given = {"passages": ids, "passage_lengths": lengths}
    for extractive in (False, True):
        together = texts(decoding.write(Passages(), 6, given, MARKS, "beam", 4, extractive=extractive))
        alone = [
            texts(decoding.write(Passages(), 1, question(*row), MARKS, "beam", 4, extractive=extractive))[0]
            for row in rows
        ]
        assert together == alone
