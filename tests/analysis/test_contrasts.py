"""Contrasts against numbers worked out by hand, and against plain means of arms."""

from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retroprop.analysis.aliases import aliases
from retroprop.analysis.checks import check_outcome
from retroprop.analysis.contrasts import (
    add_one_in,
    interactions,
    leave_one_out,
    log_odds,
    main_effects,
    per_seed,
)
from retroprop.analysis.records import Factor
from retroprop.analysis.shapley import shapley_values
from retroprop.errors import RetropropError

A = Factor("a", ("off", "on"))
B = Factor("b", ("off", "on"))
C = Factor("c", ("off", "on"))
ACTIVATION = Factor("activation", ("sigmoid", "tanh", "relu"))
# b off: a adds 2; b on: a adds 10.          b off  b on
TWO_BY_TWO = np.array([[[70.0, 71.0], [72.0, 81.0]]])


def values(contrasts, outcome):
    first = per_seed(outcome, contrasts)[0]
    return {(c.kind, c.name): value for c, value in zip(contrasts, first, strict=True)}


def test_two_by_two_by_hand():
    found = values(
        [
            *main_effects([A, B]),
            *interactions([A, B]),
            *add_one_in([A, B]),
            *leave_one_out([A, B]),
            *shapley_values([A, B]),
        ],
        TWO_BY_TWO,
    )
    assert found == pytest.approx(
        {
            ("main", "a=on"): 6.0,
            ("main", "b=on"): 5.0,
            ("interaction", "a=on x b=on"): 8.0,  # 10 - 2, not halved
            ("add_one_in", "a=on"): 2.0,
            ("add_one_in", "b=on"): 1.0,
            ("leave_one_out", "a=on"): 10.0,
            ("leave_one_out", "b=on"): 9.0,
            ("shapley", "a=on"): 6.0,
            ("shapley", "b=on"): 5.0,
        }
    )


def test_three_levels_by_hand():
    #                        b:    off   on
    outcome = np.array([[[10.0, 20.0], [13.0, 21.0], [30.0, 60.0]]])
    factors = [ACTIVATION, B]
    found = values(
        [
            *main_effects(factors),
            *interactions(factors),
            *add_one_in(factors),
            *leave_one_out(factors),
            *shapley_values(factors),
        ],
        outcome,
    )
    assert found == pytest.approx(
        {
            ("main", "activation=tanh"): 2.0,
            ("main", "activation=relu"): 30.0,
            ("main", "b=on"): (10.0 + 8.0 + 30.0) / 3.0,
            ("interaction", "activation=tanh x b=on"): 1.0 - 3.0,
            ("interaction", "activation=relu x b=on"): 40.0 - 20.0,
            ("add_one_in", "activation=tanh"): 3.0,
            ("add_one_in", "activation=relu"): 20.0,
            ("add_one_in", "b=on"): 10.0,
            ("leave_one_out", "activation=relu"): 40.0,  # all-on is the last level of each factor
            ("leave_one_out", "b=on"): 30.0,
            ("shapley", "activation=relu"): 30.0,
            ("shapley", "b=on"): 20.0,
        }
    )


def slow_main(outcome, axis, level):
    """The mean, over every setting of the other factors, of level minus first level."""
    others = [range(size) for i, size in enumerate(outcome.shape[1:]) if i != axis]
    differences = []
    for rest in product(*others):
        on = (slice(None), *rest[:axis], level, *rest[axis:])
        off = (slice(None), *rest[:axis], 0, *rest[axis:])
        differences.append(outcome[on] - outcome[off])
    return np.mean(differences, axis=0)


def test_against_plain_means():
    outcome = np.random.default_rng(0).random((4, 3, 2, 4))
    factors = [ACTIVATION, B, Factor("depth", ("1", "2", "3", "4"))]
    contrasts = main_effects(factors)
    fast = per_seed(outcome, contrasts)
    axes = {factor.name: (i, factor.levels) for i, factor in enumerate(factors)}
    for column, contrast in enumerate(contrasts):
        axis, levels = axes[contrast.factor]
        slow = slow_main(outcome, axis, levels.index(contrast.level))
        np.testing.assert_allclose(fast[:, column], slow, atol=1e-12)
    for column, contrast in enumerate(pairs := interactions(factors)):
        one, levels = axes[contrast.factor]
        two, others = axes[contrast.other_factor]
        a, b = levels.index(contrast.level), others.index(contrast.other_level)
        with_b = slow_main(np.take(outcome, [b], two + 1), one, a)
        without_b = slow_main(np.take(outcome, [0], two + 1), one, a)
        slow = per_seed(outcome, pairs)[:, column]
        np.testing.assert_allclose(slow, with_b - without_b, atol=1e-12)
    assert (len(contrasts), len(pairs)) == (2 + 1 + 3, 2 + 6 + 3)


