"""The assembled table: rows, verdicts, withheld verdicts, edge cases."""

from collections import Counter
from dataclasses import fields
from math import comb, isnan, log

import numpy as np
import pytest

from retroprop.analysis.effects import (
    Effect,
    Factor,
    contrast_effects,
    contrast_image_intervals,
    factorial_effects,
    factorial_image_intervals,
)
from retroprop.errors import RetropropError

FIVE = [Factor(name, ("off", "on")) for name in "abcde"]
TWO = FIVE[:2]


def rng(seed=0):
    return np.random.default_rng(seed)


def study(seeds=12, factors=FIVE, gain=0.02, seed=0):
    """Only the first factor acts."""
    shape = (seeds, *(len(factor.levels) for factor in factors))
    outcome = 0.8 + 0.005 * rng(seed).standard_normal(shape)
    outcome[:, 1] += gain
    return outcome


def claims(effects):
    return {(e.kind, e.factor, e.other_factor): e.claim for e in effects if e.claim}


def test_fields_of_effects_csv():
    header = "metric,kind,factor,level,other_factor,other_level,estimate,low,high,p,p_holm,claim,seeds"
    assert ",".join(field.name for field in fields(Effect)) == header


def test_rows_and_verdicts_of_a_factorial():
    effects = factorial_effects(study(), FIVE, images=1000, generator=rng())
    counts = Counter((e.metric, e.kind) for e in effects)
    per_metric = {"main": 5, "interaction": 10, "add_one_in": 5, "leave_one_out": 5, "shapley": 5}
    assert counts == {
        (metric, kind): n for metric in ("accuracy_points", "log_odds") for kind, n in per_metric.items()
    }
    found = claims(effects)
    assert len(found) == 5 + comb(5, 2)
    assert found.pop(("main", "a", "")) == "helps"
    assert set(found.values()) == {"no claim"}
    first = effects[0]
    assert (first.kind, first.factor, first.level, first.seeds) == ("main", "a", "on", 12)
    assert first.estimate == pytest.approx(2.0, abs=0.3)
    assert first.low < first.estimate < first.high
    assert first.p == 2 / 2**12
    assert first.p_holm == pytest.approx(15 * 2 / 2**12)
    for e in effects:
        judged = e.metric == "accuracy_points" and e.kind in {"main", "interaction"}
        assert isnan(e.p) == isnan(e.p_holm) == (not judged)
        assert bool(e.claim) == judged


def test_a_level_that_hurts():
    effects = factorial_effects(study(gain=-0.02), FIVE, images=1000, generator=rng())
    assert effects[0].claim == "hurts"


def test_few_seeds_withhold_verdicts_not_estimates():
    effects = factorial_effects(study(seeds=9), FIVE, images=1000, generator=rng())
    message = "indicative: 9 seeds cannot reach p < 0.05 in a family of 15; needs 10"
    assert set(claims(effects).values()) == {message}
    assert all(np.isfinite([e.estimate, e.low, e.high]).all() for e in effects)


def test_one_seed():
    effects = factorial_effects(study(seeds=1), FIVE, images=1000, generator=rng())
    assert all(isnan(e.low) and isnan(e.high) and e.seeds == 1 for e in effects)
    assert {e.p for e in effects if e.claim} == {1.0}


@pytest.mark.parametrize("seeds", [12, 30])
def test_equal_arms(seeds):
    outcome = np.broadcast_to(0.9 + 0.01 * rng().random((seeds, 1, 1)), (seeds, 2, 2))
    effects = factorial_effects(outcome, TWO, images=1000, generator=rng())
    assert all((e.estimate, e.low, e.high) == (0.0, 0.0, 0.0) for e in effects)
    assert {(e.p, e.p_holm, e.claim) for e in effects if e.claim} == {(1.0, 1.0, "no claim")}


def test_thirty_seeds_honour_the_generator():
    outcome = study(seeds=30, factors=TWO)
    first, again, other = (
        factorial_effects(outcome, TWO, images=1000, generator=rng(seed)) for seed in (1, 1, 2)
    )
    key = [(e.low, e.high) for e in first]
    assert key == [(e.low, e.high) for e in again]
    assert key != [(e.low, e.high) for e in other]


def test_log_odds_by_hand():
    outcome = np.array([[0.5, 0.75]])
    effects = factorial_effects(outcome, [FIVE[0]], images=100, generator=rng())
    odds = next(e for e in effects if e.metric == "log_odds")
    assert odds.estimate == pytest.approx(log(3.0))
    assert effects[0].estimate == pytest.approx(25.0)


