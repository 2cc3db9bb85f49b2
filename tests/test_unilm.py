"""UniLM: who sees whom, a cache that equals the forward pass, what is a target, and a task that shows leaks."""

import pytest
import torch
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.models.unilm import UniLM
from genpipe.nn import masks
from genpipe.nn.sources import Part, contains, ended, joined
from genpipe.nn.stepping import step_one
from genpipe.sampling.draw import joined as joined_rows
from genpipe.sampling.panels import of_lengths

VOCABULARY = 12
PAD, START, END, SEP, MASK = range(VOCABULARY, VOCABULARY + 5)
NUM = VOCABULARY + 5


def model_of(reads="source", max_length=6, **network) -> UniLM:
    torch.manual_seed(0)
    network = {"width": 16, "num_blocks": 3, "num_heads": 2, **network}
    model = UniLM(NUM, START, END, SEP, max_length, reads, **network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


def part(*texts: list[int]) -> Part:
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts], dtype=torch.int64)
    return Part(ids.view(len(texts), longest), torch.tensor([len(text) for text in texts]))


SOURCES, TARGETS = ([1, 2, 3], [4], [5, 6, 7, 8, 9]), ([1], [2, 3, 4], [5, 6])
PASSAGES = [[[1, 2, 3, 4], [5], [6, 7]], [[8, 9], [1, 2, 3], []]]


def pairs() -> dict[str, torch.Tensor]:
    return {
        name: value
        for field, texts in (("source", SOURCES), ("target", TARGETS))
        for name, value in zip((field, f"{field}_lengths"), part(*texts), strict=True)
    }


def questions() -> dict[str, torch.Tensor]:
    flat = part(*(text for row in PASSAGES for text in row))
    question, answer = part([10], [11, 10]), part([2, 3], [8, 9])
    return {
        "passages": flat.ids.unflatten(0, (2, 3)), "passage_lengths": flat.lengths.unflatten(0, (2, 3)),
        "question": question.ids, "question_lengths": question.lengths, "answer": answer.ids, "answer_lengths": answer.lengths,
    }  # fmt: skip


@pytest.mark.parametrize("pre_norm", [False, True])
def test_padded_parts_have_the_logits_of_texts_that_are_packed_one_by_one(pre_norm):
    model = model_of(pre_norm=pre_norm)
    with torch.no_grad():
        logits = model.logits(*model.item(pairs()))
        for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            ids = torch.tensor([[START, *source, SEP, *target]])
            segments = torch.tensor([[0] * (len(source) + 2) + [1] * len(target)])
            hidden = model.bert(ids, segments, mask=masks.prefix(segments))
            packed = model.bert.logits(hidden)[0, len(source) + 1 :]
            assert torch.allclose(logits[row, : len(target) + 1], packed, atol=1e-12)


def test_passages_stand_before_their_question():
    model = model_of("passages")
    x = questions()
    with torch.no_grad():
        logits, votes, _ = model.next_of_each(torch.tensor([START, START]), model.begin(x, 2))
        for row, (passages, question) in enumerate(zip(PASSAGES, ([10], [11, 10]), strict=True)):
            for place, passage in enumerate(passages):
                ids = torch.tensor([[START, *passage, SEP, *question, SEP]])
                alone = model.bert.logits(model.bert(ids))[0, -1]
                assert torch.allclose(logits[row, place], alone, atol=1e-12)
                assert votes[row, place] == (bool(passage) and int(alone.argmax()) != END)


def sensitivity(model: UniLM, source: Part, target: Part) -> torch.Tensor:
    """Whether the features of each token follow the embedding of each other, bool [time, time], source before target."""
    read = joined([source], START, SEP)
    time = read.ids.shape[1] + target.ids.shape[1]
    embed = model.bert.embeddings.tokens
    given = embed(torch.cat([read.ids, target.ids], 1)).detach()

    def features(x):
        hooks = embed.register_forward_hook(lambda *_: x)
        found: list[torch.Tensor] = []
        watch = model.bert.blocks[-1].register_forward_hook(lambda *out: found.append(out[2][0]))
        try:
            model.logits(read, target)
        finally:
            hooks.remove()
            watch.remove()
        return found[0][0]

    jacobian = torch.autograd.functional.jacobian(features, given)
    return jacobian.squeeze(2).abs().sum((1, -1)).view(time, time) != 0


