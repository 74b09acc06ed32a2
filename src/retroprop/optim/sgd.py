"""Stochastic gradient descent as torch does it."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from retroprop.optim.rule import ElementwiseRule, Tensors


@final
@dataclass(frozen=True)
class SGD(ElementwiseRule):
    """Momentum on the gradient, the rate on the whole velocity; weight decay is added to the gradient.

    The same as `Rule1986` while the rate stays constant and there is no decay, apart from rounding.

    Source: Sutskever, Martens, Dahl & Hinton 2013, eq. 1-4, in the form of torch.optim.SGD, where the
    nesterov step looks ahead by the momentum.
    """

    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    def update(
        self, parameter: Tensor, gradient: Tensor, state: Tensors, hyper: Tensors
    ) -> tuple[Tensor, Tensors]:
        gradient = gradient + hyper["weight_decay"] * parameter
        velocity = hyper["momentum"] * state["velocity"] + gradient
        change = gradient + hyper["momentum"] * velocity if self.nesterov else velocity
        return parameter - hyper["rate"] * change, {"velocity": velocity}
