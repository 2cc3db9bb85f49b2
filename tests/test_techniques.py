"""Techniques on batches, losses, gradients and weights: exact identities, each chosen as params.yaml says it."""

import copy
import itertools
import math

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.models.classifier import Classifier
from genpipe.params.techniques import SamplePairing
from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Loss
from genpipe.training.batch_transforms import is_on, mix, mixup, sample_pairing, share_of
from genpipe.training.grad_transforms import clip_coefficient
from genpipe.training.loss_transforms import symmetric_kl
from genpipe.training.weight_transforms import normalise
from tests.solving import Point, differentiate, solver_of, turn

CLASSES = {"num_classes": 3}


def quadratic(x):
    return x[0] ** 2 + 3 * x[1] ** 2 + x[0] * x[1]


def labelled(num_rows: int = 6, num_classes: int = 3) -> dict:
    """Examples in float64 with a class each."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(num_classes, (num_rows,), generator=generator)
    return {"x": torch.randn(num_rows, 4, dtype=torch.float64, generator=generator), "labels": labels}


class Net(nn.Module):
    """A classifier of four numbers, with the loss that an update has."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.hidden = nn.Linear(4, 8).double()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3).double()

    def logits(self, x):
        return self.head(self.dropout(torch.tanh(self.hidden(x))))

    def loss(self, batch):
        logits = self.logits(batch["x"])
        return Loss(F.cross_entropy(logits, batch["labels"]), {"scale": logits.detach().norm()}, logits)

    def squared(self, batch):
        targets = batch["labels"]
        targets = targets if targets.is_floating_point() else F.one_hot(targets, 3)
        return Loss((self.head(self.hidden(batch["x"])) - targets).square().sum(1).mean())


def moved_by(params: dict, gradients: list[torch.Tensor], value: float = 1.0, seed: int = 0) -> torch.Tensor:
    """What plain descent at rate 1 subtracts from two zeros, for a list of gradients turn by turn."""
    point = Point(0.0, 0.0)
    solver = solver_of(point, point.loss(quadratic), {"optimiser": "sgd", "lr": 1.0, **params})
    for gradient in gradients:
        torch.manual_seed(seed)
        solver.step([gradient.double()], value, 0)
    return -point.x.detach()


# ------------------------------------------------------------------------------------------------- mixup, SamplePairing


def test_the_cross_entropy_of_mixed_labels_is_the_mixed_cross_entropy():
    batch, permutation = labelled(), torch.tensor([1, 0, 2, 5, 3, 4])  # with a fixed point
    mixed = mixup({**batch}, permutation, 0.25, ["x"], "labels", 3)
    logits = Net().logits(mixed["x"])
    soft = F.cross_entropy(logits, mixed["labels"].double(), reduction="none")
    hard = [
        F.cross_entropy(logits, batch["labels"][rows], reduction="none") for rows in (range(6), permutation)
    ]
    assert torch.allclose(soft, 0.25 * hard[0] + 0.75 * hard[1], rtol=0, atol=1e-15)
    assert (soft - hard[0]).abs().max() > 0.1
    assert torch.equal(mixed["x"][2], batch["x"][2])


def test_a_share_of_one_is_the_identity_and_of_zero_the_permutation():
    x, permutation = labelled()["x"], torch.randperm(6)
    assert torch.equal(mix(x, permutation, 1.0), x)
    assert torch.equal(mix(x, permutation, 0.0), x[permutation])


def test_bytes_are_mixed_in_their_own_scale():
    x = torch.tensor([[0, 255], [100, 5]], dtype=torch.uint8)
    mixed = mix(x, torch.tensor([1, 0]), 0.25)
    assert mixed.tolist() == [[75, 67.5], [25, 192.5]]


