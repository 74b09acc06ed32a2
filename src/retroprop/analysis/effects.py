"""The table of effects: contrasts, intervals, tests and claims put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from retroprop.analysis.aliases import aliases
from retroprop.analysis.checks import check_fractions, check_images, check_outcome
from retroprop.analysis.claims import (
    ALPHA,
    HELPS,
    HURTS,
    LUCK_OF_TUNING,
    Bounds,
    holm,
    verdicts,
)
from retroprop.analysis.contrasts import (
    add_one_in,
    interactions,
    leave_one_out,
    log_odds,
    main_effects,
    per_seed,
    points,
    stacked,
)
from retroprop.analysis.images import image_bounds
from retroprop.analysis.intervals import interval
from retroprop.analysis.permutation import sign_flip
from retroprop.analysis.records import (
    BoolArray,
    Contrast,
    Effect,
    Factor,
    FloatArray,
    ImageInterval,
    Kind,
    Metric,
)
from retroprop.analysis.retuning import tuning_p
from retroprop.analysis.shapley import shapley_values
from retroprop.errors import RetropropError

__all__ = [
    "Effect",
    "Factor",
    "ImageInterval",
    "contrast_effects",
    "contrast_image_intervals",
    "factorial_effects",
    "factorial_image_intervals",
]

ArmKey = tuple[str, str]
"""A factor's name and the level that the arm is about."""

ArmArrays = tuple[npt.ArrayLike, Mapping[ArmKey, npt.ArrayLike]]
"""The arrays of a one-factor-at-a-time design: the baseline's, and each arm's."""


def factorial_effects(
    outcome: npt.ArrayLike,
    factors: Sequence[Factor],
    *,
    images: int,
    generator: np.random.Generator,
    correct: npt.ArrayLike | None = None,
    tuning_variance: npt.ArrayLike = 0.0,
    tuning_seeds: int | None = None,
) -> list[Effect]:
    """Every effect of a full or fractional factorial.

    The claim family is the main effects and two-way interactions, in points of accuracy. All other
    rows carry an interval and no verdict. A fraction has no Shapley values, and add-one-in and
    leave-one-out only where it holds the arms; its aliased contrasts count once in the family and
    their verdicts are withheld.

    Args:
        outcome: `(seeds, L1, ..., Lk)`, test accuracy of the reporting seeds as a fraction, level 0
            the first level. Nan for every seed of an arm that a fraction does not hold.
        factors: The k factors, in the order of the axes.
        images: How many test images each accuracy was measured on.
        generator: Draws bootstrap resamples and flips where there are too many seeds to count all.
        correct: `(seeds, L1, ..., Lk, images)`, correctness on a fixed test set, 1 or 0; a diverged
            trial holds chance. When given, a claim also needs the interval over seeds and images.
        tuning_variance: How far luck in tuning may have moved each arm, in squared points, from
            `retuning.tuning_variances`: `(L1, ..., Lk)`, or flat in that order, or one number for
            all. When given, a claim must stand against that luck too.
        tuning_seeds: How many tuning seeds that variance rests on; see `retuning.tuning_p`.

    Returns:
        First the rows in points (main, interaction, add_one_in, leave_one_out, shapley), then the
        same in log-odds.

    Raises:
        RetropropError: The outcome does not fit the factors, or `correct` does not fit the outcome.
    """
    values, present = check_outcome(outcome, factors)
    family = [*main_effects(factors, present), *interactions(factors, present)]
    extras = [*add_one_in(factors, present), *leave_one_out(factors, present)]
    if present.all():
        extras += shapley_values(factors)
    bits = None if correct is None else _checked_bits(correct, values, images)
    luck = _checked_luck(tuning_variance, present)
    return _table(_Study(values, images, bits, luck, tuning_seeds), family, extras, generator)


def contrast_effects(
    kind: Literal["one_at_a_time", "leave_one_out"],
    baseline: npt.ArrayLike,
    arms: Mapping[ArmKey, npt.ArrayLike],
    *,
    images: int,
    generator: np.random.Generator,
    correct: ArmArrays | None = None,
    tuning_variance: npt.ArrayLike = 0.0,
    tuning_seeds: int | None = None,
) -> list[Effect]:
    """Every effect of a one-at-a-time or leave-one-out design; its contrasts are the claim family.

    One at a time: arm minus baseline, where the arm has only that level on. Leave one out: baseline
    minus arm, where the baseline is all-on and the arm has that factor back at its first level; the
    level named is the one that was given up. So in both, above 0 means that the level helps.

    Args:
        kind: Which of the two designs.
        baseline: `(seeds,)`, test accuracy of the reporting seeds as a fraction.
        arms: Accuracy `(seeds,)` of the arm for each (factor, level), paired with the baseline.
        images: How many test images each accuracy was measured on.
        generator: Draws bootstrap resamples and flips where there are too many seeds to count all.
        correct: The baseline's and the arms' correctness `(seeds, images)` on a fixed test set.
            When given, a claim also needs the interval over seeds and images.
        tuning_variance: As in `factorial_effects`, `(1 + arms,)`: the baseline's, then each arm's.
        tuning_seeds: As in `factorial_effects`.

    Returns:
        One row an arm in points, then the same in log-odds, in the order of the arms.

    Raises:
        RetropropError: No arms, shapes that differ, or values that are no fractions.
    """
    values = _as_cells(baseline, arms, trailing="")
    if np.isnan(values).any():
        raise RetropropError(
            f"{int(np.isnan(values).sum())} outcomes are nan; expected every seed of every arm."
            " Count a diverged trial as chance, or finish the study."
        )
    check_fractions(values, "outcome")
    bits = None
    if correct is not None:
        bits = _checked_bits(_correct_cells(correct, arms), values, images)
    luck = _checked_luck(tuning_variance, np.ones(values.shape[1:], dtype=np.bool_))
    study = _Study(values, images, bits, luck, tuning_seeds)
    return _table(study, _arm_contrasts(kind, arms), [], generator)


