"""Flags of trials and arms, at their thresholds."""

import numpy as np
import pytest

from retroprop.analysis.flags import (
    arm_flags,
    did_not_learn,
    not_converged,
    rate_at_edge,
    trial_flags,
)
from retroprop.errors import RetropropError


def test_rate_at_edge_goes_by_size_not_by_place():
    grid = [1.0, 0.1, 10.0, 3.0]
    assert rate_at_edge([0, 1, 2, 3], grid).tolist() == [False, True, True, False]
    assert rate_at_edge([0], [1.0]).tolist() == [True]
    with pytest.raises(RetropropError, match="expected indices"):
        rate_at_edge([3], [0.1, 1.0, 10.0])
    with pytest.raises(RetropropError, match="expected indices"):
        rate_at_edge([-1], [0.1, 1.0, 10.0])


@pytest.mark.parametrize("epochs", [5, 10, 15, 20, 50])
def test_a_line_is_judged_by_its_rise_over_a_fifth(epochs):
    fifth = epochs // 5
    line = np.arange(epochs) / fifth
    assert not_converged(0.5 + 0.0101 * line)
    assert not not_converged(0.5 + 0.0099 * line)
    assert not not_converged(0.5 - 0.05 * line)


def test_not_converged_by_hand():
    # 10 epochs: the mean of the last two, minus the mean of the two before the last fifth.
    flat = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert not_converged([*flat, 0.80, 0.82, 0.83, 0.82])  # 0.825 - 0.810
    assert not not_converged([*flat, 0.80, 0.82, 0.82, 0.82])  # exactly one point
    assert not_converged([0.5])
    assert not_converged([0.5, 0.6])
    assert not not_converged([0.5, np.nan, np.nan])
    for wrong in ([], np.zeros((2, 3))):
        with pytest.raises(RetropropError, match="expected \\(epochs,\\)"):
            not_converged(wrong)


def test_did_not_learn():
    assert did_not_learn(0.15, 0.1)
    assert not did_not_learn(0.1501, 0.1)
    assert did_not_learn(0.05, 0.1)
    assert did_not_learn(float("nan"), 0.1)
    with pytest.raises(RetropropError, match="accuracy=90"):
        did_not_learn(90.0, 0.1)


def test_trial_flags():
    good = np.full(10, 0.9)
    assert trial_flags(good, 0.9, diverged=False, chance=0.1) == ()
    assert trial_flags(np.linspace(0, 1, 10), 0.12, diverged=False, chance=0.1) == (
        "not converged",
        "did not learn",
    )
    assert trial_flags([], np.nan, diverged=True, chance=0.1) == ("diverged", "did not learn")


def test_arm_flags():
    curves = np.full((4, 10), 0.9)
    accuracy = np.full(4, 0.9)
    none = np.zeros(4, dtype=bool)
    one = np.array([True, False, False, False])
    call = {"chance": 0.1, "at_edge": False}
    assert arm_flags(curves, accuracy, none, **call) == ()
    assert arm_flags(curves, accuracy, none, chance=0.1, at_edge=True) == ("rate at edge",)
    lost = curves.copy()
    lost[0] = np.nan
    assert arm_flags(lost, [np.nan, 0.9, 0.9, 0.9], one, **call) == ("diverged",)
    assert arm_flags(lost, np.full(4, np.nan), ~none, **call) == ("diverged", "did not learn")
    rising = np.tile(np.linspace(0, 0.9, 10), (4, 1))
    assert arm_flags(rising, accuracy, none, **call) == ("not converged",)
    # Three of four seeds at chance: the mean is 0.3, and the arm did learn.
    assert arm_flags(curves, accuracy, ~one, **call) == ("diverged",)
    with pytest.raises(RetropropError, match=r"expected \(seeds, epochs\)"):
        arm_flags(curves[0], accuracy, none, **call)