def test_mixup_of_a_linear_model_has_the_closed_form_of_mixed_residuals():
    net, batch = Net(), labelled()
    solver = solver_of(net, net.squared, {"batch": [{"do": "mixup", "inputs": ["x"]}]}, CLASSES)
    torch.manual_seed(4)
    permutation, share = torch.randperm(6), share_of(1.0)
    with torch.no_grad():
        residuals = net.head(net.hidden(batch["x"])) - F.one_hot(batch["labels"], 3)
    wanted = (share * residuals + (1 - share) * residuals[permutation]).square().sum(1).mean()
    loss, _ = differentiate(solver, batch, seed=4)
    assert loss.value.item() == pytest.approx(wanted.item(), abs=1e-6)  # labels are float32
    assert abs(net.squared(batch).value.item() - wanted.item()) > 0.01


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_mean_and_variance_of_their_beta_distribution(alpha):
    torch.manual_seed(0)
    shares = torch.tensor([share_of(alpha) for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_over_all_pairs_sample_pairing_is_mixup_of_halves():
    net, batch, value = Net(), labelled(), {"pairing": 0.0, "halves": 0.0, "hard": 0.0}
    for shift in range(6):
        rows = torch.arange(6).roll(shift)
        paired = sample_pairing(batch, rows, ["x"])
        halves = mixup(batch, rows, 0.5, ["x"], "labels", 3)
        value["pairing"] += net.loss(paired).value.item()
        value["halves"] += net.loss({**halves, "labels": halves["labels"].double()}).value.item()
        value["hard"] += net.loss(batch).value.item()
    assert value["pairing"] == pytest.approx(value["halves"], abs=1e-14)
    assert abs(value["pairing"] - value["hard"]) > 0.01


def test_sample_pairing_keeps_the_first_label_in_its_periods():
    text = "[{do: sample_pairing, inputs: [x], start: 2, stop: 12, steps_on: 3, steps_off: 2}]"
    net, batch, seen = Net(), labelled(), []

    def loss(batch):
        seen.append(batch)
        return net.loss(batch)

    solver = solver_of(net, loss, {"batch": yaml.safe_load(text)})
    for step in range(14):
        differentiate(solver, batch, step, seed=9)
    torch.manual_seed(9)
    halves = (batch["x"] + batch["x"][torch.randperm(6)]) / 2
    for step, given in enumerate(seen):
        wanted = halves if step in {2, 3, 4, 7, 8, 9} else batch["x"]
        assert torch.allclose(given["x"], wanted, rtol=0, atol=1e-15)
        assert torch.equal(given["labels"], batch["labels"])


def test_sample_pairing_without_an_end_goes_on():
    forever = SamplePairing(do="sample_pairing", start=1, steps_on=1, steps_off=0)
    assert [is_on(forever, step) for step in (0, 1, 2, 10**6)] == [False, True, True, True]


def test_the_classifier_learns_from_mixed_labels():
    torch.manual_seed(0)
    classifier = Classifier((1, 8, 8), 3, width=4, feature_dim=8)
    batch = {"images": torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8), "labels": torch.arange(6) % 3}
    solver = solver_of(classifier, classifier.cross_entropy, {"batch": [{"do": "mixup"}]}, CLASSES)
    loss, gradients = differentiate(solver, batch)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert "accuracy" not in loss.metrics
    assert "accuracy" in classifier.cross_entropy(batch).metrics


def test_mixup_wants_labels():
    net, mixup_of_x = Net(), {"batch": [{"do": "mixup", "inputs": ["x"]}]}
    with pytest.raises(BadInput, match="mixup needs labelled data, with num_classes; this has: image_shape"):
        solver_of(net, net.loss, mixup_of_x, {"image_shape": (1, 8, 8)})
    with pytest.raises(BadInput, match="'labels' is not in the batch, which has: x"):
        solver_of(net, net.loss, mixup_of_x, CLASSES).loss({"x": labelled()["x"]}, 0)


# -------------------------------------------------------------------------------------------------------------- flooding


@pytest.mark.parametrize(("value", "sign"), [(0.7, 1), (0.5, 0), (0.3, -1)])
def test_flooding_turns_gradients_round_below_the_level(value, sign):
    gradient = torch.tensor([1.0, -2.0]).double()
    moved = moved_by({"loss": [{"do": "flooding", "level": 0.5}]}, [gradient], value)
    assert torch.equal(moved, sign * gradient)


def test_a_step_down_and_a_step_up_descend_the_norm_of_the_gradient():
    hessian = torch.tensor([[2.0, 1.0], [1.0, 6.0]]).double()
    point, rate = Point(1.0, -2.0), 0.05
    start = point.x.detach().clone()
    down = start - rate * hessian @ start
    between = (quadratic(start) + quadratic(down)).item() / 2
    params = {"optimiser": "sgd", "lr": rate, "loss": [{"do": "flooding", "level": between}]}
    solver = solver_of(point, point.loss(quadratic), params)
    turn(solver, {})
    assert torch.allclose(point.x, down, rtol=0, atol=1e-15)
    turn(solver, {})
    assert torch.allclose(point.x, start - rate**2 * hessian @ hessian @ start, rtol=0, atol=1e-15)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_flooded_loss_floats_at_the_level(accumulate):
    net, batch = Net(), labelled()
    params = {"lr": 0.01, "loss": [{"do": "flooding", "level": 0.4}], "accumulate": accumulate}
    solver, values = solver_of(net, net.loss, params), []
    for step in range(600):
        turn(solver, batch, step)
        values.append(net.loss(batch).value.item())
    assert sum(values[-100:]) / 100 == pytest.approx(0.4, abs=0.02)


def test_flooding_judges_the_mean_of_accumulated_turns():
    params = {"accumulate": 2, "loss": [{"do": "flooding", "level": 0.5}]}
    point = Point(0.0, 0.0)
    solver = solver_of(point, point.loss(quadratic), {"optimiser": "sgd", "lr": 1.0, **params})
    for value in (0.2, 1.0):  # alone, the first would turn round
        solver.step([torch.tensor([1.0, 1.0]).double()], value, 0)
    assert point.x.tolist() == [-1, -1]


# ------------------------------------------------------------------------------------------------------------------- FGM


def fgm(**more) -> dict:
    return {"loss": [{"do": "fgm", **more}]}


def test_fgm_adds_the_gradient_at_the_moved_parameters():
    net, batch, epsilon = Net(), labelled(), 0.7
    solver = solver_of(net, net.loss, fgm(parameters=r"hidden\.weight", epsilon=epsilon))
    loss, gradients = differentiate(solver, batch)
    plain = torch.autograd.grad(net.loss(batch).value, list(net.parameters()))
    before = net.hidden.weight.detach().clone()
    with torch.no_grad():
        net.hidden.weight += epsilon * plain[0] / plain[0].norm()
    attacked = net.loss(batch)
    moved = torch.autograd.grad(attacked.value, list(net.parameters()))
    with torch.no_grad():
        net.hidden.weight.copy_(before)
    wanted = net.loss(batch).value + attacked.value
    assert loss.value.item() == pytest.approx(wanted.item(), abs=1e-14)
    assert loss.metrics["adversarial_loss"].item() == pytest.approx(attacked.value.item(), abs=1e-14)
    for gradient, a, b in zip(gradients, plain, moved, strict=True):
        assert torch.allclose(gradient, a + b, rtol=0, atol=1e-14)
        assert (a - b).abs().max() > 1e-3


def test_fgm_moves_by_epsilon_and_up():
    net, batch = Net(), labelled()
    loss, _ = differentiate(solver_of(net, net.loss, fgm(parameters="hidden", epsilon=1e-6)), batch)
    slope = torch.autograd.grad(net.loss(batch).value, list(net.hidden.parameters()))
    norm = torch.cat([part.flatten() for part in slope]).norm().item()
    rise = loss.metrics["adversarial_loss"] - net.loss(batch).value
    assert rise.item() / 1e-6 == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_fgm_puts_the_parameters_back_whatever_happens(fails):
    net, batch, calls = Net(), labelled(), []

    def loss(batch):
        calls.append(net.hidden.weight)
        if fails and len(calls) == 2:
            raise ArithmeticError("the second pass")
        return net.loss(batch)

    weight, before = net.hidden.weight, net.hidden.weight.detach().clone()
    solver = solver_of(net, loss, fgm(parameters=r"hidden\.weight"))
    if fails:
        with pytest.raises(ArithmeticError, match="the second pass"):
            solver.loss(batch, 0)
    else:
        solver.loss(batch, 0)
    assert net.hidden.weight is weight
    assert torch.equal(weight, before)
    assert not torch.equal(calls[1], before)


def test_fgm_without_a_gradient_is_twice_the_loss():
    point = Point(1.0, 2.0)
    solver = solver_of(point, point.loss(lambda x: 3 + 0 * x.sum()), fgm(parameters="x"))
    loss, gradients = differentiate(solver, {})
    assert loss.value.item() == 6
    assert gradients[0].tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------------------------- R-drop

R_DROP = {"loss": [{"do": "r_drop", "weight": 3.0}]}


def test_r_drop_is_the_mean_of_two_passes_and_a_quarter_of_the_divergence():
    net, batch = Net(dropout=0.5), labelled()
    loss, _ = differentiate(solver_of(net, net.loss, R_DROP), batch, seed=6)
    torch.manual_seed(6)
    first, second = net.loss(batch), net.loss(batch)
    p, q = (F.softmax(each.logits, -1) for each in (first, second))
    divergence = (F.kl_div(q.log(), p, reduction="sum") + F.kl_div(p.log(), q, reduction="sum")) / 6
    wanted = (first.value + second.value) / 2 + 3 / 4 * divergence
    assert loss.value.item() == pytest.approx(wanted.item(), abs=1e-14)
    assert loss.metrics["divergence"].item() == pytest.approx(divergence.item(), abs=1e-14)
    assert divergence > 0.01


def test_without_dropout_r_drop_changes_nothing():
    net, batch = Net(), labelled()
    loss, gradients = differentiate(solver_of(net, net.loss, R_DROP), batch)
    plain = torch.autograd.grad(net.loss(batch).value, list(net.parameters()))
    assert loss.metrics["divergence"].item() == 0
    assert all(torch.allclose(a, b, rtol=0, atol=1e-15) for a, b in zip(gradients, plain, strict=True))


def test_the_divergence_of_sure_predictions_is_finite():
    first, second = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    assert symmetric_kl(first, second).item() == pytest.approx(400)


def test_the_classifier_gives_r_drop_its_logits():
    classifier = Classifier((1, 8, 8), 3, width=4, feature_dim=8)
    batch = {"images": torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8), "labels": torch.arange(6) % 3}
    loss, _ = differentiate(solver_of(classifier, classifier.cross_entropy, R_DROP), batch)
    assert set(loss.metrics) == {"accuracy", "divergence"}


