"""The law of the engine: trained together, each member is what it is alone."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from retroprop.data.dataset import Dataset
from retroprop.ensemble import coverage
from retroprop.ensemble.engine import Engine, GroupResult
from retroprop.ensemble.loop import Loop, train
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.planner import has_compiler
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import NoTwin, RetropropError
from retroprop.fix import Fix, Recipe, apply
from retroprop.fixes.adam import Adam
from retroprop.fixes.batch_norm import BatchNorm
from retroprop.fixes.cross_entropy import CrossEntropy
from retroprop.fixes.dropout import Dropout
from retroprop.fixes.relu import ReLU
from retroprop.fixes.residual import Residual
from retroprop.fixes.sparse_backprop import SparseBackprop
from retroprop.fixes.tanh import Tanh
from retroprop.networks.mlp import MLP
from retroprop.optim.rule_1986 import Rule1986

SCHEDULE = Schedule(epochs=10, batch=10)  # 50 steps
ARMS: dict[str, tuple[Fix, ...]] = {
    "baseline": (),
    "tanh": (Tanh(),),
    "relu, batch norm": (ReLU(), BatchNorm()),
    "dropout": (Dropout(0.3),),
    "sparse": (SparseBackprop(0.5), Residual()),
    "all": (SparseBackprop(0.5), ReLU(), BatchNorm(), Dropout(0.2), Residual()),
}
CPU = torch.device("cpu")


def stripes() -> Dataset:
    """Noisy 4x4 images of four kinds, 90 of them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 4
    images = torch.randint(0, 6, (90, 4, 4), generator=generator)
    images[torch.arange(90), labels] += 8
    return Dataset("stripes", images.to(torch.uint8), labels, 4, 16.0, (50, 20, 20), 0, "")


def data_of(seeds: Sequence[int], dtype=torch.float64, device=CPU) -> dict[int, SeedData]:
    return {seed: SeedData.of(stripes(), seed, dtype, device) for seed in seeds}


def recipe(arm: str, seed: int, rate: float = 0.1, dtype: torch.dtype = torch.float64) -> Recipe:
    base = Recipe(MLP("16-8-8-4", seed=seed), rule=Rule1986(rate, 0.9))
    made = apply(base, ARMS[arm], seed=seed).recipe
    return replace(made, network=made.network.to(dtype))


Members = list[tuple[str, float, int]]


def mixed(seeds: Sequence[int] = (0, 1)) -> Members:
    return [(arm, rate, seed) for arm in ARMS for rate in (0.02, 0.2) for seed in seeds]


def fused(members: Members, *, schedule: Schedule = SCHEDULE, test: bool = False) -> list[Outcome]:
    recipes = [recipe(arm, seed, rate) for arm, rate, seed in members]
    seeds = [seed for *_, seed in members]
    engine = Engine()
    return engine.train(
        recipes, seeds, data_of(sorted(set(seeds))), schedule, test=test, compiled=False
    ).outcomes


def alone(arm: str, rate: float, seed: int, schedule: Schedule = SCHEDULE, test: bool = False) -> Outcome:
    return train(recipe(arm, seed, rate), data_of([seed])[seed], schedule, test=test)


