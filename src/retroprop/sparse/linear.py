"""A linear layer whose backward pass keeps k output units."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from retroprop.sparse.selection import Per, keep_largest, kept_indices, kept_units
from retroprop.stacking.dispatch import twin
from retroprop.stacking.twins import StackedLinear


class SparseLinear(nn.Linear):
    """`nn.Linear` with an exact forward pass and a top-k backward pass; the same state keys.

    Args:
        in_features: units in.
        out_features: units out.
        bias: as in `nn.Linear`.
        keep: share of the output units whose gradient is kept, or their number as an int.
        per: one set of units for the batch, or one for every case.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        keep: float = 0.25,
        per: Per = "batch",
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.k = kept_units(keep, out_features)
        self.per: Per = per

    @classmethod
    def like(cls, linear: nn.Linear, *, keep: float, per: Per) -> Self:
        """A sparse layer that holds the very parameters of a dense one."""
        new = cls(linear.in_features, linear.out_features, linear.bias is not None, keep=keep, per=per)
        new.weight, new.bias = linear.weight, linear.bias
        return new

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """input: (batch, ..., in) -> (batch, ..., out)."""
        y = super().forward(input)
        if y.ndim == 2:
            return keep_largest(y, self.k, self.per)
        # Further dimensions, as the tokens of a transformer, count as cases.
        return keep_largest(y.flatten(0, -2), self.k, self.per).view_as(y)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, k={self.k}, per={self.per}"


class StackedSparseLinear(StackedLinear):
    """K sparse linear layers."""

    def __init__(self, modules: Sequence[SparseLinear]) -> None:
        super().__init__(modules)
        self.k, self.per = modules[0].k, modules[0].per

    def multiplied(self, x: Tensor) -> Tensor:
        """x: (member or 1, in, cases) -> (member, out, cases)."""
        if self.per == "batch" and self.k < self.weight.shape[1]:
            x = x.expand(self.weight.shape[0], *x.shape[1:])
            return KeptProducts.apply(x, self.weight, self.bias, self.k)
        return keep_largest(super().multiplied(x), self.k, self.per, unit_dim=1, batch_dim=2)


class KeptProducts(torch.autograd.Function):
    """K linear layers whose backward products run over the kept units alone.

    The same numbers as `keep_largest` behind a dense layer, whose products also run over the zeros.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> Tensor:
        del k
        return torch.bmm(weight, x) if bias is None else torch.baddbmm(bias.unsqueeze(-1), weight, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        x, weight, bias, ctx.k = inputs
        ctx.biased = bias is not None
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        units = kept_indices(gradient, ctx.k, "batch", 1, 2)
        rows = units.expand(-1, -1, weight.shape[2])
        kept = gradient.gather(1, units.expand(-1, -1, gradient.shape[2]))
        # Under autocast the gradient comes in fewer bits than the tensors that were saved.
        to_x = torch.bmm(weight.gather(1, rows).mT.to(kept.dtype), kept).to(x.dtype)
        part = torch.bmm(kept, x.mT.to(kept.dtype)).to(weight.dtype)
        to_weight = torch.zeros_like(weight).scatter(1, rows, part)
        to_bias = None
        if ctx.biased:
            to_bias = weight.new_zeros(weight.shape[:2]).scatter(
                1, units.squeeze(-1), kept.sum(2).to(weight.dtype)
            )
        return to_x, to_weight, to_bias, None


@twin.register(SparseLinear)
def _(first: SparseLinear, modules: Sequence[SparseLinear]) -> nn.Module:
    return StackedSparseLinear(modules)
