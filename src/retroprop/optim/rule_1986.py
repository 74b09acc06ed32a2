"""The rule of the 1986 paper: steepest descent with a memory of the last change."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from retroprop.optim.rule import ElementwiseRule, Tensors


@final
@dataclass(frozen=True)
class Rule1986(ElementwiseRule):
    """dw(t) = -rate * dE/dw(t) + momentum * dw(t-1).

    The rate multiplies the gradient only. `torch.optim.SGD` multiplies the whole velocity, which is
    the same while the rate stays constant and another method when it changes.

    Source: Rumelhart, Hinton & Williams 1986, eq. 8 and 9.
    """

    rate: float = 0.1
    momentum: float = 0.9

    slots: ClassVar[tuple[str, ...]] = ("change",)

    def update(
        self, parameter: Tensor, gradient: Tensor, state: Tensors, hyper: Tensors
    ) -> tuple[Tensor, Tensors]:
        change = torch.addcmul(hyper["momentum"] * state["change"], hyper["rate"], gradient, value=-1)
        return parameter + change, {"change": change}
