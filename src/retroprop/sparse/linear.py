"""A linear layer whose backward pass keeps k output units."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from retroprop.sparse.selection import Per, keep_largest, kept_units
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

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, in, batch) -> (member, out, batch)."""
        return keep_largest(super().forward(x), self.k, self.per, unit_dim=1, batch_dim=2)


@twin.register(SparseLinear)
def _(first: SparseLinear, modules: Sequence[SparseLinear]) -> nn.Module:
    return StackedSparseLinear(modules)
