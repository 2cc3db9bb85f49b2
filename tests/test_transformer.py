"""The transformer of genpipe/nn/bert.py: masks, cache, talking heads, key size, Synthesizer and conditional norms, each exactly."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.nn import masks
from genpipe.nn.attention import Attention, Positions
from genpipe.nn.bert import Bert
from genpipe.nn.conditional_norm import ConditionalNorm
from genpipe.nn.masks import Mask
from genpipe.sampling.decoding import take

TIME, NUM_TOKENS, DIM, HEADS = 9, 20, 16, 4
VARIANTS = [
    {},
    {"pre_norm": True, "key_size": 7},
    {"talking_heads": "both"},
    {"talking_heads": "before", "num_segments": 0},
    {"attention": ("product", "dense", "random")},
    {"attention": ("factorised_dense",), "talking_heads": "after"},
    {"attention": ("factorised_random", "fixed_random"), "embedding_dim": 10},
    {"condition_dim": 5, "bottleneck": 3},
]
pytestmark = pytest.mark.usefixtures("in_double_precision")


def network(num_blocks: int = 2, **options) -> Bert:
    """A network whose parameters are not those of a start, which may be zeros."""
    made = Bert(NUM_TOKENS, DIM, num_blocks, HEADS, max_length=12, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def ids(n: int = 3, time: int = TIME) -> torch.Tensor:
    return torch.randint(0, NUM_TOKENS, (n, time))


def condition_of(options: dict, n: int = 3) -> torch.Tensor | None:
    return torch.randn(n, options["condition_dim"]) if "condition_dim" in options else None


def segments(source: int, target: int, n: int = 3) -> torch.Tensor:
    return torch.tensor([0] * source + [1] * target).expand(n, -1)


def support(model: Bert, read: torch.Tensor, mask: Mask, *, told: torch.Tensor | None = None) -> torch.Tensor:
    """Which inputs move which outputs of the first text, bool [outputs, inputs]."""
    inputs: list[torch.Tensor] = []

    def note(module, args, output):
        inputs.append(output.detach().requires_grad_())
        return inputs[0]

    with model.embeddings.register_forward_hook(note):
        hidden = model(read, told, mask=mask)[0] @ torch.randn(DIM)
    rows = [torch.autograd.grad(out, inputs[0], retain_graph=True)[0][0] for out in hidden]
    return torch.stack(rows).abs().amax(-1) > 0


ORDER = torch.tensor([[3, 0, 5, 1, 8, 2, 7, 4, 6]])
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
RULES = {
    "full": (masks.FULL, torch.ones(TIME, TIME, dtype=torch.bool)),
    "causal": (masks.causal(TIME), torch.ones(TIME, TIME).tril() > 0),
    "prefix": (
        masks.prefix(segments(4, 5, 1)),
        torch.tensor([[j < 4 or (i >= 4 and j <= i) for j in range(TIME)] for i in range(TIME)]),
    ),
    "permuted": (masks.permuted(ORDER), ORDER[0] <= ORDER[0].unsqueeze(1)),
    "documents": (
        masks.causal(TIME) & masks.same_document(DOCUMENTS),
        (DOCUMENTS[0] == DOCUMENTS[0].unsqueeze(1)) & (torch.ones(TIME, TIME).tril() > 0),
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", VARIANTS[:-1])
def test_a_token_is_moved_by_the_tokens_that_it_sees_and_by_no_other(name, options):
    mask, expected = RULES[name]
    found = support(network(3, **options), ids(1), mask)
    assert torch.equal(found, expected | torch.eye(TIME, dtype=torch.bool))


def test_padding_moves_no_token_and_would_without_its_own_mask():
    """The segments of padding continue the target, so the rule of UniLM alone lets the rows there see each other."""
    told, tokens = segments(4, 5, 1), torch.arange(TIME).unsqueeze(0) < 7
    turned = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 0, 0]])  # padding of segment 0, as a batch fills it
    model = network(3)
    for of_padding in (told, turned):
        rule = masks.prefix(of_padding)
        apart = support(model, ids(1), rule & Mask(tokens=tokens))
        assert not apart[:7, 7:].any()
    assert support(model, ids(1), masks.prefix(turned))[6, 7:].all()


def test_a_text_of_padding_alone_has_defined_features():
    model = network()
    tokens = torch.tensor([[True] * TIME, [False] * TIME])
    read = ids(2)
    for rule in (masks.FULL, masks.causal(TIME), masks.same_document(torch.zeros(2, TIME))):
        hidden = model(read, mask=rule & Mask(tokens=tokens))
        assert hidden.isfinite().all()
        assert torch.allclose(hidden[0], model(read, mask=rule)[0])


@pytest.mark.parametrize("options", VARIANTS)
def test_reading_the_source_once_and_then_token_by_token_is_one_pass_over_all(options):
    model, read, told = network(**options), ids(), segments(4, 5)
    if not options.get("num_segments", 2):
        told = None
    condition = condition_of(options)
    part = lambda x, *places: x if x is None else x[:, slice(*places)]
    with torch.no_grad():
        whole = model(read, told, mask=masks.prefix(segments(4, 5)), condition=condition)
        hidden, cache = model.read(read[:, :4], part(told, 4), condition=condition)
        steps = [hidden]
        for time in range(4, TIME):
            hidden, cache = model.step(
                read[:, time : time + 1], cache, part(told, time, time + 1), condition=condition
            )
            steps.append(hidden)
        assert torch.allclose(torch.cat(steps, 1), whole, rtol=0, atol=1e-14)
        # several tokens at once, from nothing, with the mask of a language model
        causal = model(read, told, mask=masks.causal(TIME), condition=condition)
        first, cache = model.step(read[:, :3], model.empty(3), part(told, 3), condition=condition)
        rest, _ = model.step(read[:, 3:], cache, part(told, 3, TIME), condition=condition)
        assert torch.allclose(torch.cat([first, rest], 1), causal, rtol=0, atol=1e-14)


@pytest.mark.parametrize("options", VARIANTS)
def test_a_cache_goes_on_by_rows_after_sources_of_several_lengths(options):
    """Texts that lie with padding between source and target are those that lie without."""
    model, source, target = network(**options), ids(), ids(time=4)
    lengths, rows = torch.tensor([5, 2, 3]), torch.tensor([2, 0, 0, 1])
    condition = condition_of(options)
    of = lambda row: None if condition is None else condition[row]
    with torch.no_grad():
        _, cache = model.read(source[:, :5], mask=masks.of_lengths(lengths, 5), condition=condition)
        cache = take(cache, rows)
        steps = []
        for column in target[rows].unsqueeze(-1).unbind(1):
            hidden, cache = model.step(column, cache, condition=of(rows))
            steps.append(hidden)
        for number, row in enumerate(rows.tolist()):
            text = torch.cat([source[row, : lengths[row]], target[row]]).unsqueeze(0)
            told = segments(int(lengths[row]), 4, 1)
            whole = model(text, mask=masks.prefix(told), condition=of([row]))
            assert torch.allclose(torch.cat(steps, 1)[number], whole[0, -4:], rtol=0, atol=1e-13)


def test_permuted_tokens_under_a_causal_mask_are_tokens_under_a_permuted_mask():
    model, read = network(), ids(1)
    places = ORDER.argsort(1)
    permuted = model(read[:, places[0]], positions=places, mask=masks.causal(TIME))
    assert torch.allclose(permuted, model(read, mask=masks.permuted(ORDER))[:, places[0]], rtol=0, atol=1e-14)


def attention(**options) -> Attention:
    made = Attention(DIM, HEADS, 12, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def places(time: int = TIME) -> Positions:
    at = torch.arange(time).unsqueeze(0)
    return Positions(at, at)


def test_attention_is_torchs_own():
    ours, theirs = attention(), nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.project.weight,
            "in_proj_bias": ours.project.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x, allowed = torch.randn(3, TIME, DIM), masks.causal(TIME).allowed()
    expected, weights = theirs(x, x, x, attn_mask=~allowed[0, 0], average_attn_weights=False)
    assert torch.allclose(ours(x, allowed, places())[0], expected)
    assert torch.allclose(ours.weights(x, allowed, places()), weights)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_block_is_torchs_encoder_layer(pre_norm):
    model = network(1, pre_norm=pre_norm)
    block = model.blocks[0]
    theirs = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, 0.0, "gelu", 1e-12, batch_first=True, norm_first=pre_norm
    ).eval()
    parts = {
        "self_attn.in_proj_": block.attention.project,
        "self_attn.out_proj.": block.attention.out,
        "linear1.": block.wide,
        "linear2.": block.narrow,
        "norm1.": block.norm_one,
        "norm2.": block.norm_two,
    }
    theirs.load_state_dict(
        {f"{name}{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    )
    x = torch.randn(3, TIME, DIM)
    assert torch.allclose(block(x, None, places(), None)[0], theirs(x))


@pytest.mark.parametrize("talking", ["before", "after", "both"])
def test_heads_that_talk_start_as_heads_that_do_not(talking):
    model = Bert(NUM_TOKENS, DIM, 2, HEADS, max_length=12, talking_heads=talking).eval()
    plain = Bert(NUM_TOKENS, DIM, 2, HEADS, max_length=12).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    read, mask = ids(), masks.causal(TIME)
    assert torch.allclose(model(read, mask=mask), plain(read, mask=mask), rtol=0, atol=1e-14)


def test_both_mixes_of_heads_are_those_of_the_paper():
    made, x, allowed = (
        attention(talking_heads="both"),
        torch.randn(2, TIME, DIM),
        masks.causal(TIME).allowed(),
    )
    query, key, value = made.project(x).chunk(3, -1)
    heads = [slice(4 * h, 4 * h + 4) for h in range(HEADS)]
    products = [query[..., h] @ key[..., h].transpose(1, 2) / 2 for h in heads]
    logits = [sum(made.before[to, h] * products[h] for h in range(HEADS)) for to in range(HEADS)]
    softened = [each.masked_fill(~allowed[0, 0], -torch.inf).softmax(-1) for each in logits]
    weights = [sum(made.after[to, h] * softened[h] for h in range(HEADS)) for to in range(HEADS)]
    gathered = torch.cat([w @ value[..., h] for w, h in zip(weights, heads, strict=True)], -1)
    assert torch.allclose(made(x, allowed, places())[0], made.out(gathered))
    assert not torch.allclose(torch.stack(weights).sum(-1), torch.ones(()))  # mixed rows need not sum to 1
    # what a mask before the mix would do, even to heads that do not talk
    hidden = torch.stack(products, 1).masked_fill(~allowed, -torch.inf)
    assert torch.einsum("th,nhqk->ntqk", torch.eye(HEADS), hidden).softmax(-1).isnan().any()


@pytest.mark.parametrize("key_size", [4, 8, 16])
def test_logarithms_of_attention_have_the_rank_of_the_key_size_and_one_more(key_size):
    """Softmax takes a constant from each row."""
    made = Attention(32, 1, 32, key_size=key_size)
    weights = made.weights(5 * torch.randn(1, 32, 32), None, places(32))[0, 0]
    assert int(torch.linalg.matrix_rank(weights.log(), rtol=1e-9)) == key_size + 1
    assert int(torch.linalg.matrix_rank(weights, rtol=1e-9)) > key_size + 1


def test_a_wider_key_fits_any_attention():
    """Mean divergence, in nats, of free queries and keys from 24 × 24 rows drawn from a Dirichlet distribution of 0.3."""
    rows = torch.distributions.Dirichlet(torch.full((24,), 0.3)).sample((24,)).clamp(min=1e-12)
    found = {size: fitted(rows, size) for size in (1, 4, 16, 24)}
    assert found[1] == pytest.approx(0.77, abs=0.05)
    assert found[4] == pytest.approx(0.34, abs=0.05)
    assert found[16] < 0.005
    assert found[24] < 0.00005


def fitted(rows: torch.Tensor, key_size: int) -> float:
    """Of one head whose inputs are the unit vectors, so that queries and keys are free."""
    made, x = Attention(24, 1, 24, key_size=key_size), torch.eye(24).unsqueeze(0)
    nn.init.normal_(made.project.weight)
    optimiser = torch.optim.Adam(made.project.parameters(), 0.1)
    for step in range(1500):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 1500)
        loss = (rows * (rows.log() - made.weights(x, None, places(24))[0, 0].log())).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def test_dropped_tokens_are_columns_taken_out_of_normalised_attention():
    """DropToken: attention to the tokens that are left is the whole attention, some columns zero, and rows divided by their sums."""
    model, read = network(), ids()
    kept = torch.tensor([0, 1, 3, 6, 8])
    is_kept = torch.zeros(3, TIME, dtype=torch.bool).index_fill(1, kept, True)
    made, x = model.blocks[0].attention, torch.randn(3, TIME, DIM)
    dropped = made.weights(x, None, places()) * is_kept[:, None, None]
    renormalised = dropped / dropped.sum(-1, keepdim=True)
    assert torch.allclose(renormalised, made.weights(x, is_kept[:, None, None], places()), rtol=0, atol=1e-14)
    shorter = model(read[:, kept], positions=kept.unsqueeze(0))
    assert torch.allclose(shorter, model(read, mask=Mask(tokens=is_kept))[:, kept], rtol=0, atol=1e-14)
    moved = model(read[:, kept])  # positions do not count from 0 again
    assert not torch.allclose(shorter, moved, atol=1e-3)


def test_a_synthesizer_computes_its_logits_without_keys():
    x, at = torch.randn(2, 3, DIM), torch.tensor([[2, 0, 7]])
    there = Positions(at, torch.tensor([[5, 1, 1, 11]]))
    pairs = list(itertools.product(range(3), range(4)))

    def logits(kind):
        made = attention(kinds=(kind,))
        return made.synthesizers[kind], made.synthesizers[kind](x, *there)

    part, found = logits("dense")
    hidden = part.hidden(x).relu().unflatten(-1, (HEADS, -1))
    for q, k in pairs:
        place = there.keys[0, k]
        expected = torch.einsum("nhd,hd->nh", hidden[:, q], part.table[:, :, place]) + part.bias[:, 0, place]
        assert torch.allclose(found[:, :, q, k], expected)
    part, found = logits("factorised_dense")
    one, two = part.one(x).unflatten(-1, (HEADS, 4)), part.two(x).unflatten(-1, (HEADS, 3))
    for q, k in pairs:
        place = int(there.keys[0, k])
        assert torch.allclose(found[:, :, q, k], one[:, q, :, place % 4] * two[:, q, :, place // 4])
    for kind in ("random", "factorised_random"):
        part, found = logits(kind)
        table = part.table if kind == "random" else part.one @ part.two.transpose(1, 2)
        for q, k in pairs:
            assert torch.allclose(found[0, :, q, k], table[:, at[0, q], there.keys[0, k]])


def test_a_fixed_table_is_no_parameter_and_shares_of_a_mixture_sum_to_one():
    fixed = attention(kinds=("fixed_random",))
    assert not dict(fixed.synthesizers.named_parameters())
    made, x = attention(kinds=("product", "random")), torch.randn(2, TIME, DIM)
    shares = made.shares.softmax(0)
    assert float(shares.sum().detach()) == pytest.approx(1)
    query, key, _ = (part.unflatten(-1, (HEADS, 4)).transpose(1, 2) for part in made.project(x).chunk(3, -1))
    logits = (
        shares[0] * query @ key.transpose(-2, -1) / 2
        + shares[1] * made.synthesizers["random"].table[:, :TIME, :TIME]
    )
    assert torch.allclose(made.weights(x, None, places()), logits.softmax(-1))


def test_a_conditional_norm_starts_as_the_plain_one_and_follows_its_condition():
    norm, plain = ConditionalNorm(DIM, 5), nn.LayerNorm(DIM, 1e-12)
    plain.load_state_dict({"weight": norm.weight.detach().normal_(), "bias": norm.bias.detach().normal_()})
    x, condition = torch.randn(3, TIME, DIM), torch.randn(3, 5, requires_grad=True)
    out = norm(x, condition)
    assert torch.allclose(out, plain(x))
    loss = (out * torch.randn_like(out)).sum()
    scale, shift, of_condition = torch.autograd.grad(loss, [norm.scale.weight, norm.shift.weight, condition])
    assert scale.abs().min() > 0
    assert shift.abs().min() > 0
    assert not of_condition.any()
    with torch.no_grad():
        norm.scale.weight.normal_()
        norm.shift.weight.normal_()
    expected = F.layer_norm(x, (DIM,), eps=1e-12) * (norm.weight + condition @ norm.scale.weight.T).unsqueeze(
        1
    )
    assert torch.allclose(
        norm(x, condition), expected + (norm.bias + condition @ norm.shift.weight.T).unsqueeze(1)
    )
    order = torch.tensor([2, 0, 1])
    assert torch.equal(norm(x[order], condition[order]), norm(x, condition)[order])
    assert norm(x[:, 0], condition).equal(norm(x, condition)[:, 0])


def test_a_bottleneck_starts_where_the_maps_behind_it_can_move():
    for is_zero in (False, True):
        model = Bert(NUM_TOKENS, DIM, 2, HEADS, max_length=12, condition_dim=5, bottleneck=3)
        if is_zero:
            nn.init.zeros_(model.condition.weight)
        condition = torch.randn(3, 5)
        logits = model.logits(model(ids(), condition=condition), condition)
        maps = [
            each.weight
            for module in model.modules() if isinstance(module, ConditionalNorm)
            for each in (module.scale, module.shift)
        ]  # fmt: skip
        assert len(maps) == 2 * (1 + 2 * 2 + 1)  # of the embeddings, of two blocks and of the head
        found = torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), ids().flatten()), maps)
        assert [bool(each.any()) for each in found] == [not is_zero] * len(maps)


def test_a_condition_is_neither_forgotten_nor_given_to_a_network_without_one():
    with pytest.raises(ValueError, match="missing"):
        network(condition_dim=5)(ids())
    with pytest.raises(ValueError, match="takes no condition"):
        network()(ids(), condition=torch.randn(3, 5))


def test_blocks_that_are_computed_again_give_the_same_gradients():
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = Bert(NUM_TOKENS, DIM, 2, HEADS, max_length=12, dropout=0.3, recompute=recompute)
        loss = model.logits(model(ids())).square().mean()
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_text_that_is_too_long_is_one_clear_line():
    model = network()
    with pytest.raises(BadInput, match="a text of 13 tokens, and the network reads 12"):
        model(ids(time=13))
    _, cache = model.read(ids(time=12))
    with pytest.raises(BadInput, match="raise max_length"):
        model.step(ids(time=1), cache)
    with pytest.raises(BadInput, match="num_heads: must divide the width, 16, not 3"):
        Bert(NUM_TOKENS, DIM, 1, 3, max_length=12)
