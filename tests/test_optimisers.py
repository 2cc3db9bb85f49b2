"""Optimisers, learning rates and schedules: exact identities, each optimiser chosen as params.yaml says it."""

import copy
import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Loss
from genpipe.training.optimisers import Momentum
from genpipe.training.solver import schedule
from tests.solving import Point, differentiate, solver_of, turn

OPTIMISERS = {
    "adam": {"betas": [0.8, 0.9], "weight_decay": 0.1},
    "adamw": {"weight_decay": 0.1},
    "sgd": {"momentum": 0.9},
    "momentum": {"momentum": 0.9, "lookahead": 0.5, "weight_decay": 0.1},
    "rmsprop": {"momentum": 0.5},
    "rmsprop inside": {"momentum": 0.5, "eps_inside": True, "weight_decay": 0.1},
    "lamb": {"weight_decay": 0.1},
    "polyak": {"minimum": -0.1, "max_rate": 10.0},
    "adam accumulating": {"accumulate": 3},
    "polyak accumulating": {"minimum": -0.1, "accumulate": 3},
}


def said(name: str, **more) -> dict:
    """An optimiser as params.yaml says it."""
    return {"optimiser": name.split()[0], "lr": 0.05, **OPTIMISERS[name], **more}


def quadratic(x):
    return x[0] ** 2 + 3 * x[1] ** 2 + x[0] * x[1]


def path(params: dict, function=quadratic, start=(1.0, -2.0), num_steps: int = 20) -> torch.Tensor:
    """The points that a solver visits, [steps, numbers]."""
    point = Point(*start)
    solver = solver_of(point, point.loss(function), params)
    points = []
    for step in range(num_steps):
        turn(solver, {}, step)
        points.append(point.x.detach().clone())
    return torch.stack(points)


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def fit_loss(module):
    return lambda batch: Loss((module(batch["x"]) - batch["y"]).square().mean())


def points(seed: int, dtype=torch.float32) -> dict:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, generator=generator, dtype=dtype)
    return {"x": x, "y": x.sum(1, keepdim=True)}


# ------------------------------------------------------------------------------------------------------- any optimiser


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_resumes_to_the_same_bits(name):
    module = net()
    solver = solver_of(module, fit_loss(module), said(name))
    for step in range(5):
        turn(solver, points(step), step)
    other = net()
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    state = {key: value.clone() for key, value in solver.state().items()}
    resumed = solver_of(other, fit_loss(other), said(name))
    forgetful_module = copy.deepcopy(other)
    forgetful = solver_of(forgetful_module, fit_loss(forgetful_module), said(name))
    resumed.load(state)
    for step in range(5, 9):
        for each in (solver, resumed, forgetful):
            turn(each, points(step), step)
    assert all(map(torch.equal, module.parameters(), other.parameters()))
    assert solver.state().keys() == resumed.state().keys()
    assert all(torch.equal(value, resumed.state()[key]) for key, value in solver.state().items())
    if name != "polyak":  # which carries nothing
        assert not all(map(torch.equal, module.parameters(), forgetful_module.parameters()))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_goes_down_a_bowl(name):
    visited = path(said(name), num_steps=300)
    assert quadratic(visited[-1]) < 0.1 * quadratic(visited[0])


def test_the_plain_solver_is_torchs_fused_adam_to_the_bit():
    ours, theirs = net(), net()
    solver = solver_of(ours, fit_loss(ours), {"lr": 0.01})
    adam = torch.optim.Adam(theirs.parameters(), 0.01, fused=True)
    for step in range(5):
        turn(solver, points(step), step)
        adam.zero_grad()
        fit_loss(theirs)(points(step)).value.backward()
        adam.step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_accumulated_turns_make_the_move_of_one_large_batch():
    moved = []
    batches = [points(seed, torch.float64) for seed in range(3)]
    large = {key: torch.cat([batch[key] for batch in batches]) for key in ("x", "y")}
    for accumulate, turns in ((3, batches), (1, [large])):
        module = net().double()
        solver = solver_of(
            module, fit_loss(module), {"optimiser": "sgd", "lr": 0.1, "accumulate": accumulate}
        )
        for number, batch in enumerate(turns):
            assert turn(solver, batch) == {}
            before_last = number < len(turns) - 1
            assert all(map(torch.equal, module.parameters(), net().double().parameters())) == before_last
        moved.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.allclose(moved[0], moved[1], rtol=0, atol=1e-15)


