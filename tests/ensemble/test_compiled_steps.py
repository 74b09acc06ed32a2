"""What a compiled step must do beyond one group of our own rules and twins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from retroprop import fixes
from retroprop.ensemble import compiling
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import own_copy, train
from retroprop.ensemble.memory import out_of_memory
from retroprop.ensemble.planner import has_compiler
from retroprop.ensemble.trial_data import Schedule
from retroprop.errors import RetropropError
from retroprop.fix import Recipe, apply
from retroprop.networks.mlp import MLP
from retroprop.optim.rule import Rule
from retroprop.optim.rule_1986 import Rule1986
from retroprop.stacking.dispatch import Twin, stacked_tensors, twin
from tests.ensemble.test_engine import assert_equal, data_of

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
SCHEDULE = Schedule(epochs=3, batch=10)


@dataclass(frozen=True)
class Shared(Rule):
    """Two slots that begin as one tensor, beside an average that begins as the parameters themselves."""

    rate: float = 0.1

    def start(self, parameters):
        zeros = {name: p.new_zeros(p.shape) for name, p in parameters.items()}
        return {"mean": zeros, "square": zeros, "average": dict(parameters)}

    def step(self, parameters, gradient, state, hyper):
        slopes, changed = gradient(parameters), {}
        kept = {slot: {} for slot in state}
        for name in reversed(list(parameters)):
            p, g = parameters[name], slopes[name]
            kept["mean"][name] = 0.5 * state["mean"][name] + g
            kept["square"][name] = 0.9 * state["square"][name] + g * g
            step = kept["mean"][name] / (1 + kept["square"][name].sqrt())
            changed[name] = p - hyper["rate"][name] * step
            kept["average"][name] = 0.9 * state["average"][name] + 0.1 * changed[name]
        return changed, kept

    def evaluated(self, parameters, state):
        return state["average"]


class Tabled(nn.Module):
    """Multiplies by a table of its own, which is in no checkpoint."""

    def __init__(self, seed: int, units: int = 8):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        table = 0.5 + torch.rand(units, generator=generator, dtype=torch.float64)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x):
        return torch.sigmoid(x) * self.table


class StackedTabled(Twin):
    def __init__(self, modules: Sequence[Tabled]):
        super().__init__()
        stacked_tensors(modules, into=self)

    def forward(self, x):
        return torch.sigmoid(x) * self.table.unsqueeze(-1)


twin.register(Tabled)(lambda first, modules: StackedTabled(modules))


def made(seed: int, rule: Rule, activation: nn.Module | None = None) -> Recipe:
    recipe = apply(Recipe(MLP("16-8-4", seed=seed), rule=rule), [fixes.CrossEntropy()]).recipe
    if activation is not None:
        recipe.network.hidden[0].activation = activation
    return replace(recipe, network=recipe.network.double())


def compare(engine: Engine, recipes: Sequence[Recipe], seeds: Sequence[int]) -> None:
    data = data_of(sorted(set(seeds)))
    found = engine.train(recipes, seeds, data, SCHEDULE, test=True, compiled=True)
    assert found.compiled, found.notes
    for recipe, seed, outcome in zip(recipes, seeds, found.outcomes, strict=True):
        assert_equal(outcome, train(own_copy(recipe), data[seed], SCHEDULE, test=True), 1e-9, seed)


@needs_compiler
def test_a_state_that_begins_as_other_tensors_does_not_run_into_them():
    compare(Engine(), [made(seed, Shared()) for seed in (0, 1)], [0, 1])


@needs_compiler
def test_a_group_never_gets_the_tables_of_another():
    engine = Engine()
    for first in (0, 10):
        compare(engine, [made(s, Rule1986(0.1, 0.9), Tabled(first + s)) for s in (0, 1)], [0, 1])


@needs_compiler
def test_a_member_that_is_not_finite_leaves_the_others_compiled():
    recipes = [made(seed, Rule1986(0.1, 0.9)) for seed in (0, 1)]
    clean = Engine().train(recipes, [0, 1], data_of([0, 1]), SCHEDULE, test=True, compiled=True)
    with torch.no_grad():
        recipes[1].network.hidden[0].linear.weight[0, 0] = torch.nan
    found = Engine().train(recipes, [0, 1], data_of([0, 1]), SCHEDULE, test=True, compiled=True)
    assert found.compiled, found.notes
    assert not found.notes
    assert found.outcomes[1].diverged
    for name, tensor in found.outcomes[0].tensors.items():
        assert torch.equal(tensor, clean.outcomes[0].tensors[name]), name


@needs_compiler
def test_a_training_restored_twice_goes_on_from_the_same_state():
    recipes = [made(seed, Rule1986(0.1, 0.9)) for seed in (0, 1)]
    training, _ = Engine().start(recipes, [0, 1], data_of([0, 1]), SCHEDULE, compiled=True)
    training.run_epoch()
    state, found = training.state(), []
    for _ in range(2):
        training.restore(state)
        training.run_epoch()
        found.append(training.tensors(1))
        assert (len(training.losses), len(state["losses"])) == (2, 1)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_lack_of_memory_in_compiling_is_no_failure_of_the_compiler(monkeypatch):
    def fail(*given, **how):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compiling, "compiled", fail)
    recipes = [made(seed, Rule1986(0.1, 0.9)) for seed in (0, 1)]
    with pytest.raises(RetropropError, match="Memory ran out"):
        Engine().train(recipes, [0, 1], data_of([0, 1]), SCHEDULE, test=False, compiled=True)
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"))


def test_what_failed_to_compile_is_not_tried_again(monkeypatch):
    tried = []

    def fail(*given, **how):
        tried.append(given)
        raise RuntimeError("no such luck")

    monkeypatch.setattr(compiling, "compiled", fail)
    engine = Engine()
    for _ in range(2):
        recipes = [made(seed, Rule1986(0.1, 0.9)) for seed in (0, 1)]
        found = engine.train(recipes, [0, 1], data_of([0, 1]), SCHEDULE, test=False, compiled=True)
        assert "no such luck" in found.notes[0]
    assert len(tried) == 1


@pytest.mark.parametrize("whole", [1, 10, 128, 129, 300])
@pytest.mark.parametrize("count", [1, 5, 128, 131, 1000])
def test_portions_hold_every_case_once_and_are_of_one_size(whole: int, count: int):
    data = replace(data_of([0])[0], validation=torch.arange(whole))
    found = list(data.portions(count))
    seen = [i for some, new in found for i in range(count)[some][-new:]]
    assert seen == list(range(count))
    assert len({some.stop - some.start for some, _ in found}) == 1
    assert len(found) <= -(-count // min(64, count))
