"""The choice of a learning rate, by validation accuracy over tuning seeds only."""

import numpy as np
import numpy.typing as npt

from retroprop.errors import RetropropError

TIE = 1e-12
"""Mean accuracies closer than this are a tie."""


def choose_rate(
    validation: npt.ArrayLike,
    diverged: npt.ArrayLike,
    multipliers: npt.ArrayLike,
    *,
    chance: float,
) -> npt.NDArray[np.int64]:
    """The rate of each arm with the best mean validation accuracy; of a tie, the smaller rate.

    Args:
        validation: `(arms, rates, seeds)`, validation accuracy as a fraction over tuning seeds.
            What stands at a diverged trial is not read.
        diverged: `(arms, rates, seeds)`, which trials diverged; they count as chance.
        multipliers: `(rates,)`, the grid: what the recipe's base rate is multiplied by, above 0.
        chance: Accuracy of guessing, as a fraction.

    Returns:
        `(arms,)`, indices into the grid.

    Raises:
        RetropropError: Shapes that do not fit, a grid with repeated or non-positive multipliers,
            a chance outside 0 to 1, or an accuracy that is no fraction at a trial that converged.
    """
    values = np.asarray(validation, dtype=np.float64)
    lost = np.asarray(diverged, dtype=np.bool_)
    grid = np.asarray(multipliers, dtype=np.float64)
    if values.ndim != 3 or lost.shape != values.shape or grid.shape != values.shape[1:2]:
        raise RetropropError(
            f"Got validation {values.shape}, diverged {lost.shape}, multipliers {grid.shape};"
            " expected (arms, rates, seeds), the same again, and (rates,)."
        )
    if 0 in values.shape or len(np.unique(grid)) < len(grid) or not (grid > 0.0).all():
        raise RetropropError(
            f"Got the multipliers {grid.tolist()} for validation {values.shape}; expected at least"
            " one arm, seed and rate, and different multipliers above 0."
        )
    if not 0.0 <= chance <= 1.0:
        raise RetropropError(f"Got chance={chance}; expected a fraction, such as 0.1 of 10 kinds.")
    counted = np.where(lost, chance, values)
    if not ((counted >= 0.0) & (counted <= 1.0)).all():
        raise RetropropError(
            "A validation accuracy of a trial that did not diverge is missing or no fraction from"
            " 0 to 1; expected one for every arm, rate and tuning seed. Finish the tuning first."
        )
    mean = counted.mean(axis=2)
    tied = mean >= mean.max(axis=1, keepdims=True) - TIE
    return np.argmin(np.where(tied, grid, np.inf), axis=1)
