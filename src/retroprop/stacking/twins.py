"""Twins of torch's own modules: x is `(member or 1, unit, batch)`."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retroprop.errors import RetropropError
from retroprop.stacking.dispatch import Twin, stacked_tensors, twin


class StackedLinear(Twin):
    """K linear layers: `weight` (member, out, in), `bias` (member, out)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.register_parameter("bias", None)
        stacked_tensors(modules, into=self)

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, in, batch) -> (member, out, batch)."""
        if x.shape[0] != self.weight.shape[0]:
            x = x.expand(self.weight.shape[0], *x.shape[1:])
        if self.bias is None:
            return torch.bmm(self.weight, x)
        return torch.baddbmm(self.bias.unsqueeze(-1), self.weight, x)


class StackedBatchNorm(Twin):
    """K batch norms over the batch, each with running statistics of its own."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, modules: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        for name in ("weight", "bias"):
            self.register_parameter(name, None)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, None)
        stacked_tensors(modules, into=self)
        self.eps = modules[0].eps
        self.momentum = modules[0].momentum

    def forward(self, x: Tensor) -> Tensor:
        """x: (member, unit, batch) -> the same."""
        if self.training or self.running_mean is None or self.running_var is None:
            var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
            if self.training:
                self._track(mean.detach().squeeze(-1), var.detach().squeeze(-1), x.shape[-1])
        else:
            mean, var = self.running_mean.unsqueeze(-1), self.running_var.unsqueeze(-1)
        y = (x - mean) * torch.rsqrt(var + self.eps)
        if self.weight is not None:
            y = y * self.weight.unsqueeze(-1)
        return y if self.bias is None else y + self.bias.unsqueeze(-1)

    def _track(self, mean: Tensor, var: Tensor, cases: int) -> None:
        # The engine reads what is assigned here and hands it back at the next step.
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        if cases < 2:
            raise RetropropError(
                "Batch norm was given a minibatch of one case; expected two or more, which have a variance. "
                "Give a larger batch."
            )
        self.num_batches_tracked = self.num_batches_tracked + 1
        if self.momentum is None:
            share = (1 / self.num_batches_tracked.to(mean.dtype)).unsqueeze(-1)
        else:
            share = torch.full((), self.momentum, dtype=mean.dtype, device=mean.device)
        unbiased = var * (cases / (cases - 1))
        self.running_mean = self.running_mean * (1 - share) + mean * share
        self.running_var = self.running_var * (1 - share) + unbiased * share


class SameForAll(Twin):
    """A module without tensors that works element by element: every member can share it."""

    def __init__(self, module: nn.Module, bounded: bool) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        self.bounded = bounded

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: (member or 1, unit, batch) each -> the same."""
        return self.module(*inputs)


def share_elementwise(kind: type[nn.Module], *, bounded: bool = False) -> None:
    """Declare that a module works element by element and holds no tensors.

    Args:
        kind: of module.
        bounded: whether its slope is finite at every finite input; it then runs a little faster beside
            others.
    """
    twin.register(kind)(lambda first, modules: SameForAll(first, bounded))


for _kind in (nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6):
    share_elementwise(_kind, bounded=True)
for _steeper in (
    nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Hardswish,
    nn.Hardsigmoid,
):  # fmt: skip
    share_elementwise(_steeper)


@twin.register(nn.Linear)
def _(first: nn.Linear, modules: Sequence[nn.Linear]) -> nn.Module:
    return StackedLinear(modules)


@twin.register(nn.BatchNorm1d)
def _(first: nn.BatchNorm1d, modules: Sequence[nn.BatchNorm1d]) -> nn.Module:
    return StackedBatchNorm(modules)
