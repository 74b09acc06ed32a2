"""Power: what a study of some seeds can find, for planning one."""

from statsmodels.stats.power import TTestPower

from retroprop.analysis.claims import ALPHA, needed_seeds
from retroprop.errors import RetropropError

POWER = 0.8
_MOST_SEEDS = 100_000


def detectable_effect(spread: float, *, seeds: int, family: int) -> float:
    """The smallest true effect that a study finds four times in five.

    An approximation: a two-sided t test at 0.05 / family, which is Holm's first and hardest step.

    Args:
        spread: Standard deviation of the per-seed contrast, in points of accuracy.
        seeds: How many reporting seeds, at least 2.
        family: How many contrasts are claimed together.

    Returns:
        Points of accuracy; infinite where that many seeds cannot reach p < 0.05 at all.

    Raises:
        RetropropError: A spread below 0, fewer than 2 seeds, or an empty family.
    """
    if not spread >= 0.0 or seeds < 2:
        raise RetropropError(
            f"Got spread={spread} and seeds={seeds}; expected a spread of 0 or more and at least 2 seeds."
        )
    if seeds < needed_seeds(family):
        return float("inf")
    size = TTestPower().solve_power(nobs=seeds, alpha=ALPHA / family, power=POWER)
    return float(size) * spread


def seeds_for_effect(effect: float, spread: float, *, family: int) -> int:
    """The fewest seeds with which a true effect of this size is found four times in five.

    Args:
        effect: The true effect, in points of accuracy, other than 0.
        spread: Standard deviation of the per-seed contrast, in points of accuracy.
        family: How many contrasts are claimed together.

    Returns:
        Seeds, never fewer than the test needs to reach p < 0.05 in the family.

    Raises:
        RetropropError: An effect of 0, a spread below 0, an empty family, or more than 100,000
            seeds.
    """
    least = max(2, needed_seeds(family))
    if effect == 0.0 or not spread >= 0.0:
        raise RetropropError(
            f"Got effect={effect} and spread={spread}; expected an effect other than 0 and a spread"
            " of 0 or more."
        )
    low, high = least, least
    while detectable_effect(spread, seeds=high, family=family) > abs(effect):
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            raise RetropropError(
                f"An effect of {effect} points at a spread of {spread} needs more than"
                f" {_MOST_SEEDS} seeds; it is too small to look for."
            )
    while low < high:
        middle = (low + high) // 2
        if detectable_effect(spread, seeds=middle, family=family) > abs(effect):
            low = middle + 1
        else:
            high = middle
    return high
