"""From finished trials to the table of effects: the arrays that `retroprop.analysis` wants."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np

from retroprop.analysis.effects import (
    contrast_effects,
    contrast_image_intervals,
    factorial_effects,
    factorial_image_intervals,
)
from retroprop.analysis.looks import withhold_after_looks
from retroprop.analysis.records import Effect, Factor, FloatArray, ImageInterval
from retroprop.analysis.retuning import tuning_variances
from retroprop.report.choices import all_on_arm, baseline_arm
from retroprop.study.results import Results, TrialResult

SEED = 1986
"""Of the generator that resamples and flips, so that one study has one report."""


@final
@dataclass(frozen=True)
class Estimates:
    """The effects of a study.

    Attributes:
        effects: In the order of `retroprop.analysis.effects`; empty without a shared seed.
        images: The second interval of the claim family, over seeds and images; empty where each
            seed has test images of its own.
        looked: How many of the seeds were seen by looks that did not see them all; 0 if none were.
    """

    effects: tuple[Effect, ...]
    images: tuple[ImageInterval, ...]
    looked: int


def estimate(results: Results) -> Estimates:
    """Effects over the reporting seeds that every arm of the design has finished.

    Verdicts are withheld where seeds were added after a look, unless the new seeds confirm them.

    Args:
        results: The study.

    Returns:
        The effects, and what the verdicts rest on.

    Raises:
        RetropropError: The arms of the study are no design that can be analysed.
    """
    seeds = results.shared_seeds()
    if not seeds or not results.factors:
        return Estimates((), (), 0)
    effects, images = _analysed(results, seeds)
    new = _new_seeds(results, seeds)
    if len(new) < len(seeds):
        none = [replace(effect, claim="") for effect in effects]
        effects = withhold_after_looks(effects, _analysed(results, new)[0] if new else none)
    return Estimates(tuple(effects), tuple(images), len(seeds) - len(new))


def test_of(trial: TrialResult, chance: float) -> float:
    """Test accuracy of a reporting trial as it counts: chance where it diverged.

    Args:
        trial: A finished reporting trial.
        chance: Accuracy of guessing, as a fraction.

    Returns:
        A fraction; nan where the trial has none.
    """
    if trial.diverged:
        return chance
    return float("nan") if trial.test_accuracy is None else trial.test_accuracy


def luck_of_tuning(results: Results) -> FloatArray:
    """How far luck in tuning may have moved each arm of the design, in squared points.

    Args:
        results: The study.

    Returns:
        `(arms,)`; 0 where nothing was chosen, or where one tuning seed cannot show it. An arm whose
        tuning is not finished gets the largest of the others.
    """
    arms = _design_arms(results)
    validation, diverged = results.validation[arms], results.diverged[arms]
    finished = ~np.isnan(validation).any(axis=(1, 2))
    _, rates, seeds = validation.shape
    if not finished.any() or rates < 2 or seeds < 2:
        return np.zeros(len(arms))
    found = tuning_variances(
        validation[finished],
        diverged[finished],
        results.multipliers,
        chance=results.chance,
        generator=np.random.default_rng(SEED),
    )
    luck = np.full(len(arms), found.max())
    luck[finished] = found
    return luck


def family_kind(results: Results) -> str:
    """The kind of effect that the answer is made of."""
    return results.design if _one_factor_design(results) else "main"


def _new_seeds(results: Results, shared: Sequence[int]) -> list[int]:
    """The seeds that no look saw, but for looks that saw all of them."""
    partial = [look.seeds for look in results.looks if not set(shared) <= set(look.seeds)]
    seen = {seed for seeds in partial for seed in seeds}
    return [seed for seed in shared if seed not in seen]


def _tuning_seeds(results: Results) -> int | None:
    """How many tuning seeds the luck of tuning rests on; None where one cannot show it."""
    seeds = results.validation.shape[2]
    return seeds if seeds > 1 else None


def _one_factor_design(results: Results) -> bool:
    return results.design in {"one_at_a_time", "leave_one_out"}


def _analysed(results: Results, seeds: Sequence[int]) -> tuple[list[Effect], list[ImageInterval]]:
    outcome = {i: _outcome(results, i, seeds) for i in _design_arms(results)}
    bits = {i: _bits(results, i, seeds) for i in outcome} if results.official_test else {}
    complete = {i: b for i, b in bits.items() if b is not None}
    fixed = bool(bits) and len(complete) == len(bits)
    analyse = _contrasts if _one_factor_design(results) else _factorial
    return analyse(results, outcome, complete if fixed else None)


def _factorial(
    results: Results, outcome: dict[int, FloatArray], bits: dict[int, FloatArray] | None
) -> tuple[list[Effect], list[ImageInterval]]:
    factors = [Factor(factor.name, factor.labels) for factor in results.factors]
    cells = _cells(results, outcome)
    luck = dict(zip(_design_arms(results), luck_of_tuning(results)[:, None], strict=True))
    correct = None if bits is None else _cells(results, bits)
    effects = factorial_effects(
        cells,
        factors,
        images=results.images,
        generator=np.random.default_rng(SEED),
        correct=correct,
        tuning_variance=_cells(results, luck)[0],
        tuning_seeds=_tuning_seeds(results),
    )
    return effects, [] if correct is None else factorial_image_intervals(correct, factors)


def _contrasts(
    results: Results, outcome: dict[int, FloatArray], bits: dict[int, FloatArray] | None
) -> tuple[list[Effect], list[ImageInterval]]:
    kind: Literal["one_at_a_time", "leave_one_out"] = (
        "one_at_a_time" if results.design == "one_at_a_time" else "leave_one_out"
    )
    against = baseline_arm(results) if kind == "one_at_a_time" else all_on_arm(results)
    base = min(outcome) if against is None else against
    keys = {_changed(results, i, base): i for i in outcome if i != base}
    accuracy = {key: outcome[i] for key, i in keys.items()}
    luck = dict(zip(_design_arms(results), luck_of_tuning(results), strict=True))
    correct: tuple[FloatArray, dict[tuple[str, str], FloatArray]] | None = None
    if bits is not None:
        correct = (bits[base], {key: bits[i] for key, i in keys.items()})
    effects = contrast_effects(
        kind,
        outcome[base],
        accuracy,
        images=results.images,
        generator=np.random.default_rng(SEED),
        correct=correct,
        tuning_variance=[luck[i] for i in (base, *keys.values())],
        tuning_seeds=_tuning_seeds(results),
    )
    return effects, [] if correct is None else contrast_image_intervals(kind, *correct)


def _changed(results: Results, arm: int, base: int) -> tuple[str, str]:
    """The factor in which an arm differs from the base, and the level that is on in one of them."""
    own, other = results.arms[arm].levels, results.arms[base].levels
    axis = next(axis for axis, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
    factor = results.factors[axis]
    return factor.name, factor.labels[max(own[axis], other[axis])]


def _design_arms(results: Results) -> list[int]:
    return [i for i, arm in enumerate(results.arms) if not arm.reference]


def _outcome(results: Results, arm: int, seeds: Sequence[int]) -> FloatArray:
    """Test accuracy `(seeds,)`, as fractions."""
    by_seed = {t.seed: test_of(t, results.chance) for t in results.reporting(arm)}
    return np.array([by_seed[seed] for seed in seeds])


def _bits(results: Results, arm: int, seeds: Sequence[int]) -> FloatArray | None:
    """Correctness `(seeds, images)`, or None where a trial kept none."""
    by_seed = {t.seed: t for t in results.reporting(arm)}
    rows: list[Any] = []
    for seed in seeds:
        trial = by_seed[seed]
        if trial.diverged:
            rows.append(np.full(results.images, results.chance))
        elif trial.test_correct is None or len(trial.test_correct) != results.images:
            return None
        else:
            rows.append(np.asarray(trial.test_correct, dtype=np.float64))
    return np.stack(rows)


def _cells(results: Results, by_arm: dict[int, FloatArray]) -> FloatArray:
    """Arms in their places: `(seeds, L1, ..., Lk)` or `(seeds, L1, ..., Lk, images)`."""
    first = next(iter(by_arm.values()))
    sizes = tuple(len(factor.levels) for factor in results.factors)
    cells = np.full((len(first), *sizes, *first.shape[1:]), np.nan)
    for arm, values in by_arm.items():
        place: tuple[slice | int, ...] = (slice(None), *results.arms[arm].levels)
        cells[place] = values
    return cells
