"""The luck of tuning: how far the chosen rates, and so the arms, would move in another tuning."""

import numpy as np
import numpy.typing as npt
from scipy import stats

from retroprop.analysis.contrasts import ROUNDING
from retroprop.analysis.records import FloatArray
from retroprop.errors import RetropropError
from retroprop.study.tuning import choose_rate

DRAWS = 1_000


def tuning_variances(
    validation: npt.ArrayLike,
    diverged: npt.ArrayLike,
    multipliers: npt.ArrayLike,
    *,
    chance: float,
    generator: np.random.Generator,
) -> FloatArray:
    """How far luck in tuning may have moved each arm, as a variance.

    Reporting seeds are trained at one chosen rate, so they cannot show it. The tuning seeds of each
    arm are resampled, the deviations widened for their small number, and the rate chosen again. Two
    parts are added: the variance of the mean validation accuracy at the rates chosen again, and the
    mean square of how far the rate in use falls short of the best one. The first is small where
    rivals look alike by chance; the second then is not. The sum leans to the large side.

    Args:
        validation: `(arms, rates, seeds)`, validation accuracy as a fraction over tuning seeds.
        diverged: `(arms, rates, seeds)`, which trials diverged; they count as chance.
        multipliers: `(rates,)`, the grid.
        chance: Accuracy of guessing, as a fraction.
        generator: Draws the resamples.

    Returns:
        `(arms,)`, squared points of accuracy.

    Raises:
        RetropropError: Only one tuning seed; or as in `choose_rate`.
    """
    used = choose_rate(validation, diverged, multipliers, chance=chance)
    means, redrawn = _redrawn(validation, diverged, chance, generator)
    rows = np.arange(len(used))
    reached = means[rows, np.argmax(redrawn, axis=2)]
    again = (reached - reached[0]).var(axis=0)
    short = np.square(redrawn.max(axis=2) - redrawn[:, rows, used]).mean(axis=0)
    found: FloatArray = 1e4 * (again + short)
    return found


def tuning_p(
    contrasts: FloatArray,
    weights: FloatArray,
    variance: npt.ArrayLike,
    tuning_seeds: int | None = None,
) -> FloatArray:
    """Two-sided t tests that count the luck of tuning beside the spread of the seeds.

    Args:
        contrasts: `(seeds, m)`, in points of accuracy.
        weights: `(m, arms)`, the weights of the contrasts.
        variance: `(arms,)`, what `tuning_variances` returned, in squared points; or one for all.
        tuning_seeds: How many tuning seeds the variance was estimated from, 2 or more. The degrees
            of freedom then follow Satterthwaite's formula; without it they are the contrasts' own.

    Returns:
        `(m,)`. It is 1 with one seed, and where there is no spread at all.

    Raises:
        RetropropError: A variance below 0 or not finite, or not one an arm.
    """
    luck = np.asarray(variance, dtype=np.float64)
    seeds, m = contrasts.shape
    if luck.shape not in {(), (1,), weights.shape[1:]} or not ((luck >= 0.0) & (luck < np.inf)).all():
        raise RetropropError(
            f"Got tuning_variance={luck.tolist()}; expected squared points, 0 or more, one for each of"
            f" {weights.shape[1]} arms."
        )
    if seeds == 1:
        return np.ones(m)
    own = contrasts.var(axis=0, ddof=1) / seeds
    by_arm = np.square(weights) * luck
    total = own + by_arm.sum(axis=1)
    known = total > ROUNDING**2
    total = np.where(known, total, 1.0)
    degrees: FloatArray | int = seeds - 1
    if tuning_seeds is not None:
        unsure = own**2 / (seeds - 1) + np.square(by_arm).sum(axis=1) / (tuning_seeds - 1)
        degrees = total**2 / np.where(known, unsure, 1.0)
    size = np.abs(contrasts.mean(axis=0)) / np.sqrt(total)
    p: FloatArray = np.where(known, 2.0 * stats.t.sf(size, degrees), 1.0)
    return p


def _redrawn(
    validation: npt.ArrayLike, diverged: npt.ArrayLike, chance: float, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Mean accuracies `(arms, rates)`, and the same of resampled seeds `(draws, arms, rates)`."""
    values = np.where(np.asarray(diverged, dtype=np.bool_), chance, np.asarray(validation))
    arms, _, seeds = values.shape
    if seeds < 2:
        raise RetropropError(
            "One tuning seed cannot show what another tuning would choose; expected 2 or more. Add"
            " tuning seeds, or say in the report that the luck of tuning is not covered."
        )
    means = values.mean(axis=2)
    widen = np.sqrt(seeds / (seeds - 1))
    shares = generator.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=(DRAWS, arms)) / seeds
    resampled = np.einsum("das,ars->dar", shares, values)
    return means, means + widen * (resampled - means)
