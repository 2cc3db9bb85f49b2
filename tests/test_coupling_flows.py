"""Steps, couplings and priors of flows against their definitions, and coupling_flow and glow as densities."""

import copy
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.models.coupling_flow import CouplingFlow
from genpipe.models.glow import Glow
from genpipe.nn.flow_couplings import Coupling, Form, ZeroConv, fields, from_fields
from genpipe.nn.flow_steps import (
    ActNorm,
    BatchNorm,
    Centre,
    Chain,
    Logit,
    Mix,
    MixLU,
    Squeeze,
    Step,
    starting,
)
from genpipe.nn.multi_scale import TopPrior, split_prior
from genpipe.training.checkpoint import load_fitting

PLACE = (3, 4, 2)
GREY, COLOUR = {"image_shape": (1, 28, 28)}, {"image_shape": (3, 32, 32)}
SMALL = {
    CouplingFlow: {"num_scales": 1, "num_couplings": 1, "width": 2, "depth": 1},
    Glow: {"num_scales": 2, "num_steps": 1, "width": 4},
}
both = pytest.mark.parametrize("make", [CouplingFlow, Glow])


def stirred(module: Any, size: float = 0.2) -> Any:
    """The module in double precision, with parameters and statistics that are not those of a start."""
    torch.manual_seed(0)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
        for part in module.modules():
            if isinstance(part, BatchNorm):
                part._running()[0].copy_(torch.randn(part.num_features)[:, None, None])
                part._running()[1].copy_(torch.rand(part.num_features)[:, None, None] + 0.5)
    return module.eval()


def jacobian(function, x: Tensor) -> Tensor:
    """ln |det| of a function of one image, by autograd."""
    found = torch.autograd.functional.jacobian(lambda v: function(v[None])[0].flatten(), x)
    return torch.linalg.slogdet(found.reshape(x.numel(), x.numel())).logabsdet


def convolution(place, after):
    return nn.Sequential(nn.Conv2d(place[0], 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, after, 3, padding=1))


