"""Stacked sparse layers are each layer alone, whatever they draw."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from retroprop.sparse import SparseConv2d, SparseLinear, StackedSparseConv2d
from retroprop.sparse.selection import PER, SELECT
from retroprop.stacking.dispatch import laid_out, stack

MEMBERS, CASES, UNITS = 3, 5, 8
Draw = Callable[..., Tensor]


def noise_of(per: str) -> Tensor:
    rows = CASES if per == "example" else 1
    return torch.rand(MEMBERS, rows, UNITS, generator=torch.Generator().manual_seed(3)).double()


def gradients(out: Tensor, pull: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, tensors, pull)


@pytest.mark.parametrize("dense_bias", [False, True])
@pytest.mark.parametrize("keep", [0.25, 0.9])
@pytest.mark.parametrize("select", SELECT)
@pytest.mark.parametrize("per", PER)
def test_linear(per: str, select: str, keep: float, dense_bias: bool):
    torch.manual_seed(0)
    how = {"keep": keep, "per": per, "select": select, "dense_bias": dense_bias}
    layers = [SparseLinear(6, UNITS, **how).double() for _ in range(MEMBERS)]
    x, pull = torch.randn(MEMBERS, CASES, 6).double(), torch.randn(MEMBERS, CASES, UNITS).double()
    stacked, noise = stack(layers), noise_of(per)
    stacked.noise = torch.stack([laid_out(one) for one in noise])
    together = x.mT.contiguous().requires_grad_()
    found = gradients(stacked(together), pull.mT, together, stacked.weight, stacked.bias)
    for k, layer in enumerate(layers):
        layer.noise = noise[k] if layer.rule.draws else layer.noise
        own = x[k].clone().requires_grad_()
        expected = gradients(layer(own), pull[k], own, layer.weight, layer.bias)
        for one, other in zip((found[0][k].T, found[1][k], found[2][k]), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dense_bias", [False, True])
@pytest.mark.parametrize("select", SELECT)
@pytest.mark.parametrize("per", PER)
def test_both_ways_of_convolution(per: str, select: str, dense_bias: bool):
    """One by one, as on a CPU, and as groups of one convolution, as on a CUDA device."""
    torch.manual_seed(0)
    how = {"keep": 0.5, "per": per, "select": select, "dense_bias": dense_bias, "padding": 1}
    layers = [SparseConv2d(4, UNITS, 3, **how).double() for _ in range(MEMBERS)]
    x, pull = torch.randn(MEMBERS, CASES, 4, 5, 5).double(), torch.randn(MEMBERS, CASES, UNITS, 5, 5).double()
    stacked, noise = stack(layers), noise_of(per)
    assert isinstance(stacked, StackedSparseConv2d)
    stacked.noise = torch.stack([laid_out(one) for one in noise])
    expected = []
    for k, layer in enumerate(layers):
        layer.noise = noise[k] if layer.rule.draws else layer.noise
        own = x[k].clone().requires_grad_()
        expected.append(gradients(layer(own), pull[k], own, layer.weight, layer.bias))
    for way in (stacked.one_by_one, lambda x: stacked.grouped(x, stacked.bias)):
        together = x.clone().requires_grad_()
        found = gradients(way(together), pull, together, stacked.weight, stacked.bias)
        for one, others in zip(found, zip(*expected, strict=True), strict=True):
            torch.testing.assert_close(one, torch.stack(others), rtol=1e-10, atol=1e-10)


def test_tokens_draw_each_for_itself():
    torch.manual_seed(0)
    tokens = 4
    make = lambda: SparseLinear(6, UNITS, keep=0.5, per="example", select="random").double()  # noqa: E731
    layers = [make() for _ in range(MEMBERS)]
    x = torch.randn(MEMBERS, CASES, tokens, 6).double()
    noise = torch.rand(MEMBERS, CASES, tokens, UNITS).double()
    stacked = stack(layers)
    stacked.noise = noise
    (stacked(x) ** 2).sum().backward()
    for k, layer in enumerate(layers):
        layer.noise = noise[k]
        (layer(x[k]) ** 2).sum().backward()
        torch.testing.assert_close(stacked.weight.grad[k], layer.weight.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [lambda: SparseLinear(6, 4), lambda: SparseConv2d(6, 4, 1)])
def test_a_stack_in_evaluation_has_exact_gradients(make: Callable[[], nn.Module]):
    layers = [make().double() for _ in range(MEMBERS)]
    stacked = stack([layer.eval() for layer in layers])
    x = (
        torch.randn(MEMBERS, 6, CASES)
        if hasattr(layers[0], "in_features")
        else torch.randn(MEMBERS, CASES, 6, 1, 1)
    )
    stacked(x.double()).sum().backward()
    assert stacked.weight.grad.ne(0).all()
