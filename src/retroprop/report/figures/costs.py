"""What arms give against what they cost: one panel a kind of cost, one circle an arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.report.figures.svg import ACCENT, INK, new_figure, plain_axes, to_svg

_MARKED = 40
"""At most so many arms carry their marks; more would cover each other."""


@final
@dataclass(frozen=True)
class Cost:
    """One kind of cost, by arm; nan where it was not measured."""

    unit: str
    values: tuple[float, ...]


def costs(marks: Sequence[str], accuracy: Sequence[float], found: Sequence[Cost]) -> str:
    """Draws accuracy against each cost.

    Args:
        marks: Of the arms, a letter or number or two each.
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
        if len(marks) <= _MARKED:
            for mark, x, y in zip(marks, cost.values, accuracy, strict=True):
                axes.annotate(mark, (x, y), xytext=(5, 2), textcoords="offset points", fontsize=8, color=INK)
    grid[0, 0].set_ylabel("test accuracy, %", fontsize=9)
    return to_svg(figure, "costs", "Test accuracy against operations, seconds and joules")
