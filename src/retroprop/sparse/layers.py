"""Layers with a sparse backward pass, in the place of torch's own."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop.sparse.conv_op import sparse_conv2d
from retroprop.sparse.linear_op import sparse_linear
from retroprop.sparse.schedule import CONSTANT, Schedule, Scheduled
from retroprop.sparse.selection import Per, Rule, Select
from retroprop.stacking.keyed import Keyed


class SparseLayer(Keyed, Scheduled):
    """What linear and convolutional layers with a sparse backward pass share.

    They are sparse while training; in evaluation mode, and in the dense epochs of a schedule, gradients are
    exact. Random selections come from a trial's numbers, or from torch's generator.
    """

    stream = "sparse"
    rule: Rule
    dense_bias: bool

    @classmethod
    def like(cls, layer: nn.Module, rule: Rule, **how: Any) -> Self:
        """A sparse layer that holds the very parameters and settings of torch's; `how` as in `keep_by`."""
        new = cls.__new__(cls)
        new.__dict__ = {name: copy.copy(value) for name, value in vars(layer).items()}
        return new.keep_by(rule, **how)

    def keep_by(
        self,
        rule: Rule,
        *,
        dense_bias: bool = False,
        schedule: Schedule = CONSTANT,
        tokens: tuple[int, ...] = (),
    ) -> Self:
        """Set how units are kept.

        Args:
            rule: that chooses units.
            dense_bias: whether the bias gets the gradient of all units.
            schedule: of dense and sparse epochs.
            tokens: dimensions of one case that count as cases too, such as a sequence's length.

        Raises:
            RetropropError: when the rule does not go with the layer's number of units.
        """
        rule.k(self.units)
        self.rule, self.dense_bias = rule, dense_bias
        self.schedule, self.sparse_now = schedule, schedule.sparse(0)
        self.per_case = rule.per == "example"
        drawn = rule.draws and not rule.dense(self.units)
        self.shape = ((*tokens, self.units) if self.per_case else (self.units,)) if drawn else None
        weight = self.weight
        assert isinstance(weight, Tensor)
        self.register_buffer("noise", torch.empty(0, device=weight.device), persistent=False)
        return self

    @property
    def units(self) -> int:
        """Output units or channels."""
        weight = self.weight
        assert isinstance(weight, Tensor)
        return weight.shape[0]

    @property
    def active(self) -> bool:
        """Whether the next backward pass is sparse."""
        return self.training and self.sparse_now

    def density(self) -> float:
        """Share of the units that the next backward pass keeps; the most it may for "variance"."""
        return self.rule.k(self.units) / self.units if self.active else 1.0

    def drawn(self) -> Tensor | None:
        """The trial's random numbers; none outside a trial."""
        return self.noise if self.noise.numel() else None

    def extra_repr(self) -> str:
        parts = [super().extra_repr(), f"keep={self.rule.keep}", f"per={self.rule.per}"]
        parts += [f"select={self.rule.select}"] if self.rule.select != "magnitude" else []
        parts += [f"block={self.rule.block}"] if self.rule.block > 1 else []
        parts += [f"schedule={self.schedule.kind}"] if self.schedule.kind != "constant" else []
        return ", ".join(parts)


class SparseLinear(SparseLayer, nn.Linear):
    """`nn.Linear` with an exact forward pass and a backward pass that keeps k output units.

    State keys are those of `nn.Linear`.

    Args:
        in_features: units in.
        out_features: units out.
        bias: as in `nn.Linear`.
        keep, per, select, block: see `Rule`.
        dense_bias: whether the bias gets the gradient of all units.
        device, dtype: as in `nn.Linear`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        keep: float = 0.25,
        per: Per = "batch",
        select: Select = "magnitude",
        block: int = 1,
        dense_bias: bool = False,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)
        rule = Rule(keep, per, select, block)
        rule.check_units(out_features)
        self.keep_by(rule, dense_bias=dense_bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """input: (batch, ..., in) -> (batch, ..., out)."""
        if not self.active:
            return functional.linear(input, self.weight, self.bias)
        return sparse_linear(input, self.weight, self.bias, self.rule, self.dense_bias, self.drawn())


class SparseConv2d(SparseLayer, nn.Conv2d):
    """`nn.Conv2d` with an exact forward pass and a backward pass that keeps k output channels.

    State keys are those of `nn.Conv2d`.

    Args:
        in_channels, out_channels, kernel_size: as in `nn.Conv2d`, and so are further arguments.
        keep, per, select, block: see `Rule`.
        dense_bias: whether the bias gets the gradient of all channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *geometry: Any,
        keep: float = 0.25,
        per: Per = "batch",
        select: Select = "magnitude",
        block: int = 1,
        dense_bias: bool = False,
        **further: Any,
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, *geometry, **further)
        rule = Rule(keep, per, select, block)
        rule.check_units(out_channels)
        self.keep_by(rule, dense_bias=dense_bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """input: (batch, in, height, width) -> (batch, out, height, width)."""
        if not self.active:
            return nn.Conv2d.forward(self, input)
        padding = self.padding
        if self.padding_mode != "zeros":
            input = functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)  # noqa: A001
            padding = (0, 0)
        return sparse_conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,  # type: ignore[arg-type]
            padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            self.rule,
            self.dense_bias,
            self.drawn(),
        )
