"""Hinton diagrams: a weight is a square whose area is its size, white above 0, black below."""

from math import isqrt

import numpy as np

from retroprop.analysis.records import FloatArray
from retroprop.report.figures.svg import element

UNITS = 64
SQUARES = 8192
"""At most so many squares in one diagram; a wide input shows fewer units."""
_SMALLEST = 0.03
_GAP = 1.0


def hinton(weights: FloatArray, largest: float, *, name: str, title: str) -> str:
    """Draws the first units of a layer, each as its receptive field.

    Args:
        weights: `(unit, input)`. Inputs that make a square image are laid out as one.
        largest: The size of weight that fills a cell; one for all diagrams that are compared.
        name: Unique on the page.
        title: What a screen reader says.

    Returns:
        An inline SVG.
    """
    shown = weights[: units_shown(weights)]
    units, inputs = shown.shape
    side = isqrt(inputs)
    height, width = (side, side) if side * side == inputs else (1, inputs)
    columns = max(1, round((units * height / width) ** 0.5))
    parts = []
    marks: dict[bool, list[str]] = {True: [], False: []}
    for unit, row in enumerate(shown):
        left = (unit % columns) * (width + _GAP)
        top = (unit // columns) * (height + _GAP)
        parts.append(f"M{left:g} {top:g}h{width}v{height}h-{width}z")
        for place, weight in enumerate(row):
            edge = float(np.sqrt(min(abs(weight) / largest, 1.0))) if largest > 0 else 0.0
            if edge >= _SMALLEST:
                x = left + place % width + (1 - edge) / 2
                y = top + place // width + (1 - edge) / 2
                step = f"{edge:.2f}".lstrip("0")
                marks[bool(weight > 0)].append(f"M{x:.2f} {y:.2f}h{step}v{step}h-{step}z")
    rows = -(-units // columns)
    size = (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP)
    body = f'<path fill="#8a8a8a" d="{"".join(parts)}"/>'
    body += f'<path fill="#ffffff" d="{"".join(marks[True])}"/>'
    body += f'<path fill="#000000" d="{"".join(marks[False])}"/>'
    return element(name, title, size, body)


def units_shown(weights: FloatArray) -> int:
    """How many units of a layer `(unit, input)` a diagram shows."""
    return max(1, min(UNITS, len(weights), SQUARES // max(1, weights.shape[1])))