def test_features_follow_the_tokens_that_their_own_sees_and_no_others():
    """Through three layers: source tokens see the source, target tokens the source and the target up to themselves, none sees padding."""
    model = model_of()
    source, target = (Part(p.ids[:1], p.lengths[:1]) for p in (part(*SOURCES), part([1, 2, 3], [4, 5, 6, 7])))
    seen = sensitivity(model, source, target)
    read = [
        0,
        1,
        2,
        3,
        4,
    ]  # <s> and three tokens and <sep>; two places of padding; a target of three and one of padding
    written, padding = [7, 8, 9], [5, 6, 10]
    for i in range(11):
        expected = {*read} if i in read else {*read, *(j for j in written if j <= i)}
        if i in padding:
            assert not set(seen[:, i].nonzero().flatten().tolist()) - {i}
        else:
            assert set(seen[i].nonzero().flatten().tolist()) == expected


def test_without_the_padding_mask_a_target_would_see_padding():
    """The control of the test above: by the segments alone the last target token sees the padding of the source before it."""
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    tokens = torch.tensor([[True, True, False, False, True, True, True]])
    for rule, sees in (
        (masks.prefix(segments), True),
        (masks.prefix(segments) & masks.of_tokens(tokens), False),
    ):
        allowed = rule.allowed()
        assert allowed is not None
        assert allowed[0, 0, -1, 2:4].tolist() == [sees, sees]


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("network", [{}, {"key_size": 12}, {"embedding_dim": 6}, {"talking_heads": "both"}])
@pytest.mark.parametrize("segment", [0, 1])
def test_a_step_without_modules_is_the_step_of_the_network(network, pre_norm, segment):
    """Also with a state that goes on twice, and with positions of one's own."""
    bert = model_of(pre_norm=pre_norm, **network).bert
    read = joined([part(*SOURCES)], START, SEP)
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    with torch.no_grad():
        _, start = bert.read(read.ids, positions=read.positions, mask=masks.of_tokens(read.tokens))
        for places in (None, torch.tensor([9, 8, 7])):
            ours, theirs = start, start
            for column in ids:
                mine, ours = step_one(bert, column, ours, segment, places)
                segments = torch.full((3, 1), segment)
                at = None if places is None else places.unsqueeze(1)
                hidden, theirs = bert.step(column.unsqueeze(1), theirs, segments, at)
                assert torch.allclose(mine, hidden[:, 0], atol=1e-12, rtol=0)
                assert ours.keys() == theirs.keys()
                assert torch.equal(ours["next"], theirs["next"])
                assert torch.equal(ours["positions"], theirs["positions"])
                assert torch.equal(ours["tokens"], theirs["tokens"])
                for a, b in zip(ours["layers"], theirs["layers"], strict=True):
                    assert all(torch.allclose(x, y, atol=1e-12, rtol=0) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("reads", ["source", "passages"])
def test_token_by_token_is_the_forward_pass(reads):
    """Whatever is read is read once, and each token of a target once: the logits are those of a pass over all."""
    model = model_of(reads, num_blocks=2, key_size=12, talking_heads="both", embedding_dim=6)
    x = pairs() if reads == "source" else questions()
    n = len(next(iter(x.values())))
    texts = torch.randint(0, VOCABULARY, (n, 5))
    lengths = torch.full((n,), 5)
    with torch.no_grad():
        state, newest = model.begin({name: x[name] for name in model.given}, n), torch.full((n,), START)
        stepped = []
        for column in (*texts.T, None):
            if reads == "source":
                logits, state = model.next(newest, state)
            else:
                logits, _, state = model.next_of_each(newest, state)
            stepped.append(logits)
            newest = column
        if reads == "source":
            whole = model.logits(
                model.item({**x, "target": texts, "target_lengths": lengths})[0], Part(texts, lengths)
            )
            assert torch.allclose(torch.stack(stepped, 1), whole, atol=1e-12, rtol=0)
            return
        for place in range(3):
            read = joined(
                [Part(x["passages"][:, place], x["passage_lengths"][:, place]), Part(x["question"], x["question_lengths"])],
                START, SEP,
            )  # fmt: skip
            whole = model.logits(read, Part(texts, lengths))
            assert torch.allclose(torch.stack(stepped, 1)[:, :, place], whole, atol=1e-12, rtol=0)


def test_the_loss_is_over_target_tokens_and_their_end_marks_alone():
    model, x = model_of().requires_grad_(False), pairs()
    loss = model.cross_entropy(x)
    total, right = 0.0, 0
    for source, target in zip(SOURCES, TARGETS, strict=True):
        read = joined([part(source)], START, SEP)
        logits = model.logits(read, part(target))[0]
        total += float(F.cross_entropy(logits, torch.tensor([*target, END]), reduction="sum"))
        right += int((logits.argmax(-1) == torch.tensor([*target, END])).sum())
    assert loss.weight == 9  # six tokens and three end marks
    assert float(loss.value) == pytest.approx(total / 9, rel=1e-12)
    assert float(loss.metrics["accuracy"]) == pytest.approx(right / 9)


def test_padding_after_a_target_changes_no_loss():
    model, x = model_of().requires_grad_(False), pairs()
    wider = {
        **x,
        "source": F.pad(x["source"], (0, 1), value=PAD),
        "target": F.pad(x["target"], (0, 3), value=PAD),
    }
    assert float(model.cross_entropy(x).value) == pytest.approx(
        float(model.cross_entropy(wider).value), rel=1e-12
    )


def test_an_item_has_one_passage_at_random_and_no_answer_where_it_has_none():
    model, x = model_of("passages"), questions()
    seen = {}
    for seed in range(200):
        torch.manual_seed(seed)
        source, target = model.item(x)
        for row in range(2):
            read = source.ids[row][source.tokens[row]].tolist()
            passage = tuple(read[1 : read.index(SEP)])
            seen.setdefault((row, passage), []).append(int(target.lengths[row]))
            assert read[read.index(SEP) + 1 : -1] == [[10], [11, 10]][row]
    lengths = {key: set(values) for key, values in seen.items()}
    assert lengths == {
        (0, (1, 2, 3, 4)): {2}, (0, (5,)): {0}, (0, (6, 7)): {0}, (1, (8, 9)): {2}, (1, (1, 2, 3)): {0},
    }  # fmt: skip
    assert all(len(values) > 200 / 3 / 1.5 for values in seen.values())


def test_contains_is_that_of_lists():
    torch.manual_seed(0)
    lengths, widths = torch.randint(0, 7, (500,)), torch.randint(0, 4, (500,))
    texts, answers = torch.randint(0, 3, (500, 6)), torch.randint(0, 3, (500, 3))
    found = contains(Part(texts, lengths), Part(answers, widths)).tolist()
    for row, is_part in enumerate(found):
        text = "".join(map(str, texts[row, : lengths[row]].tolist()))
        assert is_part == ("".join(map(str, answers[row, : widths[row]].tolist())) in text)
    assert 100 < sum(found) < 400
    assert contains(Part(texts, lengths), Part(answers[:, :0], 0 * widths)).all()


def test_an_end_mark_stands_behind_the_last_token():
    assert ended(part([1, 2], [3]), END).tolist() == [[1, 2, END], [3, END, END]]


def test_a_text_ends_where_the_positions_end():
    model = model_of(max_length=2)  # 6 positions: <s> 1 2 <sep> and two tokens of a target
    given = {"source": torch.tensor([[1, 2]]), "source_lengths": torch.tensor([2])}
    state, logits = model.begin(given, 1), []
    for token in (START, 3, 4, 5, 6):
        found, state = model.next(torch.tensor([token]), state)
        logits.append(found[0])
    assert all(row.isfinite().all() for row in logits[:3])
    assert all(row.argmax() == END and row.isinf().sum() == NUM - 1 for row in logits[3:])
    long = {"source": torch.tensor([[1, 2, 3, 4]]), "source_lengths": torch.tensor([4])}
    with pytest.raises(
        BadInput, match="a text of 6 tokens with its marks, and this model reads and writes 6 in all"
    ):
        model.begin(long, 1)


def test_data_of_another_kind_and_too_few_positions_are_one_line():
    with pytest.raises(
        BadInput, match="reads: passages is for data of the kind passages, and this data has: source"
    ):
        model_of("passages").cross_entropy(pairs())
    with pytest.raises(
        BadInput, match="num_positions: 10 are less than the 14 that texts of up to 6 tokens take"
    ):
        model_of(num_positions=10)


class Open(UniLM):
    """Every token sees every other: what is to be written can be read."""

    def rule(self, segments):
        return masks.Mask(torch.ones(1, segments.shape[1], segments.shape[1], dtype=torch.bool))


def sorting(n: int, length: int = 5) -> dict[str, torch.Tensor]:
    source = torch.randint(0, VOCABULARY, (n, length))
    lengths = torch.full((n,), length)
    return {
        "source": source, "source_lengths": lengths, "target": source.sort(1).values, "target_lengths": lengths,
    }  # fmt: skip


def trained(make: type[UniLM], steps: int, lr: float = 3e-3) -> UniLM:
    torch.manual_seed(0)
    model = make(NUM, START, END, SEP, 6, width=64, num_blocks=2, num_heads=4, dropout=0)
    solver = torch.optim.AdamW(model.parameters(), lr, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(solver, lambda t: min((t + 1) / 50, 1 - t / steps))
    for _ in range(steps):
        solver.zero_grad()
        model.cross_entropy(sorting(32)).value.backward()
        solver.step()
        schedule.step()
    return model.eval()


def exact_match(model: UniLM, x: dict[str, torch.Tensor]) -> float:
    """Greedy, each token by a whole pass over the source and what was written, so that no cache hides what a mask lets see."""
    source, target = model.item(x)
    written = target.ids[:, :0]
    for _ in range(target.ids.shape[1] + 1):
        logits = model.logits(source, Part(written, torch.full((len(written),), written.shape[1])))
        written = torch.cat([written, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return float((written == ended(target, END)).all(1).double().mean())


def test_a_mask_that_leaks_learns_to_read_the_answer_and_writes_nonsense():
    """Sorting: both losses are low, and only the right mask can write (archives/6933)."""
    good, leaky = trained(UniLM, 400), trained(Open, 200)
    with torch.no_grad():
        x = sorting(300)
        assert float(good.cross_entropy(x).value) < 0.05
        assert float(leaky.cross_entropy(x).value) < 0.05
        assert exact_match(good, x) >= 0.95
        assert exact_match(leaky, x) <= 0.05


def test_rows_of_several_chunks_are_joined_whatever_their_widths():
    """Chunks of a split have passages of their own number and length."""
    parts = [
        {"passages": torch.ones(2, 3, 4), "lengths": torch.ones(2)},
        {"passages": torch.ones(1, 2, 5), "lengths": torch.ones(1)},
    ]
    made = joined_rows(parts)
    assert made["passages"].shape == (3, 3, 5)
    assert made["passages"].sum((1, 2)).tolist() == [12, 12, 10]
    assert made["passages"][2, :2].eq(1).all()
    assert made["lengths"].tolist() == [1, 1, 1]


def test_texts_of_joined_chunks_are_shown_without_what_fills_them():
    """Chunks are joined with zeros, which is the id of an unknown token."""
    x = joined_rows(
        [
            {"source": part([1, 2]).ids, "source_lengths": torch.tensor([2])},
            {"source": part([3, 4, 5]).ids, "source_lengths": torch.tensor([3])},
        ]
    )
    assert x["source"].tolist() == [[1, 2, 0], [3, 4, 5]]
    assert of_lengths(x, "source", PAD).tolist() == [[1, 2, PAD], [3, 4, 5]]
