"""Changes of a minibatch before a step: pure batched functions of inputs, targets and keyed noise."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from retroprop.randomness import Seed, uniforms


class Augment(ABC):
    """One change of the minibatch, such as mixup; a frozen dataclass whose fields are its settings.

    stream: names its random numbers, so that two augmentations of one recipe draw different ones.
    """

    stream: ClassVar[str]

    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the uniform numbers that one case needs."""

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """New inputs and targets.

        Args:
            x: inputs `(case, ...)`.
            t: target distributions `(case, class)`.
            noise: uniform numbers in [0, 1), `(case, *noise_shape())`.
        """

    def draw(self, seed: Seed, epoch: int, order: Tensor) -> Tensor:
        """An epoch's noise `(step, case, *noise_shape())`, for minibatches `order` `(step, case)`."""
        return uniforms((*order.shape, *self.noise_shape()), seed, "augment", self.stream, epoch)
