"""The sign-flip permutation test of per-seed contrasts."""

from functools import lru_cache

import numpy as np

from retroprop.analysis.contrasts import ROUNDING
from retroprop.analysis.intervals import agree, check_contrasts
from retroprop.analysis.records import FloatArray

EXACT_SEEDS = 16
DRAWS = 19_999
_BLOCK = 1 << 22


def sign_flip(contrasts: FloatArray, generator: np.random.Generator, *, draws: int = DRAWS) -> FloatArray:
    """Two-sided p values: how often random signs give a mean at least as far from 0.

    Without an effect, the contrast of a pair could as well have had the other sign. Up to 16 seeds
    all 2^seeds flips are counted; above, flips are drawn and the observed one counted with them.

    Args:
        contrasts: `(seeds, m)`, any unit.
        generator: Draws the flips above 16 seeds; not touched up to 16.
        draws: How many flips are drawn above 16 seeds.

    Returns:
        `(m,)`. The smallest possible value is 2 / 2^seeds. It is 1 with one seed and where all
        seeds agree: copies of one number are one observation.

    Raises:
        RetropropError: The contrasts are not a finite `(seeds, m)` array.
    """
    check_contrasts(contrasts)
    seeds, m = contrasts.shape
    observed = np.abs(contrasts.sum(axis=0))
    # Sums of the same numbers in another order differ in the last bits; a tie must count as one.
    bound = observed - ROUNDING * np.maximum(1.0, np.abs(contrasts).sum(axis=0))
    exact = seeds <= EXACT_SEEDS
    flips = _all_flips(seeds) if exact else _drawn_flips(seeds, draws, generator)
    count = np.zeros(m)
    rows = max(1, _BLOCK // max(1, m))
    for start in range(0, len(flips), rows):
        sums = np.abs(flips[start : start + rows] @ contrasts)
        count += (sums >= bound).sum(axis=0)
    p = count / len(flips) if exact else (count + 1.0) / (len(flips) + 1.0)
    return np.where(agree(contrasts), 1.0, p)


@lru_cache(maxsize=4)
def _all_flips(seeds: int) -> FloatArray:
    """Half of all sign patterns `(2^(seeds - 1), seeds)`; the other half has the same |sums|."""
    bits = np.arange(1 << (seeds - 1))[:, None] >> np.arange(seeds)
    flips: FloatArray = 1.0 - 2.0 * (bits & 1).astype(np.float64)
    flips.setflags(write=False)
    return flips


def _drawn_flips(seeds: int, draws: int, generator: np.random.Generator) -> FloatArray:
    """Random sign patterns `(draws, seeds)`."""
    return 1.0 - 2.0 * generator.integers(0, 2, size=(draws, seeds)).astype(np.float64)
