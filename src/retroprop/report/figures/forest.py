"""Estimates with intervals, one below the other, around a line at zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.report.figures.svg import (
    GRID,
    HELPS,
    HURTS,
    INK,
    MUTED,
    clipped,
    new_figure,
    plain_axes,
    to_svg,
)

_TONES = {"helps": HELPS, "hurts": HURTS, "none": MUTED, "plain": INK}


@final
@dataclass(frozen=True)
class Estimate:
    """One line of a forest plot; `low` and `high` are nan where there is no interval.

    tone: "helps" or "hurts" for a claim (filled), "none" for no claim, "plain" for no verdict.
    """

    label: str
    value: float
    low: float
    high: float
    tone: str


@final
@dataclass(frozen=True)
class Group:
    """Estimates under one heading."""

    title: str
    rows: tuple[Estimate, ...]


def forest(groups: Sequence[Group], *, name: str, title: str, unit: str) -> str:
    """Draws groups of estimates.

    Args:
        groups: From top to bottom.
        name: Unique on the page.
        title: What a screen reader says.
        unit: Label of the horizontal axis.

    Returns:
        An inline SVG; empty without a finite estimate.
    """
    lines: list[Estimate | str] = []
    for group in groups:
        rows = [row for row in group.rows if np.isfinite(row.value)]
        lines += [group.title, *rows] if rows and group.title else rows
    if not lines:
        return ""
    figure = new_figure(0.55 + 0.215 * len(lines))
    axes = figure.add_subplot()
    plain_axes(axes, grid="x")
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for place, line in enumerate(lines):
        if isinstance(line, Estimate):
            colour = _TONES[line.tone]
            if np.isfinite(line.low) and np.isfinite(line.high):
                axes.plot([line.low, line.high], [place, place], color=colour, linewidth=1.8)
            filled = line.tone in {"helps", "hurts"}
            axes.plot(
                [line.value],
                [place],
                marker="o",
                markersize=5.5,
                markeredgecolor=colour,
                markerfacecolor=colour if filled else "none",
                markeredgewidth=1.4,
            )
        elif place:
            axes.axhline(place - 0.5, color=GRID, linewidth=0.7)
    names = [clipped(line.label if isinstance(line, Estimate) else line) for line in lines]
    axes.set_yticks(range(len(lines)), names)
    for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if isinstance(line, Estimate) else "bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(unit, fontsize=9)
    return to_svg(figure, name, title)
