"""Twins of torch's modules for images: x is `(member or 1, batch, channel, height, width)`."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop.errors import NoTwin
from retroprop.stacking.dispatch import Twin, stacked_tensors, twin


class StackedFlatten(Twin):
    """Images become vectors, the batch last; vectors stay as they are."""

    bounded = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, batch, ...) or (member or 1, unit, batch) -> (member or 1, unit, batch)."""
        return x if x.ndim == 3 else x.flatten(2).mT


class StackedConv2d(Twin):
    """K convolutions: `weight` (member, out, in / groups, height, width), `bias` (member, out)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, modules: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.register_parameter("bias", None)
        stacked_tensors(modules, into=self)
        first = modules[0]
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.groups = first.groups

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, batch, channel, height, width) -> (member, batch, out, height, width)."""
        return self.grouped(x, self.bias) if x.device.type == "cuda" else self.one_by_one(x)

    def one_by_one(self, x: Tensor) -> Tensor:
        """A convolution a member: on a CPU nothing is faster."""
        size = self.weight.shape[0]
        xs = x.unbind() if len(x) == size else x.expand(size, *x.shape[1:]).unbind()
        biases = [None] * size if self.bias is None else self.bias.unbind()
        out = [
            self._convolve(own, weight, bias, self.groups)
            for own, weight, bias in zip(xs, self.weight.unbind(), biases, strict=True)
        ]
        return torch.stack(out)

    def grouped(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """All members as the groups of one convolution, which fills a GPU."""
        size, out = self.weight.shape[:2]
        together = x.expand(size, *x.shape[1:]).transpose(0, 1).flatten(1, 2)
        biases = None if bias is None else bias.flatten()
        y = self._convolve(together, self.weight.flatten(0, 1), biases, size * self.groups)
        return torch.unflatten(y, 1, (size, out)).transpose(0, 1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class OverCases(Twin):
    """A module without tensors that treats every case alike: members' cases pass through it as one batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, batch, ...) -> the same, of the shape that the module makes."""
        return torch.unflatten(self.module(x.flatten(0, 1)), 0, x.shape[:2])


@twin.register(nn.Flatten)
def _(first: nn.Flatten, modules: Sequence[nn.Flatten]) -> nn.Module:
    if (first.start_dim, first.end_dim) != (1, -1):
        raise NoTwin(f"{first} has no stacked twin; Flatten() of all dimensions but the batch has one.")
    return StackedFlatten()


@twin.register(nn.Conv2d)
def _(first: nn.Conv2d, modules: Sequence[nn.Conv2d]) -> nn.Module:
    if first.padding_mode != "zeros":
        raise NoTwin(f"Conv2d with padding_mode={first.padding_mode!r} has no stacked twin; 'zeros' has one.")
    return StackedConv2d(modules)


@twin.register(nn.MaxPool2d)
@twin.register(nn.AvgPool2d)
@twin.register(nn.AdaptiveAvgPool2d)
@twin.register(nn.AdaptiveMaxPool2d)
@twin.register(nn.ZeroPad2d)
@twin.register(nn.Upsample)
def _(first: nn.Module, modules: Sequence[nn.Module]) -> nn.Module:
    if vars(first).get("return_indices"):
        raise NoTwin(f"{type(first).__name__} that gives indices too has no stacked twin.")
    return OverCases(first)