def factorial_image_intervals(correct: npt.ArrayLike, factors: Sequence[Factor]) -> list[ImageInterval]:
    """The second interval, over seeds and images, of a factorial's claim family.

    Args:
        correct: `(seeds, L1, ..., Lk, images)`, 1 or 0; nan for arms that a fraction does not hold.
        factors: The k factors, in the order of the axes.

    Returns:
        One row a main effect and two-way interaction, in points of accuracy.

    Raises:
        RetropropError: The array does not fit the factors.
    """
    bits = np.asarray(correct)
    _, present = check_outcome(bits.mean(axis=-1), factors)
    return _image_rows(bits, [*main_effects(factors, present), *interactions(factors, present)])


def contrast_image_intervals(
    kind: Literal["one_at_a_time", "leave_one_out"],
    baseline: npt.ArrayLike,
    arms: Mapping[ArmKey, npt.ArrayLike],
) -> list[ImageInterval]:
    """The second interval, over seeds and images, of a one-at-a-time or leave-one-out design.

    Args:
        kind: Which of the two designs.
        baseline: `(seeds, images)`, 1 where right, else 0.
        arms: The same for the arm of each (factor, level).

    Returns:
        One row an arm, in points of accuracy.

    Raises:
        RetropropError: No arms, or shapes that differ.
    """
    return _image_rows(_as_cells(baseline, arms, trailing=", images"), _arm_contrasts(kind, arms))


@final
@dataclass(frozen=True, eq=False)
class _Study:
    """Accuracies `(seeds, arms...)`, test images, correctness `(..., images)`, luck `(arms,)`."""

    outcome: FloatArray
    images: int
    bits: FloatArray | None
    luck: FloatArray
    tuning_seeds: int | None


def _table(
    study: _Study,
    family: list[Contrast],
    extras: list[Contrast],
    generator: np.random.Generator,
) -> list[Effect]:
    """All rows in both metrics; verdicts for the family in points."""
    everything = [*family, *extras]
    contrasts = per_seed(points(study.outcome), everything)
    rows = _rows("accuracy_points", everything, contrasts, generator)
    judged = _judged(rows[: len(family)], contrasts[:, : len(family)], family, study, generator)
    odds = per_seed(log_odds(study.outcome, study.images), everything)
    return [*judged, *rows[len(family) :], *_rows("log_odds", everything, odds, generator)]


def _rows(
    metric: Metric,
    contrasts: Sequence[Contrast],
    values: FloatArray,
    generator: np.random.Generator,
) -> list[Effect]:
    """Rows without a verdict, from per-seed contrasts `(seeds, m)`."""
    low, high = interval(values, generator)
    return [
        Effect(
            metric=metric,
            kind=contrast.kind,
            factor=contrast.factor,
            level=contrast.level,
            other_factor=contrast.other_factor,
            other_level=contrast.other_level,
            estimate=float(values[:, i].mean()),
            low=float(low[i]),
            high=float(high[i]),
            p=float("nan"),
            p_holm=float("nan"),
            claim="",
            seeds=len(values),
        )
        for i, contrast in enumerate(contrasts)
    ]


def _judged(
    rows: list[Effect],
    values: FloatArray,
    family: list[Contrast],
    study: _Study,
    generator: np.random.Generator,
) -> list[Effect]:
    """The family's rows with p values and claims; aliased contrasts are tested once."""
    groups = aliases(family)
    p = sign_flip(values, generator)
    corrected = _corrected(p, groups)
    bounds = [Bounds(np.array([r.low for r in rows]), np.array([r.high for r in rows]))]
    if study.bits is not None:
        bounds.append(image_bounds(study.bits, family)[1])
    claims = verdicts(
        np.array([row.estimate for row in rows]),
        corrected,
        tuple(bounds),
        seeds=len(values),
        family=len(groups),
    )
    weights = stacked(family, family[0].weights.size)
    lucky = _corrected(tuning_p(values, weights, study.luck, study.tuning_seeds), groups) >= ALPHA
    lucky &= np.square(weights) @ study.luck > 0.0
    for group in groups:
        for i in group:
            if lucky[i] and claims[i] in {HELPS, HURTS}:
                claims[i] = LUCK_OF_TUNING
            others = [family[j].name for j in group if j != i]
            if others and claims[i] in {HELPS, HURTS}:
                claims[i] = f"withheld: the fraction cannot tell it from {', '.join(others)}"
    return [
        replace(row, p=float(p[i]), p_holm=float(corrected[i]), claim=claims[i]) for i, row in enumerate(rows)
    ]


