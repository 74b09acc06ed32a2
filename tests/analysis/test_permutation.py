"""The sign-flip test against closed forms and against scipy's slower one."""

import numpy as np
import pytest
from scipy import stats

from retroprop.analysis.permutation import sign_flip
from retroprop.errors import RetropropError


def rng(seed=0):
    return np.random.default_rng(seed)


def test_by_hand():
    # Of the 8 flips of 1, 2, 3 the sums 6, -6 are as far from 0 as 6; 4, -4 join for -1, 2, 3.
    contrasts = np.array([[1.0, -1.0], [2.0, 2.0], [3.0, 3.0]])
    np.testing.assert_allclose(sign_flip(contrasts, rng()), [2 / 8, 4 / 8])


@pytest.mark.parametrize("seeds", range(2, 17))
def test_smallest_p(seeds):
    contrasts = np.arange(1.0, seeds + 1.0)[:, None]
    assert sign_flip(contrasts, rng())[0] == 2.0 / 2**seeds


def test_ties_count_as_one():
    # 0.1 + 0.2 + 0.3 differs from 0.3 + 0.2 + 0.1 in the last bit.
    contrasts = np.tile([[0.1], [0.2], [0.3]], (4, 1))
    assert sign_flip(contrasts, rng())[0] == 2.0 / 2**12
    mixed = np.array([0.1, 0.2, -0.3, 0.3, -0.2, 0.1, 0.7, -0.1])[:, None]
    whole = np.round(mixed * 10)
    assert sign_flip(mixed, rng()) == sign_flip(whole, rng())


def test_nothing_to_test():
    np.testing.assert_array_equal(sign_flip(np.array([[3.0]]), rng()), [1.0])
    for seeds in (5, 12, 40):
        equal = np.tile([[0.0, 2.0, 1e-15]], (seeds, 1))
        np.testing.assert_array_equal(sign_flip(equal, rng()), [1.0, 1.0, 1.0])


def slow(contrasts):
    return np.array(
        [
            stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
            for column in contrasts.T
        ]
    )


@pytest.mark.parametrize("seeds", [3, 6, 9])
def test_exact_against_scipy(seeds):
    contrasts = rng(seeds).normal(0.5, 1.0, (seeds, 6))
    contrasts[:, 3:] = np.round(contrasts[:, 3:], 1)  # with ties
    np.testing.assert_allclose(sign_flip(contrasts, rng()), slow(contrasts), atol=1e-12)


def test_drawn_flips_near_exact():
    # 16 seeds are counted exactly; a 17th seed of no size changes nothing but the method.
    contrasts = rng(5).normal(0.4, 1.0, (16, 5))
    exact = sign_flip(contrasts, rng())
    drawn = sign_flip(np.vstack([contrasts, np.zeros((1, 5))]), rng())
    assert 0.01 < exact.min() < 0.2
    np.testing.assert_allclose(drawn, exact, atol=0.015)
    assert (drawn != exact).any()


def test_seed_is_honoured():
    contrasts = rng(6).normal(0.2, 1.0, (25, 4))
    first, again, other = (sign_flip(contrasts, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_drawn_p_is_never_zero():
    assert sign_flip(np.arange(1.0, 41.0)[:, None], rng())[0] == pytest.approx(1 / 20_000)


@pytest.mark.parametrize("seeds", [6, 12])
def test_level_under_no_effect(seeds):
    p = sign_flip(rng(7).standard_normal((seeds, 4_000)), rng())
    for alpha in (0.05, 0.25):
        assert (p <= alpha).mean() == pytest.approx(alpha, abs=0.02)


def test_shape_error():
    with pytest.raises(RetropropError, match=r"expected \(seeds, m\)"):
        sign_flip(np.zeros(4), rng())
