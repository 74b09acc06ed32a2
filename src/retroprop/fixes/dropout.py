"""Dropout: hidden units are left out at random while training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop.errors import RetropropError
from retroprop.fix import ModelFix, Paper, Stage
from retroprop.stacking.dispatch import Twin, twin
from retroprop.stacking.keyed import Keyed
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Dropout(ModelFix):
    """Each hidden unit is left out with probability p; the others are scaled by 1 / (1 - p).

    Args:
        p: probability of leaving a unit out, in [0, 1).

    Source: Hinton et al. 2012; scaling at training time as in Srivastava et al. 2014, section 10.
    """

    p: float = 0.5

    name = "dropout"
    paper = Paper(
        2012,
        "Hinton, Srivastava, Krizhevsky, Sutskever & Salakhutdinov",
        "Improving neural networks by preventing co-adaptation of feature detectors",
        "arXiv:1207.0580",
    )
    stage = Stage.DROP
    slot = "dropout"
    edits = "after hidden activations"
    neutral = {"p": 0.0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise RetropropError(f"dropout was given p={self.p}; expected 0 <= p < 1.")

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("dropout", lambda site: KeyedDropout(self.p, site.shape))
        return surgeon.network


class KeyedDropout(Keyed):
    """Dropout whose masks a trial keys by seed, path and step; elsewhere torch's generator draws them.

    Args:
        p: probability of leaving a unit out.
        shape: of one case.
    """

    stream = "dropout"

    def __init__(self, p: float, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *shape) -> the same."""
        if not self.training or self.p == 0:
            return x
        if self.noise.numel() == 0:
            return functional.dropout(x, self.p, training=True)
        return drop(x, self.noise, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def drop(x: Tensor, noise: Tensor, p: float) -> Tensor:
    """X with the units left out whose noise is below p, and the others scaled by 1 / (1 - p)."""
    return torch.where(noise >= p, x * (1 / (1 - p)), torch.zeros_like(x))


class StackedDropout(Twin):
    """K dropouts of one p; `noise` is `(member or 1, unit, batch)`."""

    noise: Tensor
    bounded = True

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("noise", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (member or 1, unit, batch) -> the same."""
        return drop(x, self.noise, self.p) if self.training and self.p > 0 else x


@twin.register(KeyedDropout)
def _(first: KeyedDropout, modules: Sequence[KeyedDropout]) -> nn.Module:
    return StackedDropout(first.p)