STEPS: dict[str, Callable[[], Step]] = {
    "actnorm": lambda: ActNorm(3),
    "batch": lambda: BatchNorm(3),
    "mix": lambda: Mix(3),
    "mix, lu": lambda: MixLU(3),
    "squeeze": Squeeze,
    "centre": Centre,
    "logit": lambda: Logit(0.05),
    "chain": lambda: Chain(Squeeze(), ActNorm(12), Mix(12)),
    **{
        f"{form}, {turned=}, {board=}": lambda form=form, turned=turned, board=board: Coupling(
            PLACE, form, convolution, turned, board
        )
        for form in get_args(Form)
        for turned in (False, True)
        for board in (False, True)
    },
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_the_determinant_of_its_jacobian_and_an_inverse(name):
    step = stirred(STEPS[name]())
    x = torch.rand(3, *PLACE, dtype=torch.float64)
    y, log_det = step(x)
    assert log_det.shape == (3,)
    for row in range(3):
        assert log_det[row].item() == pytest.approx(jacobian(step, x[row]).item(), abs=1e-8)
    assert (step.inverse(y) - x).abs().max() < 1e-10


MODELS = [
    (CouplingFlow, {"image_shape": (1, 8, 8), "width": 4, "depth": 1}),
    (CouplingFlow, {"image_shape": (3, 8, 8), "width": 4, "depth": 1, "num_couplings": 2, "norm": "batch"}),
    (CouplingFlow, {"image_shape": (1, 8, 8), "coupling": "additive", "latents": "logistic", "norm": "none"}),
    (CouplingFlow, {"image_shape": (1, 8, 8), "num_scales": 3, "width": 4, "alpha": 0, "learned_priors": False}),
    (CouplingFlow, {"dim": 2, "width": 8}),
    (CouplingFlow, {"dim": 5, "width": 8, "norm": "batch", "coupling": "additive"}),
    (Glow, {"image_shape": (1, 8, 8), "width": 4}),
    (Glow, {"image_shape": (3, 8, 8), "width": 4, "num_steps": 2, "num_scales": 2, "mixing": "lu"}),
    (Glow, {"image_shape": (1, 8, 8), "width": 4, "coupling": "additive", "alpha": 0.05}),
    (Glow, {"dim": 2, "width": 8}),
    (Glow, {"dim": 3, "width": 8, "mixing": "lu", "learned_priors": False}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "network"), MODELS)
def test_a_flow_has_the_determinant_of_its_jacobian_and_an_inverse(make, network):
    model = stirred(make(**network), 0.1)
    (key, shape) = (
        ("images", network["image_shape"]) if "image_shape" in network else ("points", (network["dim"],))
    )
    x = {key: torch.rand(2, *shape, dtype=torch.float64)}
    z, log_det = model.forward(x)
    assert z.shape == (2, math.prod(shape))
    expected = jacobian(lambda v: model.forward({key: v})[0], x[key][0]).item()
    assert log_det[0].item() == pytest.approx(expected, abs=1e-8)
    assert (model.inverse(z, x)[key] - x[key]).abs().max() < 1e-10


@both
@pytest.mark.parametrize("more", [{}, {"coupling": "additive"}, {"conditional": True, "num_classes": 2}])
def test_a_density_in_the_plane_integrates_to_one(make, more):
    model = stirred(make(dim=2, width=8, **more), 0.1)
    side = torch.linspace(-15, 15, 601, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    with torch.no_grad():
        density = model.log_prob({"points": points, "labels": torch.ones(len(points), dtype=torch.int64)})
    assert density.exp().sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=1e-3)


@both
@pytest.mark.parametrize("facts", [GREY, COLOUR, {"dim": 2}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_row_and_a_thousand_give_the_same(make, facts, dtype):
    model = stirred(make(**facts, **(SMALL[make] if "image_shape" in facts else {})), 0.05).to(dtype)
    key, shape = ("images", facts["image_shape"]) if "image_shape" in facts else ("points", (2,))
    x = torch.rand(1000, *shape, dtype=dtype)
    with torch.no_grad():
        z, _ = model.forward({key: x})
        back = model.inverse(z, {})[key]
        together, alone = model.log_prob({key: x})[3:4], model.log_prob({key: x[3:4]})
        drawn = [model.sample(n, {})[key] for n in (1, 1000)]
    assert (back - x).abs().max() < (1e-10 if dtype == torch.float64 else 1e-3)
    assert torch.allclose(together, alone, rtol=1e-12 if dtype == torch.float64 else 1e-5)
    assert [made.shape for made in drawn] == [(1, *shape), (1000, *shape)]
    assert all(made.dtype == dtype and made.isfinite().all() for made in drawn)


def batches(shape=(1, 8, 8), n=64):
    torch.manual_seed(3)
    images = torch.randint(0, 256, (4, n, *shape), dtype=torch.uint8)
    return [{"images": part, "labels": torch.arange(n) % 2} for part in images]


def norms(model: nn.Module) -> list[ActNorm]:
    return [part for part in model.modules() if isinstance(part, ActNorm)]


@both
def test_each_actnorm_starts_with_mean_0_and_deviation_1(make):
    model = make(image_shape=(1, 8, 8), **SMALL[make]).double()
    seen: dict[ActNorm, Tensor] = {}
    torch.manual_seed(0)
    model.density.start(batches())
    hooks = [
        part.register_forward_hook(lambda part, x, y: seen.update({part: y[0]})) for part in norms(model)
    ]
    torch.manual_seed(0)
    whole = {"images": torch.cat([part["images"] for part in batches()])}
    model.forward(model.density.observed(whole))
    assert hooks
    for y in seen.values():
        assert y.mean((0, 2, 3)).abs().max() < 1e-5
        assert (y.var((0, 2, 3), correction=0).sqrt() - 1).abs().max() < 1e-3


@both
def test_what_was_started_stays_after_loading_and_after_another_start(make, tmp_path):
    network = {"image_shape": (1, 8, 8), **SMALL[make]}
    model, other = make(**network), make(**network)
    model.density.start(batches())
    (tmp_path / "weights").write_bytes(save(model.state_dict()))
    assert load_fitting(other, tmp_path / "weights") == []
    other.density.start(iter(batches(n=100)))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert not any(part.is_starting for part in norms(other))


def test_a_start_that_fails_leaves_no_actnorm_starting():
    norm = ActNorm(2)
    with pytest.raises(RuntimeError), starting(norm):
        raise RuntimeError
    assert not norm.is_starting
    assert not norm.started


@pytest.mark.parametrize(
    ("make", "network"),
    [
        (CouplingFlow, {"norm": "batch"}),
        (CouplingFlow, {"norm": "actnorm"}),
        (Glow, {"mixing": "lu"}),
        (Glow, {"conditional": True, "num_classes": 2}),
    ],
)
def test_log_prob_is_the_same_after_training_saving_and_loading(make, network):
    torch.manual_seed(0)
    model = make(image_shape=(1, 8, 8), **SMALL[make], **network).train()
    model.density.start(batches())
    solver = torch.optim.Adam(model.parameters(), 1e-2)
    for batch in batches():
        solver.zero_grad()
        model.negative_log_likelihood(batch).value.backward()
        solver.step()
    other = make(image_shape=(1, 8, 8), **SMALL[make], **network)
    other.load_state_dict(load(save(model.state_dict())))
    x = {"images": torch.rand(5, 1, 8, 8), "labels": torch.arange(5) % 2}
    assert torch.equal(model.eval().log_prob(x), other.eval().log_prob(x))


def test_batch_normalisation_in_training_and_in_evaluation():
    norm, x = BatchNorm(2).double().train(), 3 * torch.randn(50, 2, 4, 4, dtype=torch.float64) + 1
    y, log_det = norm(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-12
    var = x.var((0, 2, 3), correction=0) + norm.eps
    assert torch.allclose(log_det, (-0.5 * 16 * var.log().sum()).expand(50))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, 0.1 * x.mean((0, 2, 3)))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * x.var((0, 2, 3)))
    reference = nn.BatchNorm2d(2, affine=False).double()
    assert torch.allclose(y, reference(x))
    norm.eval()
    y, log_det = norm(x)
    assert torch.allclose(y, reference.eval()(x))
    assert torch.allclose(log_det, (-8 * (norm.running_var + norm.eps).log().sum()).expand(50))
    with pytest.raises(BadInput, match="has no variance; take more rows"):
        norm.train()(torch.zeros(1, 2, 1, 1, dtype=torch.float64))


def test_a_mixing_is_a_rotation_at_first_and_lu_is_the_same_matrix():
    torch.manual_seed(1)
    plain = Mix(6)
    torch.manual_seed(1)
    lu = MixLU(6)
    assert torch.allclose(plain.matrix() @ plain.matrix().T, torch.eye(6), atol=1e-6)
    assert torch.allclose(plain.matrix(), lu.matrix(), atol=1e-6)
    assert abs(lu.log_det().item()) < 1e-6
    before = copy.deepcopy(lu.state_dict())
    F.mse_loss(lu(torch.randn(4, 6, 2, 2))[0], torch.zeros(4, 6, 2, 2)).backward()
    torch.optim.SGD(lu.parameters(), 0.1).step()
    fixed = [name for name, value in lu.state_dict().items() if torch.equal(value, before[name])]
    assert fixed == ["permutation", "sign"]


def test_couplings_start_as_the_identity_and_glows_at_the_sigmoid_of_2():
    def make(place, after):
        return ZeroConv(place[0], after)

    x = torch.randn(2, *PLACE)
    for form in ("additive", "tanh", "free"):
        y, log_det = Coupling(PLACE, form, make)(x)
        assert torch.equal(y, x)
        assert log_det.tolist() == [0, 0]
    y, log_det = Coupling(PLACE, "sigmoid", make)(x)
    at_2 = torch.sigmoid(torch.tensor(2.0))
    assert torch.equal(y[:, :2], x[:, :2])
    assert torch.allclose(y[:, 2:], x[:, 2:] * at_2)
    assert torch.allclose(log_det, 8 * at_2.log())


def test_the_fields_are_those_of_a_checkerboard():
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    colour = ((rows + columns) % 2)[None, None].float()
    white, black = fields(colour)
    assert (white == 0).all()
    assert (black == 1).all()
    x = torch.randn(2, 3, 5, 6)
    assert torch.equal(from_fields(*fields(x)), x)
    step = Coupling((3, 5, 6), "additive", convolution, board=True)
    moved = (step(x)[0] != x).any(0).any(0)
    assert torch.equal(moved, colour[0, 0] == 1)


def test_a_learned_prior_is_the_gaussian_that_it_names():
    prior, x = stirred(split_prior((4, 2, 2))), torch.randn(3, 4, 2, 2, dtype=torch.float64)
    y, log_det = prior(x)
    shift, raw = prior.network(x[:, :2]).chunk(2, 1)
    log_scale = 8 * (raw / 8).tanh()
    mine = Normal(0, 1).log_prob(y[:, 2:]).flatten(1).sum(1) + log_det
    assert torch.allclose(mine, Normal(-shift, (-log_scale).exp()).log_prob(x[:, 2:]).flatten(1).sum(1))
    top, labels = stirred(TopPrior((2, 2, 2), 3)), torch.tensor([0, 2, 1])
    y, log_det = top(x[:, :2], labels)
    mean, log_deviation = top.table.weight[labels].view(3, 2, 2, 2, 2).unbind(1)
    expected = Normal(mean, log_deviation.exp()).log_prob(x[:, :2]).flatten(1).sum(1)
    assert torch.allclose(Normal(0, 1).log_prob(y).flatten(1).sum(1) + log_det, expected)


@both
def test_bits_are_those_of_the_bytes(make):
    model, batch = stirred(make(image_shape=(1, 8, 8), **SMALL[make])), batches()[0]
    torch.manual_seed(5)
    loss = model.negative_log_likelihood(batch)
    torch.manual_seed(5)
    log_prob = model.log_prob(model.density.observed(batch)).mean().item()
    assert loss.value.item() == pytest.approx(-log_prob)
    of_bytes = log_prob - 64 * math.log(256)
    assert loss.metrics["bits_per_dim"].item() == pytest.approx(-of_bytes / 64 / math.log(2))


@pytest.mark.parametrize(("latents", "deviation"), [("gaussian", 1), ("logistic", math.pi / math.sqrt(3))])
def test_latents_are_drawn_from_the_prior_of_the_density(latents, deviation):
    density = CouplingFlow(dim=2, latents=latents).density
    torch.manual_seed(0)
    assert density.draw(100_000, 0.5).std().item() == pytest.approx(0.5 * deviation, rel=0.01)
    line = torch.linspace(-40, 40, 8001, dtype=torch.float64)[:, None]
    weights = density.prior(line).exp() * 0.01
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert (weights * line[:, 0] ** 2).sum().sqrt().item() == pytest.approx(deviation, abs=1e-6)


@both
def test_the_class_moves_the_density_and_the_samples(make):
    model = stirred(make(image_shape=(1, 8, 8), num_classes=3, conditional=True, **SMALL[make]))
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    one, other = ({"images": x, "labels": torch.full((4,), label)} for label in (0, 1))
    assert not torch.allclose(model.log_prob(one), model.log_prob(other))
    z = torch.randn(4, 64, dtype=torch.float64)
    assert not torch.allclose(model.inverse(z, one)["images"], model.inverse(z, other)["images"])
    with pytest.raises(BadInput, match="'labels' is missing"):
        model.inverse(z, {})
    with pytest.raises(BadInput, match="the classes of this model are 0 to 2, not 3"):
        model.log_prob({"images": x, "labels": torch.full((4,), 3)})


@both
@pytest.mark.parametrize(
    ("network", "line"),
    [
        ({"dim": 1}, "points of this data have one"),
        ({"dim": 2, "num_scales": 1}, "train.network.num_scales is of images, and these are points"),
        ({"dim": 2, "alpha": 0.1}, "train.network.alpha is of images, and these are points"),
        ({**GREY, "num_scales": 3}, "images of 28×28 cannot be halved 3 times; take 2 or fewer"),
        ({"image_shape": (1, 9, 8)}, "the sides of images must be even and 8 or more for this network, not 9×8"),
        ({**GREY, "conditional": True}, "the data has no labels"),
        ({}, "the data must be images or points"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(make, network, line):
    with pytest.raises(BadInput, match=line) as error:
        make(**network)
    assert "\n" not in str(error.value)
