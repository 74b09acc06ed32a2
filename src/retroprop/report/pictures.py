"""The pictures of a report and the sentences under them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.analysis.claims import HELPS, HURTS
from retroprop.analysis.records import Effect, FloatArray
from retroprop.report.choices import all_on_arm, baseline_arm, shown_arms
from retroprop.report.estimates import family_kind
from retroprop.report.figures.costs import Cost, costs
from retroprop.report.figures.forest import Estimate, Group, forest
from retroprop.report.figures.hinton import hinton, units_shown
from retroprop.report.figures.panels import Line, Panel, Scale, panels
from retroprop.report.summary import Summary
from retroprop.report.words import KIND_TITLES, effect_name, one_in
from retroprop.study.results import Results


@final
@dataclass(frozen=True)
class Picture:
    """An inline SVG, its heading where it needs one, and what it shows."""

    svg: str
    caption: str
    title: str = ""


def family_picture(summary: Summary) -> Picture | None:
    """The effects that carry a verdict, with their intervals."""
    kinds = (family_kind(summary.results), "interaction")
    svg = _effects(summary, kinds, "effects", "Effects on test accuracy with 95 % intervals")
    caption = (
        "Each circle is the mean over the seeds, each bar its 95 % interval. Right of the line is "
        "better. Filled circles are claims: blue above zero, orange below. Open ones are no claim."
    )
    if summary.of_kind("interaction"):
        caption += (
            " An interaction says how much one effect changes when the other factor is switched on; "
            "below zero, the two together are worth less than the sum of both."
        )
    return Picture(svg, caption) if svg else None


def extras_picture(summary: Summary) -> Picture | None:
    """The effects without a verdict: add one in, leave one out, Shapley."""
    if family_kind(summary.results) != "main":
        return None
    kinds = ("add_one_in", "leave_one_out", "shapley")
    svg = _effects(summary, kinds, "extras", "Other readings of the same arms")
    caption = (
        "The same factors asked in three other ways: what a fix adds to the bare baseline, what is "
        "lost when it alone is taken out of the network with everything on, and its fair share of "
        "the whole gain (Shapley). A fix whose three circles lie apart works only in company. "
        "These rows carry intervals and no verdict."
    )
    return Picture(svg, caption) if svg else None


def curves_picture(summary: Summary) -> Picture | None:
    """Validation accuracy by epoch, one panel an arm."""
    results = summary.results
    lines = {arm: line for arm in shown_arms(results) if (line := _curve(results, arm))}
    base = _reference_line(results, lines)
    found = [
        Panel(_panel_name(summary, arm), line, _other(lines, base, arm))
        for arm, line in lines.items()
        if arm != base or len(lines) == 1
    ]
    scale = Scale("epoch", "validation accuracy, %")
    svg = panels(found, scale, name="curves", title="Learning curves")
    caption = (
        "Validation accuracy after each epoch at the chosen rate, mean over the reporting seeds. "
        "The band is one standard deviation up and down. A curve that still rises at the right end "
        "was stopped early and is flagged 'not converged'."
    )
    if base is not None:
        caption += f" The dashed grey curve is {_named(results, base)}."
    return Picture(svg, caption) if svg else None


def gradient_picture(summary: Summary) -> Picture | None:
    """Gradient norm by layer at the first step, one panel an arm."""
    flow = summary.gradients
    layers = len(flow.layers)
    if not np.isfinite(flow.ratio).any():
        return None
    x = np.arange(1.0, layers + 1.0)
    nothing = np.full(layers, np.nan)
    lines = {
        arm: Line(x, row, nothing, nothing)
        for arm, row in zip(flow.arms, flow.ratio, strict=True)
        if np.isfinite(row).any()
    }
    base = _reference_line(summary.results, lines)
    found = [
        Panel(_panel_name(summary, arm), line, _other(lines, base, arm))
        for arm, line in lines.items()
        if arm != base or len(lines) == 1
    ]
    ticks = (*(str(i) for i in range(1, layers)), "out")
    scale = Scale("layer, input to output", "gradient / output layer's", log=True, ticks=ticks)
    svg = panels(found, scale, name="gradients", title="Gradient norm by layer at the first step")
    caption = (
        "Norm of the error's gradient in each weight matrix at the first training step, divided by "
        "the output layer's. The scale is logarithmic: a line that falls to the left is an error "
        "signal that fades on its way back. A flat line is a signal that reaches all layers."
    )
    if base is not None:
        caption += f" The dashed grey line is {_named(summary.results, base)}."
    return Picture(svg, caption)


def gap_picture(summary: Summary) -> Picture | None:
    """Train minus test accuracy by arm."""
    rows = [row for arm in shown_arms(summary.results) if (row := summary.row(arm))]
    estimates = tuple(
        Estimate(
            _panel_name(summary, row.index),
            100 * row.gap.mean,
            100 * row.gap.low,
            100 * row.gap.high,
            "plain",
        )
        for row in rows
    )
    svg = forest(
        [Group("", estimates)],
        name="gap",
        title="Overfitting gap by arm",
        unit="train minus test accuracy, points",
    )
    caption = (
        "How much better each arm does on the images it was trained on than on test images, mean "
        "and 95 % interval over seeds. Far right is overfitting. A small gap is no merit in an arm "
        "that learned little."
    )
    return Picture(svg, caption) if svg else None


def cost_picture(summary: Summary) -> Picture | None:
    """Test accuracy against operations, seconds and, where they were measured, joules."""
    placed = [
        (i, row) for i, row in enumerate(summary.arms, start=1) if row.seeds and np.isfinite(row.test.mean)
    ]
    rows = [row for _, row in placed]
    measured = any(np.isfinite(row.joules) for row in rows)
    axes = [
        Cost("million operations a step", tuple(row.flops / 1e6 for row in rows)),
        Cost("seconds a trial", tuple(row.seconds for row in rows)),
    ]
    if measured:
        axes.append(Cost("joules a trial", tuple(row.joules for row in rows)))
    svg = costs(tuple(str(place) for place, _ in placed), tuple(100 * row.test.mean for row in rows), axes)
    caption = (
        "What each arm gives against what it costs; up and to the left is better. Numbers are the "
        "arms' places by validation accuracy; where points lie close together, the best one's is shown."
    )
    if not measured:
        caption += " Joules were not measured."
    return Picture(svg, caption) if svg else None


def hinton_pictures(summary: Summary) -> list[Picture]:
    """First-layer weights of the baseline and of the network with everything on, one seed."""
    results, seed = summary.results, summary.choices.picture_seed
    arms = dict.fromkeys(arm for arm in (baseline_arm(results), all_on_arm(results)) if arm is not None)
    if seed is None:
        return []
    weights = {}
    for arm in arms:
        key = next(trial.key for trial in results.reporting(arm) if trial.seed == seed)
        if (found := _first_layer(results, key)) is not None:
            weights[arm] = found
    largest = max((float(np.abs(w).max()) for w in weights.values()), default=0.0)
    return [
        Picture(
            hinton(w, largest, name=f"hinton{place}", title=f"First-layer weights: {label}"),
            f"{label}: {units_shown(w)} of {len(w)} units, seed {seed}, largest weight {np.abs(w).max():.2f}",
        )
        for place, (arm, w) in enumerate(weights.items())
        for label in [_panel_name(summary, arm)]
    ]


def gradient_sentence(summary: Summary) -> str:
    """The vanishing gradient in words, with the measured numbers."""
    results, flow = summary.results, summary.gradients
    base = baseline_arm(results)
    share = flow.first(base)
    if not np.isfinite(share):
        return ""
    text = (
        f"At the first step of the baseline the first layer's gradient is {one_in(share)} of the "
        "output layer's, on average over the seeds."
    )
    others = [(_panel_name(summary, a), flow.first(a)) for a in flow.arms if a != base]
    known = [f"{label} {one_in(ratio)}" for label, ratio in others if np.isfinite(ratio)]
    return f"{text} In the other arms: {'; '.join(known)}." if known else text


def _effects(summary: Summary, kinds: Sequence[str], name: str, title: str) -> str:
    groups = [
        Group(
            KIND_TITLES[kind],
            tuple(
                Estimate(effect_name(summary.results.factors, e), e.estimate, e.low, e.high, _tone(e))
                for e in summary.of_kind(kind)
            ),
        )
        for kind in kinds
    ]
    return forest(groups, name=name, title=title, unit="points of test accuracy")


def _tone(effect: Effect) -> str:
    if effect.claim in {HELPS, HURTS}:
        return effect.claim
    return "none" if effect.claim else "plain"


def _curve(results: Results, arm: int) -> Line | None:
    """Mean curve and band of an arm in percent; a diverged trial counts as chance."""
    rows: list[FloatArray] = []
    for trial in results.reporting(arm):
        curve = np.asarray(trial.validation_curve, dtype=np.float64)
        rows.append(np.full_like(curve, results.chance) if trial.diverged else curve)
    epochs = min((len(row) for row in rows), default=0)
    if not epochs:
        return None
    values = 100 * np.array([row[:epochs] for row in rows])
    mean = values.mean(axis=0)
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(epochs, np.nan)
    return Line(np.arange(1.0, epochs + 1.0), mean, mean - deviation, mean + deviation)


def _reference_line(results: Results, lines: dict[int, Line]) -> int | None:
    """The arm that the others are drawn against: the baseline, else all on."""
    wanted = (baseline_arm(results), all_on_arm(results))
    return next((arm for arm in wanted if arm is not None and arm in lines), None)


def _other(lines: dict[int, Line], base: int | None, arm: int) -> Line | None:
    """What an arm's panel shows beside its own line."""
    return None if base is None or arm == base else lines[base]


def _panel_name(summary: Summary, arm: int) -> str:
    if arm == all_on_arm(summary.results) and len(summary.results.factors) > 1:
        return "all on"
    found = summary.results.arms[arm]
    return f"{found.label} (ref.)" if found.reference else found.label


def _named(results: Results, arm: int) -> str:
    return "the baseline" if arm == baseline_arm(results) else "the network with everything on"


def _first_layer(results: Results, key: str) -> FloatArray | None:
    """First-layer weights `(unit, input)`; None where the file is gone or holds no such layer."""
    if not (results.folder / "weights" / f"{key}.safetensors").is_file():
        return None
    try:
        found = np.asarray(results.first_layer(key), dtype=np.float64)
    except StopIteration:
        return None
    return found if np.isfinite(found).all() else None
