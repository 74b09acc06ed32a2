"""Flags: what a reader must know about an arm or a trial before reading its numbers."""

import numpy as np
import numpy.typing as npt

from retroprop.analysis.records import BoolArray, FloatArray
from retroprop.errors import RetropropError

RATE_AT_EDGE = "rate at edge"
NOT_CONVERGED = "not converged"
DID_NOT_LEARN = "did not learn"
DIVERGED = "diverged"

RISE = 0.01
NEAR_CHANCE = 0.05
_WINDOW = 3
_SLACK = 1e-12


def rate_at_edge(chosen: npt.ArrayLike, multipliers: npt.ArrayLike) -> BoolArray:
    """Whether the chosen rate is the smallest or the largest of its grid.

    A better one may then lie outside. A grid of one or two rates is all edge: it tunes nothing.

    Args:
        chosen: `(arms,)`, indices into the grid.
        multipliers: `(rates,)`, the grid, in any order.

    Returns:
        `(arms,)`.

    Raises:
        RetropropError: An index outside the grid.
    """
    index = np.asarray(chosen)
    grid = np.asarray(multipliers, dtype=np.float64)
    if grid.ndim != 1 or index.size == 0 or index.min() < 0 or index.max() >= len(grid):
        raise RetropropError(
            f"Got the choices {index.tolist()} from the grid {grid.tolist()}; expected indices from"
            " 0 to the number of rates less one."
        )
    picked = grid[index]
    return (picked == grid.min()) | (picked == grid.max())


def not_converged(curve: npt.ArrayLike) -> bool:
    """Whether validation accuracy still rose by more than 1 point in the last fifth of training.

    The rise is the mean of the last epochs minus the mean of as many epochs just before the last
    fifth began. The two windows have at most 3 epochs, no more than the fifth itself, and lie one
    fifth apart, so a straight line's rise is exactly its rise over a fifth.

    Args:
        curve: `(epochs,)`, validation accuracy as a fraction after each epoch.

    Returns:
        True also for a curve of one epoch, which cannot show that training is over. False where
        the windows hold a value that is not finite: such a trial is flagged as diverged.

    Raises:
        RetropropError: The curve is empty or has more than one axis.
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise RetropropError(
            f"The validation curve has shape {values.shape}; expected (epochs,) with at least one"
            " epoch. For an arm, give the mean over its seeds."
        )
    epochs = len(values)
    if epochs == 1:
        return True
    fifth = -(-epochs // 5)
    window = min(_WINDOW, fifth, epochs - fifth)
    before = values[epochs - fifth - window : epochs - fifth].mean()
    return bool(values[-window:].mean() - before > RISE + _SLACK)


def did_not_learn(accuracy: float, chance: float) -> bool:
    """Whether an accuracy is within 5 points of chance, or below it.

    Args:
        accuracy: As a fraction; of an arm, the mean over its seeds. Nan counts as chance.
        chance: Accuracy of guessing, as a fraction.

    Returns:
        True at a difference of exactly 5 points.

    Raises:
        RetropropError: An accuracy or chance outside 0 to 1.
    """
    counted = chance if np.isnan(accuracy) else accuracy
    if not (0.0 <= counted <= 1.0 and 0.0 <= chance <= 1.0):
        raise RetropropError(f"Got accuracy={accuracy} and chance={chance}; expected fractions from 0 to 1.")
    return bool(counted <= chance + NEAR_CHANCE + _SLACK)


def trial_flags(curve: npt.ArrayLike, accuracy: float, *, diverged: bool, chance: float) -> tuple[str, ...]:
    """The flags of one trial.

    Args:
        curve: `(epochs,)`, validation accuracy as a fraction; not read when diverged.
        accuracy: Its accuracy at the end, as a fraction; not read when diverged.
        diverged: Whether its loss stopped being finite.
        chance: Accuracy of guessing, as a fraction.

    Returns:
        A diverged trial counts as chance, so it has the flags "diverged" and "did not learn".

    Raises:
        RetropropError: See `not_converged` and `did_not_learn`.
    """
    if diverged:
        return (DIVERGED, DID_NOT_LEARN)
    flags = []
    if not_converged(curve):
        flags.append(NOT_CONVERGED)
    if did_not_learn(accuracy, chance):
        flags.append(DID_NOT_LEARN)
    return tuple(flags)


def arm_flags(
    curves: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    diverged: npt.ArrayLike,
    *,
    chance: float,
    at_edge: bool,
) -> tuple[str, ...]:
    """The flags of one arm over its seeds.

    Args:
        curves: `(seeds, epochs)`, validation accuracy as a fraction; the mean over the seeds that
            did not diverge is judged.
        accuracy: `(seeds,)`, accuracy at the end as a fraction; diverged seeds count as chance.
        diverged: `(seeds,)`, which seeds diverged; one is enough for the flag.
        chance: Accuracy of guessing, as a fraction.
        at_edge: Whether the arm's rate is at the edge of its grid (`rate_at_edge`).

    Returns:
        The flags, in the order: rate at edge, diverged, not converged, did not learn.

    Raises:
        RetropropError: Shapes that do not fit, or values that are no fractions.
    """
    lines = np.asarray(curves, dtype=np.float64)
    lost = np.asarray(diverged, dtype=np.bool_)
    final: FloatArray = np.asarray(accuracy, dtype=np.float64)
    if lines.ndim != 2 or lost.shape != lines.shape[:1] or final.shape != lost.shape:
        raise RetropropError(
            f"Got curves {lines.shape}, accuracy {final.shape}, diverged {lost.shape}; expected"
            " (seeds, epochs), (seeds,) and (seeds,)."
        )
    flags = [RATE_AT_EDGE] if at_edge else []
    if lost.any():
        flags.append(DIVERGED)
    if not lost.all() and not_converged(lines[~lost].mean(axis=0)):
        flags.append(NOT_CONVERGED)
    if did_not_learn(float(np.where(lost, chance, final).mean()), chance):
        flags.append(DID_NOT_LEARN)
    return tuple(flags)
