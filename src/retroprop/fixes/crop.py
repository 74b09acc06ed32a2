"""Crop: a random window of the image on a wider ground."""

from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from retroprop.augment import Augment, images_of, integers, shifted
from retroprop.errors import RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Crop(Fix):
    """Training images are padded with zeros and cut to their size at a random place, anew at every step.

    The same change as `shift` by up to `padding` pixels, so the two fill one slot.

    Args:
        padding: pixels of ground, of 0, on each side.

    Source: Lee et al. 2014, as used by He, Zhang, Ren & Sun 2015, section 4.2.
    """

    padding: int = 4

    name = "crop"
    paper = Paper(
        2014, "Lee, Xie, Gallagher, Zhang & Tu", "Deeply-supervised nets", "AISTATS 2015, arXiv:1409.5185"
    )
    stage = Stage.DATA
    slot = "shift"
    edits = "training images are windows of padded ones"
    neutral = {"padding": 0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        if not (isinstance(self.padding, int) and self.padding >= 0):
            raise RetropropError(
                f"crop was given padding={self.padding}; expected a whole number of at least 0."
            )

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("minibatch", "data", "as it is", f"cut from {self.padding} pixels more on each side")
        return replace(recipe, augment=(*recipe.augment, Window(self.padding)))


@dataclass(frozen=True)
class Window(Augment):
    """Windows of images with `padding` zeros on each side."""

    padding: int

    stream = "crop"

    def noise_shape(self) -> tuple[int, ...]:
        return (2,)

    def __call__(self, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        corner = integers(noise, 0, 2 * self.padding)
        rows, columns = (self.padding - corner).unbind(1)
        return shifted(images_of(x, "crop"), rows, columns), t
