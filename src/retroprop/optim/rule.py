"""What an update rule is.

A rule never changes a tensor in place: it takes parameters and gives new ones, so that one compiled
step can hold forward pass, backward pass and update. Its float fields are its hyper-parameters; the
engine hands them back as tensors that broadcast over each parameter, one value a member.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

Tensors = dict[str, Tensor]
State = dict[str, Tensors]
Hyper = dict[str, Tensors]
Gradient = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Rule(ABC):
    """How parameters change. `rate` is the base learning rate that a study's grid multiplies."""

    rate: float

    def hyper(self) -> dict[str, float]:
        """Hyper-parameters by name; two rules that differ only here can share one program."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type in (float, "float")}

    def make(self) -> tuple[type, dict[str, object]]:
        """The kind of rule and all its fields that are not hyper-parameters."""
        known = self.hyper()
        return type(self), {f.name: getattr(self, f.name) for f in fields(self) if f.name not in known}

    @abstractmethod
    def start(self, parameters: Tensors) -> State:
        """State before the first step, by slot and parameter."""

    @abstractmethod
    def step(
        self, parameters: Tensors, gradient: Gradient, state: State, hyper: Hyper
    ) -> tuple[Tensors, State]:
        """One update.

        Args:
            parameters: by name.
            gradient: gives the gradient of the minibatch's loss at any parameters; a rule may call it
                more than once.
            state: what `start` or the last `step` gave.
            hyper: by field, then parameter: tensors that broadcast over the parameter.
        """

    def evaluated(self, parameters: Tensors, state: State) -> Tensors:
        """The parameters that evaluation uses: these ones, unless a rule keeps others."""
        return parameters


@dataclass(frozen=True)
class ElementwiseRule(Rule):
    """A rule that treats every element of every parameter alike."""

    slots: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def update(
        self, parameter: Tensor, gradient: Tensor, state: Tensors, hyper: Tensors
    ) -> tuple[Tensor, Tensors]:
        """The new value and state of one parameter; all tensors broadcast over it."""

    def start(self, parameters: Tensors) -> State:
        return {s: {k: p.new_zeros(p.shape) for k, p in parameters.items()} for s in self.slots}

    def step(
        self, parameters: Tensors, gradient: Gradient, state: State, hyper: Hyper
    ) -> tuple[Tensors, State]:
        gradients = gradient(parameters)
        changed: Tensors = {}
        kept: State = {slot: {} for slot in state}
        for name, parameter in parameters.items():
            changed[name], own = self.update(
                parameter,
                gradients[name],
                {slot: tensors[name] for slot, tensors in state.items()},
                {field: tensors[name] for field, tensors in hyper.items()},
            )
            for slot, tensor in own.items():
                kept[slot][name] = tensor
        return changed, kept
