"""Conv nets trained together are what each is alone."""

from dataclasses import replace

import pytest
import torch

from retroprop.data.dataset import Dataset
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import own_copy, train
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.planner import has_compiler
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.fix import Fix, Recipe, apply
from retroprop.fixes.batch_norm import BatchNorm
from retroprop.fixes.cross_entropy import CrossEntropy
from retroprop.fixes.dropout import Dropout
from retroprop.fixes.he_init import HeInit
from retroprop.fixes.relu import ReLU
from retroprop.fixes.residual import Residual
from retroprop.fixes.sparse_backprop import SparseBackprop
from retroprop.networks.named import build
from retroprop.optim.rule_1986 import Rule1986

SHAPE, CLASSES = (2, 8, 8), 4
SCHEDULE = Schedule(epochs=2, batch=8)  # 8 steps
ARMS: dict[str, list[tuple[Fix, ...]]] = {
    "lenet": [
        (),
        (ReLU(), BatchNorm()),
        (Dropout(0.3),),
        (SparseBackprop(0.5), BatchNorm(), Dropout(0.2)),
    ],
    "plain20": [
        (),
        (Residual(), Dropout(0.2)),
        (ReLU(), BatchNorm(), HeInit()),
        (ReLU(), BatchNorm(), HeInit(), Residual()),
    ],
    "resnet20": [(CrossEntropy(),), (CrossEntropy(), Dropout(0.2))],
}


def spots() -> Dataset:
    """Noisy images of two channels with a bright corner, one for each class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % CLASSES
    images = torch.randint(0, 100, (64, *SHAPE), generator=generator)
    for i, label in enumerate(labels.tolist()):
        row, column = 5 * (label // 2), 5 * (label % 2)
        images[i, :, row : row + 3, column : column + 3] += 150
    return Dataset("spots", images.to(torch.uint8), labels, CLASSES, 255.0, (32, 16, 16), 0, "")


def recipe(name: str, fixes: tuple[Fix, ...], seed: int, dtype: torch.dtype) -> Recipe:
    base = Recipe(build(name, SHAPE, CLASSES, seed), rule=Rule1986(0.05, 0.9))
    made = apply(base, fixes, seed=seed).recipe
    return replace(made, network=made.network.to(dtype))


def both(name: str, *, dtype: torch.dtype, compiled: bool) -> list[tuple[str, Outcome, Outcome]]:
    """Every arm and seed, its name, what it is among the others, and what it is alone."""
    members = [(fixes, seed) for fixes in ARMS[name] for seed in (0, 1)]
    data = {seed: SeedData.of(spots(), seed, dtype, torch.device("cpu")) for seed in (0, 1)}
    recipes = [recipe(name, fixes, seed, dtype) for fixes, seed in members]
    result = Engine().train(
        recipes, [seed for _, seed in members], data, SCHEDULE, test=True, compiled=compiled
    )
    assert result.compiled == compiled, result.notes
    return [
        (f"{name}, {[fix.name for fix in fixes]}, seed {seed}", outcome, alone)
        for (fixes, seed), made, outcome in zip(members, recipes, result.outcomes, strict=True)
        for alone in [train(own_copy(made), data[seed], SCHEDULE, test=True)]
    ]


def assert_equal(found: Outcome, expected: Outcome, tolerance: float, who: str) -> None:
    assert (found.steps, found.diverged) == (8, False) == (expected.steps, expected.diverged), who
    assert set(found.tensors) == set(expected.tensors), f"{who}: names"
    for name, tensor in expected.tensors.items():
        gap = float((found.tensors[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1))
        assert gap <= tolerance, f"{who}: {name} is off by {gap:.1e}"
    gap = max(abs(found.train_loss - expected.train_loss))
    assert gap <= tolerance, f"{who}: the loss is off by {gap:.1e}"


@pytest.mark.parametrize("name", ARMS)
def test_fused_equals_alone(name: str):
    for who, found, expected in both(name, dtype=torch.float64, compiled=False):
        assert_equal(found, expected, 1e-10, who)
        assert found.test_correct.tolist() == expected.test_correct.tolist(), who


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_equals_alone():
    for who, found, expected in both("lenet", dtype=torch.float64, compiled=True):
        assert_equal(found, expected, 1e-10, who)