def test_accumulated_turns_log_the_norm_of_their_mean():
    point = Point(3.0, 4.0)
    params = {"accumulate": 2, "gradients": [{"do": "clip_norm", "bound": 1.0}]}
    solver = solver_of(point, point.loss(quadratic), params)
    first = torch.tensor([6.0, 0.0]).double()
    assert solver.step([first], 1.0, 0) == {}
    assert solver.step([torch.tensor([0.0, 8.0]).double()], 1.0, 1) == {"grad_norm": 5.0}
    assert first.tolist() == [6, 0]  # the caller's own


# ------------------------------------------------------------------------------------------------- momentum in dynamics


def recursion(momentum: float, lookahead: float, rates: list[float]) -> torch.Tensor:
    """theta + lookahead momentum v, [steps, 2], written out in theta and v (archives/5655)."""
    theta, v, points = torch.tensor([1.0, -2.0]).double(), torch.zeros(2).double(), []
    for rate in rates:
        ahead = (theta + lookahead * momentum * v).requires_grad_()
        gradient = torch.autograd.grad(quadratic(ahead), ahead)[0]
        v = momentum * v - rate * gradient
        theta = theta + v
        points.append(theta + lookahead * momentum * v)
    return torch.stack(points)


@pytest.mark.parametrize("lookahead", [0, 0.5, 1])
@pytest.mark.parametrize("piecewise", [{}, {0: 1.0, 10: 0.1}])
def test_momentum_is_the_recursion_in_point_and_velocity(lookahead, piecewise):
    params = {
        "optimiser": "momentum",
        "lr": 0.05,
        "momentum": 0.9,
        "lookahead": lookahead,
        "piecewise": piecewise,
    }
    rates = [0.05 * schedule(SolverParams(piecewise=piecewise), step, 20) for step in range(20)]
    wanted = recursion(0.9, lookahead, rates)
    assert torch.allclose(path(params), wanted, rtol=0, atol=1e-13)
    assert not torch.allclose(recursion(0.9, 0.25, rates), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torchs_momentum_is_the_same_at_a_constant_rate_only(nesterov):
    def run(make, rates):
        x = nn.Parameter(torch.tensor([1.0, -2.0]).double())
        optimiser = make([x])
        for rate in rates:
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad()
            quadratic(x).backward()
            optimiser.step()
        return x.detach()

    ours = lambda x: Momentum([{"params": x}], 0.05, 0.9, float(nesterov), 0.0)
    theirs = lambda x: torch.optim.SGD(x, 0.05, 0.9, nesterov=nesterov)
    constant, falling = [0.05] * 20, [0.05] * 10 + [0.005] * 10
    assert torch.allclose(run(ours, constant), run(theirs, constant), rtol=0, atol=1e-12)
    assert (run(ours, falling) - run(theirs, falling)).abs().max() > 1e-3


def test_momentum_is_the_leap_frog_of_a_damped_ball():
    friction, gamma = 0.5, 0.1
    half = friction * gamma / 2
    params = {"optimiser": "momentum", "momentum": (1 - half) / (1 + half), "lr": gamma**2 / (1 + half)}
    before, here, after = (path(params)[i : i + 18] for i in range(3))
    force = -torch.stack([2 * here[:, 0] + here[:, 1], 6 * here[:, 1] + here[:, 0]], 1)
    acceleration = (after - 2 * here + before) / gamma**2
    velocity = (after - before) / (2 * gamma)
    assert torch.allclose(acceleration + friction * velocity, force, rtol=0, atol=1e-11)
    assert force.abs().max() > 1


def test_the_stationary_variance_of_sgd_is_proportional_to_rate_over_batch():
    def variance(lr: float, batch: int) -> float:
        point = Point(*[0.0] * 20000)
        noise = [{"do": "noise", "std": batch**-0.5}]
        solver = solver_of(
            point,
            point.loss(lambda x: x.square().sum() / 2),
            {
                "optimiser": "sgd",
                "lr": lr,
                "gradients": noise,
            },
        )
        for step in range(round(8 / lr)):
            turn(solver, {}, step, seed=2 * step)
        return point.x.var().item()

    for lr, batch in itertools.product((0.1, 0.2), (1, 4)):
        assert variance(lr, batch) == pytest.approx(lr / batch / (2 - lr), rel=0.05)


# ------------------------------------------------------------------------------------------------------ adaptive rates


@pytest.mark.parametrize(("eps_inside", "wanted"), [(True, 0.0099995), (False, 1 / 1.01)])
def test_a_tiny_constant_gradient_moves_rmsprop_less_with_eps_inside_the_root(eps_inside, wanted):
    params = {"optimiser": "rmsprop", "lr": 0.5, "alpha": 0.9, "eps_inside": eps_inside}
    visited = path(params, lambda x: 1e-6 * x.sum(), num_steps=400)
    assert ((visited[-2] - visited[-1]) / 0.5).tolist() == pytest.approx([wanted] * 2, rel=1e-5)


@pytest.mark.parametrize("eps_inside", [True, False])
def test_a_constant_gradient_moves_rmsprop_by_the_rate_whatever_its_size(eps_inside):
    params = {"optimiser": "rmsprop", "lr": 0.5, "alpha": 0.9, "eps_inside": eps_inside}
    visited = path(params, lambda x: 1000 * x[0] - 3 * x[1], num_steps=400)
    assert (visited[-1] - visited[-2]).tolist() == pytest.approx([-0.5, 0.5], rel=1e-6)


def test_rmsprop_with_the_root_inside_is_torchs_where_eps_does_not_matter():
    both = [
        path({**said("rmsprop"), "weight_decay": 0.1, "eps": 1e-16, "eps_inside": inside})
        for inside in (True, False)
    ]
    assert torch.allclose(*both, rtol=0, atol=1e-12)


def test_lamb_moves_a_parameter_by_the_rate_times_its_norm():
    module = net().double()
    before = [p.detach().clone() for p in module.parameters()]
    turn(solver_of(module, fit_loss(module), {"optimiser": "lamb", "lr": 0.05}), points(0, torch.float64))
    for old, new in zip(before, module.parameters(), strict=True):
        assert ((new - old).norm() / old.norm()).item() == pytest.approx(0.05, rel=1e-12)


def test_lamb_moves_parameters_of_zero_like_adam():
    moves = [
        path({"optimiser": name, "lr": 0.05}, lambda x: (x - 3).square().sum(), (0.0, 0.0), 1)
        for name in ("lamb", "adam")
    ]
    assert torch.allclose(*moves, rtol=1e-12, atol=0)
    assert moves[0].abs().min() > 0


def test_every_step_of_lamb_has_the_direction_of_adamw():
    lamb, adamw = Point(1.0, -2.0, 0.5), Point(1.0, -2.0, 0.5)
    solvers = [
        solver_of(point, point.loss(quadratic), {"optimiser": name, "lr": 0.05, "weight_decay": 0.5})
        for name, point in (("lamb", lamb), ("adamw", adamw))
    ]
    torch.manual_seed(0)
    for step in range(5):
        start, gradient = lamb.x.detach().clone(), torch.randn(3).double()
        with torch.no_grad():
            adamw.x.copy_(start)
        for solver in solvers:
            solver.step([gradient.clone()], 1.0, step)
        moves = [point.x.detach() - start for point in (lamb, adamw)]
        assert torch.cosine_similarity(*moves, dim=0).item() == pytest.approx(1, abs=1e-12)
        assert (moves[0].norm() / start.norm()).item() == pytest.approx(0.05, rel=1e-12)


# -------------------------------------------------------------------------------------------------------------- Polyak


def two_wells(x):
    """A quartic with its minimum, 0, near 0.4074 and a worse one at 3 (archives/6261)."""
    return (x * (x - 1) * (x - 3) ** 2 + 1.62276).sum()


def test_polyak_crosses_the_hill_that_holds_gradient_descent():
    polyak = {"optimiser": "polyak", "lr": 0.01, "max_rate": 1000.0}
    end = path(polyak, two_wells, (4.0,), 2500)[-1]
    assert end.item() == pytest.approx(0.4074, abs=1e-3)
    assert two_wells(end).item() == pytest.approx(2e-6, abs=2e-6)
    descent = path({"optimiser": "sgd", "lr": 0.01}, two_wells, (4.0,), 500)[-1]
    assert descent.item() == pytest.approx(3, abs=1e-3)


def test_the_loss_under_polyak_falls_exponentially():
    visited = path({"optimiser": "polyak", "lr": 1e-3}, num_steps=1000)
    start = quadratic(torch.tensor([1.0, -2.0]))
    assert (quadratic(visited[-1]) / start).item() == pytest.approx(math.exp(-1), rel=2e-3)


def test_a_long_step_of_polyak_is_bounded_by_its_rate():
    steep = path(
        {"optimiser": "polyak", "lr": 1.0, "max_rate": 0.5}, lambda x: 1 + 1e-3 * x.sum(), (0.0, 0.0), 1
    )
    assert steep.norm() == pytest.approx(0.5, rel=1e-12)


def test_polyak_measures_the_loss_from_its_minimum():
    params = {"optimiser": "polyak", "lr": 0.1}
    lifted = path({**params, "minimum": 5.0}, lambda x: quadratic(x) + 5)
    assert torch.allclose(lifted, path(params), rtol=0, atol=1e-12)
    assert not torch.allclose(path(params, lambda x: quadratic(x) + 5), lifted, rtol=0, atol=1e-3)


def test_polyak_stays_where_there_is_no_gradient_and_below_the_minimum():
    params = {"optimiser": "polyak", "lr": 1.0}
    assert torch.equal(
        path(params, lambda x: 1 + 0 * x.sum(), num_steps=1)[0], torch.tensor([1.0, -2.0]).double()
    )
    below = path(params, lambda x: x.sum() - 10, num_steps=1)
    assert torch.equal(below[0], torch.tensor([1.0, -2.0]).double())


# ---------------------------------------------------------------------------------------------- learning rates by layer


class Scaled(nn.Module):
    """Numbers theta = scale phi, of which phi is trained."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Parameter(torch.tensor([1.0, -2.0]).double() / scale)
        self.second = nn.Parameter(torch.tensor([0.5, 1.0]).double())

    def theta(self):
        return torch.cat([self.scale * self.first, self.second])

    def loss(self, batch):
        theta = self.theta()
        return Loss((theta**2 * torch.tensor([1.0, 2.0, 3.0, 0.5])).sum() + theta.prod() + theta.sum())


def end_of(scale: float, **params) -> torch.Tensor:
    module = Scaled(scale)
    solver = solver_of(module, module.loss, params)
    for step in range(30):
        turn(solver, {}, step)
    return module.theta().detach()


LAYERWISE = {
    "sgd": ({"optimiser": "sgd", "lr": 0.01}, 2, 1e-14),
    "momentum": ({"optimiser": "sgd", "lr": 0.01, "momentum": 0.9}, 2, 1e-14),
    "adam": ({"optimiser": "adam", "lr": 0.01, "eps": 1e-16}, 1, 1e-13),
}


@pytest.mark.parametrize("name", LAYERWISE)
def test_a_multiplier_is_a_reparametrisation(name):
    params, power, tolerance = LAYERWISE[name]
    direct = end_of(1.0, **params, lr_multipliers={"first": 3.0**power})
    assert torch.allclose(direct, end_of(3.0, **params), rtol=0, atol=tolerance)
    assert (direct - end_of(1.0, **params)).abs().max() > 1e-2


def test_under_weight_decay_a_multiplier_is_no_reparametrisation():
    params = {"optimiser": "sgd", "lr": 0.01, "weight_decay": 0.5}
    direct = end_of(1.0, **params, lr_multipliers={"first": 9.0})
    assert (direct - end_of(3.0, **params)).abs().max() > 1e-2


def test_every_parameter_is_in_exactly_one_group():
    module = net()
    params = {"lr_multipliers": {"^0": 2.0, "2.bias": 0.0}}
    groups = solver_of(module, fit_loss(module), params).optimiser.param_groups
    counts = [sum(q is p for group in groups for q in group["params"]) for p in module.parameters()]
    assert counts == [1, 1, 1, 1]
    assert sorted(group["multiplier"] for group in groups) == [0, 1, 2]


def test_a_piecewise_schedule_is_linear_between_its_points():
    params = SolverParams.model_validate({"piecewise": {20: 0.0, 10: 1.0, 30: 0.5}})
    factors = [schedule(params, step, 100) for step in (0, 10, 15, 20, 25, 30, 99)]
    assert factors == [1, 1, 0.5, 0, 0.25, 0.5, 0.5]


# ------------------------------------------------------------------------------------------------------ what is refused

REFUSED = {
    "a knob of another optimiser": ({"optimiser": "sgd", "eps": 1e-8}, "eps has no effect on sgd"),
    "decay of polyak": ({"optimiser": "polyak", "weight_decay": 0.1}, "weight_decay has no effect on polyak"),
    "momentum without any": ({"optimiser": "momentum"}, "must be more than 0"),
    "two schedules": ({"piecewise": {0: 1.0}, "decay": "linear"}, "piecewise is the whole schedule"),
    "polyak clipped": (
        {"optimiser": "polyak", "gradients": [{"do": "clip_norm", "bound": 1.0}]},
        "lengthens the step of polyak; set max_rate",
    ),
    "polyak flooded": (
        {"optimiser": "polyak", "loss": [{"do": "flooding", "level": 0.1}]},
        "set minimum to the level",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_together_is_refused(name):
    params, complaint = REFUSED[name]
    with pytest.raises(ValidationError, match=complaint):
        SolverParams.model_validate(params)


# --------------------------------------------------------------------------------------------- GANs with a single loss


class Players(nn.Module):
    """A critic, a generator, and the hinge loss of both in one (archives/6387; real is pushed to negative scores)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.critic = nn.Sequential(nn.Linear(2, 8), *layers, nn.Tanh(), nn.Linear(8, 1)).double()
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def fake(self, batch):
        return self.generator(batch["z"])

    def critic_loss(self, batch):
        scores = self.critic(batch["x"]), self.critic(self.fake(batch).detach())
        return Loss(torch.relu(1 + scores[0]).mean() + torch.relu(1 - scores[1]).mean())

    def generator_loss(self, batch):
        return Loss(0.3 * self.critic(self.fake(batch)).mean())

    def single_loss(self, batch):
        fake = self.fake(batch)
        real, stopped, score = self.critic(batch["x"]), self.critic(fake.detach()), self.critic(fake)
        hinge = torch.relu(1 + real).mean() + torch.relu(1 - stopped).mean()
        return Loss(hinge + 0.3 * (score - stopped).mean())


def left_over(*layers: nn.Module) -> tuple[float, float]:
    """How far the gradients of the single loss are from those of the two losses: of the critic, of the generator."""
    players = Players(*layers)
    torch.manual_seed(7)
    batch = {"x": torch.randn(16, 2).double(), "z": torch.randn(16, 3).double()}
    _, together = differentiate(solver_of(players, players.single_loss, {}), batch)
    critic, generator = list(players.critic.parameters()), list(players.generator.parameters())
    torch.manual_seed(0)
    apart = [
        *torch.autograd.grad(players.critic_loss(batch).value, critic),
        *torch.autograd.grad(players.generator_loss(batch).value, generator),
    ]
    gaps = [(a - b).abs().max().item() for a, b in zip(together, apart, strict=True)]
    assert max(gradient.abs().max() for gradient in apart) > 0.05
    return max(gaps[: len(critic)]), max(gaps[len(critic) :])


@pytest.mark.parametrize("layers", [[], [nn.BatchNorm1d(8)]], ids=["plain", "batch norm"])
def test_one_loss_of_a_gan_has_the_gradients_of_two(layers):
    assert max(left_over(*layers)) < 1e-15


def test_dropout_in_the_critic_breaks_a_single_loss():
    assert left_over(nn.Dropout(0.5))[0] > 0.01