def test_r_drop_names_the_update_whose_loss_has_no_logits():
    net = Net()
    with pytest.raises(BadInput, match=r"solvers\.toy\.loss: r_drop needs a loss that gives logits"):
        solver_of(net, net.squared, R_DROP).loss(labelled(), 0)


# -------------------------------------------------------------------------------------------------------------- gradients


def clipped(gradient, **how) -> torch.Tensor:
    return moved_by({"gradients": [{"do": "clip_norm", **how}]}, [gradient])


def test_soft_clipping_lies_between_half_of_hard_clipping_and_hard_clipping():
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    for exponent in range(-12, 13):
        norm = 2.0 * 10 ** (exponent / 4)
        hard, soft = (clipped(norm * direction, bound=2.0, form=form) for form in ("hard", "soft"))
        ratio = (soft.norm() / hard.norm()).item()
        assert 0.5 - 1e-6 <= ratio <= 1 + 1e-6
        assert (ratio == pytest.approx(0.5, abs=1e-6)) == (exponent == 0)
        for gradient in (hard, soft):
            assert torch.allclose(gradient / gradient.norm(), direction, rtol=0, atol=1e-12)
            assert gradient.norm() < 2 + 1e-12
        assert soft.norm().item() == pytest.approx(norm * 2 / (norm + 2), rel=1e-12)


