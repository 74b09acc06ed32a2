"""Fixes that bring another rule."""

import pytest

from retroprop import fixes
from retroprop.errors import AlreadyApplied, Conflict, RetropropError
from retroprop.fix import Recipe, apply
from retroprop.networks.mlp import MLP
from retroprop.optim.adamw import AdamW
from retroprop.optim.sgd import SGD

RULES = {"nesterov": SGD(0.1, 0.9, nesterov=True), "adamw": AdamW(0.001, 0.9, 0.999, 1e-8, 0.01)}


@pytest.mark.parametrize("name", RULES)
def test_it_brings_its_own_rule_and_rate(name: str):
    assert apply(Recipe(MLP("8-6-4")), fixes.get(name)()).recipe.rule == RULES[name]


@pytest.mark.parametrize("name", RULES)
def test_a_recipe_that_has_it_says_already_there(name: str):
    with pytest.raises(AlreadyApplied, match="already there"):
        apply(Recipe(MLP("8-6-4"), rule=RULES[name]), fixes.get(name)())


def test_one_rule_at_a_time():
    with pytest.raises(Conflict, match="'optimizer'"):
        apply(Recipe(MLP("8-6-4")), [fixes.get("adamw")(), fixes.get("nesterov")()])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adamw", {"rate": 0.0}),
        ("adamw", {"beta1": 1.0}),
        ("adamw", {"weight_decay": -0.1}),
        ("nesterov", {"rate": -1.0}),
        ("nesterov", {"momentum": 0.0}),
        ("nesterov", {"momentum": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, float]):
    with pytest.raises(RetropropError, match="expected rate > 0"):
        fixes.get(name)(**settings)
