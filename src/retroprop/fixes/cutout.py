"""Cutout: a square of every image is blank."""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from retroprop.augment import Augment, images_of, integers
from retroprop.errors import RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Cutout(Fix):
    """A square of every training image is 0, around a pixel drawn anew at every step.

    Args:
        size: side of the square in pixels; part of it may lie outside of the image.

    Source: DeVries & Taylor 2017, section 3.1.
    """

    size: int = 4

    name = "cutout"
    paper = Paper(
        2017,
        "DeVries & Taylor",
        "Improved regularization of convolutional neural networks with cutout",
        "arXiv:1708.04552",
    )
    stage = Stage.DATA
    slot = "cutout"
    edits = "a square of training images is blank"
    neutral = {"size": 0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and self.size >= 0):
            raise RetropropError(f"cutout was given size={self.size}; expected a whole number of at least 0.")

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("minibatch", "data", "as it is", f"without a square of {self.size} pixels")
        return replace(recipe, augment=(*recipe.augment, Blanked(self.size)))


@dataclass(frozen=True)
class Blanked(Augment):
    """Images with a square of `size` pixels set to 0."""

    size: int

    stream = "cutout"

    def noise_shape(self) -> tuple[int, ...]:
        return (2,)

    def __call__(self, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        inside = []
        for dim, side in enumerate(images_of(x, "cutout").shape[-2:]):
            first = integers(noise[:, dim], 0, side - 1).unsqueeze(1) - self.size // 2
            at = torch.arange(side, device=x.device)
            inside.append((at >= first) & (at < first + self.size))
        blank = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(blank, torch.zeros_like(x), x), t
