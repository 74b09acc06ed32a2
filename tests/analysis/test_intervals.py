"""Intervals: closed forms, edge cases, seeds honoured, simulated coverage."""

import numpy as np
import pytest

from retroprop.analysis.intervals import bca_interval, interval, student_interval
from retroprop.analysis.simulate import coverage
from retroprop.analysis.worlds import SKEWED, SYMMETRIC
from retroprop.errors import RetropropError


def rng(seed=0):
    return np.random.default_rng(seed)


def test_student_by_hand():
    # Mean 3, standard deviation sqrt(2.5), 5 seeds; t(0.975, 4) = 2.776445.
    low, high = student_interval(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    reach = 2.776445 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([low[0], high[0]], [3 - reach, 3 + reach], atol=1e-5)


def test_one_seed_has_no_interval():
    low, high = interval(np.array([[1.0, 2.0]]), rng())
    assert np.isnan(low).all()
    assert np.isnan(high).all()


@pytest.mark.parametrize("seeds", [2, 10, 30])
def test_equal_contrasts_have_zero_width(seeds):
    contrasts = np.full((seeds, 2), 0.1)
    contrasts[:, 1] = rng().standard_normal(seeds)
    low, high = interval(contrasts, rng())
    assert low[0] == pytest.approx(0.1)
    assert low[0] == high[0]
    assert low[1] < high[1]


def test_bca_only_from_30_seeds():
    contrasts = rng().exponential(size=(30, 1))
    t = student_interval(contrasts[:29])
    np.testing.assert_array_equal(interval(contrasts[:29], rng()), t)
    low, high = interval(contrasts, rng())
    mean = contrasts.mean()
    assert high[0] - mean > 1.1 * (mean - low[0])  # BCa sees the skew; t does not
    with pytest.raises(RetropropError, match="29 seeds; expected 30"):
        bca_interval(contrasts[:29], rng())


def test_bca_of_a_normal_sample_is_as_wide_as_student():
    contrasts = rng(3).standard_normal((30, 400))
    t, bca = student_interval(contrasts), bca_interval(contrasts, rng())
    ratio = (bca[1] - bca[0]).mean() / (t[1] - t[0]).mean()
    assert ratio == pytest.approx(1.0, abs=0.01)


def test_bca_takes_nearly_equal_contrasts():
    contrasts = np.zeros((30, 1))
    contrasts[0] = 1.0
    low, high = bca_interval(contrasts, rng())
    assert low[0] <= contrasts.mean() <= high[0]


def test_seed_is_honoured():
    contrasts = rng().standard_normal((30, 3))
    first, again, other = (interval(contrasts, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.array(first) != np.array(other)).any()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state must not move
    interval(contrasts, rng())
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("contrasts", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_shape_errors(contrasts):
    with pytest.raises(RetropropError, match=r"expected (\(seeds, m\)|accuracies)"):
        interval(contrasts, rng())


@pytest.mark.parametrize("shape", SYMMETRIC)
@pytest.mark.parametrize("seeds", [10, 15, 30])
def test_coverage_symmetric(shape, seeds):
    studies = 3_000 if seeds == 30 else 20_000
    covered = coverage(shape, seeds, studies=studies, generator=rng(11), resamples=2_999)
    error = np.sqrt(0.95 * 0.05 / studies)  # of the simulation; docs/methods.md has more studies
    assert 0.93 - 2 * error <= covered <= 0.97 + 2 * error


@pytest.mark.parametrize("shape", SKEWED)
def test_coverage_skewed(shape):
    assert coverage(shape, 15, studies=20_000, generator=rng(12)) >= 0.90
