"""Flip: left and right change places."""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from retroprop.augment import Augment, images_of
from retroprop.errors import RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Flip(Fix):
    """Training images are mirrored at random, anew at every step; of no use where left and right matter.

    Args:
        p: probability that an image is mirrored, in [0, 1].

    Source: Krizhevsky et al. 2012, section 4.1.
    """

    p: float = 0.5

    name = "flip"
    paper = Paper(
        2012,
        "Krizhevsky, Sutskever & Hinton",
        "ImageNet classification with deep convolutional neural networks",
        "NIPS 2012",
    )
    stage = Stage.DATA
    slot = "flip"
    edits = "training images are mirrored"
    neutral = {"p": 0.0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise RetropropError(f"flip was given p={self.p}; expected 0 <= p <= 1.")

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("minibatch", "data", "as it is", f"mirrored with probability {self.p}")
        return replace(recipe, augment=(*recipe.augment, Mirrored(self.p)))


@dataclass(frozen=True)
class Mirrored(Augment):
    """Images mirrored with probability p."""

    p: float

    stream = "flip"

    def noise_shape(self) -> tuple[int, ...]:
        return (1,)

    def __call__(self, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = images_of(x, "flip")
        return torch.where(noise.view(-1, 1, 1, 1) < self.p, x.flip(-1), x), t
