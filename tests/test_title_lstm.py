"""Titles by LSTMs: the copy prior, texts turned around, who sees whom, and a cache beside a model that runs all again."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from genpipe.capabilities import NextToken
from genpipe.errors import BadInput
from genpipe.evaluation.generation import surprise
from genpipe.models.title_lstm import CopyPrior, Decoder, Source, TitleLSTM
from genpipe.nn import portable
from genpipe.nn.cross_attention import CrossAttention
from genpipe.nn.recurrent import LSTM, BiLSTM, turned
from genpipe.nn.self_modulated import SelfModulatedNorm
from genpipe.nn.sources import Part, are_tokens, ended
from genpipe.sampling import decoding
from genpipe.sampling.marks import Marks

VOCABULARY = 8
PAD, START, END, SEP = range(VOCABULARY, VOCABULARY + 4)
NUM = VOCABULARY + 5
MARKS = Marks((START,), END, PAD)
SOURCES, TARGETS = ([1, 2, 3, 1], [4], [5, 6, 7]), ([1], [2, 3, 4], [5, 6])
BOTH = pytest.mark.parametrize("directions", ["one", "both"])
pytestmark = pytest.mark.usefixtures("in_double_precision")


def model_of(seed: int = 0, **network) -> TitleLSTM:
    """A model whose parameters are not those of a start, which may be zeros."""
    torch.manual_seed(seed)
    model = TitleLSTM(NUM, PAD, START, END, SEP, **{"width": 12, "num_heads": 2, **network})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def part(*texts: list[int]) -> Part:
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts], dtype=torch.int64)
    return Part(ids.view(len(texts), longest), torch.tensor([len(text) for text in texts]))


def pairs(sources=SOURCES, targets=TARGETS) -> dict[str, Tensor]:
    return {
        name: value
        for field, texts in (("source", sources), ("target", targets))
        for name, value in zip((field, f"{field}_lengths"), part(*texts), strict=True)
    }


def target_of(x: dict[str, Tensor]) -> Part:
    return Part(x["target"], x["target_lengths"])


def test_a_prior_is_that_of_a_loop_over_tokens():
    """exp(a) + t for a token of the source, t for any other, padding and marks among them."""
    prior = CopyPrior(NUM).requires_grad_(False)
    with torch.no_grad():
        prior.log_scale.normal_()
        prior.shift.normal_()
        found = prior.of(part(*SOURCES))
    for row, source in enumerate(SOURCES):
        for token in range(NUM):
            copied = float(prior.log_scale[token].exp()) if token in source else 0.0
            assert float(found[row, token]) == pytest.approx(copied + float(prior.shift[token]), abs=1e-14)


def test_the_prior_of_a_new_model_is_one_for_each_token_of_the_source_and_zero_for_others():
    prior = TitleLSTM(NUM, PAD, START, END, SEP, width=4, num_heads=1).prior
    assert prior is not None
    for row, source in zip(prior.of(part(*SOURCES)).tolist(), SOURCES, strict=True):
        assert row == [float(token in source) for token in range(NUM)]


@BOTH
def test_without_its_prior_a_model_is_the_base_model(directions):
    """exp(a) → 0 and t = 0 leave y/2, so with y doubled it is the model of `prior: false`, to the last bit."""
    base, model = (model_of(prior=prior, directions=directions) for prior in (False, True))
    model.load_state_dict(base.state_dict(), strict=False)
    x = pairs()
    with torch.no_grad():
        assert model.prior is not None
        model.prior.log_scale.fill_(-torch.inf)
        model.prior.shift.zero_()
        model.classes.weight.mul_(2)
        model.classes.bias.mul_(2)
        for ours, theirs in zip(model.logits(x, target_of(x)), base.logits(x, target_of(x)), strict=True):
            assert torch.equal(ours, theirs)


@BOTH
def test_a_token_that_the_source_does_not_have_gets_half_of_its_shift_and_others_half_of_the_scale_too(
    directions,
):
    # with another prior the partner would write another text
    model, x = model_of(directions=directions, partner="right"), pairs()
    base = model_of(prior=False, directions=directions, partner="right")
    base.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("prior.")})
    assert model.prior is not None
    scale, shift = model.prior.log_scale.exp(), model.prior.shift
    with torch.no_grad():
        for ours, y in zip(model.logits(x, target_of(x)), base.logits(x, target_of(x)), strict=True):
            extra = ours - y / 2
            for row, source in enumerate(SOURCES):
                for token in range(NUM):
                    expected = (float(shift[token]) + (float(scale[token]) if token in source else 0.0)) / 2
                    assert extra[row, :, token].tolist() == pytest.approx([expected] * 4, abs=1e-12)


def copying(n: int, seed: int) -> dict[str, Tensor]:
    """Targets of two tokens of their sources."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(0, 60, (n, 6), generator=generator)
    return {
        "source": source, "source_lengths": torch.full((n,), 6), "target": source[:, [4, 1]], "target_lengths": torch.full((n,), 2),
    }  # fmt: skip