def test_hard_clipping_is_torchs():
    gradient = torch.tensor([3.0, 4.0]).double()
    for bound in (1.0, 4.9999999, 5.0, 50.0):
        parameter = nn.Parameter(torch.zeros(2).double())
        parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_([parameter], bound)
        assert torch.allclose(clipped(gradient, bound=bound), parameter.grad, rtol=1e-15, atol=0)


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_a_bound_far_away_does_not_clip(form):
    gradient = torch.tensor([3.0, 4.0]).double()
    assert torch.allclose(clipped(gradient, bound=1e20, form=form), gradient, rtol=1e-15, atol=0)
    assert clip_coefficient(torch.tensor(0.0), 1.0, form) == 1


def test_clipping_logs_the_norm_before_and_its_scope_tells_which_norm():
    net, batch, noted = Net(), labelled(), {}
    gradients = torch.autograd.grad(net.loss(batch).value, list(net.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    before = [p.detach().clone() for p in net.parameters()]
    for scope in ("all", "parameter"):
        net = Net()
        clip = {"do": "clip_norm", "bound": 0.01, "scope": scope}
        noted[scope] = turn(
            solver_of(net, net.loss, {"optimiser": "sgd", "lr": 1.0, "gradients": [clip]}), batch
        )
        moves = [(b - p).norm().item() for b, p in zip(before, net.parameters(), strict=True)]
        if scope == "parameter":
            assert moves == pytest.approx([0.01] * 4, rel=1e-2)  # of torch's 1e-6 beside norms near 1e-4
        else:
            assert math.hypot(*moves) == pytest.approx(0.01, rel=1e-4)
    assert noted["all"] == {"grad_norm": pytest.approx(norm, rel=1e-12)}
    assert noted["parameter"] == {}


def test_clipping_values_cuts_each_entry():
    moved = moved_by({"gradients": [{"do": "clip_value", "bound": 0.5}]}, [torch.tensor([0.2, -3.0])])
    assert moved.tolist() == pytest.approx([0.2, -0.5], abs=1e-7)


def test_gradient_techniques_come_in_the_order_given():
    gradient, steps = (
        torch.tensor([3.0, 4.0]).double(),
        [{"do": "clip_value", "bound": 3.0}, {"do": "clip_norm", "bound": 1.0}],
    )
    assert moved_by({"gradients": steps}, [gradient]).tolist() == pytest.approx([0.5**0.5] * 2, rel=1e-6)
    assert moved_by({"gradients": steps[::-1]}, [gradient]).tolist() == pytest.approx([0.6, 0.8], rel=1e-6)


class Kernels(nn.Module):
    """A convolution, its transposed, and biases; the loss has a gradient everywhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(2, 3, 3).double()
        self.transposed = nn.ConvTranspose2d(3, 4, 3).double()

    def loss(self, batch):
        return Loss(self.transposed(torch.tanh(self.convolution(batch["x"]))).square().mean())


IMAGES = {"x": torch.arange(150, dtype=torch.float64).view(3, 2, 5, 5).sin()}


def test_centralised_gradients_have_mean_0_for_each_output():
    module, plain = Kernels(), Kernels()
    for each, gradients in ((module, [{"do": "centralise"}]), (plain, [])):
        turn(solver_of(each, each.loss, {"optimiser": "sgd", "lr": 1.0, "gradients": gradients}), IMAGES)
    start = Kernels()
    for name, others in (("convolution", (1, 2, 3)), ("transposed", (0, 2, 3))):
        weights = [each.get_submodule(name).weight for each in (start, module, plain)]
        move, plain_move = weights[0] - weights[1], weights[0] - weights[2]
        assert torch.allclose(move, plain_move - plain_move.mean(others, keepdim=True), rtol=0, atol=1e-14)
        assert plain_move.mean(others).abs().max() > 1e-4
        assert torch.equal(module.get_submodule(name).bias, plain.get_submodule(name).bias)


def test_noise_on_gradients_has_its_spread_and_repeats_under_a_seed():
    point = Point(*[0.0] * 10000)
    params = {"optimiser": "sgd", "lr": 1.0, "gradients": [{"do": "noise", "std": 0.3}]}
    solver = solver_of(point, point.loss(lambda x: x.sum()), params)
    turn(solver, {}, seed=8)
    noise = -point.x.detach() - 1
    assert noise.std().item() == pytest.approx(0.3, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    gradient = torch.zeros(2)
    moves = [moved_by(params, [gradient], seed=seed).tolist() for seed in (1, 1, 2)]
    assert moves[0] == moves[1] != moves[2]


# ---------------------------------------------------------------------------------------------------------------- weights


def projected(matrix, **how) -> torch.Tensor:
    """A weight after a step along no gradient."""
    module = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).double()
    with torch.no_grad():
        module.weight.copy_(matrix)
    params = {"optimiser": "sgd", "weights": [{"parameters": "weight", **how}]}
    turn(solver_of(module, lambda batch: Loss(0 * module.weight.sum()), params), {})
    return module.weight.detach()


MATRIX = torch.tensor([[3.0, 1.0, 0.0], [0.5, -2.0, 1.0]]).double()


def test_a_spectral_projection_bounds_the_largest_singular_value():
    for bound in (1.0, 2.5):
        assert torch.linalg.svdvals(projected(MATRIX, do="spectral", bound=bound))[0].item() == pytest.approx(
            bound
        )
    assert torch.equal(projected(MATRIX, do="spectral", bound=100.0), MATRIX)


def test_a_spectral_projection_sees_what_has_no_eigenvalue():
    nilpotent = torch.tensor([[0.0, 2.0], [0.0, 0.0]]).double()
    assert torch.linalg.eigvals(nilpotent).abs().max() == 0
    assert projected(nilpotent, do="spectral").tolist() == [[0, 1], [0, 0]]


def test_other_projections_do_what_they_say_and_no_more():
    rows = MATRIX.norm(dim=1)
    assert projected(MATRIX, do="unit").norm(dim=1).tolist() == pytest.approx([1, 1], rel=1e-14)
    assert projected(MATRIX, do="ball", bound=3.0).norm(dim=1).tolist() == pytest.approx(
        [3, rows[1].item()], rel=1e-14
    )
    assert projected(MATRIX, do="clip", bound=0.9).tolist() == [[0.9, 0.9, 0.0], [0.5, -0.9, 0.9]]
    assert projected(0 * MATRIX, do="unit").tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("matrix", [MATRIX, MATRIX.T], ids=["wide", "tall"])
def test_an_orthogonal_projection_is_the_nearest_orthonormal_matrix(matrix):
    nearest = projected(matrix, do="orthogonal")
    gram = nearest @ nearest.T if len(matrix) == 2 else nearest.T @ nearest
    assert torch.allclose(gram, torch.eye(2).double(), rtol=0, atol=1e-14)
    torch.manual_seed(0)
    for _ in range(50):
        other = torch.linalg.qr(torch.randn(3, 3).double())[0][:2]
        other = other if len(matrix) == 2 else other.T
        assert (matrix - nearest).norm() < (matrix - other).norm()


def test_a_kernel_is_projected_with_a_row_for_each_output():
    module = Kernels()
    params = {"weights": [{"do": "unit", "parameters": "weight"}]}
    turn(solver_of(module, module.loss, params), IMAGES)
    norms = (
        module.convolution.weight.flatten(1).norm(dim=1),
        module.transposed.weight.transpose(0, 1).flatten(1).norm(dim=1),
    )
    assert [norm.tolist() for norm in norms] == [pytest.approx([1] * 3), pytest.approx([1] * 4)]


def test_a_projection_of_numbers_and_vectors_is_a_clip():
    point = Point(3.0, -4.0)
    turn(
        solver_of(point, point.loss(quadratic), {"lr": 1e-9, "weights": [{"do": "clip", "parameters": "x"}]}),
        {},
    )
    assert point.x.tolist() == [1, -1]
    with pytest.raises(BadInput, match="unit needs matrices or kernels, 'x' is in the name of x, a vector"):
        solver_of(point, point.loss(quadratic), {"weights": [{"do": "unit", "parameters": "x"}]})


# ------------------------------------------------------------------------------------------- normalisation in the graph


def spectrally_normalised(matrix) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(matrix)
    torch.manual_seed(0)
    normalise(layer, {"weight": "spectral"})
    for _ in range(50):
        layer(torch.zeros(1, matrix.shape[1]).double())
    return layer


def test_a_normalised_matrix_has_a_largest_singular_value_of_1_whatever_it_is_orthogonal_to():
    # the top right singular vector is (1, -1)/√2: power iteration from all ones never leaves the other one
    matrix = torch.tensor([[3.0, -3.0], [1.0, 1.0]]).double()
    vector = torch.ones(2).double()
    for _ in range(50):
        vector = F.normalize(matrix.T @ matrix @ vector, dim=0)
    assert (matrix @ vector).norm().item() == pytest.approx(2**0.5)
    weight = spectrally_normalised(matrix).weight
    assert torch.linalg.svdvals(weight.detach())[0].item() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(weight, matrix / 18**0.5, rtol=0, atol=1e-12)


def test_a_normalised_network_is_1_lipschitz():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 5
    x, y = torch.randn(2, 500, 4).double()
    quotient = lambda: ((net(x) - net(y)).norm(dim=1) / (x - y).norm(dim=1)).max().item()
    assert quotient() > 1
    normalise(net, {"weight": "spectral"})
    for _ in range(50):
        net(x)
    assert quotient() <= 1 + 1e-6


def test_weight_normalisation_changes_no_output_and_orthogonality_makes_orthonormal_rows():
    net, x = Net(), labelled()["x"]
    before = net.logits(x)
    normalise(net, {r"hidden\.weight": "weight"})
    assert torch.allclose(net.logits(x), before, rtol=0, atol=1e-14)
    normalise(net, {r"head\.weight": "orthogonal"})
    assert torch.allclose(net.head.weight @ net.head.weight.T, torch.eye(3).double(), rtol=0, atol=1e-12)
    names = [name for name, _ in net.named_parameters()]
    assert [name for name in names if "original" in name] == [
        "hidden.parametrizations.weight.original0",
        "hidden.parametrizations.weight.original1",
        "head.parametrizations.weight.original",
    ]


def test_a_kernel_is_normalised_with_a_row_for_each_output():
    module = Kernels()
    normalise(module, {"weight": "spectral"})
    for _ in range(100):
        module.loss(IMAGES)
    weights = module.convolution.weight.flatten(1), module.transposed.weight.transpose(0, 1).flatten(1)
    largest = [torch.linalg.svdvals(weight.detach())[0].item() for weight in weights]
    assert largest == pytest.approx([1, 1], abs=1e-3)
    module = Kernels()
    normalise(module, {"weight": "weight"})
    gains = [part.parametrizations.weight.original0 for part in module.children()]
    assert [gain.numel() for gain in gains] == [3, 4]


KERNELS = {
    "more inputs": (nn.Conv2d(4, 6, 3), 0),
    "more outputs": (nn.Conv2d(2, 40, 3), 0),
    "square": (nn.Conv2d(4, 4, 1), 0),
    "1 x 1": (nn.Conv2d(3, 5, 1), 0),
    "in groups": (nn.Conv2d(4, 6, 3, groups=2), 0),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), 1),
    "of sequences": (nn.Conv1d(4, 3, 5), 0),
}


@pytest.mark.parametrize("name", KERNELS)
def test_an_orthogonal_kernel_is_an_orthogonal_matrix_of_its_outputs_that_trains(name):
    """torch's own made singular values of 6.8 to 3.1, and of a 1 x 1 kernel ±1 without a gradient."""
    layer, dim = copy.deepcopy(KERNELS[name])
    layer.double()
    shape = layer.weight.shape
    normalise(nn.Sequential(layer), {"weight": "orthogonal"})
    before = layer.weight.detach().clone()
    original = layer.parametrizations.weight.original
    for _ in range(5):
        (gradient,) = torch.autograd.grad((layer.weight - 1).square().sum(), original)
        assert gradient.abs().max() > 1e-6
        with torch.no_grad():
            original -= 0.01 * gradient
    assert layer.weight.shape == shape
    assert (layer.weight - before).abs().max() > 1e-4
    values = torch.linalg.svdvals(layer.weight.detach().transpose(0, dim).flatten(1))
    assert torch.allclose(values, torch.ones_like(values), rtol=0, atol=1e-12)


def test_a_normalised_network_trains():
    net = Net()
    normalise(net, {r"weight$": "spectral"})
    solver = solver_of(net, net.loss, {"lr": 0.05, "loss": [{"do": "fgm", "parameters": "hidden.*original"}]})
    first = net.loss(labelled()).value.item()
    for step in range(50):
        turn(solver, labelled(), step)
    assert net.loss(labelled()).value.item() < first - 0.1
    assert "hidden.parametrizations.weight.original/exp_avg" in solver.state()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight


def zeros(rows):
    """What makes a convolution of which these outputs have weights of 0."""

    def make() -> nn.Module:
        net = nn.Sequential(nn.Conv2d(2, 4, 3))
        net[0].weight.data[rows] = 0
        return net

    return make


def test_a_row_of_zeros_is_no_obstacle_to_a_spectral_norm():
    net = zeros(2)()
    normalise(net, {"weight": "spectral"})
    assert net(torch.ones(1, 2, 3, 3)).isfinite().all()


BAD_NORMALISATIONS = {
    "fits nothing": (
        Net,
        {"haed": "spectral"},
        r"'haed' is in no parameter name of Net; there is: hidden\.weight",
    ),
    "fits twice": (
        Net,
        {"weight": "spectral", "head.weight": "weight"},
        "both in the name of the parameter head",
    ),
    "a vector": (Net, {"head": "spectral"}, r"must be a matrix or a kernel, head\.bias is a vector"),
    "all 0, weight": (
        zeros(slice(None)),
        {"weight": "weight"},
        "weight of 0.weight: 4 of its 4 outputs have weights that are all 0 at the start",
    ),
    "a row of 0, weight": (zeros(2), {"weight": "weight"}, "weight of 0.weight: 1 of its 4 outputs"),
    "all 0, spectral": (
        zeros(slice(None)),
        {"weight": "spectral"},
        "spectral of 0.weight: 4 of its 4 outputs",
    ),
    "all 0, orthogonal": (zeros(slice(None)), {"weight": "orthogonal"}, "orthogonal of 0.weight: 4 of its 4"),
    "a row of 0, orthogonal": (
        zeros(2),
        {"weight": "orthogonal"},
        "its matrix of 4 x 18 starts with rank 3, and an orthogonal one has 4",
    ),
    "one number": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 1)),
        {"weight": "orthogonal"},
        "orthogonal of 0.weight: a matrix of one number can only be 1 or -1",
    ),
    "tied": (Tied, {r"first\.weight": "spectral"}, r"first\.weight is shared by two modules"),
}


