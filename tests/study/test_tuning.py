"""The choice of a rate, and the luck in it."""

import numpy as np
import pytest
from scipy import stats

from retroprop.analysis.retuning import tuning_p
from retroprop.errors import RetropropError
from retroprop.study.tuning import choose_rate

GRID = [3.0, 0.3, 1.0]


def choose(validation, diverged=None, grid=GRID, chance=0.1):
    values = np.array(validation)
    lost = np.zeros(values.shape, dtype=bool) if diverged is None else np.array(diverged)
    return choose_rate(values, lost, grid, chance=chance).tolist()


def test_best_mean_over_tuning_seeds():
    #         rate 3.0    rate 0.3    rate 1.0
    one = [[0.9, 0.1], [0.6, 0.6], [0.7, 0.4]]
    two = [[0.2, 0.2], [0.1, 0.1], [0.9, 0.9]]
    assert choose([one, two]) == [1, 2]


def test_ties_go_to_the_smaller_multiplier_wherever_it_stands():
    assert choose([[[0.5, 0.5]] * 3]) == [1]
    # Equal means of unequal sums: 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit.
    assert choose([[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.2, 0.2]]]) == [1]
    assert choose([[[0.3, 0.2, 0.1], [0.1, 0.2, 0.3], [0.2, 0.2, 0.2]]]) == [1]


def test_diverged_counts_as_chance():
    values = [[[np.nan, 0.9], [0.45, 0.45], [0.3, 0.3]]]
    lost = [[[True, False], [False, False], [False, False]]]
    assert choose(values, lost, chance=0.1) == [0]  # (0.1 + 0.9) / 2 beats 0.45
    assert choose(values, lost, chance=0.0) == [1]  # now a tie at 0.45: the smaller rate
    worse = [[[0.99, 0.7], [0.45, 0.45], [0.3, 0.3]]]
    assert choose(worse, lost) == [1]  # what a diverged trial reached before is not read
    everything = np.ones((1, 3, 2), dtype=bool)
    assert choose(worse, everything) == [1]  # all at chance: the smallest rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": np.zeros((2, 3))}, r"expected \(arms, rates, seeds\)"),
        ({"diverged": np.zeros((2, 3, 1), bool)}, r"diverged \(2, 3, 1\)"),
        ({"multipliers": [1.0, 3.0]}, r"multipliers \(2,\)"),
        ({"multipliers": [1.0, 1.0, 3.0]}, "different multipliers above 0"),
        ({"multipliers": [0.0, 1.0, 3.0]}, "different multipliers above 0"),
        ({"chance": 10.0}, "chance=10"),
        ({"validation": np.full((2, 3, 4), np.nan)}, "missing or no fraction"),
        ({"validation": np.full((2, 3, 4), 50.0)}, "missing or no fraction"),
        (
            {"validation": np.zeros((2, 3, 0)), "diverged": np.zeros((2, 3, 0), bool)},
            "at least one arm, seed",
        ),
    ],
)
def test_errors(change, message):
    call = {
        "validation": np.full((2, 3, 4), 0.5),
        "diverged": np.zeros((2, 3, 4), dtype=bool),
        "multipliers": [0.3, 1.0, 3.0],
        "chance": 0.1,
    } | change
    with pytest.raises(RetropropError, match=message):
        choose_rate(**call)


def test_tuning_p_by_hand():
    contrasts = np.array([[1.0], [2.0], [3.0]])
    weights = np.array([[0.5, 0.5, -0.5, -0.5]])
    plain = stats.ttest_1samp(contrasts[:, 0], 0.0).pvalue
    assert tuning_p(contrasts, weights, 0.0)[0] == pytest.approx(plain)
    wider = 2 * stats.t.sf(2.0 / np.sqrt(1 / 3 + 4.0), 2)
    assert tuning_p(contrasts, weights, 4.0)[0] == pytest.approx(wider)
    assert tuning_p(np.zeros((3, 1)), weights, 0.0).tolist() == [1.0]
    assert tuning_p(np.ones((1, 1)), weights, 1.0).tolist() == [1.0]
    with pytest.raises(RetropropError, match="tuning_variance=-1"):
        tuning_p(contrasts, weights, -1.0)
