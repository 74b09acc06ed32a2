"""What one member may not do to another, and what the check of a compiled step must see."""

import pytest
import torch
from torch import nn

from retroprop import MLP, Recipe, apply, fixes
from retroprop.data.sources import load
from retroprop.ensemble import loop
from retroprop.ensemble.compiling import disagreement, tolerance
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.training import step_inputs
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import NoTwin
from retroprop.fixes.dropout import KeyedDropout
from retroprop.optim.rule_1986 import Rule1986
from retroprop.stacking.dispatch import stack
from retroprop.stacking.keyed import Keyed
from retroprop.stacking.twins import share_elementwise

SCHEDULE = Schedule(3, 64)


class Exp(nn.Module):
    def forward(self, x):
        return x.exp()


class Leak(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self._slope = slope

    def forward(self, x):
        return torch.where(x > 0, x, self._slope * x)


share_elementwise(Exp)
share_elementwise(Leak)


def data(dtype):
    return SeedData.of(load("digits"), 0, dtype, torch.device("cpu"))


def recipe(*chosen, rate=0.1, activation=None):
    made = apply(Recipe(MLP("64-12-10"), rule=Rule1986(rate)), [fixes.CrossEntropy(), *chosen]).recipe
    if activation is not None:
        made.network.hidden[0].activation = activation
    return made


def train(recipes, dtype=torch.float32):
    return Engine().train(recipes, [0] * len(recipes), {0: data(dtype)}, SCHEDULE, test=False, compiled=False)


def test_an_overflow_in_a_branch_that_a_member_does_not_take_stays_out_of_its_gradient():
    steep = recipe(fixes.ReLU(), rate=2e3)
    alone = loop.train(loop.own_copy(steep), data(torch.float32), SCHEDULE, test=False)
    beside = train([steep, recipe(activation=Exp())]).outcomes[0]
    assert not alone.diverged
    assert not beside.diverged


def test_modules_that_differ_in_a_private_attribute_are_a_choice():
    stacked = stack([Leak(0.01), Leak(0.9)])
    x = -torch.ones(2, 1, 1)
    assert stacked(x).flatten().tolist() == [-0.01, -0.9] or torch.allclose(
        stacked(x).flatten(), torch.tensor([-0.01, -0.9])
    )


def test_different_noise_at_one_place_is_no_group():
    class Other(Keyed):
        stream = "other"

    one, other = recipe(fixes.Dropout(p=0.2)), recipe(fixes.Dropout(p=0.2))
    other.network.hidden[0].dropout = Other((12,))
    assert isinstance(one.network.hidden[0].dropout, KeyedDropout)
    with pytest.raises(NoTwin, match=r"Other|hidden\.0\.dropout"):
        train([one, other])


def test_a_diverged_member_counts_no_step_that_was_refused():
    wild = recipe(fixes.ReLU(), fixes.BatchNorm(), rate=1e30)
    alone = loop.train(loop.own_copy(wild), data(torch.float64), SCHEDULE, test=False)
    beside = train([wild, recipe(fixes.ReLU(), fixes.BatchNorm())], torch.float64).outcomes[0]
    for outcome in (alone, beside):
        assert outcome.diverged
        assert outcome.tensors["hidden.0.norm.num_batches_tracked"] == outcome.steps < 3 * 18


def test_the_check_of_a_compiled_step_sees_one_wrong_sign_in_one_member():
    recipes = [recipe(), recipe(fixes.ReLU()), recipe(fixes.BatchNorm(), rate=0.003)]
    training, _ = Engine().start(recipes, [0] * 3, {0: data(torch.float32)}, SCHEDULE, compiled=False)
    program, feed, start = training.program, training.minibatches, training.carried
    right = program.step(*step_inputs(program, start, *feed.assemble(next(feed.draws(0)))))
    assert disagreement(program, start, right, right) == 0
    for name, tensor in right[0].items():
        for k in range(len(tensor)):
            flipped = tensor.clone()
            flipped[k] = 2 * start.parameters[name][k] - tensor[k]
            wrong = ({**right[0], name: flipped}, *right[1:])
            moved = (tensor[k] - start.parameters[name][k]).norm()
            largest = max(
                (right[0][other][k] - start.parameters[other][k]).norm()
                for other in right[0]
                if len(right[0][other]) == len(recipes)
            )
            if moved > 1e-3 * largest:
                assert disagreement(program, start, wrong, right) > tolerance(torch.float32), name
