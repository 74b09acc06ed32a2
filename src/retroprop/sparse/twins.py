"""Sparse layers of many networks as one: each member keeps units of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retroprop.errors import NoTwin
from retroprop.sparse.conv_op import sparse_conv2d
from retroprop.sparse.layers import SparseConv2d, SparseLayer, SparseLinear
from retroprop.sparse.paths import gathers
from retroprop.sparse.registration import OnlyOnce
from retroprop.sparse.schedule import Scheduled
from retroprop.sparse.selection import Rule, kept_indices, multipliers
from retroprop.stacking.dispatch import twin
from retroprop.stacking.images import StackedConv2d
from retroprop.stacking.twins import StackedLinear, product


class _Sparse(Scheduled):
    """What the twins of sparse layers share; `noise` as a stack lays it out."""

    noise: Tensor
    rule: Rule
    dense_bias: bool

    def follow(self, first: SparseLayer, units: int) -> None:
        """Keep units as a layer does."""
        self.rule, self.dense_bias = first.rule, first.dense_bias
        self.schedule, self.sparse_now = first.schedule, first.sparse_now
        self.whole = self.rule.dense(units)

    @property
    def active(self) -> bool:
        """Whether the next backward pass is sparse."""
        return self.training and self.sparse_now and not self.whole

    def rows(self) -> Tensor | None:
        """Noise as a selection takes it: (member or 1, row, unit)."""
        if not self.rule.draws:
            return None
        return self.noise.mT if self.noise.ndim == 3 else self.noise.flatten(1, -2)


class StackedSparseLinear(_Sparse, StackedLinear):
    """K sparse linear layers."""

    def __init__(self, modules: Sequence[SparseLinear]) -> None:
        StackedLinear.__init__(self, modules)
        self.follow(modules[0], modules[0].out_features)

    def multiplied(self, x: Tensor) -> Tensor:
        """x: (member or 1, in, cases) -> (member, out, cases)."""
        if not self.active:
            return super().multiplied(x)
        members, out, _ = self.weight.shape
        x = x.expand(members, *x.shape[1:])
        noise = self.rows()
        inner = None if self.dense_bias else self.bias
        if gathers(self.rule, out):
            y = KeptProducts.apply(x, self.weight, inner, noise, self.rule)
        else:
            y = masked(product(self.weight, x, inner), noise, self.rule, 1, 2)
        dense = self.dense_bias and self.bias is not None
        return (y + self.bias.unsqueeze(-1)).to(y.dtype) if dense else y  # type: ignore[union-attr]


class StackedSparseConv2d(_Sparse, StackedConv2d):
    """K convolutions with a sparse backward pass."""

    def __init__(self, modules: Sequence[SparseConv2d]) -> None:
        StackedConv2d.__init__(self, modules)
        self.follow(modules[0], modules[0].out_channels)

    def one_by_one(self, x: Tensor) -> Tensor:
        """A convolution a member: on a CPU nothing is faster."""
        if not self.active:
            return super().one_by_one(x)
        size = self.weight.shape[0]
        noise = self.rows()
        out = [
            sparse_conv2d(
                x[k if len(x) == size else 0],
                self.weight[k],
                None if self.bias is None else self.bias[k],
                self.stride,  # type: ignore[arg-type]
                self.padding,  # type: ignore[arg-type]
                self.dilation,  # type: ignore[arg-type]
                self.groups,
                self.rule,
                self.dense_bias,
                None if noise is None else noise[k if len(noise) == size else 0],
            )
            for k in range(size)
        ]
        return torch.stack(out)

    def grouped(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """All members as the groups of one convolution; what is not kept is multiplied by zero."""
        if not self.active:
            return super().grouped(x, bias)
        y = super().grouped(x, None if self.dense_bias else bias)
        y = masked(y, self.rows(), self.rule, 2, 1)
        return y + bias[:, None, :, None, None] if self.dense_bias and bias is not None else y


class KeptProducts(torch.autograd.Function):
    """K linear layers whose backward products run over the kept units alone.

    The same numbers as `masked` behind a dense layer, whose products also run over the zeros.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, noise: Tensor | None, rule: Rule) -> Tensor:
        del noise, rule
        return product(weight, x, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        x, weight, bias, noise, ctx.rule = inputs
        ctx.biased = bias is not None
        ctx.save_for_backward(x, weight, noise)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_x, to_weight, to_bias = OnlyOnce.apply(_kept_products, *gradients, *ctx.saved_tensors, ctx.rule)
        return to_x, to_weight, to_bias if ctx.biased else None, None, None


def _kept_products(
    gradient: Tensor, x: Tensor, weight: Tensor, noise: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    chosen, factor = kept_indices(rule.size(gradient, [2]), rule, None if noise is None else noise[:, 0])
    units = chosen.unsqueeze(-1)
    rows = units.expand(-1, -1, weight.shape[2])
    kept = gradient.gather(1, units.expand(-1, -1, gradient.shape[2]))
    if factor is not None:
        kept = (kept * factor.unsqueeze(-1)).to(kept.dtype)
    # Under autocast the gradient comes in fewer bits than the tensors that were saved.
    to_x = torch.bmm(weight.gather(1, rows).mT.to(kept.dtype), kept).to(x.dtype)
    part = torch.bmm(kept, x.mT.to(kept.dtype)).to(weight.dtype)
    to_weight = torch.zeros_like(weight).scatter(1, rows, part)
    to_bias = weight.new_zeros(weight.shape[:2]).scatter(1, chosen, kept.sum(2).to(weight.dtype))
    return to_x, to_weight, to_bias


class Masked(torch.autograd.Function):
    """Identity forward; backward, the gradient of the kept units alone."""

    @staticmethod
    def forward(y: Tensor, noise: Tensor | None, rule: Rule, unit_dim: int, case_dim: int) -> Tensor:
        del noise, rule, unit_dim, case_dim
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, noise, ctx.rule, ctx.unit_dim, ctx.case_dim = inputs
        ctx.save_for_backward(noise)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = OnlyOnce.apply(
            _kept_gradient, *gradients, *ctx.saved_tensors, ctx.rule, ctx.unit_dim, ctx.case_dim
        )
        return found, None, None, None, None


def _kept_gradient(
    gradient: Tensor, noise: Tensor | None, rule: Rule, unit_dim: int, case_dim: int
) -> Tensor:
    """The gradient, with zeros for the units that are not kept."""
    laid = gradient.movedim((case_dim, unit_dim), (1, 2))
    pixels = laid.reshape(*laid.shape[:3], -1)
    batch = rule.per == "batch"
    size = rule.size(pixels, [1, 3] if batch else [3])
    factor = multipliers(size.unsqueeze(1) if batch else size, rule, noise)
    factor = factor.movedim((1, 2), (case_dim, unit_dim))
    factor = factor.reshape(*factor.shape, *[1] * (gradient.ndim - 3))
    return (gradient * factor).to(gradient.dtype)


def masked(y: Tensor, noise: Tensor | None, rule: Rule, unit_dim: int, case_dim: int) -> Tensor:
    """Outputs as they are; their gradient with the kept units alone.

    Args:
        y: of all members, with units and cases in dimensions 1 and 2, in any order, then pixels if any.
        noise: (member or 1, row, unit); None for a selection that draws nothing.
        rule: that chooses.
        unit_dim, case_dim: of y.
    """
    return Masked.apply(y, noise, rule, unit_dim, case_dim)


@twin.register(SparseLinear)
def _(first: SparseLinear, modules: Sequence[SparseLinear]) -> nn.Module:
    return StackedSparseLinear(modules)


@twin.register(SparseConv2d)
def _(first: SparseConv2d, modules: Sequence[SparseConv2d]) -> nn.Module:
    if first.padding_mode != "zeros":
        raise NoTwin(f"Conv2d with padding_mode={first.padding_mode!r} has no stacked twin; 'zeros' has one.")
    return StackedSparseConv2d(modules)
