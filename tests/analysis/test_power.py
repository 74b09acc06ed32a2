"""Power, against simulation and known numbers."""

import numpy as np
import pytest
from scipy import stats

from retroprop.analysis.power import detectable_effect, seeds_for_effect
from retroprop.errors import RetropropError


def test_detectable_effect_by_simulation():
    effect = detectable_effect(1.0, seeds=12, family=3)
    contrasts = effect + np.random.default_rng(0).standard_normal((12, 20_000))
    found = stats.ttest_1samp(contrasts, 0.0).pvalue < 0.05 / 3
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert detectable_effect(2.0, seeds=12, family=3) == pytest.approx(2 * effect)
    assert detectable_effect(1.0, seeds=6, family=3) == float("inf")


def test_seeds_for_effect():
    assert seeds_for_effect(0.5, 1.0, family=1) == 34  # the textbook's paired t test
    assert seeds_for_effect(-0.5, 1.0, family=1) == 34
    assert seeds_for_effect(50.0, 1.0, family=15) == 10  # the floor of the sign-flip test
    few = seeds_for_effect(0.7, 1.0, family=15)
    assert detectable_effect(1.0, seeds=few, family=15) <= 0.7
    assert detectable_effect(1.0, seeds=few - 1, family=15) > 0.7


def test_errors():
    with pytest.raises(RetropropError, match="seeds=1"):
        detectable_effect(1.0, seeds=1, family=3)
    with pytest.raises(RetropropError, match="effect=0"):
        seeds_for_effect(0.0, 1.0, family=3)
    with pytest.raises(RetropropError, match="too small"):
        seeds_for_effect(1e-4, 1.0, family=3)
