"""Twins of torch's norms: x is `(member, unit, batch)` or `(member, batch, channel, height, width)`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retroprop.errors import RetropropError
from retroprop.stacking.dispatch import AffineTwin, Twin, joined, stacked_tensors, twin


class StackedNorm(Twin):
    """What all norms share: an affine map of units or channels, one a member."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        for name in ("weight", "bias"):
            self.register_parameter(name, None)
        for name, buffer in modules[0]._buffers.items():
            self.register_buffer(name, buffer)
        stacked_tensors(modules, into=self)
        self.eps: float = modules[0].eps  # type: ignore[assignment]

    def normalised(self, x: Tensor, over: tuple[int, ...]) -> Tensor:
        """X with mean 0 and variance 1 over dimensions."""
        var, mean = torch.var_mean(x, dim=over, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(var + self.eps)

    def scaled(self, y: Tensor) -> Tensor:
        """Y times weight plus bias, one a unit or channel."""
        if self.weight is not None:
            y = y * by_unit(self.weight, y)
        return y if self.bias is None else y + by_unit(self.bias, y)


def by_unit(values: Tensor, x: Tensor) -> Tensor:
    """Values (member, unit), made to broadcast over x."""
    return values.unsqueeze(-1) if x.ndim == 3 else values.view(len(values), 1, -1, *[1] * (x.ndim - 3))


def exact(x: Tensor) -> Tensor:
    """X in float32 at least: statistics of shorter numbers would be rounded."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class StackedBatchNorm(StackedNorm, AffineTwin):
    """K batch norms over the batch, and over images, each with running statistics of its own."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, modules: Sequence[nn.BatchNorm1d | nn.BatchNorm2d]) -> None:
        super().__init__(modules)
        self.momentum = modules[0].momentum

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, unit, batch) or (member or 1, batch, channel, ...) -> the same."""
        centre, slope, offset = self.coefficients([x])
        return ((x - centre) * slope + offset).to(x.dtype)

    def coefficients(self, pieces: Sequence[Tensor]) -> tuple[Tensor, ...]:
        x = pieces[0]
        if self.training or self.running_mean is None or self.running_var is None:
            over = (2,) if x.ndim == 3 else (1, *range(3, x.ndim))
            found = [torch.var_mean(exact(one), dim=over, correction=0, keepdim=True) for one in pieces]
            var, mean = (joined(list(values)) for values in zip(*found, strict=True))
            if self.training:
                cases = x[:1].numel() // mean[:1].numel()
                if cases < 2:
                    raise RetropropError(
                        "Batch norm was given a minibatch of one case; expected two or more, which have a "
                        "variance. Give a larger batch."
                    )
                self._track(mean.detach().flatten(1), var.detach().flatten(1), cases)
        else:
            mean, var = by_unit(self.running_mean, x), by_unit(self.running_var, x)
        slope, offset = torch.rsqrt(var + self.eps), torch.zeros_like(mean)
        if self.weight is not None:
            slope = slope * by_unit(self.weight, x)
        return mean, slope, offset if self.bias is None else by_unit(self.bias, x)

    def _track(self, mean: Tensor, var: Tensor, cases: int) -> None:
        # The engine reads what is assigned here and hands it back at the next step.
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked = self.num_batches_tracked + 1
        if self.momentum is None:
            share = (1 / self.num_batches_tracked.to(mean.dtype)).unsqueeze(-1)
        else:
            share = torch.full((), self.momentum, dtype=mean.dtype, device=mean.device)
        unbiased = var * (cases / (cases - 1))
        self.running_mean = self.running_mean * (1 - share) + mean * share
        self.running_var = self.running_var * (1 - share) + unbiased * share


class StackedLayerNorm(StackedNorm):
    """K layer norms over the trailing dimensions of each case; for vectors over the units."""

    def __init__(self, modules: Sequence[nn.LayerNorm]) -> None:
        super().__init__(modules)
        self.dimensions = len(modules[0].normalized_shape)

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, unit, batch) or (member or 1, batch, ..., unit) -> the same."""
        x = exact(x)
        if x.ndim == 3:
            return self.scaled(self.normalised(x, (1,)))
        y = self.normalised(x, tuple(range(x.ndim - self.dimensions, x.ndim)))
        if self.weight is not None:
            y = y * self._trailing(self.weight, y)
        return y if self.bias is None else y + self._trailing(self.bias, y)

    def _trailing(self, values: Tensor, y: Tensor) -> Tensor:
        return values.view(len(values), *[1] * (y.ndim - values.ndim), *values.shape[1:])


class StackedGroupNorm(StackedNorm):
    """K group norms over channels in groups and the image; for vectors over units in groups."""

    def __init__(self, modules: Sequence[nn.GroupNorm]) -> None:
        super().__init__(modules)
        self.groups = modules[0].num_groups

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, unit, batch) or (member or 1, batch, channel, ...) -> the same."""
        x = exact(x)
        at = 1 if x.ndim == 3 else 2
        parted = torch.unflatten(x, at, (self.groups, -1))
        over = (2,) if x.ndim == 3 else tuple(range(3, parted.ndim))
        return self.scaled(self.normalised(parted, over).flatten(at, at + 1))


@twin.register(nn.BatchNorm1d)
@twin.register(nn.BatchNorm2d)
def _(
    first: nn.BatchNorm1d | nn.BatchNorm2d, modules: Sequence[nn.BatchNorm1d | nn.BatchNorm2d]
) -> nn.Module:
    return StackedBatchNorm(modules)


@twin.register(nn.LayerNorm)
def _(first: nn.LayerNorm, modules: Sequence[nn.LayerNorm]) -> nn.Module:
    return StackedLayerNorm(modules)


@twin.register(nn.GroupNorm)
def _(first: nn.GroupNorm, modules: Sequence[nn.GroupNorm]) -> nn.Module:
    return StackedGroupNorm(modules)