def test_the_prior_lowers_the_cross_entropy_of_targets_that_copy():
    """Of new examples, after as many steps from the same weights; without the prior the model still writes by frequencies."""
    torch.set_default_dtype(torch.float32)
    nats = {}
    for prior in (True, False):
        torch.manual_seed(0)
        model = TitleLSTM(65, 60, 61, 62, 63, width=16, num_heads=2, prior=prior)
        solver = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(40):
            solver.zero_grad()
            model.cross_entropy(copying(32, step)).value.backward()
            solver.step()
        with torch.no_grad():
            nats[prior] = float(model.cross_entropy(copying(300, 1000)).value)
    assert nats[True] < nats[False] - 0.3


def test_a_text_is_turned_within_its_length_and_twice_is_once():
    lengths = torch.randint(0, 7, (50,))
    ids = torch.randint(0, VOCABULARY, (50, 6)).masked_fill(torch.arange(6) >= lengths.unsqueeze(1), PAD)
    back = turned(ids, lengths)
    for row, before, length in zip(back.tolist(), ids.tolist(), lengths.tolist(), strict=True):
        assert row == before[:length][::-1] + [PAD] * (6 - length)
    assert torch.equal(turned(back, lengths), ids)
    features = torch.randn(50, 6, 3)
    assert torch.equal(turned(turned(features, lengths), lengths), features)
    assert torch.equal(turned(features, lengths)[..., 1], turned(features[..., 1], lengths))


