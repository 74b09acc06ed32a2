"""What the arrays of a study must look like, checked once, before any arithmetic."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from retroprop.analysis.records import BoolArray, Factor, FloatArray
from retroprop.errors import RetropropError


def check_outcome(outcome: npt.ArrayLike, factors: Sequence[Factor]) -> tuple[FloatArray, BoolArray]:
    """Checks the outcome of a factorial and finds the arms that the design holds.

    Args:
        outcome: `(seeds, L1, ..., Lk)`, accuracy as a fraction. An arm outside a fractional design
            is nan for every seed.
        factors: The k factors, in the order of the axes.

    Returns:
        The outcome as float64 `(seeds, L1, ..., Lk)`, and which arms it holds `(L1, ..., Lk)`.

    Raises:
        RetropropError: Wrong shape, values outside 0 to 1, an arm with some of its seeds missing,
            or arms missing in a way that is no balanced fraction of two-level factors.
    """
    values = np.asarray(outcome, dtype=np.float64)
    names = [factor.name for factor in factors]
    if not names or len(set(names)) < len(names):
        raise RetropropError(f"Got the factors {names}; expected one or more with different names.")
    levels = tuple(len(factor.levels) for factor in factors)
    if values.ndim != 1 + len(levels) or values.shape[1:] != levels or values.shape[0] < 1:
        raise RetropropError(
            f"The outcome has shape {values.shape}; expected (seeds, {', '.join(map(str, levels))})"
            f" with at least one seed, one axis for each of the factors {names}."
        )
    check_fractions(values, "outcome")
    missing = np.isnan(values)
    present: BoolArray = np.logical_not(missing.all(axis=0))
    if missing[:, present].any():
        raise RetropropError(
            f"{int(missing[:, present].sum())} outcomes are nan in arms that have other seeds;"
            " expected all seeds of an arm or none. Count a diverged trial as chance, finish the"
            " study, or leave out the seeds that are not complete."
        )
    if not present.all():
        _check_fraction(present, factors)
    return values, present


def check_fractions(values: FloatArray, what: str) -> None:
    """Checks that accuracies are fractions; nan passes.

    Args:
        values: Accuracies, any shape.
        what: The name that the message gives them.

    Raises:
        RetropropError: A value lies outside 0 to 1.
    """
    known = values[~np.isnan(values)]
    if known.size and (known.min() < 0.0 or known.max() > 1.0):
        raise RetropropError(
            f"The {what} reaches from {known.min():g} to {known.max():g}; expected accuracy as a"
            " fraction from 0 to 1. Divide percentages by 100."
        )


def check_images(images: int) -> None:
    """Checks the number of test images.

    Args:
        images: How many images each accuracy was measured on.

    Raises:
        RetropropError: Fewer than one.
    """
    if images < 1:
        raise RetropropError(f"Got images={images}; expected how many test images there are.")


def _check_fraction(present: BoolArray, factors: Sequence[Factor]) -> None:
    """Refuses missing arms unless they leave a balanced fraction of two-level factors."""
    remedy = (
        f"{int((~present).sum())} of {present.size} arms are missing. Finish the study, or use a"
        " full factorial or a regular fraction."
    )
    wide = [factor.name for factor in factors if len(factor.levels) > 2]
    if wide:
        raise RetropropError(
            f"A fractional design has the factors {wide} with more than two levels; only fractions"
            f" of two-level factors are analysed. {remedy}"
        )
    for first, second in combinations(range(present.ndim), 2):
        rest = tuple(axis for axis in range(present.ndim) if axis not in (first, second))
        counts = present.sum(axis=rest)
        if counts.min() != counts.max() or counts.min() == 0:
            raise RetropropError(
                f"The arms are no balanced fraction: the level pairs of {factors[first].name!r} and"
                f" {factors[second].name!r} occur {counts.ravel().tolist()} times; expected equal"
                f" counts. {remedy}"
            )
    if present.ndim == 1:
        raise RetropropError(f"A study of one factor needs both of its levels. {remedy}")
