"""What arms give against what they cost: one panel a kind of cost, one circle an arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from retroprop.report.figures.svg import ACCENT, INK, new_figure, plain_axes, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = (24.0, 11.0)
"""Points across and up between two marks; one that would lie nearer to another is left out."""


@final
@dataclass(frozen=True)
class Cost:
    """One kind of cost, by arm; nan where it was not measured."""

    unit: str
    values: tuple[float, ...]


def costs(marks: Sequence[str], accuracy: Sequence[float], found: Sequence[Cost]) -> str:
    """Draws accuracy against each cost.

    Args:
        marks: Of the arms, a letter or number or two each; the first ones come before others in their way.
        accuracy: In percent, by arm.
        found: Kinds of cost; one without any finite number is left out.

    Returns:
        An inline SVG; empty with fewer than two arms.
    """
    shown = [cost for cost in found if np.isfinite(cost.values).any()]
    if len(marks) < 2 or not shown:
        return ""
    figure = new_figure(2.5)
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)
    for axes, cost in zip(grid.flat, shown, strict=True):
        plain_axes(axes, grid="y")
        axes.plot(cost.values, accuracy, "o", markersize=5, markeredgecolor=ACCENT, markerfacecolor="none")
        axes.set_xlabel(cost.unit, fontsize=9)
        axes.set_xlim(left=0, right=1.25 * max(v for v in cost.values if np.isfinite(v)))
        axes.set_ylim(min(accuracy) - 4, max(max(accuracy) + 4, 100))
        _mark(axes, marks, list(zip(cost.values, accuracy, strict=True)))
    grid[0, 0].set_ylabel("test accuracy, %", fontsize=9)
    return to_svg(figure, "costs", "Test accuracy against operations, seconds and joules")


def _mark(axes: "Axes", marks: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Write marks beside points, as many as do not cover each other."""
    taken: list[tuple[float, float]] = []
    for mark, point in zip(marks, points, strict=True):
        if not np.isfinite(point).all():
            continue
        x, y = axes.transData.transform(point) * 72 / axes.figure.dpi
        if all(abs(x - left) >= _APART[0] or abs(y - low) >= _APART[1] for left, low in taken):
            taken.append((x, y))
            axes.annotate(mark, point, xytext=(5, -3), textcoords="offset points", fontsize=8, color=INK)
