"""The network and rule of 1986 against the paper's equations in NumPy."""

import numpy as np
import pytest
import torch

from retroprop.ensemble.loop import Loop, train
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import RetropropError
from retroprop.fix import Recipe
from retroprop.losses import squared_error
from retroprop.networks.mlp import MLP, parse_sizes
from retroprop.optim.rule_1986 import Rule1986
from tests.networks import reference_1986 as paper

NETWORKS = [
    ("5-3", False),
    ("4-6-3", False),
    ("7-5-4-2", False),
    ("3-4-4-4-2", False),
    ("2-1-1", True),
    ("4-5-3-2", True),
    ("4-3", True),
]
EPSILON, ALPHA = 0.2, 0.9


def network(sizes: str, direct_links: bool, seed: int = 0) -> MLP:
    return MLP(sizes, seed=seed, start=0.8, direct_links=direct_links).double()


def weights_of(net: torch.nn.Module) -> paper.Arrays:
    return {name: p.detach().numpy().copy() for name, p in net.named_parameters()}


def cases(sizes: str, count: int = 17, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    units = parse_sizes(sizes)
    x, d = generator.random((count, units[0])), generator.random((count, units[-1]))
    return torch.from_numpy(x), torch.from_numpy(d)


def seed_data(x: torch.Tensor, d: torch.Tensor) -> SeedData:
    parts = torch.arange(len(x)), torch.arange(4), torch.arange(4, 8)
    return SeedData(3, x, d, *parts, dtype=x.dtype)


def gap(found: dict[str, torch.Tensor], expected: paper.Arrays) -> float:
    assert set(found) == set(expected)
    return max(float(np.abs(found[name].detach().numpy() - expected[name]).max()) for name in found)


def test_the_reference_is_the_slope_of_eq_3():
    net = network("3-4-2", True)
    weights, (x, d) = weights_of(net), cases("3-4-2")
    slope = paper.gradient(weights, x.numpy(), d.numpy(), True)
    for name, w in weights.items():
        for place in np.ndindex(w.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = {key: value.copy() for key, value in weights.items()}
                moved[name][place] += step
                ends.append(paper.error(moved, x.numpy(), d.numpy(), True))
            assert slope[name][place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8), name


@pytest.mark.parametrize(("sizes", "direct_links"), NETWORKS)
def test_outputs_and_gradients_are_eq_1_to_7(sizes: str, direct_links: bool):
    net = network(sizes, direct_links)
    weights, (x, d) = weights_of(net), cases(sizes)
    output = net(x)
    loss = squared_error(output, d).sum()
    loss.backward()
    said = paper.activities(weights, x.numpy(), direct_links)[-1]
    np.testing.assert_allclose(output.detach().numpy(), said, rtol=0, atol=1e-12)
    assert float(loss.detach()) == pytest.approx(
        paper.error(weights, x.numpy(), d.numpy(), direct_links), abs=1e-10
    )
    expected = paper.gradient(weights, x.numpy(), d.numpy(), direct_links)
    assert gap({name: p.grad for name, p in net.named_parameters()}, expected) < 1e-10


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("batch", [None, 5], ids=["whole set", "minibatches of 5"])
@pytest.mark.parametrize(("sizes", "direct_links"), [("4-6-3", False), ("4-5-3-2", True)])
def test_trajectory_is_eq_9(sizes: str, direct_links: bool, batch: int | None, reduction: str):
    net = network(sizes, direct_links)
    weights, (x, d) = weights_of(net), cases(sizes)
    data, schedule = seed_data(x, d), Schedule(epochs=20, batch=batch)
    change, errors = paper.at_rest(weights), []
    for epoch in range(schedule.epochs):
        of_epoch = []
        for index in data.order(schedule, epoch).numpy():
            case = (x.numpy()[index], d.numpy()[index], direct_links)
            share = 1 if reduction == "sum" else len(index)
            of_epoch.append(paper.error(weights, *case) / share)
            slope = {key: g / share for key, g in paper.gradient(weights, *case).items()}
            weights, change = paper.descend(weights, slope, change, EPSILON, ALPHA)
        errors.append(np.mean(of_epoch))
    recipe = Recipe(net, rule=Rule1986(EPSILON, ALPHA), reduction=reduction)
    outcome = train(recipe, data, schedule, test=False)
    assert outcome.steps == 20 * (1 if batch is None else 3)
    assert gap(outcome.tensors, weights) < 1e-10
    np.testing.assert_allclose(outcome.train_loss, errors, rtol=0, atol=1e-10)


def test_every_step_of_the_loop_is_eq_9():
    net = network("4-6-3", False)
    weights, (x, d) = weights_of(net), cases("4-6-3")
    recipe = Recipe(net, rule=Rule1986(EPSILON, ALPHA), reduction="sum")
    loop = Loop(recipe, seed_data(x, d), Schedule(epochs=1, batch=None))
    change = paper.at_rest(weights)
    for sweep in range(30):
        before = paper.error(weights, x.numpy(), d.numpy())
        slope = paper.gradient(weights, x.numpy(), d.numpy())
        weights, change = paper.descend(weights, slope, change, EPSILON, ALPHA)
        assert loop.step(x, d, {}) == pytest.approx(before, abs=1e-10), f"error before sweep {sweep}"
        assert gap(dict(net.named_parameters()), weights) < 1e-10, f"weights after sweep {sweep}"


def sweeps(rates: list[float]) -> tuple[paper.Arrays, dict, dict]:
    """Final weights by the paper, by our rule and by torch.optim.SGD under one course of the rate."""
    x, d = cases("4-6-3")
    ours, theirs = network("4-6-3", False), network("4-6-3", False)
    weights = weights_of(ours)
    change, rule = paper.at_rest(weights), Rule1986(rates[0], ALPHA)
    state = rule.start({name: p.detach() for name, p in ours.named_parameters()})
    sgd = torch.optim.SGD(theirs.parameters(), lr=rates[0], momentum=ALPHA)

    def gradient(at: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        at = {name: p.detach().requires_grad_() for name, p in at.items()}
        loss = squared_error(torch.func.functional_call(ours, at, (x,)), d).sum()
        return dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))

    parameters = {name: p.detach() for name, p in ours.named_parameters()}
    for rate in rates:
        slope = paper.gradient(weights, x.numpy(), d.numpy())
        weights, change = paper.descend(weights, slope, change, rate, ALPHA)
        hyper = {
            field: {name: p.new_tensor(value) for name, p in parameters.items()}
            for field, value in {"rate": rate, "momentum": ALPHA}.items()
        }
        parameters, state = rule.step(parameters, gradient, state, hyper)
        sgd.param_groups[0]["lr"] = rate
        sgd.zero_grad()
        squared_error(theirs(x), d).sum().backward()
        sgd.step()
    return weights, parameters, dict(theirs.named_parameters())


def test_constant_rate_is_heavy_ball_sgd():
    weights, ours, theirs = sweeps([0.1] * 30)
    assert gap(ours, weights) < 1e-12
    assert gap(theirs, weights) < 1e-12


def test_changing_rate_is_eq_9_and_not_sgd():
    weights, ours, theirs = sweeps([0.05] * 15 + [0.1] * 15)
    assert gap(ours, weights) < 1e-12
    assert gap(theirs, weights) > 1e-3, "torch.optim.SGD rescales the old velocity, eq. 9 does not"


def test_start_is_uniform_and_keyed_by_seed_and_name():
    wide, again, other = MLP("64-50-10", seed=1), MLP("64-50-10", seed=1), MLP("64-50-10", seed=2)
    for (name, p), q, r in zip(wide.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert not torch.equal(p, r), name
        assert float(p.detach().abs().max()) <= 0.3, name
    drawn = wide.hidden[0].linear.weight.detach()
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.std()) == pytest.approx(0.6 / 12**0.5, rel=0.05)
    deeper = MLP("64-50-20-10", seed=1)
    assert torch.equal(drawn, deeper.hidden[0].linear.weight.detach())


def test_making_a_network_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    MLP("8-4-2")
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_flattened():
    net, images = MLP("12-3-2"), torch.rand(5, 1, 3, 4)
    assert torch.equal(net(images), net(images.flatten(1)))


@pytest.mark.parametrize("sizes", ["", "4", "4-0-2", "4-x-2", (3,), (3, -1), "4--2"])
def test_wrong_sizes_are_refused(sizes: object):
    with pytest.raises(RetropropError, match="two or more positive integers"):
        MLP(sizes)
