"""Claims: Holm's correction over a family, verdicts, and verdicts withheld for few seeds."""

from dataclasses import dataclass
from typing import final

import numpy as np
from statsmodels.stats.multitest import multipletests

from retroprop.analysis.records import BoolArray, FloatArray
from retroprop.errors import RetropropError

ALPHA = 0.05
HELPS = "helps"
HURTS = "hurts"
NO_CLAIM = "no claim"
LUCK_OF_TUNING = "withheld: the luck of tuning could make as large a difference"


@final
@dataclass(frozen=True, eq=False)
class Bounds:
    """An interval for each of m contrasts: the lower and the upper ends, `(m,)` each."""

    low: FloatArray
    high: FloatArray

    def exclude_zero(self) -> BoolArray:
        """Which intervals lie on one side of 0 `(m,)`; a nan interval excludes nothing."""
        return (self.low > 0.0) | (self.high < 0.0)


def holm(p: FloatArray) -> FloatArray:
    """Holm's step-down correction over one family.

    Args:
        p: `(m,)`, the p values of the whole family.

    Returns:
        `(m,)`, the corrected p values.

    Raises:
        RetropropError: Not one axis, or a value outside 0 to 1.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise RetropropError(
            f"Got p values {p}; expected one axis of numbers from 0 to 1. Rows that carry no"
            " verdict have no p and are no part of a family."
        )
    if p.size == 0:
        return p.copy()
    return np.asarray(multipletests(p, alpha=ALPHA, method="holm")[1], dtype=np.float64)


def smallest_p(seeds: int) -> float:
    """The smallest two-sided p value of a sign-flip test.

    Args:
        seeds: How many reporting seeds, at least 1.

    Returns:
        `2 / 2^seeds`.

    Raises:
        RetropropError: Fewer than one seed.
    """
    if seeds < 1:
        raise RetropropError(f"Got {seeds} seeds; expected at least 1 reporting seed.")
    return float(2.0 ** (1 - seeds))


def needed_seeds(family: int) -> int:
    """The smallest number of seeds with which a family can have a claim at all.

    It is no promise of power: see `retroprop.analysis.power` for that.

    Args:
        family: How many contrasts the family has.

    Returns:
        The smallest n with `2 / 2^n x family` below 0.05.

    Raises:
        RetropropError: The family is empty.
    """
    if family < 1:
        raise RetropropError(f"Got a family of {family}; expected at least 1 contrast.")
    seeds = 1
    while smallest_p(seeds) * family >= ALPHA:
        seeds += 1
    return seeds


def verdicts(
    estimate: FloatArray,
    p_holm: FloatArray,
    bounds: tuple[Bounds, ...],
    *,
    seeds: int,
    family: int,
) -> list[str]:
    """The claims of one family. A claim needs every interval and the corrected test.

    Args:
        estimate: `(m,)`, whose sign says whether a level helps or hurts.
        p_holm: `(m,)`, corrected over the family.
        bounds: One or more intervals of the m contrasts; a claim needs all to exclude 0.
        seeds: How many reporting seeds there are.
        family: How many different contrasts were corrected for.

    Returns:
        m claims: "helps", "hurts", "no claim", or the sentence that says why none is possible.

    Raises:
        RetropropError: Fewer than one seed, or an empty family.
    """
    if smallest_p(seeds) * family >= ALPHA:
        unit = "seed" if seeds == 1 else "seeds"
        why = (
            f"indicative: {seeds} {unit} cannot reach p < {ALPHA:g} in a family of {family};"
            f" needs {needed_seeds(family)}"
        )
        return [why] * len(estimate)
    sure = p_holm < ALPHA
    for interval in bounds:
        sure &= interval.exclude_zero()
    signs = np.where(sure, np.sign(estimate), 0.0)
    return [HELPS if sign > 0 else HURTS if sign < 0 else NO_CLAIM for sign in signs]
