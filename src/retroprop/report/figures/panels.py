"""Small panels side by side that share their axes: one arm each, against the baseline in grey."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.analysis.records import FloatArray
from retroprop.report.figures.svg import ACCENT, INK, MUTED, clipped, new_figure, plain_axes, to_svg


@final
@dataclass(frozen=True, eq=False)
class Line:
    """A curve `(x,)` with its band `(x,)` each; nan where nothing was measured."""

    x: FloatArray
    y: FloatArray
    low: FloatArray
    high: FloatArray


@final
@dataclass(frozen=True, eq=False)
class Panel:
    """One arm's curve, and the one it is compared with."""

    title: str
    own: Line
    other: Line | None


@final
@dataclass(frozen=True)
class Scale:
    """Labels of the shared axes; ticks are the names of x = 1, 2, ... where they have names."""

    x: str
    y: str
    log: bool = False
    ticks: tuple[str, ...] = ()


def panels(found: Sequence[Panel], scale: Scale, *, name: str, title: str) -> str:
    """Draws panels in two columns.

    Args:
        found: At least one panel.
        scale: Of the shared axes.
        name: Unique on the page.
        title: What a screen reader says.

    Returns:
        An inline SVG; empty without a panel.
    """
    if not found:
        return ""
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(0.5 + 1.3 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, found, strict=False):
        plain_axes(axes, grid="y")
        axes.set_title(clipped(panel.title, 30), fontsize=9.5, color=INK, loc="left")
        if panel.other is not None:
            _draw(axes, panel.other, MUTED, dashed=True)
        _draw(axes, panel.own, ACCENT, dashed=False)
        if scale.log:
            axes.set_yscale("log")
            axes.minorticks_off()
        if scale.ticks and len(scale.ticks) <= 12:
            axes.set_xticks(range(1, 1 + len(scale.ticks)), scale.ticks)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for column in range(columns):
        low = (len(found) - 1 - column) // columns
        grid[low, column].tick_params(labelbottom=True)
    figure.supxlabel(scale.x, fontsize=9, color=INK)
    figure.supylabel(scale.y, fontsize=9, color=INK)
    return to_svg(figure, name, title)


def _draw(axes: "object", line: Line, colour: str, *, dashed: bool) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    marker = "o" if len(line.x) < 15 else ""
    style = "--" if dashed else "-"
    axes.plot(line.x, line.y, style, color=colour, linewidth=1.6, marker=marker, markersize=3)
    known = np.isfinite(line.low) & np.isfinite(line.high)
    if known.any():
        axes.fill_between(
            line.x[known],
            line.low[known],
            line.high[known],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
