"""Changes of a minibatch before a step: pure batched functions of inputs, targets and keyed noise."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from retroprop.errors import RetropropError
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


def images_of(x: Tensor, who: str) -> Tensor:
    """X, when it holds images `(case, channel, height, width)`.

    Raises:
        RetropropError: when it does not.
    """
    if x.ndim != 4:
        raise RetropropError(
            f"{who} was given inputs {tuple(x.shape)}; expected images (case, channel, height, width). Leave "
            "it out of this study, or give images."
        )
    return x


def shifted(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images moved down and to the right by whole pixels; what comes in from outside is 0.

    Args:
        x: `(case, channel, height, width)`.
        rows, columns: how far, integers `(case,)`; negative is up and to the left.
    """
    height, width = x.shape[-2:]
    from_row = torch.arange(height, device=x.device) - rows.unsqueeze(1)
    from_column = torch.arange(width, device=x.device) - columns.unsqueeze(1)
    inside = [(at >= 0) & (at < side) for at, side in ((from_row, height), (from_column, width))]
    at_row, at_column = from_row.clamp(0, height - 1), from_column.clamp(0, width - 1)
    moved = x.gather(2, at_row[:, None, :, None].expand_as(x))
    moved = moved.gather(3, at_column[:, None, None, :].expand_as(x))
    return moved * (inside[0][:, None, :, None] & inside[1][:, None, None, :])


def integers(noise: Tensor, low: int, high: int) -> Tensor:
    """Whole numbers from low to high, both included, of uniform numbers in [0, 1)."""
    # The largest number below 1, times as many, may round up to all of them.
    return (low + (noise * (high - low + 1)).long()).clamp(max=high)
