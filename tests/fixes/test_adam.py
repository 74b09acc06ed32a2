"""Adam against torch.optim.Adam."""

import copy

import pytest
import torch

from retroprop import fixes
from retroprop.errors import AlreadyApplied, RetropropError
from retroprop.fix import Recipe, apply
from retroprop.networks.mlp import MLP
from retroprop.optim.adam import Adam as AdamRule


def test_twenty_steps_are_those_of_torch():
    recipe = apply(Recipe(MLP("8-6-4").double()), fixes.Adam(rate=0.01, beta1=0.8, epsilon=1e-6)).recipe
    peer = copy.deepcopy(recipe.network)
    theirs = torch.optim.Adam(peer.parameters(), lr=0.01, betas=(0.8, 0.999), eps=1e-6)
    ours = {name: p.detach().clone() for name, p in recipe.network.named_parameters()}
    state = recipe.rule.start(ours)
    hyper = {
        field: {name: p.new_tensor(value) for name, p in ours.items()}
        for field, value in recipe.rule.hyper().items()
    }
    for _ in range(20):
        theirs.zero_grad()
        peer(torch.randn(5, 8, dtype=torch.float64)).square().sum().backward()
        slope = {name: p.grad.clone() for name, p in peer.named_parameters()}
        theirs.step()
        ours, state = recipe.rule.step(ours, lambda _, slope=slope: slope, state, hyper)
    for name, p in peer.named_parameters():
        assert torch.allclose(ours[name], p, rtol=0, atol=1e-12)


def test_the_first_step_is_the_rate_whatever_the_gradient():
    rule = AdamRule(rate=0.01)
    start = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    hyper = {f: {"w": torch.tensor(v, dtype=torch.float64)} for f, v in rule.hyper().items()}
    slope = {"w": torch.tensor([1e-3, -50.0], dtype=torch.float64)}
    changed, _ = rule.step(start, lambda _: slope, rule.start(start), hyper)
    assert changed["w"].tolist() == pytest.approx([0.99, 2.01], abs=1e-6)


def test_it_brings_its_own_rate_and_replaces_the_1986_rule():
    recipe = apply(Recipe(MLP("8-6-4")), fixes.Adam()).recipe
    assert recipe.rule == AdamRule(0.001, 0.9, 0.999, 1e-8)


def test_a_recipe_that_has_it_says_already_there():
    with pytest.raises(AlreadyApplied, match="already there"):
        apply(Recipe(MLP("8-6-4"), rule=AdamRule()), fixes.Adam())


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"beta1": 1.0}, {"beta2": -0.1}, {"epsilon": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]):
    with pytest.raises(RetropropError, match="expected rate > 0"):
        fixes.Adam(**settings)
