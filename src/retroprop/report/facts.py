"""Sentences of the report that rest on a measured number."""

from collections import Counter

from retroprop.analysis.claims import HURTS
from retroprop.analysis.records import Effect
from retroprop.report.gradients import vanishing
from retroprop.report.summary import Summary
from retroprop.report.words import (
    effect_name,
    joined,
    level_name,
    one_in,
    percent,
    plural,
    range_of,
    signed,
)
from retroprop.study.results import Results

_THINNING = {"dropout", "backward"}
"""Slots of fixes that leave a part of the signal out."""

_LESS = 0.7
"""A gradient below this share of the baseline's is smaller, above it about the same."""


def counts_sentence(results: Results) -> str:
    """How many trials there are, and how many failed or diverged."""
    roles = Counter(trial.role for trial in results.trials)
    parts = [f"{roles[role]} {role}" for role in ("tuning", "reporting", "reference") if roles[role]]
    failed = sum(bool(trial.error) for trial in results.trials)
    lost = sum(trial.diverged for trial in results.trials if not trial.error)
    return (
        f"{plural(len(results.trials), 'trial')} ({joined(parts) or 'none finished'}); {failed} "
        f"failed, {lost} diverged."
    )


def looks_sentence(results: Results) -> str:
    """How often someone looked before."""
    if not results.looks:
        return "Nobody looked at the results before this analysis."
    seen = ", ".join(f"{look.time} ({plural(len(look.seeds), 'seed')})" for look in results.looks)
    return f"{plural(len(results.looks), 'earlier look')}: {seen}."


def coverage_sentence(results: Results) -> str:
    """What an interval covers and what it does not."""
    if results.official_test:
        return (
            "Intervals cover new starts, orders, masks and splits of these images. The test images "
            "are the same in every trial, so a claim also needs a second interval, over seeds and "
            "test images."
        )
    return "Intervals cover new starts, orders, masks and splits of these images, not new images."


def choice_sentences(summary: Summary) -> list[str]:
    """The best arm and the smallest set, both chosen by validation accuracy."""
    choices, arms = summary.choices, summary.results.arms
    best = summary.row(choices.best)
    if best is None:
        return []
    sentence = (
        f"By validation accuracy the best arm of the design is {best.label} "
        f"({percent(best.validation)} %); its test accuracy is {percent(best.test.mean)} %."
    )
    found = [sentence]
    small = summary.row(choices.smallest)
    if small is not None and small.index != best.index:
        on = sum(level > 0 for level in arms[small.index].levels)
        found.append(
            f"The smallest set within one standard error of it is {small.label} "
            f"({plural(on, 'factor')} switched on, validation {percent(small.validation)} %, test "
            f"{percent(small.test.mean)} %)."
        )
    return found


def misleading_sentences(summary: Summary) -> list[str]:
    """One sentence for each main effect not to be read alone, with its largest interaction."""
    factors = summary.results.factors
    rows = sorted(summary.misleading, key=lambda row: abs(row.interaction))
    largest = {(row.factor, row.level): row for row in rows}
    sentences = []
    for factor in factors:
        for level in factor.labels:
            found = largest.get((factor.name, level))
            if found is not None:
                own = level_name(factors, found.factor, found.level)
                other = level_name(factors, found.other_factor, found.other_level)
                sentences.append(
                    f"The main effect of {own} ({signed(found.main)} points) alone misleads: with "
                    f"{other} switched on it changes by {signed(found.interaction)} points."
                )
    return sentences


def harm_sentences(summary: Summary) -> list[str]:
    """Why a fix that thins the error signal may do harm alone, where both have been measured.

    Add-one-in rows carry no verdict, so they are worded as estimates; one-at-a-time rows are named
    only where the study claims them.
    """
    results = summary.results
    share = vanishing(results, summary.gradients)
    harm = [
        e
        for e in summary.of_kind("add_one_in", "one_at_a_time")
        if (e.high < 0.0 if e.kind == "add_one_in" else e.claim == HURTS) and _slot(results, e) in _THINNING
    ]
    if not harm or not share > 0:
        return []
    sizes = "; ".join(
        f"{effect_name(results.factors, e)} {signed(e.estimate)} points {range_of(e.low, e.high)}"
        for e in harm
    )
    reason = (
        "Possible reasons, which this study does not test: the baseline's first layer gets "
        f"{one_in(share)} of the output layer's gradient at the first step. "
        + " ".join(_reason(summary, e, share) for e in harm)
    )
    verdict = " Rows like this carry no verdict, only an interval." if harm[0].kind == "add_one_in" else ""
    found = [f"Measured with one fix added alone to the baseline: {sizes}.{verdict}", reason]
    kept = {(e.factor, e.level): e for e in summary.of_kind("leave_one_out")}
    beside = [kept[e.factor, e.level] for e in harm if (e.factor, e.level) in kept]
    if beside:
        rest = "; ".join(
            f"{effect_name(results.factors, e)} {signed(e.estimate)} points {range_of(e.low, e.high)}"
            for e in beside
        )
        found.append(f"Measured with all other fixes on: {rest}. Rows like this carry no verdict either.")
    return found


def _reason(summary: Summary, effect: Effect, baseline: float) -> str:
    """What the gradient says of one fix alone, against the baseline's first-layer share."""
    results = summary.results
    name = effect_name(results.factors, effect)
    axis = next(i for i, factor in enumerate(results.factors) if factor.name == effect.factor)
    level = results.factors[axis].labels.index(effect.level)
    alone = tuple(level if i == axis else 0 for i in range(len(results.factors)))
    arm = next((i for i, one in enumerate(results.arms) if one.levels == alone), None)
    share = summary.gradients.first(arm)
    if share < _LESS * baseline:
        return f"With {name} it is {one_in(share)}: part of a signal that had almost vanished is taken away."
    if share >= _LESS * baseline:
        return (
            f"With {name} it is {one_in(share)}, about the same, so a smaller gradient is not the reason; "
            "its noise may be more than a network bears that hardly learns as it is."
        )
    return f"With {name} it was not measured."


def _slot(results: Results, effect: Effect) -> str:
    """What the fix of an effect's level fills."""
    factor = next(f for f in results.factors if f.name == effect.factor)
    fix = next(level.fix for level in factor.levels if level.label == effect.level)
    return "" if fix is None else fix.slot
