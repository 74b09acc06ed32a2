"""Adam with weight decay beside the gradient."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from retroprop.optim.adam import Adam
from retroprop.optim.rule import ElementwiseRule, State, Tensors


@final
@dataclass(frozen=True)
class AdamW(ElementwiseRule):
    """Every weight shrinks by a share, rate * weight_decay, and then moves as Adam moves it.

    Source: Loshchilov & Hutter 2019, algorithm 2.
    """

    rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    slots: ClassVar[tuple[str, ...]] = Adam.slots

    def start(self, parameters: Tensors) -> State:
        return self._adam.start(parameters)

    def update(
        self, parameter: Tensor, gradient: Tensor, state: Tensors, hyper: Tensors
    ) -> tuple[Tensor, Tensors]:
        shrunk = parameter * (1 - hyper["rate"] * hyper["weight_decay"])
        return self._adam.update(shrunk, gradient, state, hyper)

    @property
    def _adam(self) -> Adam:
        return Adam(self.rate, self.beta1, self.beta2, self.epsilon)