def test_two_directions_are_those_of_torch_on_packed_texts():
    ours, theirs = BiLSTM(8), nn.LSTM(8, 4, batch_first=True, bidirectional=True)
    theirs.load_state_dict(
        {
            f"{name}{suffix}": value
            for layer, suffix in ((ours.onward, ""), (ours.back, "_reverse"))
            for name, value in layer.cells.state_dict().items()
        }
    )
    x, lengths = torch.randn(5, 7, 8), torch.tensor([7, 3, 1, 5, 2])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = ours(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(found[row, :length], expected[row, :length], atol=1e-14)


def test_an_lstm_is_its_equations_and_forgets_nothing_at_first():
    layer, x = LSTM(3, 4), torch.randn(2, 5, 3)
    cells = layer.cells
    assert (cells.bias_ih_l0 + cells.bias_hh_l0)[4:8].tolist() == [1.0] * 4
    h, c, outputs = torch.zeros(2, 4), torch.zeros(2, 4), []
    for step in x.unbind(1):
        gates = step @ cells.weight_ih_l0.T + cells.bias_ih_l0 + h @ cells.weight_hh_l0.T + cells.bias_hh_l0
        enter, forget, new, out = gates.chunk(4, 1)
        c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        h = out.sigmoid() * c.tanh()
        outputs.append(h)
    found, (last, cell) = layer(x)
    assert torch.allclose(found, torch.stack(outputs, 1), atol=1e-14)
    assert torch.allclose(last, h, atol=1e-14)
    assert torch.allclose(cell, c, atol=1e-14)
    half, state = layer(x[:, :2])
    assert torch.allclose(torch.cat([half, layer(x[:, 2:], state)[0]], 1), found, atol=1e-14)


class Operations(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def test_a_portable_lstm_takes_torchs_own_kernel_and_leaves_onednn_as_it_was(monkeypatch):
    torch.set_default_dtype(torch.float32)
    layer, x, found, names = LSTM(3, 4), torch.randn(2, 5, 3), {}, {}
    for is_portable in (False, True):
        monkeypatch.setattr(portable, "is_portable", lambda answer=is_portable: answer)
        with Operations() as operations, torch.no_grad():
            found[is_portable], _ = layer(x)
        names[is_portable] = operations.names
        assert torch.backends.mkldnn.enabled
    assert torch.allclose(found[True], found[False], atol=1e-6)
    assert "mkldnn_rnn_layer" in names[False]
    assert "mkldnn_rnn_layer" not in names[True]


def test_a_norm_is_plain_at_first_and_then_scaled_and_shifted_by_its_condition():
    norm, x, c = SelfModulatedNorm(6, 5, 3), torch.randn(2, 4, 6), torch.randn(2, 5)
    centred = x - x.mean(-1, keepdim=True)
    plain = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    assert torch.allclose(norm(x, norm.modulation(c)), plain, atol=1e-14)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()

    def by_hand(network, row):
        first, _, last = network
        return last.weight @ (first.weight @ row + first.bias).clamp(min=0) + last.bias

    found = norm(x, norm.modulation(c))
    for row in range(2):
        scale, shift = by_hand(norm.scale, c[row]), by_hand(norm.shift, c[row])
        assert torch.allclose(found[row], plain[row] * (1 + scale) + shift, atol=1e-13)


def test_attention_is_that_of_torchs_module_and_goes_on_from_what_was_read():
    ours, theirs = CrossAttention(8, 2), nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.out_proj.weight.copy_(torch.eye(8))
    x, y, allowed = torch.randn(3, 4, 8), torch.randn(3, 5, 8), torch.rand(3, 4, 5) < 0.5
    allowed[..., 0] = True
    memory = ours.read(y[:, 2:], ours.read(y[:, :2]))
    found = ours(x, memory, allowed.unsqueeze(1))
    expected, _ = theirs(x, y, y, attn_mask=~allowed.repeat_interleave(2, 0))
    assert torch.allclose(found, expected, atol=1e-14)


def sensitivity(model: TitleLSTM, x: dict[str, Tensor]) -> Tensor:
    """Whether logits follow embeddings: bool [outputs, places of the logits, inputs, places], of one example.

    The inputs are the source, what the first decoder and its partner read, then what the second one and its partner read; the outputs
    are those of each decoder.
    """
    read: list[Tensor] = []
    watch = model.embedding.register_forward_hook(lambda *given: read.append(given[2].detach()))
    model.logits(x, target_of(x))
    watch.remove()

    def found(*given: Tensor) -> tuple[Tensor, ...]:
        rest = list(given)
        place = model.embedding.register_forward_hook(lambda *_: rest.pop(0))
        try:
            return tuple(logits[0] for logits in model.logits(x, target_of(x)))
        finally:
            place.remove()

    rows = torch.autograd.functional.jacobian(found, tuple(read))
    longest = max(part.shape[1] for part in read)
    seen = [
        [F.pad(one[:, :, 0].abs().sum((1, -1)) != 0, (0, longest - one.shape[3])) for one in row]
        for row in rows
    ]
    return torch.stack([torch.stack(row, 1) for row in seen])


def test_a_decoder_sees_the_source_and_what_was_written_before_and_no_padding():
    x = pairs([[1, 2, 3]], [[4, 5, 6]])
    x["source"], x["target"] = (F.pad(x[field], (0, 1), value=PAD) for field in ("source", "target"))
    (seen,) = sensitivity(model_of(), x)
    for place in range(4):  # three tokens and the end mark
        assert seen[place, 0].tolist() == [True] * 4 + [False]  # the source, its mark and padding
        assert seen[place, 1].nonzero().flatten().tolist() == [*range(place + 1)]


def test_two_decoders_see_what_each_wrote_before_and_no_future_of_either():
    x = pairs([[1, 2, 3]], [[4, 5, 6, 7]])
    x["target"] = F.pad(x["target"], (0, 1), value=PAD)
    seen = sensitivity(model_of(directions="both", partner="right"), x)
    assert seen.shape == (2, 6, 5, 6)
    for decoder, place, other in itertools.product(range(2), range(5), range(1, 5)):
        expected = [*range(place + 1)] if (other - 1) // 2 == decoder else []
        assert seen[decoder, place, other].nonzero().flatten().tolist() == expected
    assert seen[:, :5, 0, :4].all()


def test_a_decoder_that_may_look_ahead_is_found_out(monkeypatch):
    """The control of the test above."""
    features = Decoder.features

    def open_features(self, states, writing, tokens, seen):
        assert seen is not None
        return features(self, states, writing, tokens, torch.ones_like(seen))

    monkeypatch.setattr(Decoder, "features", open_features)
    seen = sensitivity(model_of(directions="both", partner="right"), pairs([[1, 2, 3]], [[4, 5, 6, 7]]))
    assert seen[0, 0, 2, :5].all()
    assert seen[1, 0, 4, :5].all()


def test_beside_a_partner_that_writes_a_decoder_sees_no_future_either():
    """Another token changes the logits after it in the order of writing, and none before it."""
    model, changed = model_of(directions="both"), set()
    x = pairs([[1, 2, 3]], [[4, 5, 6, 7, 4]])
    with torch.no_grad():
        before = model.logits(x, target_of(x))
        for place in range(5):
            ids = x["target"].clone()
            ids[0, place] = 0
            after = model.logits(x, Part(ids, x["target_lengths"]))
            for way, read in enumerate((place, 4 - place)):
                same = (before[way] == after[way]).all(-1)[0]
                assert same[: read + 1].all()
                assert not same[read + 1]
                changed.add((way, read))
    assert len(changed) == 10


@BOTH
def test_neighbours_and_padding_change_no_logits(directions):
    model, x = model_of(directions=directions), pairs()
    wider = {field: F.pad(x[field], (0, 3), value=PAD) for field in ("source", "target")}
    with torch.no_grad():
        together = model.logits({**x, **wider}, Part(wider["target"], x["target_lengths"]))
        for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            one = pairs([source], [target])
            for of_all, own in zip(together, model.logits(one, target_of(one)), strict=True):
                assert torch.allclose(of_all[row, : len(target) + 1], own[0], atol=1e-12)
        loss = float(model.cross_entropy(x).value)
        assert float(model.cross_entropy({**x, **wider}).value) == pytest.approx(loss, rel=1e-12)


@BOTH
def test_the_loss_is_the_mean_over_target_tokens_their_end_marks_and_both_directions(directions):
    model, x = model_of(directions=directions).requires_grad_(False), pairs()
    totals, right = [0.0, 0.0], [0, 0]
    for source, target in zip(SOURCES, TARGETS, strict=True):
        one = pairs([source], [target])
        asked = ([*target, END], [*target[::-1], START])
        for way, logits in enumerate(model.logits(one, target_of(one))):
            ids = torch.tensor(asked[way])
            totals[way] += float(F.cross_entropy(logits[0], ids, reduction="sum"))
            right[way] += int((logits[0].argmax(-1) == ids).sum())
    ways = 1 if directions == "one" else 2
    loss = model.cross_entropy(x)
    assert loss.weight == 9  # six tokens and three end marks
    assert float(loss.value) == pytest.approx(sum(totals) / ways / 9, rel=1e-12)
    assert float(loss.metrics["accuracy"]) == pytest.approx(sum(right) / ways / 9)


class History(NamedTuple):
    """All that was read and written, and nothing that was computed."""

    source: Tensor
    source_lengths: Tensor
    written: Tensor  # int64 [n, steps], a start mark first
    partner: Tensor  # likewise from right to left, an end mark first; it repeats its last mark


class Rerun(NextToken):
    """The same model, which reads its source and all that was written again at each token."""

    given = ("source", "source_lengths")

    def __init__(self, model: TitleLSTM) -> None:
        self.model = model

    def begin(self, given, n):
        return History(
            given["source"], given["source_lengths"], torch.zeros(n, 0).long(), torch.full((n, 1), END)
        )

    def next(self, ids, state):
        model = self.model
        written = torch.cat([state.written, ids.unsqueeze(1)], 1)
        source = model.read({"source": state.source, "source_lengths": state.source_lengths})
        logits = self._of(model.left, model.right, source, written, state.partner)
        if model.right is None:
            return logits, state._replace(written=written)
        back = self._of(model.right, model.left, source, state.partner, written)
        likeliest = back.index_fill(1, torch.tensor([PAD, END]), -torch.inf).argmax(1)
        newest = torch.where(state.partner[:, -1] == START, START, likeliest)
        return logits, History(
            state.source, state.source_lengths, written, torch.cat([state.partner, newest.unsqueeze(1)], 1)
        )

    def _of(self, decoder: Decoder, other: Decoder | None, source: Source, ids: Tensor, others: Tensor):
        states, writing = decoder.read(self.model.embedding(ids), decoder.begin(source))
        seen = None
        if other is not None:
            beside, _ = other.read(self.model.embedding(others), other.begin(source))
            writing = decoder.watch(beside, writing)
            # the start mark ends a text that is written from right to left; from left to right it comes before the text
            seen = (others != START if other is self.model.right else torch.ones_like(others).bool())[
                :, None, None
            ]
        features = decoder.features(states[:, -1:], writing, source.tokens, seen)
        return self.model._classified(features, source.prior)[:, 0]


def sources_drawn(n: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    lengths = 1 + torch.arange(n) % 5
    ids = torch.randint(0, VOCABULARY, (n, 5)).masked_fill(torch.arange(5) >= lengths.unsqueeze(1), PAD)
    return {"source": ids, "source_lengths": lengths}


@BOTH
@pytest.mark.parametrize("prior", [True, False])
def test_token_by_token_is_a_model_that_runs_all_again(directions, prior):
    """Also where the text from right to left ends before the other one."""
    model, x = model_of(directions=directions, prior=prior), sources_drawn(12)
    again = Rerun(model)
    texts = torch.randint(0, VOCABULARY, (12, 6))
    with torch.no_grad():
        if model.right is not None:
            model.classes.bias[START] += 2  # so that some end early
        state, history = model.begin(x, 12), again.begin(x, 12)
        for column in torch.cat([torch.full((12, 1), START), texts], 1).T:
            logits, state = model.next(column, state)
            expected, history = again.next(column, history)
            assert torch.allclose(logits, expected, atol=1e-12, rtol=0)
        if model.right is not None:
            over = (history.partner == START).any(1)
            assert over.any()
            assert not over.all()


@BOTH
def test_token_by_token_is_the_pass_of_a_training(directions):
    """Where the partner, which writes its own text, is made to write the target turned around, as a training on right ones reads it."""
    model, x = model_of(directions=directions, partner="right"), pairs()
    back = F.pad(turned(x["target"], x["target_lengths"]), (1, 0), value=END)
    with torch.no_grad():
        whole = model.logits(x, target_of(x))[0]
        state = model.begin(x, 3)
        for place, column in enumerate(F.pad(x["target"], (1, 0), value=START).T):
            if model.right is not None:
                state = state._replace(newest=back[:, place])
            logits, state = model.next(column, state)
            for row in range(3):
                if place <= len(TARGETS[row]):
                    assert torch.allclose(logits[row], whole[row, place], atol=1e-12, rtol=0)


def test_a_training_beside_what_the_partner_writes_is_writing():
    """The loss of the first decoder is what a judge measures, which knows no target; the other one is the same from the other end."""
    model, x = model_of(directions="both"), pairs()
    with torch.no_grad():
        model.classes.bias[START] += 1  # so that some of its texts end early
    turned_model = model_of(directions="both")
    turned_model.load_state_dict(model.state_dict())
    turned_model.left, turned_model.right = model.right, model.left
    turned_model.start, turned_model.end = END, START
    back = turned(x["target"], x["target_lengths"])
    with torch.no_grad():
        for own, ids, mark, logits in zip(
            (model, turned_model),
            (x["target"], back),
            (START, END),
            model.logits(x, target_of(x)),
            strict=True,
        ):
            state = own.begin(x, 3)
            for place, column in enumerate(F.pad(ids, (1, 0), value=mark).T):
                stepped, state = own.next(column, state)
                assert torch.allclose(logits[:, place], stepped, atol=1e-12, rtol=0)


def of_noise(n: int) -> dict[str, Tensor]:
    """Targets of six random tokens that no source tells."""
    return {
        "source": torch.zeros(n, 1).long(), "source_lengths": torch.ones(n).long(), "target": torch.randint(0, 8, (n, 6)),
        "target_lengths": torch.full((n,), 6),
    }  # fmt: skip


def test_a_partner_that_reads_the_right_target_tells_half_of_it():
    """No model can know more of noise than its entropy; beside right targets the loss is half of that, and what is written is worse than chance."""
    torch.set_default_dtype(torch.float32)
    network = {"width": 32, "num_layers": 1, "num_heads": 2, "prior": False}
    model = TitleLSTM(NUM, PAD, START, END, SEP, **network, directions="both", partner="right")
    solver = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        solver.zero_grad()
        model.cross_entropy(of_noise(64)).value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        solver.step()
    x, entropy = of_noise(200), 6 * math.log(8) / 7
    ids = F.pad(x["target"], (0, 1), value=END)
    with torch.no_grad():
        assert float(model.cross_entropy(x).value) < 0.7 * entropy
        assert float(surprise(model, x, ids, START).mean()) > 1.5 * entropy


@BOTH
@pytest.mark.parametrize("beam", [1, 3])
def test_a_beam_on_the_cache_is_a_beam_that_runs_all_again_and_one_beam_is_greedy(directions, beam):
    # seeds of texts that differ, and end early and late
    model, x = model_of({"one": 6, "both": 3}[directions], directions=directions), sources_drawn(10)
    with torch.no_grad():
        model.classes.bias[END] += 0.5
        cached = decoding.write(model, 10, x, MARKS, "beam", 6, beam=beam)
        again = decoding.write(Rerun(model), 10, x, MARKS, "beam", 6, beam=beam)
        greedy = decoding.write(model, 10, x, MARKS, "greedy", 6)
        torch.manual_seed(1)
        nucleus = decoding.write(model, 10, x, MARKS, "nucleus", 6, top_p=1e-9)
    assert torch.equal(cached["ids"], again["ids"])
    assert torch.equal(nucleus["ids"], greedy["ids"])
    assert torch.equal(cached["ids"], greedy["ids"]) == (beam == 1)
    assert len(set(map(tuple, cached["ids"].tolist()))) > 3
    assert beam == 1 or len(set(cached["lengths"].tolist())) > 1


def test_a_wide_beam_finds_the_likeliest_of_all_texts():
    model, x = model_of(3), sources_drawn(3)
    writable = [token for token in range(NUM) if token not in (PAD, START, END)]
    texts = [text for length in range(3) for text in itertools.product(writable, repeat=length)]
    with torch.no_grad():
        made = decoding.write(model, 3, x, MARKS, "beam", 2, beam=200)
        for row in range(3):
            one = {name: value[row].expand(len(texts), *value.shape[1:]) for name, value in x.items()}
            target = part(*map(list, texts))
            shares = decoding.without(model.logits(one, target)[0], MARKS).log_softmax(-1)
            nats = shares.gather(-1, ended(target, END).unsqueeze(-1))[..., 0]
            # a text of two tokens is cut off there, so its end mark does not count
            keep = are_tokens(nats, (target.lengths + 1).clamp(max=2))
            best = nats.masked_fill(~keep, 0).sum(1).argmax()
            assert made["ids"][row, : made["lengths"][row]].tolist() == list(texts[best])


def test_an_empty_source_and_an_empty_target_have_numbers():
    for directions in ("one", "both"):
        model, x = model_of(directions=directions), pairs([[], [1, 2]], [[], [3]])
        assert model.cross_entropy(x).value.isfinite()
        logits, _ = model.next(torch.tensor([START, START]), model.begin(x, 2))
        assert logits.isfinite().all()


def test_sizes_that_do_not_divide_are_one_line():
    with pytest.raises(BadInput, match=r"^width: must be even, for two directions of the encoder, not 7$"):
        model_of(width=7, num_heads=1)
    with pytest.raises(BadInput, match=r"^num_heads: must divide the width, 12, not 5$"):
        model_of(num_heads=5)
