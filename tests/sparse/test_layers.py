"""Sparse layers stand where torch's own stood: parameters, state keys, settings, modes."""

import copy
import pickle

import pytest
import torch
from torch import nn

from retroprop.errors import RetropropError
from retroprop.sparse import Rule, Schedule, SparseConv2d, SparseLinear, begin_epoch

LAYERS = {
    "linear": (nn.Linear(6, 8), SparseLinear, torch.randn(5, 6)),
    "linear without bias": (nn.Linear(6, 8, bias=False), SparseLinear, torch.randn(5, 6)),
    "conv": (nn.Conv2d(3, 8, 3, stride=2, padding=1), SparseConv2d, torch.randn(5, 3, 6, 6)),
    "conv, reflected": (
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        SparseConv2d,
        torch.randn(5, 3, 6, 6),
    ),
    "conv, same": (nn.Conv2d(3, 8, 3, padding="same"), SparseConv2d, torch.randn(5, 3, 6, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_like_holds_the_very_parameters_and_computes_the_same(name: str):
    dense, kind, x = LAYERS[name]
    sparse = kind.like(dense, Rule(0.25))
    assert sparse.weight is dense.weight
    assert sparse.bias is dense.bias
    assert list(sparse.state_dict()) == list(dense.state_dict())
    assert torch.equal(sparse(x), dense(x))
    assert dense.__class__ in (nn.Linear, nn.Conv2d)
    assert "noise" not in dense._buffers


@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_has_exact_gradients(name: str):
    dense, kind, x = LAYERS[name]
    sparse = kind.like(dense, Rule(0.25)).eval()
    found, expected = (
        torch.autograd.grad(layer(x).square().sum(), layer.weight)[0] for layer in (sparse, dense)
    )
    assert torch.equal(found, expected)
    sparse.train()
    found = torch.autograd.grad(sparse(x).square().sum(), sparse.weight)[0]
    assert int(found.flatten(1).abs().sum(1).gt(0).sum()) == 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [True] * 6),
        (Schedule("warm_up"), [False, True, True, True, True, True]),
        (Schedule("warm_up", 3), [False, False, False, True, True, True]),
        (Schedule("alternate"), [False, True] * 3),
        (Schedule("alternate", 2), [False, False, True, True, False, False]),
    ],
)
def test_schedules(schedule: Schedule, expected: list[bool]):
    layer = SparseLinear.like(nn.Linear(6, 8), Rule(0.25), schedule=schedule)
    network = nn.Sequential(layer, nn.ReLU())
    found = []
    for epoch in range(6):
        begin_epoch(network, epoch)
        layer.weight.grad = None
        network(torch.randn(5, 6)).square().sum().backward()
        found.append(int(layer.weight.grad.abs().sum(1).gt(0).sum()) <= 2)
        assert layer.density() == (0.25 if expected[epoch] else 1.0)
    assert found == expected


def test_layers_are_copied_and_pickled():
    layer = SparseLinear(6, 8, keep=0.25, select="importance")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.rule == layer.rule
        assert torch.equal(other.weight, layer.weight)


def test_they_say_what_they_keep():
    assert "keep=0.25, per=batch" in repr(SparseLinear(6, 8))
    layer = SparseConv2d.like(nn.Conv2d(3, 8, 3), Rule(2, select="random"), schedule=Schedule("alternate"))
    assert "keep=2, per=batch, select=random, schedule=alternate" in repr(layer)


def test_bad_settings_are_refused():
    with pytest.raises(RetropropError, match="Did you mean 'warm_up'"):
        Schedule("warmup")  # type: ignore[arg-type]
    with pytest.raises(RetropropError, match="dense_epochs=0 was given"):
        Schedule("alternate", 0)
    with pytest.raises(RetropropError, match="expected a divisor of 8"):
        SparseLinear(6, 8, block=3)
