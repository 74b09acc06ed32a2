"""Shift: every image is moved by a few pixels."""

from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from retroprop.augment import Augment, images_of, integers, shifted
from retroprop.errors import RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Shift(Fix):
    """Training images move by whole pixels, drawn anew at every step; what comes in is 0.

    Args:
        pixels: an image moves up to so far, up or down and left or right.

    Source: LeCun et al. 1998, section III, whose distortions also scale, squeeze and shear.
    """

    pixels: int = 1

    name = "shift"
    paper = Paper(
        1998,
        "LeCun, Bottou, Bengio & Haffner",
        "Gradient-based learning applied to document recognition",
        "Proceedings of the IEEE 86",
    )
    stage = Stage.DATA
    slot = "shift"
    edits = "training images move by whole pixels"
    neutral = {"pixels": 0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        if not (isinstance(self.pixels, int) and self.pixels >= 0):
            raise RetropropError(
                f"shift was given pixels={self.pixels}; expected a whole number of at least 0."
            )

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("minibatch", "data", "as it is", f"moved up to {self.pixels} pixels")
        return replace(recipe, augment=(*recipe.augment, Moved(self.pixels)))


@dataclass(frozen=True)
class Moved(Augment):
    """Images moved by up to `pixels` either way."""

    pixels: int

    stream = "shift"

    def noise_shape(self) -> tuple[int, ...]:
        return (2,)

    def __call__(self, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = images_of(x, "shift")
        rows, columns = integers(noise, -self.pixels, self.pixels).unbind(1)
        return shifted(x, rows, columns), t
