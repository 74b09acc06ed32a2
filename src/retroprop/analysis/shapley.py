"""Shapley values: the gain from all-off to all-on, shared among the factors."""

from collections.abc import Sequence
from math import factorial

import numpy as np

from retroprop.analysis.records import BoolArray, Contrast, Factor
from retroprop.errors import RetropropError


def shapley_values(factors: Sequence[Factor], present: BoolArray | None = None) -> list[Contrast]:
    """Each factor's gain, averaged over every order in which the factors can be switched on.

    "On" is a factor's last level, as in leave-one-out; levels between the first and the last have
    no part in it. For every seed the values sum to the all-on arm minus the all-off arm.

    Args:
        factors: The k factors.
        present: `(L1, ..., Lk)`, the arms that the design holds; all of them when not given.

    Returns:
        One contrast a factor, for its last level.

    Raises:
        RetropropError: The design does not hold every arm (a fractional factorial).

    Source:
        Shapley 1953, "A value for n-person games", with accuracy as the worth of a coalition.
    """
    shape = tuple(len(factor.levels) for factor in factors)
    if present is not None and not present.all():
        raise RetropropError(
            f"Shapley values need every arm, and {int((~present).sum())} of {present.size} are"
            " missing: a fractional design does not determine them. Run the full factorial, or"
            " read the main effects."
        )
    k = len(factors)
    # How many of the k factors are on in each corner (2, ..., 2) of first and last levels.
    on = np.indices((2,) * k).sum(axis=0)
    corners = np.ix_(*((0, size - 1) for size in shape))
    found = []
    for axis, factor in enumerate(factors):
        own = np.indices((2,) * k)[axis]
        before = on - own
        share = np.array([factorial(s) * factorial(k - s - 1) / factorial(k) for s in range(k)])
        weights = np.zeros(shape)
        weights[corners] = np.where(own == 1, 1.0, -1.0) * share[before]
        found.append(Contrast("shapley", factor.name, factor.levels[-1], weights))
    return found
