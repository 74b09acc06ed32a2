"""Mirror symmetry of six inputs through two hidden units: Fig. 1 of the 1986 paper."""

import itertools

import torch
from pattern_table import TableRun, train_on_table

from retroprop.fix import Recipe
from retroprop.networks.mlp import MLP
from retroprop.optim.rule_1986 import Rule1986

PATTERNS = torch.tensor(list(itertools.product([0, 1], repeat=6)), dtype=torch.float64)
TARGETS = (PATTERNS == PATTERNS.flip(1)).all(1, keepdim=True).double()
SWEEPS = 20_000


def train(sizes: str, seeds: int, sweeps: int, *, compiled: bool) -> TableRun:
    # float64: over 20,000 sweeps float32 would round away the last of the antisymmetry.
    recipes = [
        Recipe(MLP(sizes, seed=seed).double(), rule=Rule1986(0.1, 0.9), reduction="sum")
        for seed in range(seeds)
    ]
    return train_on_table(recipes, PATTERNS, TARGETS, sweeps, check_every=25, compiled=compiled)


def test_two_hidden_units_find_symmetry_and_its_code():
    run = train("6-2-1", 100, SWEEPS, compiled=True)
    assert int(run.solved.sum()) >= 85, run.summary()
    took = run.solved_at[run.solved]
    assert took.min() <= 1425 <= took.max(), f"the paper's run took 1,425 sweeps; {run.summary()}"
    weights = torch.stack([tensors["hidden.0.linear.weight"] for tensors in run.tensors])[run.solved]
    largest = weights.abs().amax(-1, keepdim=True)
    residual = ((weights + weights.flip(-1)).abs() / largest).amax((1, 2))
    assert float(residual.max()) < 0.01, f"antisymmetry residuals: {residual.sort().values[-5:]}"
    magnitudes = weights[..., :3].abs().sort(-1).values
    ratios = magnitudes / magnitudes[..., :1] / torch.tensor([1.0, 2.0, 4.0])
    off = (ratios - 1).abs().amax((1, 2))
    assert float(off.max()) < 0.05, f"farthest from 1:2:4: {off.sort().values[-5:]}"


def test_without_hidden_units_at_most_57_are_right():
    run = train("6-1", 20, 2000, compiled=False)
    assert int(run.most_right.max()) <= 57, f"most right: {run.most_right.tolist()}"
