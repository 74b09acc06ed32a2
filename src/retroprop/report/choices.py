"""Every choice that the report makes: all read validation accuracy, none reads a test number."""

from dataclasses import dataclass
from math import sqrt
from typing import final

import numpy as np

from retroprop.analysis.records import FloatArray
from retroprop.study.results import Results, TrialResult


@final
@dataclass(frozen=True)
class Choices:
    """What the report picks and in which order it shows things.

    Attributes:
        validation: Mean validation accuracy of every arm, a fraction; nan with nothing finished.
        order: All arms, the best validation accuracy first; indices into `Results.arms`.
        best: The arm of the design with the best validation accuracy; None where there is none.
        smallest: The arm with the fewest levels switched on whose validation accuracy is within one
            standard error of the best one's, over the seeds that both have.
        rates: The chosen rate of every arm, an index into `Results.multipliers`; -1 for none.
        picture_seed: The reporting seed that the Hinton diagrams show; None where no seed has both.
    """

    validation: tuple[float, ...]
    order: tuple[int, ...]
    best: int | None
    smallest: int | None
    rates: tuple[int, ...]
    picture_seed: int | None


def choose(results: Results) -> Choices:
    """Makes every choice of the report.

    Args:
        results: The study; its test numbers are not read.

    Returns:
        The choices. They do not change when all test numbers change.
    """
    validation = tuple(_validation(results, i) for i in range(len(results.arms)))
    ranked = sorted(range(len(results.arms)), key=lambda i: (-_or_low(validation[i]), i))
    own = [i for i in ranked if not results.arms[i].reference and np.isfinite(validation[i])]
    best = own[0] if own else None
    return Choices(
        validation=validation,
        order=tuple(ranked),
        best=best,
        smallest=None if best is None else _smallest(results, own, best),
        rates=tuple(results.chosen),
        picture_seed=_picture_seed(results),
    )


def validation_of(trial: TrialResult, chance: float) -> float:
    """Validation accuracy of a trial as it counts: chance where it diverged.

    Args:
        trial: A finished trial.
        chance: Accuracy of guessing, as a fraction.

    Returns:
        A fraction.
    """
    lost = trial.diverged or not np.isfinite(trial.validation_accuracy)
    return chance if lost else trial.validation_accuracy


def baseline_arm(results: Results) -> int | None:
    """The arm of the design with every factor at its first level, where there is one."""
    return _find(results, tuple(0 for _ in results.factors))


def all_on_arm(results: Results) -> int | None:
    """The arm of the design with every factor at its last level, where there is one."""
    return _find(results, tuple(len(factor.levels) - 1 for factor in results.factors))


def single_arms(results: Results) -> list[int]:
    """The arms of the design with exactly one factor away from its first level, by factor."""
    singles = [
        i
        for i, arm in enumerate(results.arms)
        if not arm.reference and sum(level > 0 for level in arm.levels) == 1
    ]
    # The factor first: the place of the one level that is not 0; then that level.
    return sorted(singles, key=lambda i: _axis_and_level(results.arms[i].levels))


def shown_arms(results: Results) -> list[int]:
    """The arms of the pictures: baseline, single fixes, leave-one-out, all on, references."""
    found = [baseline_arm(results), *single_arms(results)]
    if results.design == "leave_one_out":
        found += [i for i, arm in enumerate(results.arms) if not arm.reference]
    found.append(all_on_arm(results))
    found += [i for i, arm in enumerate(results.arms) if arm.reference]
    return list(dict.fromkeys(i for i in found if i is not None))


def _axis_and_level(levels: tuple[int, ...]) -> tuple[int, int]:
    return next((axis, level) for axis, level in enumerate(levels) if level)


def _find(results: Results, levels: tuple[int, ...]) -> int | None:
    own = (i for i, arm in enumerate(results.arms) if not arm.reference and arm.levels == levels)
    return next(own, None)


def _or_low(value: float) -> float:
    return value if np.isfinite(value) else -np.inf


def _validation(results: Results, arm: int) -> float:
    """Over reporting seeds where there are any, else over tuning seeds at the chosen rate."""
    trials = results.reporting(arm)
    if trials:
        return float(np.mean([validation_of(trial, results.chance) for trial in trials]))
    rate = results.chosen[arm]
    if rate < 0:
        return float("nan")
    tuned: FloatArray = np.where(results.diverged[arm, rate], results.chance, results.validation[arm, rate])
    return float(np.nanmean(tuned)) if np.isfinite(tuned).any() else float("nan")


def _by_seed(results: Results, arm: int) -> dict[int, float]:
    return {t.seed: validation_of(t, results.chance) for t in results.reporting(arm)}


def _smallest(results: Results, ranked: list[int], best: int) -> int:
    """The one-standard-error rule on paired seeds; of arms of one size, the better ranked one."""
    top = _by_seed(results, best)
    for arm in sorted(ranked, key=lambda i: sum(level > 0 for level in results.arms[i].levels)):
        own = _by_seed(results, arm)
        behind = np.array([top[seed] - own[seed] for seed in sorted(top.keys() & own.keys())])
        if arm == best:
            break
        if len(behind) > 1 and behind.mean() <= behind.std(ddof=1) / sqrt(len(behind)):
            return arm
    return best


def _picture_seed(results: Results) -> int | None:
    pair = [arm for arm in (baseline_arm(results), all_on_arm(results)) if arm is not None]
    seeds = [{trial.seed for trial in results.reporting(arm) if not trial.diverged} for arm in pair]
    shared = set.intersection(*seeds) if seeds else set()
    return min(shared) if shared else None
