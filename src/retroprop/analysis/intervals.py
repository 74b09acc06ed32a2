"""95 % intervals over seeds: Student t, and the BCa bootstrap from 30 seeds."""

from math import sqrt

import numpy as np
from scipy import stats

from retroprop.analysis.contrasts import ROUNDING
from retroprop.analysis.records import BoolArray, FloatArray
from retroprop.errors import RetropropError

LEVEL = 0.95
BOOTSTRAP_SEEDS = 30
RESAMPLES = 9_999


def interval(
    contrasts: FloatArray, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[FloatArray, FloatArray]:
    """The interval of a study: Student t below 30 seeds, BCa from 30 seeds.

    Args:
        contrasts: `(seeds, m)`, one number a seed and contrast; the interval keeps their unit.
        generator: Draws the bootstrap resamples; not touched below 30 seeds.
        resamples: How many bootstrap resamples.

    Returns:
        The lower and upper ends, `(m,)` each. Nan with one seed; zero width where all seeds agree.

    Raises:
        RetropropError: The contrasts are not a finite `(seeds, m)` array.
    """
    if len(contrasts) < BOOTSTRAP_SEEDS:
        return student_interval(contrasts)
    return bca_interval(contrasts, generator, resamples=resamples)


def student_interval(contrasts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Student's t interval of the mean over seeds.

    Args:
        contrasts: `(seeds, m)`.

    Returns:
        The lower and upper ends, `(m,)` each. Nan with one seed; zero width where all seeds agree.

    Raises:
        RetropropError: The contrasts are not a finite `(seeds, m)` array.
    """
    check_contrasts(contrasts)
    seeds, m = contrasts.shape
    if seeds == 1:
        return np.full(m, np.nan), np.full(m, np.nan)
    mean = contrasts.mean(axis=0)
    error = contrasts.std(axis=0, ddof=1) / sqrt(seeds)
    reach = stats.t.ppf((1.0 + LEVEL) / 2.0, seeds - 1) * np.where(agree(contrasts), 0.0, error)
    return mean - reach, mean + reach


def bca_interval(
    contrasts: FloatArray, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[FloatArray, FloatArray]:
    """Bias-corrected and accelerated bootstrap interval of the mean over seeds.

    The nominal level is widened a little, so that for a normal sample the interval is as wide as
    Student's: the bootstrap alone treats the spread of the sample as if it were known.

    Args:
        contrasts: `(seeds, m)`.
        generator: Draws the resamples; the m contrasts share them.
        resamples: How many resamples.

    Returns:
        The lower and upper ends, `(m,)` each. Zero width where all seeds agree.

    Raises:
        RetropropError: The contrasts are not a finite `(seeds, m)` array, or below 30 seeds, where
            the bootstrap covers too little.

    Source:
        Efron 1987, "Better bootstrap confidence intervals"; the widening is the "expanded
        percentile" level of Hesterberg 2015, "What teachers should know about the bootstrap".
    """
    check_contrasts(contrasts)
    seeds = len(contrasts)
    if seeds < BOOTSTRAP_SEEDS:
        raise RetropropError(
            f"BCa was asked for {seeds} seeds; expected {BOOTSTRAP_SEEDS} or more, because below it"
            " covers too little. Use student_interval."
        )
    low, high = student_interval(contrasts)
    spread = np.flatnonzero(~agree(contrasts))
    if spread.size:
        quantile = stats.t.ppf((1.0 + LEVEL) / 2.0, seeds - 1) * sqrt(seeds / (seeds - 1))
        found = stats.bootstrap(
            (contrasts[:, spread],),
            np.mean,
            axis=0,
            vectorized=True,
            method="BCa",
            confidence_level=float(1.0 - 2.0 * stats.norm.sf(quantile)),
            n_resamples=resamples,
            batch=max(1, 4_000_000 // contrasts.size),
            rng=generator,
        ).confidence_interval
        low[spread], high[spread] = found.low, found.high
    return low, high


def agree(contrasts: FloatArray) -> BoolArray:
    """Where all seeds give the same number, but for rounding.

    Args:
        contrasts: `(seeds, m)`.

    Returns:
        `(m,)`.
    """
    size = np.maximum(1.0, np.abs(contrasts).max(axis=0))
    return np.ptp(contrasts, axis=0) <= ROUNDING * size


def check_contrasts(contrasts: FloatArray) -> None:
    """Checks per-seed contrasts.

    Args:
        contrasts: Expected `(seeds, m)`, finite.

    Raises:
        RetropropError: Another shape, no seed, or values that are not finite.
    """
    if contrasts.ndim != 2 or len(contrasts) < 1:
        raise RetropropError(
            f"Contrasts have shape {contrasts.shape}; expected (seeds, m) with at least one seed."
            " One contrast alone is contrasts[:, None]."
        )
    if not np.isfinite(contrasts).all():
        raise RetropropError(
            f"{int((~np.isfinite(contrasts)).sum())} contrasts are not finite; expected accuracies"
            " of every arm and seed. Count a diverged trial as chance."
        )
