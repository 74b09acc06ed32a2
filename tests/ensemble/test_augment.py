"""Augmentation on the recipe: mixup as a third party would write it, fused and alone."""

from dataclasses import dataclass, replace

import torch

from retroprop import MLP, Recipe, apply, fixes
from retroprop.augment import Augment
from retroprop.data.sources import load
from retroprop.ensemble import loop
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.trial_data import Schedule, SeedData

SCHEDULE = Schedule(3, 64)


@dataclass(frozen=True)
class Mixup(Augment):
    most: float = 0.4
    stream = "mixup"

    def noise_shape(self):
        return (1,)

    def __call__(self, x, t, noise):
        share = 1 - self.most * noise[:1, :1]
        return share * x + (1 - share) * x.flip(0), share * t + (1 - share) * t.flip(0)


def recipe(seed, *augment):
    bare = Recipe(MLP("64-12-10", seed=seed))
    return replace(apply(bare, [fixes.CrossEntropy(), fixes.ReLU()]).recipe, augment=augment)


def test_members_with_and_without_mixup_train_as_alone():
    data = {s: SeedData.of(load("digits"), s, torch.float64, torch.device("cpu")) for s in (0, 1)}
    cases = [(seed, augment) for seed in (0, 1) for augment in ((), (Mixup(),), (Mixup(0.8),))]
    recipes = [recipe(seed, *augment) for seed, augment in cases]
    result = Engine().train(recipes, [s for s, _ in cases], data, SCHEDULE, test=True, compiled=False)
    for (seed, augment), together in zip(cases, result.outcomes, strict=True):
        alone = loop.train(recipe(seed, *augment), data[seed], SCHEDULE, test=True)
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(together.tensors[name], tensor, rtol=0, atol=1e-10)
    losses = [float(outcome.train_loss[-1]) for outcome in result.outcomes[:3]]
    assert losses[0] < losses[1] < losses[2], "mixed targets are harder to fit"


def test_targets_stay_distributions_and_the_same_call_mixes_the_same():
    data = SeedData.of(load("digits"), 0, torch.float64, torch.device("cpu"))
    first, again = (list(loop.Loop(recipe(0, Mixup()), data, SCHEDULE).minibatches(1)) for _ in range(2))
    for (x, t, _), (other, _, _) in zip(first, again, strict=True):
        assert torch.equal(x, other)
        torch.testing.assert_close(t.sum(1), torch.ones(len(t), dtype=torch.float64))