def assert_equal(found: Outcome, expected: Outcome, tolerance: float, who: object) -> None:
    assert found.steps == expected.steps, f"{who}: steps"
    assert found.diverged == expected.diverged, f"{who}: diverged"
    assert set(found.tensors) == set(expected.tensors), f"{who}: names"
    for name, tensor in expected.tensors.items():
        gap = float((found.tensors[name].cpu().double() - tensor.cpu().double()).abs().max())
        assert gap <= tolerance, f"{who}: {name} is off by {gap:.1e}"
    for name in ("train_loss", "validation_accuracy", "train_accuracy"):
        gap = np.abs(np.asarray(getattr(found, name)) - getattr(expected, name)).max()
        assert gap <= tolerance, f"{who}: {name} is off by {gap:.1e}"
    for name in ("gradient_first", "gradient_last"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert set(mine) == set(theirs), f"{who}: {name}"
        gap = max(abs(mine[key] - theirs[key]) for key in theirs)
        assert gap <= tolerance, f"{who}: {name} is off by {gap:.1e}"


def assert_identical(found: Outcome, expected: Outcome, who: object) -> None:
    """Every bit of it, also where it is not finite."""
    for name, value in vars(expected).items():
        mine = getattr(found, name)
        if name == "tensors":
            assert set(mine) == set(value), f"{who}: names"
            same = all(np.array_equal(mine[key], value[key], equal_nan=True) for key in value)
        elif name in ("seconds", "resumed"):
            continue
        else:
            same = repr(mine) == repr(value) if isinstance(value, dict) else _same_array(mine, value)
        assert same, f"{who}: {name} differs"


def _same_array(a: object, b: object) -> bool:
    numbers = [np.asarray(value) for value in (a, b)]
    return np.array_equal(*numbers, equal_nan=numbers[0].dtype.kind == "f")


@pytest.fixture(scope="module")
def together() -> list[Outcome]:
    return fused(mixed(), test=True)


def test_fused_equals_alone(together: list[Outcome]):
    assert together[0].steps == 50
    for member, outcome in zip(mixed(), together, strict=True):
        expected = alone(*member, test=True)
        assert_equal(outcome, expected, 1e-10, member)
        assert np.array_equal(outcome.test_correct, expected.test_correct), member


def test_the_sets_are_learned(together: list[Outcome]):
    """Else equality would say little."""
    best = max(outcome.validation_accuracy[-1] for outcome in together)
    assert best > 0.9, f"best validation accuracy {best}"


def test_same_plan_is_bit_identical(together: list[Outcome]):
    for member, one, two in zip(mixed(), together, fused(mixed(), test=True), strict=True):
        assert_identical(two, one, member)


def test_neither_place_nor_companions_matter(together: list[Outcome]):
    order = np.random.default_rng(0).permutation(len(mixed()))[:9]
    members = [mixed()[k] for k in order] + [("tanh", 0.1, 2)]
    for k, outcome in zip(order, fused(members), strict=False):
        assert_equal(outcome, together[k], 1e-10, mixed()[k])


def test_one_seed_shares_its_minibatches():
    members = [(arm, 0.1, 0) for arm in ARMS]
    for member, outcome in zip(members, fused(members), strict=True):
        assert_equal(outcome, alone(*member), 1e-10, member)


# The bias before a batch norm has no slope but rounding, about 1e-17, which Adam divides by 1e-8.
@pytest.mark.parametrize(("fix", "tolerance"), [(Adam(0.01), 2e-9), (CrossEntropy(), 1e-10)])
def test_groups_of_another_rule_or_loss(fix: Fix, tolerance: float):
    recipes = [apply(recipe(arm, seed), fix, seed=seed).recipe for arm in ARMS for seed in (0, 1)]
    copies = copy.deepcopy(recipes)
    seeds = [0, 1] * len(ARMS)
    data = data_of([0, 1])
    result = Engine().train(recipes, seeds, data, SCHEDULE, test=False, compiled=False)
    for k, outcome in enumerate(result.outcomes):
        expected = train(copies[k], data[seeds[k]], SCHEDULE, test=False)
        assert_equal(outcome, expected, tolerance, f"{fix.name}, member {k}")


def test_whole_set_schedule():
    schedule = Schedule(epochs=20, batch=None)
    members = [("baseline", 0.1, 0), ("tanh", 0.2, 1), ("dropout", 0.1, 0)]
    for member, outcome in zip(members, fused(members, schedule=schedule), strict=True):
        assert outcome.steps == 20
        assert_equal(outcome, alone(*member, schedule), 1e-10, member)


def test_sum_reduction():
    recipes = [replace(recipe("tanh", seed, 0.01), reduction="sum") for seed in (0, 1)]
    copies, data = copy.deepcopy(recipes), data_of([0, 1])
    result = Engine().train(recipes, [0, 1], data, SCHEDULE, test=False, compiled=False)
    for seed, outcome in enumerate(result.outcomes):
        assert_equal(outcome, train(copies[seed], data[seed], SCHEDULE, test=False), 1e-10, seed)


def test_a_poisoned_member_is_frozen_and_changes_no_other(together: list[Outcome]):
    members = mixed()
    spoiled = [0, 9, len(members) - 1]
    poisoned = [(arm, float("inf") if k in spoiled else rate, s) for k, (arm, rate, s) in enumerate(members)]
    outcomes = fused(poisoned, test=True)
    for k in spoiled:
        assert outcomes[k].diverged, f"member {k} is not marked"
        assert outcomes[k].steps < 50, f"member {k} made {outcomes[k].steps} steps"
        assert outcomes[k].steps == alone(*poisoned[k]).steps, f"member {k} froze at another step"
    for k in set(range(len(members))) - set(spoiled):
        assert_identical(outcomes[k], together[k], members[k])


def test_test_accuracy_is_there_only_when_asked_for(together: list[Outcome]):
    assert 0 <= together[0].test_accuracy <= 1
    assert together[0].test_correct.shape == (20,)
    members = [("baseline", 0.1, 0)]
    for outcome in (fused(members)[0], alone(*members[0])):
        assert outcome.test_accuracy is None
        assert outcome.test_correct is None


@pytest.mark.parametrize("batch", [51, 0, -1])
def test_a_wrong_batch_is_a_clear_error(batch: int):
    schedule = Schedule(epochs=1, batch=batch)
    for run in (lambda: fused([("baseline", 0.1, 0)], schedule=schedule),
                lambda: alone("baseline", 0.1, 0, schedule)):  # fmt: skip
        with pytest.raises(RetropropError, match=f"batch={batch} was given; expected 1 to 50"):
            run()


def test_bf16_products_in_a_group_are_those_of_each_alone():
    """To the eight bits that such a product has; float32 parameters, and another result than float32's."""
    schedule = Schedule(epochs=4, batch=10, precision="bf16")
    members, data = mixed(), data_of([0, 1], torch.float32)
    recipes = [recipe(arm, seed, rate, torch.float32) for arm, rate, seed in members]
    seeds = [seed for *_, seed in members]
    found = Engine().train(recipes, seeds, data, schedule, test=False, compiled=False).outcomes
    exact = Engine().train(recipes, seeds, data, Schedule(4, 10), test=False, compiled=False).outcomes
    for (arm, rate, seed), one, other in zip(members, found, exact, strict=True):
        alone = train(recipe(arm, seed, rate, torch.float32), data[seed], schedule, test=False)
        np.testing.assert_allclose(one.train_loss, alone.train_loss, rtol=0.02, err_msg=arm)
        assert not np.array_equal(one.train_loss, other.train_loss), arm
        assert all(t.dtype != torch.bfloat16 for t in one.tensors.values()), arm


def test_no_epochs_is_a_clear_error():
    with pytest.raises(RetropropError, match="epochs=0"):
        Schedule(epochs=0, batch=10)


def test_every_epoch_takes_each_image_at_most_once():
    data = data_of([0])[0]
    orders = [data.order(Schedule(epochs=2, batch=8), epoch) for epoch in (0, 1)]
    for order in orders:
        assert order.shape == (6, 8)
        assert len(order.unique()) == 48
    assert not torch.equal(*orders)
    assert torch.equal(data.order(Schedule(1, None), 3), torch.arange(50).unsqueeze(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recipes_are_left_as_they_are(dtype: torch.dtype):
    recipes = [recipe("all", seed, dtype=dtype) for seed in (0, 1)]
    for one in recipes:
        one.network.eval()
    before = [copy.deepcopy(one.network.state_dict()) for one in recipes]
    Engine().train(recipes, [0, 1], data_of([0, 1]), Schedule(1, 10), test=False, compiled=False)
    for one, state in zip(recipes, before, strict=True):
        assert not any(module.training for module in one.network.modules()), "training mode leaked"
        for name, tensor in one.network.state_dict().items():
            assert tensor.dtype == state[name].dtype, f"{name} is {tensor.dtype} now"
            assert torch.equal(tensor, state[name]), name


def test_losses_and_rules_are_not_mixed():
    recipes = [recipe("tanh", 0), apply(recipe("tanh", 1), Adam()).recipe]
    with pytest.raises(RetropropError, match="one loss and one kind of rule"):
        Engine().train(recipes, [0, 1], data_of([0, 1]), SCHEDULE, test=False, compiled=False)


class Peeking(torch.nn.Module):
    """Does what depends on the numbers it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else 2 * x


def foreign(seed: int, last: torch.nn.Module) -> Recipe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.GLU(), torch.nn.Linear(4, 4), last
        return Recipe(torch.nn.Sequential(*layers).double(), rule=Rule1986(0.1))


def test_a_module_without_a_twin_trains_as_alone():
    recipes = [foreign(seed, torch.nn.Sigmoid()) for seed in (0, 1)]
    copies, data = copy.deepcopy(recipes), data_of([0, 1])
    result = Engine().train(recipes, [0, 1], data, SCHEDULE, test=False, compiled=False)
    for seed, outcome in enumerate(result.outcomes):
        assert_equal(outcome, train(copies[seed], data[seed], SCHEDULE, test=False), 1e-10, seed)


def test_what_vmap_refuses_is_refused_by_name():
    recipes = [foreign(seed, Peeking()) for seed in (0, 1)]
    with pytest.raises(NoTwin, match="Peeking has no stacked twin, and vmap refuses it"):
        Engine().train(recipes, [0, 1], data_of([0, 1]), SCHEDULE, test=False, compiled=False)


def test_the_plan_knows_who_trains_with_whom_and_why():
    fused, peeking, vmapped = recipe("tanh", 0), foreign(0, Peeking()), foreign(0, torch.nn.Sigmoid())
    assert coverage.together([fused, recipe("all", 0)], (1, 4, 4), 4) == [coverage.Together((0, 1))]
    assert coverage.together([vmapped, vmapped], (1, 4, 4), 4) == [coverage.Together((0, 1), ("GLU",))]
    apart = coverage.together([vmapped, peeking, foreign(1, torch.nn.Tanh())], (1, 4, 4), 4)
    assert [one.places for one in apart] == [(0, 2), (1,)]
    assert "Peeking" in apart[1].alone
    # Networks of another build are branches of a choice.
    assert coverage.together([fused, vmapped], (1, 4, 4), 4) == [coverage.Together((0, 1), ("GLU",))]


def test_looking_at_gradients_changes_nothing():
    data = data_of([0])[0]
    one, two = (Loop(recipe("all", 0), data, SCHEDULE) for _ in range(2))
    for i, batch in enumerate(one.minibatches(0)):
        one.gradient_norms(*batch)
        assert one.step(*batch) == two.step(*batch), f"step {i}"
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, two.network.state_dict()[name]), name


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    fused([("all", 0.1, 0)], schedule=Schedule(1, 10))
    alone("all", 0.1, 0, Schedule(1, 10))
    assert torch.equal(torch.get_rng_state(), before)


def in_float32(engine: Engine, arms: Sequence[str], *, compiled: bool) -> GroupResult:
    members = [(arm, seed) for arm in arms for seed in (0, 1)]
    recipes = [recipe(arm, seed, dtype=torch.float32) for arm, seed in members]
    seeds, data = [seed for _, seed in members], data_of([0, 1], torch.float32)
    return engine.train(recipes, seeds, data, Schedule(2, 10), test=False, compiled=compiled)


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler, and none is there")
def test_compiled_equals_eager():
    """Also for a second make in one process, and for a group that reuses the first one's step."""
    engine, arms = Engine(), ["baseline", "relu, batch norm", "dropout"]
    reused = []
    for group in (arms, ["tanh", *arms[1:]], arms):
        fast = in_float32(engine, group, compiled=True)
        assert fast.compiled, f"{group} fell back: {fast.notes}"
        reused.append(fast.compile_seconds == 0)
        eager = in_float32(engine, group, compiled=False)
        for k, (one, other) in enumerate(zip(fast.outcomes, eager.outcomes, strict=True)):
            assert_equal(one, other, 1e-4, f"{group}, member {k}")
    assert reused == [False, False, True], f"steps reused: {reused}"


@pytest.mark.cuda
def test_a_group_on_cuda_equals_the_loop_on_cpu():
    members = mixed()
    recipes = [recipe(arm, seed, rate) for arm, rate, seed in members]
    seeds = [seed for *_, seed in members]
    data = data_of([0, 1], device=torch.device("cuda"))
    result = Engine().train(recipes, seeds, data, SCHEDULE, test=True, compiled=False)
    for member, outcome in zip(members, result.outcomes, strict=True):
        assert_equal(outcome, alone(*member, test=True), 1e-8, member)


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_replayed_graphs_take_the_steps_one_by_one(compiled: bool):
    """20 steps of 8 a launch, so that both a whole launch and single steps are replayed."""
    members = mixed()
    recipes = [recipe(arm, seed, rate) for arm, rate, seed in members]
    data = data_of([0, 1], device=torch.device("cuda"))
    seeds, schedule = [seed for *_, seed in members], Schedule(epochs=3, batch=5)
    engine = Engine()
    replayed, result = engine.start(recipes, seeds, data, schedule, compiled=compiled)
    plain, _ = engine.start(recipes, seeds, data, schedule, compiled=compiled)
    plain.stepper = plain.one_after_another
    for training in (replayed, plain):
        while not training.done:
            training.run_epoch()
    assert not result.notes, result.notes
    for member, one, other in zip(members, replayed.finish(test=True), plain.finish(test=True), strict=True):
        assert_equal(one, other, 1e-10, member)