@settings(max_examples=60, deadline=None)
@given(
    levels=st.lists(st.integers(2, 3), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_shapley_sums_to_all_on_minus_all_off(levels, seed):
    outcome = np.random.default_rng(seed).random((3, *levels))
    factors = [Factor(f"f{i}", tuple(map(str, range(n)))) for i, n in enumerate(levels)]
    total = per_seed(100.0 * outcome, shapley_values(factors)).sum(axis=1)
    flat = 100.0 * outcome.reshape(3, -1)
    np.testing.assert_allclose(total, flat[:, -1] - flat[:, 0], atol=1e-10)


def test_shapley_against_every_order():
    outcome = np.random.default_rng(1).random((1, 2, 2, 2))
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    gains = np.zeros(3)
    for order in orders:
        arm = [0, 0, 0]
        for factor in order:
            before = outcome[(0, *arm)]
            arm[factor] = 1
            gains[factor] += (outcome[(0, *arm)] - before) / len(orders)
    np.testing.assert_allclose(per_seed(outcome, shapley_values([A, B, C]))[0], gains, atol=1e-12)


def test_log_odds_stay_finite():
    assert log_odds(0.75, 100) == pytest.approx(log(3.0))
    assert log_odds(1.0, 100) == pytest.approx(log(0.995 / 0.005))
    assert log_odds(0.0, 100) == pytest.approx(-log(0.995 / 0.005))
    with pytest.raises(RetropropError, match="images=0"):
        log_odds(0.5, 0)


def fraction(outcome):
    """The half of 2^3 with c = a x b (in signs -1, +1): resolution III."""
    a, b, c = np.indices((2, 2, 2))
    return np.where((a + b + c) % 2 == 1, outcome, np.nan)


def test_half_fraction():
    outcome = fraction(np.random.default_rng(2).random((3, 2, 2, 2)))
    _, present = check_outcome(outcome, [A, B, C])
    family = [*main_effects([A, B, C], present), *interactions([A, B, C], present)]
    main_a = per_seed(outcome, family)[:, 0]
    by_hand = (outcome[:, 1, 0, 0] + outcome[:, 1, 1, 1]) / 2
    by_hand -= (outcome[:, 0, 1, 0] + outcome[:, 0, 0, 1]) / 2
    np.testing.assert_allclose(main_a, by_hand, atol=1e-12)
    named = [{family[i].name for i in group} for group in aliases(family)]
    assert named == [
        {"a=on", "b=on x c=on"},
        {"b=on", "a=on x c=on"},
        {"c=on", "a=on x b=on"},
    ]
    with pytest.raises(RetropropError, match="Shapley values need every arm, and 4 of 8"):
        shapley_values([A, B, C], present)
    assert add_one_in([A, B, C], present) == []


def test_full_factorial_has_no_aliases():
    factors = [ACTIVATION, B, C]
    family = [*main_effects(factors), *interactions(factors)]
    assert aliases(family) == [(i,) for i in range(len(family))]


GOOD = np.full((3, 2, 2), 0.5)


def broken(index, value):
    outcome = GOOD.copy()
    outcome[index] = value
    return outcome


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (np.full((3, 2), 0.5), r"shape \(3, 2\); expected \(seeds, 2, 2\)"),
        (np.full((3, 2, 3), 0.5), r"shape \(3, 2, 3\)"),
        (np.full((0, 2, 2), 0.5), "at least one seed"),
        (100.0 * GOOD, "from 50 to 50.*Divide percentages by 100"),
        (broken((0, 0, 0), -0.1), "from -0.1"),
        (broken((0, 0, 0), np.nan), "1 outcomes are nan"),
        (broken((slice(None), 0, 0), np.nan), "no balanced fraction.*1 of 4 arms are missing"),
    ],
)
def test_outcome_errors(outcome, message):
    with pytest.raises(RetropropError, match=message):
        check_outcome(outcome, [A, B])


def test_factor_errors():
    with pytest.raises(RetropropError, match="empty name"):
        Factor("", ("off", "on"))
    with pytest.raises(RetropropError, match="two or more different"):
        Factor("a", ("on",))
    with pytest.raises(RetropropError, match="two or more different"):
        Factor("a", ("on", "on"))
    with pytest.raises(RetropropError, match="different names"):
        check_outcome(GOOD, [A, A])


def test_fraction_of_many_levels_is_refused():
    outcome = np.full((2, 3, 2), 0.5)
    outcome[:, 0, 0] = np.nan
    with pytest.raises(RetropropError, match="more than two levels"):
        check_outcome(outcome, [ACTIVATION, B])
