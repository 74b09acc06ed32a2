"""Claims: Holm by hand, verdicts, withheld verdicts, looks, misleading main effects."""

from dataclasses import replace

import numpy as np
import pytest

from retroprop.analysis.claims import Bounds, holm, needed_seeds, smallest_p, verdicts
from retroprop.analysis.looks import withhold_after_looks
from retroprop.analysis.misleading import MisleadingMainEffect, misleading_main_effects
from retroprop.analysis.records import Effect
from retroprop.errors import RetropropError


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, then never smaller than the one before.
    found = holm(np.array([0.03, 0.01, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, 0.5, 0.06])
    assert holm(np.array([])).shape == (0,)
    with pytest.raises(RetropropError, match="from 0 to 1"):
        holm(np.array([0.1, np.nan]))


@pytest.mark.parametrize(("family", "seeds"), [(1, 6), (2, 7), (10, 9), (15, 10), (25, 10)])
def test_needed_seeds(family, seeds):
    assert needed_seeds(family) == seeds
    assert smallest_p(seeds) * family < 0.05 <= smallest_p(seeds - 1) * family


def test_needed_seeds_errors():
    with pytest.raises(RetropropError, match="family of 0"):
        needed_seeds(0)
    with pytest.raises(RetropropError, match="0 seeds"):
        smallest_p(0)


NAN = float("nan")
ESTIMATE = np.array([2.0, -2.0, 2.0, 2.0, 2.0])
OUTSIDE = Bounds(np.array([1.0, -3.0, -1.0, 1.0, NAN]), np.array([3.0, -1.0, 5.0, 3.0, NAN]))
P = np.array([0.01, 0.01, 0.01, 0.05, 0.01])


def test_a_claim_needs_interval_and_test():
    found = verdicts(ESTIMATE, P, (OUTSIDE,), seeds=12, family=15)
    assert found == ["helps", "hurts", "no claim", "no claim", "no claim"]


def test_a_claim_needs_every_interval():
    wide = Bounds(np.full(5, -1.0), np.full(5, 3.0))
    assert set(verdicts(ESTIMATE, P, (OUTSIDE, wide), seeds=12, family=15)) == {"no claim"}


@pytest.mark.parametrize(
    ("seeds", "family", "message"),
    [
        (9, 15, "indicative: 9 seeds cannot reach p < 0.05 in a family of 15; needs 10"),
        (1, 2, "indicative: 1 seed cannot reach p < 0.05 in a family of 2; needs 7"),
    ],
)
def test_too_few_seeds(seeds, family, message):
    assert verdicts(ESTIMATE, P, (OUTSIDE,), seeds=seeds, family=family) == [message] * 5


def row(**changes):
    first = Effect("accuracy_points", "main", "a", "on", "", "", 1.0, 0.5, 1.5, 0.001, 0.01, "helps", 12)
    return replace(first, **changes)


def test_looks():
    everything = [
        row(),
        row(factor="b"),
        row(factor="c", claim="hurts"),
        row(factor="d", claim="no claim"),
        row(factor="e", claim="no claim"),
        row(kind="shapley", claim=""),
        row(factor="f", claim="indicative: few"),
    ]
    new = [
        row(estimate=0.7, seeds=6),
        row(factor="b", claim="no claim"),
        row(factor="c", claim="helps"),
        row(factor="d", claim="no claim"),
        row(factor="e", claim="indicative: 6 seeds cannot"),
    ]
    found = withhold_after_looks(everything, new)
    held = [effect.claim.startswith("withheld: seeds were added after a look") for effect in found]
    assert held == [False, True, True, False, True, False, False]
    assert [replace(effect, claim="") for effect in found] == [
        replace(effect, claim="") for effect in everything
    ]
    assert all(a == b for a, b, out in zip(found, everything, held, strict=True) if not out)
    with pytest.raises(RetropropError, match="'b'"):
        withhold_after_looks(everything, new[:1])


def test_misleading_main_effects():
    pair = {"kind": "interaction", "other_factor": "b", "other_level": "on"}
    effects = [
        row(estimate=2.0),
        row(factor="b", estimate=-5.0),
        row(**pair, estimate=-3.0, low=-4.0, high=-2.0, claim="hurts"),
    ]
    found = misleading_main_effects(effects)
    assert found == [MisleadingMainEffect("a", "on", "b", "on", main=2.0, interaction=-3.0)]
    for claim in ("no claim", "withheld: why", "indicative: few"):
        unclaimed = [*effects[:2], row(**pair, estimate=-3.0, low=-4.0, high=-2.0, claim=claim)]
        assert misleading_main_effects(unclaimed) == []
    small = [*effects[:2], row(**pair, estimate=-1.9, low=-2.0, high=-1.8, claim="hurts")]
    assert misleading_main_effects(small) == []
    both = [row(estimate=2.0), row(factor="b", estimate=3.0), effects[2]]
    assert [(m.factor, m.other_factor) for m in misleading_main_effects(both)] == [
        ("a", "b"),
        ("b", "a"),
    ]
    odds = [replace(effect, metric="log_odds") for effect in effects]
    assert misleading_main_effects(odds) == []
