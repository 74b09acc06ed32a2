"""The second interval of a fixed official test set: over seeds and test images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from retroprop.analysis.claims import Bounds
from retroprop.analysis.contrasts import stacked
from retroprop.analysis.intervals import LEVEL
from retroprop.analysis.records import Contrast, FloatArray
from retroprop.errors import RetropropError


def image_interval(correct_level: npt.ArrayLike, correct_first: npt.ArrayLike) -> tuple[float, float, float]:
    """Accuracy of one arm minus another, with an interval over seeds and images.

    Args:
        correct_level: `(seeds, images)`, 1 where the arm at the level was right, else 0.
        correct_first: `(seeds, images)`, the same for the arm at the first level.

    Returns:
        The estimate and the ends of its 95 % interval, in points of accuracy.

    Raises:
        RetropropError: The arrays differ in shape, or are not right-or-wrong values.
    """
    level, first = np.asarray(correct_level), np.asarray(correct_first)
    if level.shape != first.shape or level.ndim != 2:
        raise RetropropError(
            f"Got correctness of shapes {level.shape} and {first.shape}; expected two arrays of one"
            " shape (seeds, images), of the same images in the same order."
        )
    contrast = Contrast("one_at_a_time", "factor", "level", np.array([1.0, -1.0]))
    estimate, bounds = image_bounds(np.stack([level, first], axis=1), [contrast])
    return float(estimate[0]), float(bounds.low[0]), float(bounds.high[0])


def image_bounds(correct: npt.ArrayLike, contrasts: Sequence[Contrast]) -> tuple[FloatArray, Bounds]:
    """Contrasts with intervals over seeds and images, taken as two crossed random samples.

    With d the contrast of one seed on one image, the variance of its mean is estimated from the
    mean squares of a two-way table, `(MS_seeds + MS_images - MS_rest) / (seeds x images)`, and
    never taken smaller than by seeds alone; its degrees of freedom are Satterthwaite's.

    Args:
        correct: `(seeds, L1, ..., Lk, images)`, 1 where the trial was right on the image, else 0.
            A diverged trial holds chance for every image.
        contrasts: m contrasts with weights `(L1, ..., Lk)`.

    Returns:
        Estimates `(m,)` and intervals, in points of accuracy; the interval is nan with one seed.

    Raises:
        RetropropError: The values are not from 0 to 1, or there are fewer than two images.

    Source:
        Searle, Casella & McCulloch 1992, "Variance components": two-way crossed random model
        without replication. Satterthwaite 1946 for the degrees of freedom.
    """
    bits = np.asarray(correct)
    seeds, images = bits.shape[0], bits.shape[-1]
    _check_bits(bits)
    cells = bits.reshape(seeds, -1, images)
    weights = 100.0 * stacked(contrasts, cells.shape[1])
    total = np.zeros((len(weights), images))
    squares = np.zeros(len(weights))
    rows = np.zeros((seeds, len(weights)))
    for seed in range(seeds):  # one seed at a time: all at once would need seeds x as much memory
        table = weights @ np.nan_to_num(cells[seed].astype(np.float64))
        total += table
        squares += np.square(table).sum(axis=1)
        rows[seed] = table.mean(axis=1)
    estimate = rows.mean(axis=0)
    if seeds == 1:
        unknown = np.full(len(weights), np.nan)
        return estimate, Bounds(unknown, unknown.copy())
    by_seed = images * np.square(rows - estimate).sum(axis=0)
    by_image = seeds * np.square(total / seeds - estimate[:, None]).sum(axis=1)
    rest = np.maximum(squares - seeds * images * np.square(estimate) - by_seed - by_image, 0.0)
    reach = _reach(by_seed, by_image, rest, seeds, images)
    return estimate, Bounds(estimate - reach, estimate + reach)


def _reach(
    by_seed: FloatArray, by_image: FloatArray, rest: FloatArray, seeds: int, images: int
) -> FloatArray:
    """Half the width of the interval `(m,)`, from the three sums of squares `(m,)` each."""
    ms_seed = by_seed / (seeds - 1)
    ms_image = by_image / (images - 1)
    ms_rest = rest / ((seeds - 1) * (images - 1))
    extra = np.maximum(ms_image - ms_rest, 0.0)
    variance = (ms_seed + extra) / (seeds * images)
    noise = ms_seed**2 / (seeds - 1) + np.where(
        extra > 0.0,
        ms_image**2 / (images - 1) + ms_rest**2 / ((seeds - 1) * (images - 1)),
        0.0,
    )
    known = noise > 0.0
    freedom = np.where(known, (ms_seed + extra) ** 2 / np.where(known, noise, 1.0), seeds - 1)
    # No fewer than by seeds alone: the images add knowledge of the spread, they take none away.
    freedom = np.maximum(freedom, seeds - 1)
    quantile: FloatArray = stats.t.ppf((1.0 + LEVEL) / 2.0, freedom)
    return quantile * np.sqrt(variance)


def _check_bits(bits: npt.NDArray[np.generic]) -> None:
    """Checks that correctness has images and values from 0 to 1 (nan: no such arm)."""
    values = bits.astype(np.float64) if bits.dtype == object else bits
    low, high = np.nanmin(values), np.nanmax(values)
    if low < 0 or high > 1:
        raise RetropropError(
            f"Correctness reaches from {low} to {high}; expected 1 for right and 0 for wrong."
        )
    if bits.shape[-1] < 2:
        raise RetropropError(
            f"Correctness has {bits.shape[-1]} images on its last axis; expected (seeds, ...,"
            " images) with at least two."
        )
