"""The interval over seeds and images: by hand, at its limits, and by simulation."""

import numpy as np
import pytest

from retroprop.analysis.images import image_interval
from retroprop.analysis.intervals import student_interval
from retroprop.analysis.simulate import image_coverage
from retroprop.analysis.worlds import IMAGE_WORLDS
from retroprop.errors import RetropropError


def rng(seed=0):
    return np.random.default_rng(seed)


def slow_interval(difference):
    """The mean squares of a two-way table, written out with explicit residuals."""
    seeds, images = difference.shape
    grand = difference.mean()
    rows = difference.mean(axis=1) - grand
    columns = difference.mean(axis=0) - grand
    rest = difference - grand - rows[:, None] - columns
    ms_seed = images * (rows**2).sum() / (seeds - 1)
    ms_image = seeds * (columns**2).sum() / (images - 1)
    ms_rest = (rest**2).sum() / ((seeds - 1) * (images - 1))
    return grand, (ms_seed + max(ms_image - ms_rest, 0.0)) / (seeds * images)


def test_estimate_and_variance_against_a_slow_reference():
    level, first = IMAGE_WORLDS[1].draw(rng(1), 40, 500)
    estimate, low, high = image_interval(level, first)
    mean, variance = slow_interval(100.0 * (level.astype(float) - first))
    assert estimate == pytest.approx(mean)
    assert (high - low) / 2 / np.sqrt(variance) == pytest.approx(1.98, abs=0.05)


def test_without_image_noise_it_is_the_interval_over_seeds():
    # Every image has the same chance, so what is left is the spread of the seeds.
    level = rng(2).random((12, 400)) < 0.9
    first = rng(3).random((12, 400)) < 0.8
    _, low, high = image_interval(level, first)
    lows, highs = student_interval(100.0 * (level.mean(1) - first.mean(1))[:, None])
    assert high - low >= highs[0] - lows[0] - 1e-9
    assert high - low == pytest.approx(highs[0] - lows[0], rel=0.15)


def test_equal_arms_have_zero_width_and_one_seed_none():
    same = rng(4).random((5, 50)) < 0.5
    assert image_interval(same, same) == (0.0, 0.0, 0.0)
    estimate, low, high = image_interval(np.ones((1, 4)), np.zeros((1, 4)))
    assert estimate == 100.0
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("world", IMAGE_WORLDS, ids=lambda world: world.name)
def test_coverage(world):
    both, alone = image_coverage(world, 10, 300, studies=1_000, generator=rng(5))
    assert 0.93 <= both <= 0.97
    if world is IMAGE_WORLDS[0]:
        assert alone < 0.85  # so the second interval is not idle


@pytest.mark.parametrize(
    ("level", "first", "message"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), r"\(3, 4\) and \(3, 5\)"),
        (np.ones(4), np.ones(4), "one shape"),
        (2 * np.ones((3, 4)), np.ones((3, 4)), "1 for right"),
        (np.ones((3, 1)), np.ones((3, 1)), "at least two"),
    ],
)
def test_errors(level, first, message):
    with pytest.raises(RetropropError, match=message):
        image_interval(level, first)
