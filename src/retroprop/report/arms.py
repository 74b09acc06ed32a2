"""One row an arm: accuracies, rate, flags and cost, over its finished reporting trials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.analysis.flags import RATE_AT_EDGE, arm_flags, rate_at_edge, trial_flags
from retroprop.analysis.intervals import student_interval
from retroprop.analysis.records import FloatArray
from retroprop.report.choices import Choices, validation_of
from retroprop.report.estimates import test_of
from retroprop.study.results import Results, TrialResult

FAILED = "failed"


@final
@dataclass(frozen=True)
class Spread:
    """A mean over seeds, its 95 % Student t interval, its standard deviation; nan if unknown."""

    mean: float
    low: float
    high: float
    deviation: float


@final
@dataclass(frozen=True)
class ArmRow:
    """What the report says of one arm. Accuracies are fractions; a diverged trial counts as chance.

    Attributes:
        index: Its place in `Results.arms`.
        seeds: How many reporting seeds it has finished. diverged, failed: of these trials.
        validation: Mean over reporting seeds, or over tuning seeds while there are none.
        test, gap: Test accuracy; train minus test accuracy.
        multiplier: The chosen rate as a multiple of the recipe's base rate; nan before tuning.
        rate: The rate itself; nan without a reporting trial.
        parameters: Number of trained values. flops: of one step, counted. seconds, joules: of one
            trial; joules are nan where they were not measured.
    """

    index: int
    label: str
    reference: bool
    seeds: int
    diverged: int
    failed: int
    validation: float
    test: Spread
    gap: Spread
    train: float
    multiplier: float
    rate: float
    flags: tuple[str, ...]
    parameters: float
    flops: float
    seconds: float
    joules: float


def arm_rows(results: Results, choices: Choices) -> tuple[ArmRow, ...]:
    """The rows of all arms, the best validation accuracy first.

    Args:
        results: The study.
        choices: What `retroprop.report.choices.choose` made of it.

    Returns:
        One row an arm, in the order of the choices.
    """
    return tuple(_row(results, choices, arm) for arm in choices.order)


def flags_of_trials(results: Results) -> tuple[tuple[str, ...], ...]:
    """The flags of every trial, in the order of `Results.trials`; they read validation only."""
    return tuple(_trial_flags(results, trial) for trial in results.trials)


def spread(values: Sequence[float]) -> Spread:
    """Mean, interval and standard deviation of one number a seed; nan where there are too few."""
    array: FloatArray = np.asarray(values, dtype=np.float64)
    nan = float("nan")
    if not len(array) or not np.isfinite(array).all():
        return Spread(nan, nan, nan, nan)
    low, high = student_interval(array[:, None])
    deviation = float(array.std(ddof=1)) if len(array) > 1 else nan
    return Spread(float(array.mean()), float(low[0]), float(high[0]), deviation)


def _row(results: Results, choices: Choices, arm: int) -> ArmRow:
    trials = results.reporting(arm)
    failed = sum(t.arm == arm and t.role != "tuning" and bool(t.error) for t in results.trials)
    index = choices.rates[arm]

    def mean(read: Callable[[TrialResult], float]) -> float:
        return float(np.mean([read(t) for t in trials])) if trials else float("nan")

    return ArmRow(
        index=arm,
        label=results.arms[arm].label,
        reference=results.arms[arm].reference,
        seeds=len(trials),
        diverged=sum(t.diverged for t in trials),
        failed=failed,
        validation=choices.validation[arm],
        test=spread([test_of(t, results.chance) for t in trials]),
        gap=spread([_train(t, results.chance) - test_of(t, results.chance) for t in trials]),
        train=mean(lambda t: _train(t, results.chance)),
        multiplier=results.multipliers[index] if index >= 0 else float("nan"),
        rate=mean(lambda t: t.rate),
        flags=_arm_flags(results, arm, trials, failed),
        parameters=mean(lambda t: t.parameters),
        flops=mean(lambda t: t.flops),
        seconds=mean(lambda t: t.seconds),
        joules=_mean_of_measured([t.joules for t in trials]),
    )


def _mean_of_measured(values: Sequence[float]) -> float:
    """Mean of the values that are there; NaN when none is."""
    found = [value for value in values if np.isfinite(value)]
    return float(np.mean(found)) if found else float("nan")


def _train(trial: TrialResult, chance: float) -> float:
    return chance if trial.diverged else trial.train_accuracy


def _trial_flags(results: Results, trial: TrialResult) -> tuple[str, ...]:
    if trial.error:
        return (FAILED,)
    return trial_flags(
        _curve(trial),
        validation_of(trial, results.chance),
        diverged=trial.diverged,
        chance=results.chance,
    )


def _curve(trial: TrialResult) -> FloatArray:
    """The validation curve `(epochs,)`; of a trial that kept none, its last value."""
    curve = np.asarray(trial.validation_curve, dtype=np.float64)
    return curve if curve.size else np.array([trial.validation_accuracy])


def _arm_flags(results: Results, arm: int, trials: Sequence[TrialResult], failed: int) -> tuple[str, ...]:
    index = results.chosen[arm]
    at_edge = index >= 0 and bool(rate_at_edge([index], results.multipliers)[0])
    flags: tuple[str, ...] = (RATE_AT_EDGE,) if at_edge else ()
    if trials:
        curves = [_curve(trial) for trial in trials]
        epochs = max(len(curve) for curve in curves)
        flags = arm_flags(
            np.array([np.pad(c, (0, epochs - len(c)), mode="edge") for c in curves]),
            [validation_of(trial, results.chance) for trial in trials],
            [trial.diverged for trial in trials],
            chance=results.chance,
            at_edge=at_edge,
        )
    return (*flags, FAILED) if failed else flags
