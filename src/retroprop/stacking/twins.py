"""Twins of torch's own modules: x is `(member or 1, unit, batch)`."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retroprop.errors import NoTwin
from retroprop.stacking.dispatch import AffineTwin, Twin, stacked_tensors, twin


class StackedLinear(Twin):
    """K linear layers: `weight` (member, out, in), `bias` (member, out)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.register_parameter("bias", None)
        stacked_tensors(modules, into=self)

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, in, batch) or (member or 1, batch, ..., in) -> the same with out."""
        if x.ndim == 3:
            return self.multiplied(x)
        y = self.multiplied(x.flatten(1, -2).mT)
        return torch.unflatten(y.mT, 1, x.shape[1:-1])

    def multiplied(self, x: Tensor) -> Tensor:
        """x: (member or 1, in, cases) -> (member, out, cases)."""
        if x.shape[0] != self.weight.shape[0]:
            x = x.expand(self.weight.shape[0], *x.shape[1:])
        return product(self.weight, x, self.bias)


def product(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Weight (member, out, in) times x (member, in, cases), plus bias (member, out)."""
    if bias is None:
        return torch.bmm(weight, x)
    if torch.is_autocast_enabled(x.device.type):  # the sum is rounded to fewer bits once, as in a layer alone
        return torch.baddbmm(bias.unsqueeze(-1), weight, x)
    return torch.bmm(weight, x) + bias.unsqueeze(-1)  # which a compiler joins to what follows


class SameForAll(Twin):
    """A module without tensors that works element by element: every member can share it."""

    def __init__(self, module: nn.Module, bounded: bool) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        self.bounded = bounded

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: (member or 1, unit, batch) each -> the same."""
        return self.module(*inputs)


class StackedIdentity(SameForAll, AffineTwin):
    """Gives what it is given."""

    def coefficients(self, pieces: Sequence[Tensor]) -> None:
        return None


def share_elementwise(kind: type[nn.Module], *, bounded: bool = False) -> None:
    """Declare that a module works element by element and holds no tensors.

    Args:
        kind: of module.
        bounded: whether its slope is finite at every finite input; it then runs a little faster beside
            others.
    """
    twin.register(kind)(lambda first, modules: SameForAll(first, bounded))


for _kind in (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6):
    share_elementwise(_kind, bounded=True)
for _steeper in (
    nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Hardswish,
    nn.Hardsigmoid,
):  # fmt: skip
    share_elementwise(_steeper)


@twin.register(nn.Identity)
def _(first: nn.Identity, modules: Sequence[nn.Identity]) -> nn.Module:
    return StackedIdentity(first, bounded=True)


@twin.register(nn.Linear)
def _(first: nn.Linear, modules: Sequence[nn.Linear]) -> nn.Module:
    return StackedLinear(modules)


@twin.register(nn.Dropout)
@twin.register(nn.Dropout1d)
@twin.register(nn.Dropout2d)
@twin.register(nn.AlphaDropout)
def _(first: nn.Dropout, modules: Sequence[nn.Dropout]) -> nn.Module:
    if first.p > 0:
        raise NoTwin(
            f"{first} draws from torch's generator, which no trial's seed decides; use retroprop's dropout "
            "fix instead."
        )
    return SameForAll(nn.Identity(), bounded=True)
