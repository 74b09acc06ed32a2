"""Steps in place, as a CUDA graph records them, are the steps one after another."""

import torch

from retroprop.ensemble.engine import Engine
from retroprop.ensemble.replay import run_in_place
from retroprop.ensemble.trial_data import Schedule
from tests.ensemble.test_engine import data_of, mixed, recipe


def test_steps_in_place_are_steps():
    members = mixed()
    recipes = [recipe(arm, seed, rate) for arm, rate, seed in members]
    seeds = [seed for *_, seed in members]
    started = [
        Engine().start(recipes, seeds, data_of([0, 1]), Schedule(1, 10), compiled=False)[0] for _ in range(2)
    ]
    kept = started[0].carried
    draws = list(started[0].minibatches.draws(0))
    losses = run_in_place(started[0].take_step, kept, draws)
    carried, expected = started[1].one_after_another(started[1].carried, draws)
    assert torch.equal(losses, expected)
    for kind in ("parameters", "buffers"):
        for name, tensor in getattr(carried, kind).items():
            assert torch.equal(getattr(kept, kind)[name], tensor), name
    assert torch.equal(kept.steps, carried.steps)
