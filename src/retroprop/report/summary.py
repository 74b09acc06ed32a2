"""What a study says, as plain data: pages, tables and the console only write it down."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from retroprop.analysis.misleading import MisleadingMainEffect, misleading_main_effects
from retroprop.analysis.records import Effect, ImageInterval
from retroprop.report.answer import answer
from retroprop.report.arms import ArmRow, arm_rows, flags_of_trials
from retroprop.report.choices import Choices, choose
from retroprop.report.estimates import Estimates, estimate
from retroprop.report.gradients import GradientFlow, gradient_flow
from retroprop.report.words import joined, plural
from retroprop.study.results import Results


@final
@dataclass(frozen=True, eq=False)
class Summary:
    """A study and what the analysis makes of it.

    Attributes:
        results: The study itself.
        answer: What it found, in one sentence.
        notes: What a reader must know first: missing seeds, failures, looks, divergence.
        seeds: The reporting seeds that make pairs.
        effects: Rows of effects.csv, in both metrics.
        images: Second intervals, over seeds and images; empty without an official test set.
        misleading: Main effects that a claimed interaction is as large as.
        choices: What was picked, by validation only.
        arms: Rows of all arms, the best validation accuracy first.
        trial_flags: Flags of every trial, in the order of `results.trials`.
        gradients: Gradient norms by layer at the first step.
    """

    results: Results
    answer: str
    notes: tuple[str, ...]
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    images: tuple[ImageInterval, ...]
    misleading: tuple[MisleadingMainEffect, ...]
    choices: Choices
    arms: tuple[ArmRow, ...]
    trial_flags: tuple[tuple[str, ...], ...]
    gradients: GradientFlow

    def of_kind(self, *kinds: str) -> list[Effect]:
        """Effects of some kinds, in points of accuracy."""
        return [e for e in self.effects if e.kind in kinds and e.metric == "accuracy_points"]

    def row(self, arm: int | None) -> ArmRow | None:
        """The row of an arm by its index in `results.arms`."""
        return next((row for row in self.arms if row.index == arm), None)


def summarise(results: Results) -> Summary:
    """Analyses a study. Pure: nothing is read or written.

    Args:
        results: The study and its finished trials.

    Returns:
        The summary; with few or no finished trials it says what is missing.

    Raises:
        RetropropError: The arms of the study are no design that can be analysed.
    """
    choices = choose(results)
    found = estimate(results)
    misleading = tuple(misleading_main_effects(found.effects))
    arms = arm_rows(results, choices)
    return Summary(
        results=results,
        answer=answer(results, found.effects, misleading),
        notes=tuple(_notes(results, arms, found)),
        seeds=tuple(results.shared_seeds()),
        effects=found.effects,
        images=found.images,
        misleading=misleading,
        choices=choices,
        arms=arms,
        trial_flags=flags_of_trials(results),
        gradients=gradient_flow(results),
    )


def _notes(results: Results, arms: Sequence[ArmRow], found: Estimates) -> list[str]:
    notes = []
    if missing := _missing(results, arms):
        notes.append(missing)
    errors = Counter(trial.error for trial in results.trials if trial.error)
    for error, times in errors.most_common(3):
        notes.append(f"{plural(times, 'trial')} failed with: {error}")
    diverged = [row for row in arms if row.diverged]
    if diverged:
        total = sum(row.diverged for row in diverged)
        verb = "diverged and counts" if total == 1 else "diverged and count"
        notes.append(
            f"{plural(total, 'reporting trial')} {verb} as chance "
            f"({100 * results.chance:.1f} %): in {joined([row.label for row in diverged])}."
        )
    flags = Counter(flag for row in arms for flag in row.flags)
    if flags:
        counts = joined([f"{flag} ({plural(n, 'arm')})" for flag, n in flags.most_common()])
        notes.append(f"Flagged arms are compared less fairly than the others: {counts}.")
    if found.looked:
        notes.append(_looked(found.looked, len(results.shared_seeds())))
    if found.effects and results.validation.shape[1] > 1 and results.validation.shape[2] == 1:
        notes.append(
            "Rates were chosen on one tuning seed, which cannot show how lucky the choice was; verdicts do "
            "not cover that luck. Give two tuning seeds or more."
        )
    if on_paper := results.record.get("sparse on paper"):
        assert isinstance(on_paper, list)
        named = joined([*on_paper[:4], f"{len(on_paper) - 4} more"] if len(on_paper) > 5 else on_paper)
        notes.append(
            f"Sparse backward passes save operations on paper, not time, in layers as small as {named}."
        )
    if results.official_test and found.effects and not found.images:
        notes.append(
            "The test set is fixed, but some trials kept no correctness by image, so there is no "
            "interval over images and the verdicts rest on seeds alone."
        )
    return notes


def _looked(looked: int, seeds: int) -> str:
    """What earlier looks saw of the seeds that are analysed now."""
    if looked == seeds:
        return (
            f"Earlier looks each saw a part of the {plural(seeds, 'seed')} and together all of them, so no "
            "seed is new and no verdict can stand. Add reporting seeds."
        )
    return (
        f"Earlier looks saw {looked} of the {plural(seeds, 'seed')}, and the others were added after. "
        "A verdict stands only where the new seeds alone give it too."
    )


def _missing(results: Results, arms: Sequence[ArmRow]) -> str:
    """Which arms of the design lack reporting seeds that others have."""
    own = [row for row in arms if not row.reference]
    union = {t.seed for row in own for t in results.reporting(row.index)}
    shared = results.shared_seeds()
    if not union:
        return "No reporting trial is finished yet, so there are no effects. Finish the study."
    short = sorted((row for row in own if row.seeds < len(union)), key=lambda row: row.index)
    if not short:
        return ""
    names = [row.label for row in short[:6]] + ([f"{len(short) - 6} other arms"] if len(short) > 6 else [])
    rest = (
        f"Effects use the {plural(len(shared), 'seed')} that all arms share."
        if shared
        else "No seed is finished in every arm, so there are no effects."
    )
    verb = "lacks" if len(short) == 1 else "lack"
    return (
        f"{plural(len(short), 'arm')} of the design {verb} some of the"
        f" {plural(len(union), 'reporting seed')}: {joined(names)}. {rest}"
    )