def _corrected(p: FloatArray, groups: list[tuple[int, ...]]) -> FloatArray:
    """Holm's correction `(m,)` over one p value of each group of aliases."""
    found = np.empty_like(p)
    for group, value in zip(groups, holm(p[[group[0] for group in groups]]), strict=True):
        found[list(group)] = value
    return found


def _arm_contrasts(kind: Kind, arms: Mapping[ArmKey, npt.ArrayLike]) -> list[Contrast]:
    """Contrasts over the cells (baseline, arm 1, arm 2, ...)."""
    sign = {"one_at_a_time": 1.0, "leave_one_out": -1.0}.get(kind)
    if sign is None:
        raise RetropropError(
            f"Got the design {kind!r}; expected 'one_at_a_time' or 'leave_one_out'. A factorial's"
            " effects come from factorial_effects."
        )
    found = []
    for i, (factor, level) in enumerate(arms, start=1):
        weights = np.zeros(1 + len(arms))
        weights[i], weights[0] = sign, -sign
        found.append(Contrast(kind, factor, level, weights))
    return found


def _as_cells(baseline: npt.ArrayLike, arms: Mapping[ArmKey, npt.ArrayLike], *, trailing: str) -> FloatArray:
    """Baseline and arms side by side: `(seeds, 1 + arms)` or `(seeds, 1 + arms, images)`."""
    if not arms:
        raise RetropropError("Got no arms; expected at least one, as {(factor, level): (seeds,)}.")
    first = np.asarray(baseline, dtype=np.float64)
    expected = f"(seeds{trailing or ','})"
    if first.ndim != 1 + bool(trailing) or len(first) < 1:
        raise RetropropError(f"The baseline has shape {first.shape}; expected {expected}.")
    cells = [first]
    for (factor, level), values in arms.items():
        arm = np.asarray(values, dtype=np.float64)
        if arm.shape != first.shape:
            raise RetropropError(
                f"The arm {factor}={level} has shape {arm.shape} and the baseline {first.shape};"
                f" expected both as {expected} with the same seeds in the same order."
            )
        cells.append(arm)
    return np.stack(cells, axis=1)


def _correct_cells(correct: ArmArrays, arms: Mapping[ArmKey, npt.ArrayLike]) -> FloatArray:
    """Correctness side by side `(seeds, 1 + arms, images)`, in the order of the outcome's arms."""
    baseline, by_arm = correct
    if set(by_arm) != set(arms):
        raise RetropropError(
            f"Correctness is given for the arms {sorted(by_arm)}, outcomes for {sorted(arms)};"
            " expected the same arms."
        )
    return _as_cells(baseline, {key: by_arm[key] for key in arms}, trailing=", images")


def _checked_bits(correct: npt.ArrayLike, outcome: FloatArray, images: int) -> FloatArray:
    """Correctness `(seeds, arms..., images)`, checked against the accuracies it must give."""
    check_images(images)
    bits = np.asarray(correct)
    if bits.shape != (*outcome.shape, images):
        raise RetropropError(
            f"Correctness has shape {bits.shape}; expected {(*outcome.shape, images)}, the shape of"
            " the outcome and then one value an image."
        )
    held = ~np.isnan(outcome)
    if not np.allclose(bits[held].mean(axis=-1), outcome[held], rtol=0.0, atol=1e-6):
        raise RetropropError(
            "The mean correctness of a trial differs from its accuracy; expected both from one"
            " pass over the same test images (a diverged trial holds chance for every image)."
        )
    return bits


def _checked_luck(variance: npt.ArrayLike, present: BoolArray) -> FloatArray:
    """One variance an arm `(arms,)`, in squared points; 0 where a fraction has no arm."""
    luck = np.asarray(variance, dtype=np.float64)
    if luck.shape not in {(), (present.size,), present.shape}:
        raise RetropropError(
            f"tuning_variance has shape {luck.shape}; expected one number an arm, {present.shape}."
        )
    return np.where(present.ravel(), luck.ravel(), 0.0)


def _image_rows(bits: npt.NDArray[np.generic], contrasts: list[Contrast]) -> list[ImageInterval]:
    """The second intervals as records."""
    estimate, bounds = image_bounds(bits, contrasts)
    return [
        ImageInterval(
            kind=contrast.kind,
            factor=contrast.factor,
            level=contrast.level,
            other_factor=contrast.other_factor,
            other_level=contrast.other_level,
            estimate=float(estimate[i]),
            low=float(bounds.low[i]),
            high=float(bounds.high[i]),
        )
        for i, contrast in enumerate(contrasts)
    ]
