"""Adam: step sizes from running moments of the gradient."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from retroprop.optim.rule import ElementwiseRule, State, Tensors


@final
@dataclass(frozen=True)
class Adam(ElementwiseRule):
    """Bias-corrected first and second moments.

    Source: Kingma & Ba 2015, algorithm 1.
    """

    rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    slots: ClassVar[tuple[str, ...]] = ("mean", "square", "decay1", "decay2")

    def start(self, parameters: Tensors) -> State:
        # decay1 and decay2 hold beta**t, one value a member: a power with a tensor exponent is slow.
        state = super().start(parameters)
        for slot in ("decay1", "decay2"):
            state[slot] = {
                name: p.new_ones((p.shape[0], *[1] * (p.ndim - 1)) if p.ndim else ())
                for name, p in parameters.items()
            }
        return state

    def update(
        self, parameter: Tensor, gradient: Tensor, state: Tensors, hyper: Tensors
    ) -> tuple[Tensor, Tensors]:
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        mean = beta1 * state["mean"] + (1 - beta1) * gradient
        square = beta2 * state["square"] + (1 - beta2) * gradient * gradient
        decay1, decay2 = state["decay1"] * beta1, state["decay2"] * beta2
        corrected = mean / (1 - decay1)
        scale = (square / (1 - decay2)).sqrt() + hyper["epsilon"]
        return parameter - hyper["rate"] * corrected / scale, {
            "mean": mean,
            "square": square,
            "decay1": decay1,
            "decay2": decay2,
        }