def test_three_levels():
    factors = [Factor("activation", ("sigmoid", "tanh", "relu")), FIVE[0]]
    effects = factorial_effects(study(factors=factors), factors, images=1000, generator=rng())
    pairs = {(e.level, e.other_factor, e.other_level) for e in effects if e.kind == "interaction"}
    assert pairs == {("tanh", "a", "on"), ("relu", "a", "on")}


def test_fraction_withholds_aliased_verdicts():
    a, b, c = np.indices((2, 2, 2))
    outcome = np.where((a + b + c) % 2 == 1, study(factors=FIVE[:3], seed=1), np.nan)
    effects = factorial_effects(outcome, FIVE[:3], images=1000, generator=rng())
    assert {e.kind for e in effects} == {"main", "interaction"}
    found = claims(effects)
    assert found["main", "a", ""] == "withheld: the fraction cannot tell it from b=on x c=on"
    assert found["interaction", "b", "c"] == "withheld: the fraction cannot tell it from a=on"
    assert found["main", "b", ""] == "no claim"
    assert effects[0].p_holm == pytest.approx(3 * 2 / 2**12)  # three tests, not six
    few = factorial_effects(outcome[:7], FIVE[:3], images=1000, generator=rng())
    assert claims(few)["main", "a", ""].startswith("withheld")  # six tests would need 8 seeds


def test_half_of_32_arms_is_clear_of_aliases():
    on = np.indices((2,) * 5).sum(axis=0)
    outcome = np.where(on % 2 == 0, study(), np.nan)
    effects = factorial_effects(outcome, FIVE, images=1000, generator=rng())
    assert claims(effects)["main", "a", ""] == "helps"
    assert "shapley" not in {e.kind for e in effects}


def test_luck_of_tuning_withholds_claims():
    outcome = study(gain=0.004)
    call = {"images": 1000, "generator": rng()}
    plain = factorial_effects(outcome, FIVE, **call)
    small = factorial_effects(outcome, FIVE, tuning_variance=1e-4, **call)
    large = factorial_effects(outcome, FIVE, tuning_variance=1.0, **call)
    assert (plain[0].claim, small[0].claim) == ("helps", "helps")
    assert large[0].claim == "withheld: the luck of tuning could make as large a difference"
    assert large[0].p_holm == plain[0].p_holm
    one = contrast_effects("one_at_a_time", BASE, ARMS, tuning_variance=4.0, **call)
    assert [e.claim[:8] for e in one[:3]] == ["withheld", "withheld", "no claim"]


def test_the_luck_of_tuning_is_that_of_the_arms_in_the_contrast():
    call = {"images": 1000, "generator": rng(), "tuning_seeds": 3}
    norm = contrast_effects("one_at_a_time", BASE, ARMS, tuning_variance=[0.0, 0.0, 4.0, 0.0], **call)
    assert [e.claim[:8] for e in norm[:3]] == ["helps", "withheld", "no claim"]
    base = contrast_effects("leave_one_out", BASE, ARMS, tuning_variance=[4.0, 0.0, 0.0, 0.0], **call)
    assert [e.claim[:8] for e in base[:3]] == ["withheld", "withheld", "no claim"]
    outcome = study(gain=0.004)
    luck = np.zeros((2,) * 5)
    luck[0, 1, 0, 1, 0] = 100.0
    for shape in (luck, luck.ravel()):
        effects = factorial_effects(outcome, FIVE, tuning_variance=shape, **call)
        assert effects[0].claim.startswith("withheld: the luck")
    half = np.where(np.indices((2,) * 5).sum(axis=0) % 2 == 0, 0.0, np.nan)
    fraction = factorial_effects(study() + half, FIVE, tuning_variance=half, **call)
    assert claims(fraction)["main", "a", ""] == "helps"
    with pytest.raises(RetropropError, match=r"tuning_variance has shape \(3,\); expected .*\(4,\)"):
        contrast_effects("one_at_a_time", BASE, ARMS, tuning_variance=[1.0] * 3, **call)
    with pytest.raises(RetropropError, match=r"Got tuning_variance=\[-1"):
        contrast_effects("one_at_a_time", BASE, ARMS, tuning_variance=[-1.0, 0.0, 0.0, 0.0], **call)


BASE = 0.8 + 0.002 * rng(4).standard_normal(12)
ARMS = {
    ("relu", "on"): BASE + 0.02 + 0.001 * rng(5).standard_normal(12),
    ("norm", "batch"): BASE - 0.02 + 0.001 * rng(6).standard_normal(12),
    ("init", "he"): BASE + 0.001 * rng(7).standard_normal(12),
}