@pytest.mark.parametrize("name", BAD_NORMALISATIONS)
def test_a_normalisation_that_cannot_be_is_named(name):
    make, rules, complaint = BAD_NORMALISATIONS[name]
    with pytest.raises(BadInput, match=complaint):
        normalise(make(), rules)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "block", [fgm(parameters="haed"), {"weights": [{"do": "clip", "parameters": "haed"}]}]
)
def test_a_pattern_that_fits_no_parameter_is_named(block):
    net = Net()
    with pytest.raises(BadInput, match=rf"solvers\.toy\.{next(iter(block))}: 'haed' is in no parameter name"):
        solver_of(net, net.loss, block)


REFUSED = {
    "an unknown technique": ({"gradients": [{"do": "agc"}]}, "does not match any of the expected tags"),
    "a bound where there is none": (
        {"weights": [{"do": "unit", "parameters": "w", "bound": 2.0}]},
        "Extra inputs are not permitted",
    ),
    "a technique twice": ({"loss": [{"do": "r_drop"}, {"do": "r_drop"}]}, "r_drop is in the list twice"),
    "flooding before others": (
        {"loss": [{"do": "flooding", "level": 0.1}, {"do": "r_drop"}]},
        "put it last in the list",
    ),
    "an end before the start": (
        {"batch": [{"do": "sample_pairing", "start": 5, "stop": 5}]},
        "must be a step after start",
    ),
    "no regular expression": (fgm(parameters="("), "is not a valid regular expression"),
    "the old key": ({"clip_norm": 1.0}, "Extra inputs are not permitted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_list_of_techniques_that_makes_no_sense_is_refused(name):
    params, complaint = REFUSED[name]
    with pytest.raises(ValidationError, match=complaint):
        SolverParams.model_validate(params)


def test_losses_wrap_those_before_them():
    net, batch = Net(dropout=0.5), labelled()
    both = [{"do": "fgm", "parameters": "hidden"}, {"do": "r_drop"}]
    calls = []

    def loss(batch):
        calls.append(net.hidden.weight.detach().clone())
        return net.loss(batch)

    order = {}
    for name, techniques in (("fgm first", both), ("r_drop first", both[::-1])):
        calls.clear()
        differentiate(solver_of(net, loss, {"loss": techniques}), batch)
        start = net.hidden.weight
        order[name] = [torch.equal(weight, start) for weight in calls]
    assert order == {"fgm first": [True, False, True, False], "r_drop first": [True, True, False, False]}


@pytest.mark.parametrize(("first", "second"), itertools.permutations([0, 1], 2))
def test_every_list_together_trains(first, second):
    params = {
        "optimiser": "momentum",
        "momentum": 0.5,
        "lr": 0.05,
        "accumulate": 2,
        "batch": [
            [{"do": "mixup", "inputs": ["x"]}, {"do": "sample_pairing", "inputs": ["x"]}][i]
            for i in (first, second)
        ],
        "loss": [{"do": "fgm", "parameters": "hidden"}, {"do": "r_drop"}, {"do": "flooding", "level": 0.01}],
        "gradients": [{"do": "centralise"}, {"do": "noise", "std": 1e-3}, {"do": "clip_norm", "bound": 1.0}],
        "weights": [{"do": "spectral", "parameters": "weight$", "bound": 5.0}],
    }
    net = Net(dropout=0.2)
    solver = solver_of(net, net.loss, params, CLASSES)
    before = net.loss(labelled()).value.item()
    for step in range(200):
        turn(solver, labelled(), step, seed=2 * step)
    assert net.eval().loss(labelled()).value.item() < before
