"""Exclusive or through one hidden unit with direct links, as in PDP, volume 1, p. 331."""

import torch

from retroprop.fix import Recipe
from retroprop.networks.mlp import MLP
from retroprop.optim.rule_1986 import Rule1986
from tests.networks.pattern_table import train_on_table

PATTERNS = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
TARGETS = torch.tensor([[0], [1], [1], [0]], dtype=torch.float64)


def recipes(sizes: str, direct_links: bool, count: int = 100) -> list[Recipe]:
    return [
        Recipe(
            MLP(sizes, seed=seed, direct_links=direct_links).double(),
            rule=Rule1986(0.5, 0.9),
            reduction="sum",
        )
        for seed in range(count)
    ]


def test_one_hidden_unit_with_direct_links_solves_xor():
    # float64: this table is bound by overhead, and rounding plays no part in who solves it.
    run = train_on_table(
        recipes("2-1-1", True),
        PATTERNS,
        TARGETS,
        10_000,
        check_every=5,
        stop_when_solved=True,
        compiled=True,
    )
    assert int(run.solved.sum()) >= 99, run.summary()
    took = run.solved_at[run.solved]
    assert took.min() <= 558 <= took.max(), f"the paper's run took 558 sweeps; {run.summary()}"


def test_without_a_hidden_unit_xor_is_out_of_reach():
    run = train_on_table(recipes("2-1", False, 10), PATTERNS, TARGETS, 300)
    assert int(run.most_right.max()) <= 3, f"most right: {run.most_right.tolist()}"
