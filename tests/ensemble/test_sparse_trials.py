"""Trials with sparse backward passes: drawn units, schedules and convolutions, fused as alone."""

from dataclasses import replace

import pytest
import torch

from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import train
from retroprop.ensemble.planner import has_compiler
from retroprop.ensemble.trial_data import Schedule
from retroprop.fix import Fix, Recipe, apply
from retroprop.fixes.sparse_backprop import SparseBackprop
from retroprop.networks.mlp import MLP
from retroprop.networks.named import build
from retroprop.optim.rule_1986 import Rule1986
from tests.ensemble.test_engine import assert_equal, data_of
from tests.networks import test_fused_convnets as convnets

SCHEDULE = Schedule(epochs=4, batch=10)  # 20 steps
WAYS: dict[str, Fix] = {
    "random": SparseBackprop(0.5, select="random"),
    "random per example": SparseBackprop(0.5, per="example", select="random"),
    "importance": SparseBackprop(0.5, select="importance"),
    "importance per example": SparseBackprop(3, per="example", select="importance"),
    "variance": SparseBackprop(0.6, select="variance"),
    "blocks, dense bias": SparseBackprop(0.5, block=2, dense_bias=True),
    "masked, dense bias": SparseBackprop(7, dense_bias=True),
    "alternate": SparseBackprop(0.25, schedule="alternate"),
    "warm-up, two epochs": SparseBackprop(0.25, schedule="warm_up", dense_epochs=2),
    "one layer dense": SparseBackprop(0.25, skip="hidden.0"),
    "layers apart": SparseBackprop(0.25, layers="hidden.1 = 0.5"),
}


def made(fix: Fix | None, seed: int, dtype: torch.dtype = torch.float64) -> Recipe:
    base = Recipe(MLP("16-8-8-4", seed=seed), rule=Rule1986(0.1, 0.9))
    fixed = apply(base, [fix] if fix else [], seed=seed).recipe
    return replace(fixed, network=fixed.network.to(dtype))


def train_all(members: list[tuple[Fix | None, int]], compiled: bool, dtype: torch.dtype = torch.float64):
    recipes, seeds = [made(fix, seed, dtype) for fix, seed in members], [seed for _, seed in members]
    data = data_of(sorted(set(seeds)), dtype)
    return Engine().train(recipes, seeds, data, SCHEDULE, test=True, compiled=compiled)


@pytest.mark.parametrize("name", WAYS)
def test_fused_equals_alone(name: str):
    """Beside a dense member, and beside the others of its kind."""
    members = [(None, 0), *[(WAYS[name], seed) for seed in (0, 1)]]
    found = train_all(members, compiled=False)
    for (fix, seed), outcome in zip(members, found.outcomes, strict=True):
        expected = train(made(fix, seed), data_of([seed])[seed], SCHEDULE, test=True)
        assert_equal(outcome, expected, 1e-10, (name, seed))


def test_all_ways_together_are_each_alone():
    """Also those that take different random numbers at one place."""
    members = [(fix, seed) for fix in WAYS.values() for seed in (0, 1)]
    found = train_all(members, compiled=False)
    for (fix, seed), outcome in zip(members, found.outcomes, strict=True):
        expected = train(made(fix, seed), data_of([seed])[seed], SCHEDULE, test=True)
        assert_equal(outcome, expected, 1e-10, (fix, seed))


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_a_schedule_has_a_compiled_step_for_each_of_its_phases():
    members = [(WAYS["alternate"], 0), (WAYS["importance"], 0), (WAYS["warm-up, two epochs"], 1)]
    eager, compiled = train_all(members, compiled=False), train_all(members, compiled=True)
    assert compiled.compiled, compiled.notes
    for member, one, other in zip(members, compiled.outcomes, eager.outcomes, strict=True):
        assert_equal(one, other, 1e-9, member)


def test_dense_epochs_are_dense():
    """A schedule that never turns sparse in these epochs trains as the plain network does."""
    late = SparseBackprop(0.25, schedule="warm_up", dense_epochs=SCHEDULE.epochs)
    found = train_all([(late, 0), (None, 0)], compiled=False).outcomes
    assert_equal(found[0], found[1], 1e-12, "warm-up")
    sparse = train_all([(SparseBackprop(0.25), 0)], compiled=False).outcomes[0]
    gap = max(float((sparse.tensors[name] - t).abs().max()) for name, t in found[1].tensors.items())
    assert gap > 1e-3, "the sparse network must part from the dense one"


@pytest.mark.parametrize(
    "fix",
    [
        SparseBackprop(0.25),
        SparseBackprop(0.9),
        SparseBackprop(0.25, per="example", select="random"),
        SparseBackprop(0.5, select="importance", dense_bias=True),
        SparseBackprop(0.25, schedule="alternate"),
    ],
    ids=str,
)
def test_convolutions_fused_are_each_alone(fix: Fix):
    def one(seed: int) -> Recipe:
        base = Recipe(build("lenet", convnets.SHAPE, convnets.CLASSES, seed), rule=Rule1986(0.05, 0.9))
        fixed = apply(base, fix, seed=seed).recipe
        return replace(fixed, network=fixed.network.double())

    seeds = [0, 1]
    data = {
        seed: convnets.SeedData.of(convnets.spots(), seed, torch.float64, torch.device("cpu"))
        for seed in seeds
    }
    schedule = Schedule(epochs=2, batch=8)
    found = Engine().train([one(s) for s in seeds], seeds, data, schedule, test=True, compiled=False)
    for seed, outcome in zip(seeds, found.outcomes, strict=True):
        assert_equal(outcome, train(one(seed), data[seed], schedule, test=True), 1e-10, seed)


def test_random_units_do_not_depend_on_company():
    members = [(WAYS["random"], seed) for seed in (0, 1, 2)]
    whole = train_all(members, compiled=False).outcomes
    other = train_all(members[1:], compiled=False).outcomes
    for one, two in zip(whole[1:], other, strict=True):
        assert_equal(one, two, 1e-10, "company")
