"""Contrasts of a factorial: which arms each effect adds and which it takes away."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from retroprop.analysis.checks import check_images
from retroprop.analysis.records import BoolArray, Contrast, Factor, FloatArray

ROUNDING = 1e-9
"""Contrasts below this (points, or log-odds) are floating-point rounding; they count as zero."""


def main_effects(factors: Sequence[Factor], present: BoolArray | None = None) -> list[Contrast]:
    """Level minus first level, averaged over all levels of the other factors.

    Args:
        factors: The k factors.
        present: `(L1, ..., Lk)`, the arms that the design holds; all of them when not given.

    Returns:
        One contrast for every level of every factor but the first.
    """
    arms = _arms(factors, present)
    return [
        Contrast(
            kind="main",
            factor=factor.name,
            level=factor.levels[level],
            weights=_mean(arms, {axis: level}) - _mean(arms, {axis: 0}),
        )
        for axis, factor in enumerate(factors)
        for level in range(1, len(factor.levels))
    ]


def interactions(factors: Sequence[Factor], present: BoolArray | None = None) -> list[Contrast]:
    """Two-way interactions: the effect of A with B on, minus the effect of A with B off.

    Not halved: it is the number of points by which the effect of A depends on B. It is averaged
    over the remaining factors.

    Args:
        factors: The k factors.
        present: `(L1, ..., Lk)`, the arms that the design holds; all of them when not given.

    Returns:
        One contrast for every pair of factors and every pair of their levels but the first.
    """
    arms = _arms(factors, present)
    found = []
    for (one, first), (two, second) in combinations(enumerate(factors), 2):
        for a in range(1, len(first.levels)):
            for b in range(1, len(second.levels)):
                with_b = _mean(arms, {one: a, two: b}) - _mean(arms, {one: 0, two: b})
                without_b = _mean(arms, {one: a, two: 0}) - _mean(arms, {one: 0, two: 0})
                found.append(
                    Contrast(
                        kind="interaction",
                        factor=first.name,
                        level=first.levels[a],
                        weights=with_b - without_b,
                        other_factor=second.name,
                        other_level=second.levels[b],
                    )
                )
    return found


def add_one_in(factors: Sequence[Factor], present: BoolArray | None = None) -> list[Contrast]:
    """The arm with only this level on, minus the arm with every factor at its first level.

    Args:
        factors: The k factors.
        present: `(L1, ..., Lk)`, the arms that the design holds; all of them when not given.

    Returns:
        One contrast for every level but the first, where the design holds both arms.
    """
    arms = _arms(factors, present)
    off = (0,) * len(factors)
    return [
        Contrast("add_one_in", factor.name, factor.levels[level], _difference(arms, on, off))
        for axis, factor in enumerate(factors)
        for level in range(1, len(factor.levels))
        if arms[on := _moved(off, axis, level)] and arms[off]
    ]


def leave_one_out(factors: Sequence[Factor], present: BoolArray | None = None) -> list[Contrast]:
    """The all-on arm, minus the arm with this factor back at its first level.

    All-on is the arm with every factor at its LAST level, also for factors with many levels.

    Args:
        factors: The k factors.
        present: `(L1, ..., Lk)`, the arms that the design holds; all of them when not given.

    Returns:
        One contrast for the last level of every factor, where the design holds both arms.
    """
    arms = _arms(factors, present)
    on = tuple(len(factor.levels) - 1 for factor in factors)
    return [
        Contrast("leave_one_out", factor.name, factor.levels[-1], _difference(arms, on, without))
        for axis, factor in enumerate(factors)
        if arms[without := _moved(on, axis, 0)] and arms[on]
    ]


def per_seed(values: FloatArray, contrasts: Sequence[Contrast]) -> FloatArray:
    """Applies contrasts to every seed.

    Args:
        values: `(seeds, L1, ..., Lk)`, one value an arm; nan only where every weight is 0.
        contrasts: m contrasts with weights `(L1, ..., Lk)`.

    Returns:
        `(seeds, m)`, in the unit of the values.
    """
    cells = np.nan_to_num(values.reshape(len(values), -1), nan=0.0)
    found: FloatArray = cells @ stacked(contrasts, cells.shape[1]).T
    found[np.abs(found) < ROUNDING] = 0.0
    return found


def stacked(contrasts: Sequence[Contrast], arms: int) -> FloatArray:
    """The weights of contrasts as one matrix.

    Args:
        contrasts: m contrasts.
        arms: How many weights each has.

    Returns:
        `(m, arms)`.
    """
    rows = [contrast.weights.ravel() for contrast in contrasts]
    return np.array(rows, dtype=np.float64).reshape(len(rows), arms)


def points(outcome: FloatArray) -> FloatArray:
    """Accuracy in points.

    Args:
        outcome: Accuracy as a fraction, any shape.

    Returns:
        The same shape, 0 to 100.
    """
    return 100.0 * outcome


def log_odds(outcome: npt.ArrayLike, images: int) -> FloatArray:
    """Accuracy as log-odds, `log(right / wrong)`.

    An accuracy of 0 or 1 has no finite log-odds; accuracies are kept half an image away from both.

    Args:
        outcome: Accuracy as a fraction, any shape; nan stays nan.
        images: How many test images it was measured on.

    Returns:
        Log-odds (natural logarithm) in the same shape.

    Raises:
        RetropropError: Fewer than one image.
    """
    check_images(images)
    half = 0.5 / images
    inside = np.clip(np.asarray(outcome, dtype=np.float64), half, 1.0 - half)
    return np.log(inside) - np.log1p(-inside)


def _arms(factors: Sequence[Factor], present: BoolArray | None) -> BoolArray:
    """The arms that the design holds `(L1, ..., Lk)`; all of them by default."""
    if present is not None:
        return present
    return np.ones(tuple(len(factor.levels) for factor in factors), dtype=np.bool_)


def _mean(arms: BoolArray, fixed: Mapping[int, int]) -> FloatArray:
    """Weights `(L1, ..., Lk)` of the mean over the arms whose axes have the fixed levels."""
    index = tuple(fixed.get(axis, slice(None)) for axis in range(arms.ndim))
    weights = np.zeros(arms.shape)
    weights[index] = arms[index]
    return weights / weights.sum()


def _difference(arms: BoolArray, plus: tuple[int, ...], minus: tuple[int, ...]) -> FloatArray:
    """Weights `(L1, ..., Lk)` of one arm minus another."""
    weights = np.zeros(arms.shape)
    weights[plus] += 1.0
    weights[minus] -= 1.0
    return weights


def _moved(arm: tuple[int, ...], axis: int, level: int) -> tuple[int, ...]:
    """The arm with one factor set to another level."""
    return (*arm[:axis], level, *arm[axis + 1 :])
