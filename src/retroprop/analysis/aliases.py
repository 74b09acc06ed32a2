"""Aliases of a fractional design: contrasts that the arms cannot tell apart."""

from collections.abc import Sequence

import numpy as np

from retroprop.analysis.contrasts import stacked
from retroprop.analysis.records import Contrast


def aliases(contrasts: Sequence[Contrast]) -> list[tuple[int, ...]]:
    """Groups contrasts whose weights are equal but for a factor.

    In a full factorial every group has one member. In a fraction, the members of a group have one
    and the same p value: the data say that one of them acts, or their sum, not which.

    Args:
        contrasts: m contrasts of one design.

    Returns:
        The groups, as indices into the contrasts, in order of their first member.
    """
    if not contrasts:
        return []
    weights = stacked(contrasts, contrasts[0].weights.size)
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    same = np.abs(unit @ unit.T) > 1.0 - 1e-9
    return sorted({tuple(np.flatnonzero(row).tolist()) for row in same})
