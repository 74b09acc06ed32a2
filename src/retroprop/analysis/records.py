"""The plain records of the analysis: a factor, a contrast of arms, an effect."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from retroprop.errors import RetropropError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

Metric = Literal["accuracy_points", "log_odds"]
Kind = Literal["main", "interaction", "add_one_in", "leave_one_out", "shapley", "one_at_a_time"]


@final
@dataclass(frozen=True)
class Factor:
    """One question of a study. Its first level is "off"; its last level stands for "on".

    Raises:
        RetropropError: The name is empty, or there are fewer than two levels, or two are equal.
    """

    name: str
    levels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise RetropropError("A factor was given an empty name; give it the name of its fix.")
        if len(self.levels) < 2 or len(set(self.levels)) < len(self.levels):
            raise RetropropError(
                f"Factor {self.name!r} has the levels {self.levels}; expected two or more different"
                " ones, the first of which is 'off'. A fix that every arm has is 'held', no factor."
            )


@final
@dataclass(frozen=True, eq=False)
class Contrast:
    """One linear question to the arms: the sum over arms of weight x accuracy.

    Attributes:
        weights: `(L1, ..., Lk)`, one weight an arm; they sum to 0. Arms that the design does not
            hold have weight 0.
    """

    kind: Kind
    factor: str
    level: str
    weights: FloatArray
    other_factor: str = ""
    other_level: str = ""

    @property
    def name(self) -> str:
        """How messages name it: `norm=batch`, or `norm=batch x skip=on` for an interaction."""
        own = f"{self.factor}={self.level}"
        return f"{own} x {self.other_factor}={self.other_level}" if self.other_factor else own


@final
@dataclass(frozen=True)
class Effect:
    """One row of effects.csv: what a level changes against its factor's first level.

    Attributes:
        estimate: Mean over seeds; points of accuracy (0 to 100), or log-odds, as `metric` says.
        low: Lower end of the 95 % interval over seeds; nan with one seed.
        high: Upper end of that interval.
        p: Two-sided sign-flip p value; nan where the row carries no verdict.
        p_holm: The same after Holm's correction over the family; nan where there is no verdict.
        claim: "helps", "hurts", "no claim", "indicative: ...", "withheld: ...", or "" where the row
            carries no verdict.
        seeds: How many reporting seeds the row rests on.
    """

    metric: Metric
    kind: Kind
    factor: str
    level: str
    other_factor: str
    other_level: str
    estimate: float
    low: float
    high: float
    p: float
    p_holm: float
    claim: str
    seeds: int


@final
@dataclass(frozen=True)
class ImageInterval:
    """The second interval of a contrast: over seeds and test images, in points of accuracy."""

    kind: Kind
    factor: str
    level: str
    other_factor: str
    other_level: str
    estimate: float
    low: float
    high: float