def test_one_at_a_time():
    effects = contrast_effects("one_at_a_time", BASE, ARMS, images=1000, generator=rng())
    points = effects[:3]
    assert [(e.factor, e.level, e.claim) for e in points] == [
        ("relu", "on", "helps"),
        ("norm", "batch", "hurts"),
        ("init", "he", "no claim"),
    ]
    assert points[0].estimate == pytest.approx(100 * (ARMS["relu", "on"] - BASE).mean())
    assert points[0].p_holm == pytest.approx(3 * 2 / 2**12)
    assert [(e.metric, e.kind, e.claim) for e in effects[3:]] == [("log_odds", "one_at_a_time", "")] * 3


def test_leave_one_out_counts_what_the_level_gave():
    effects = contrast_effects("leave_one_out", BASE, ARMS, images=1000, generator=rng())
    assert [e.claim for e in effects[:3]] == ["hurts", "helps", "no claim"]
    assert {e.kind for e in effects} == {"leave_one_out"}


def test_contrast_errors():
    call = {"images": 10, "generator": rng()}
    with pytest.raises(RetropropError, match="no arms"):
        contrast_effects("one_at_a_time", BASE, {}, **call)
    with pytest.raises(RetropropError, match=r"arm a=on has shape \(11,\)"):
        contrast_effects("one_at_a_time", BASE, {("a", "on"): BASE[:11]}, **call)
    with pytest.raises(RetropropError, match="1 outcomes are nan"):
        contrast_effects("one_at_a_time", BASE, {("a", "on"): [*BASE[:11], np.nan]}, **call)
    with pytest.raises(RetropropError, match="fraction from 0 to 1"):
        contrast_effects("one_at_a_time", 100 * BASE, ARMS, **call)
    with pytest.raises(RetropropError, match="'add_one_in'; expected"):
        contrast_effects("add_one_in", BASE, ARMS, **call)


def correctness(gained, images=100, seeds=12):
    """The first factor turns the same `gained` images right for every seed; trials differ a bit."""
    correct = np.broadcast_to(np.arange(images) < 0.7 * images, (seeds, 2, 2, images)).copy()
    correct[:, 1, :, images - gained :] = True
    return correct ^ (rng(10).random(correct.shape) < 0.003)


def test_a_claim_needs_the_image_interval_too():
    correct = correctness(gained=3)
    outcome = correct.mean(axis=-1)
    call = {"images": 100, "generator": rng()}
    by_seed = factorial_effects(outcome, TWO, **call)
    by_both = factorial_effects(outcome, TWO, correct=correct, **call)
    assert (by_seed[0].claim, by_both[0].claim) == ("helps", "no claim")
    assert by_seed[0].low > 0.0
    second = factorial_image_intervals(correct, TWO)
    assert [r.kind for r in second] == ["main", "main", "interaction"]
    assert second[0].low < 0.0 < second[0].estimate == pytest.approx(by_seed[0].estimate)
    many = correctness(gained=80, images=400)
    claimed = factorial_effects(many.mean(axis=-1), TWO, images=400, generator=rng(), correct=many)
    assert claimed[0].claim == "helps"


def test_image_intervals_of_arms():
    correct = correctness(gained=3)
    arms = {("a", "on"): correct[:, 1, 0]}
    means = {key: bits.mean(axis=-1) for key, bits in arms.items()}
    base = correct[:, 0, 0]
    call = {"images": 100, "generator": rng()}
    for kind, sign in (("one_at_a_time", 1), ("leave_one_out", -1)):
        (second,) = contrast_image_intervals(kind, base, arms)
        effects = contrast_effects(kind, base.mean(-1), means, **call)
        assert second.estimate == pytest.approx(effects[0].estimate)
        assert np.sign(second.estimate) == sign
        both = contrast_effects(kind, base.mean(-1), means, correct=(base, arms), **call)
        assert effects[0].claim == {1: "helps", -1: "hurts"}[sign]
        assert both[0].claim == "no claim"


def test_correctness_errors():
    correct = correctness(gained=10)
    outcome = correct.mean(axis=-1)
    call = {"images": 100, "generator": rng()}
    with pytest.raises(RetropropError, match=r"expected \(12, 2, 2, 100\)"):
        factorial_effects(outcome, TWO, correct=correct[..., :50], **call)
    with pytest.raises(RetropropError, match="differs from its accuracy"):
        factorial_effects(outcome, TWO, correct=~correct, **call)
    with pytest.raises(RetropropError, match="the same arms"):
        contrast_effects(
            "one_at_a_time",
            outcome[:, 0, 0],
            {("a", "on"): outcome[:, 1, 0]},
            correct=(correct[:, 0, 0], {("b", "on"): correct[:, 1, 0]}),
            **call,
        )
