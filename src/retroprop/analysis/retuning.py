"""The luck of tuning: how far the chosen rates, and so the arms, would move in another tuning."""

import numpy as np
import numpy.typing as npt
from scipy import stats

from retroprop.analysis.contrasts import ROUNDING
from retroprop.analysis.records import FloatArray
from retroprop.errors import RetropropError
from retroprop.study.tuning import choose_rate

DRAWS = 1_000


def tuning_variance(
    validation: npt.ArrayLike,
    diverged: npt.ArrayLike,
    multipliers: npt.ArrayLike,
    *,
    chance: float,
    generator: np.random.Generator,
) -> float:
    """How much an arm's accuracy would vary if its rate were tuned again, as a variance.

    Reporting seeds are trained at one chosen rate, so they cannot show it. The tuning seeds of each
    arm are resampled, the deviations widened for their small number, and the rate chosen again;
    the variance of the mean validation accuracy at the chosen rate is averaged over arms. It leans
    to the large side, because the means resampled about are themselves noisy.

    Args:
        validation: `(arms, rates, seeds)`, validation accuracy as a fraction over tuning seeds.
        diverged: `(arms, rates, seeds)`, which trials diverged; they count as chance.
        multipliers: `(rates,)`, the grid.
        chance: Accuracy of guessing, as a fraction.
        generator: Draws the resamples.

    Returns:
        Squared points of accuracy, for one arm.

    Raises:
        RetropropError: Only one tuning seed; or as in `choose_rate`.
    """
    choose_rate(validation, diverged, multipliers, chance=chance)  # for its checks of the arrays
    values = np.where(np.asarray(diverged, dtype=np.bool_), chance, np.asarray(validation))
    arms, _, seeds = values.shape
    if seeds < 2:
        raise RetropropError(
            "One tuning seed cannot show what another tuning would choose; expected 2 or more. Add"
            " tuning seeds, or say in the report that the luck of tuning is not covered."
        )
    mean = values.mean(axis=2)
    widen = np.sqrt(seeds / (seeds - 1))
    shares = generator.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=(DRAWS, arms)) / seeds
    resampled = np.einsum("das,ars->dar", shares, values)
    chosen = np.argmax(mean + widen * (resampled - mean), axis=2)
    reached = mean[np.arange(arms), chosen]
    return float(1e4 * (reached - reached[0]).var(axis=0).mean())


def tuning_p(contrasts: FloatArray, weights: FloatArray, variance: float) -> FloatArray:
    """Two-sided t tests that count the luck of tuning beside the spread of the seeds.

    Args:
        contrasts: `(seeds, m)`, in points of accuracy.
        weights: `(m, arms)`, the weights of the contrasts.
        variance: What `tuning_variance` returned, in squared points.

    Returns:
        `(m,)`. It is 1 with one seed, and where there is no spread at all.

    Raises:
        RetropropError: A variance below 0 or not finite.
    """
    if not 0.0 <= variance < np.inf:
        raise RetropropError(f"Got tuning_variance={variance}; expected squared points, 0 or more.")
    seeds, m = contrasts.shape
    if seeds == 1:
        return np.ones(m)
    own = contrasts.var(axis=0, ddof=1) / seeds
    error = np.sqrt(own + variance * np.square(weights).sum(axis=1))
    known = error > ROUNDING
    size = np.abs(contrasts.mean(axis=0)) / np.where(known, error, 1.0)
    p: FloatArray = np.where(known, 2.0 * stats.t.sf(size, seeds - 1), 1.0)
    return p
