"""Twins of torch's modules for images: x is `(member or 1, batch, channel, height, width)`."""

from collections.abc import Sequence

from torch import Tensor, nn

from retroprop.errors import NoTwin
from retroprop.stacking.dispatch import Twin, twin


class StackedFlatten(Twin):
    """Images become vectors, the batch last; vectors stay as they are."""

    bounded = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, batch, ...) or (member or 1, unit, batch) -> (member or 1, unit, batch)."""
        return x if x.ndim == 3 else x.flatten(2).mT


@twin.register(nn.Flatten)
def _(first: nn.Flatten, modules: Sequence[nn.Flatten]) -> nn.Module:
    if (first.start_dim, first.end_dim) != (1, -1):
        raise NoTwin(f"{first} has no stacked twin; Flatten() of all dimensions but the batch has one.")
    return StackedFlatten()
