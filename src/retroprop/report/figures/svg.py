"""A matplotlib figure as an SVG that lives inside a page: its colours and fonts are the page's."""

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.2
"""Of every figure, in inches of 72 units; a page scales it."""

# Drawn in these, written as the page's variables: a picture follows dark mode and print.
INK = "#100001"
MUTED = "#100002"
GRID = "#100003"
HELPS = "#100004"
HURTS = "#100005"
ACCENT = "#100006"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    HELPS: "helps",
    HURTS: "hurts",
    ACCENT: "accent",
}


def new_figure(height: float) -> "Figure":
    """A figure of the page's width, not known to pyplot.

    Args:
        height: In inches.

    Returns:
        An empty figure that makes room for its labels.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def plain_axes(axes: "Axes", *, grid: str = "") -> None:
    """Gives axes the page's colours and no frame; `grid` is "x", "y" or none."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(MUTED)
    axes.tick_params(which="both", colors=INK, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    if grid == "x":
        axes.xaxis.grid(visible=True, color=GRID, linewidth=0.7)
    elif grid == "y":
        axes.yaxis.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def clipped(label: str, longest: int = 36) -> str:
    """A label that a figure has room for; names come from users, so `$` is no mathematics."""
    kept = label if len(label) <= longest else label[: longest - 1] + "…"
    return kept.replace("$", r"\$")


def to_svg(figure: "Figure", name: str, title: str) -> str:
    """Writes a figure as an inline SVG.

    Args:
        figure: To be drawn.
        name: Unique on the page; prefix of the ids in the SVG.
        title: What a screen reader says.

    Returns:
        An `<svg>` element without any address, declaration or metadata.
    """
    import matplotlib as mpl

    out = io.StringIO()
    # Restored on leaving; it is the only way to have text as text and ids that do not change.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return _inline(out.getvalue(), name, title)


def element(name: str, title: str, size: tuple[float, float], body: str) -> str:
    """An `<svg>` element from its content.

    Args:
        name: Class of the element, after `figure-`.
        title: What a screen reader says.
        size: Width and height of the view box.
        body: Elements, as text.

    Returns:
        The element.
    """
    label = escape(title, quote=True)
    return (
        f'<svg class="figure-{name}" role="img" aria-label="{label}" '
        f'viewBox="0 0 {size[0]:g} {size[1]:g}">{body}</svg>'
    )


def _inline(text: str, name: str, title: str) -> str:
    start = text.index("<svg")
    head, body = text[start:].split(">", 1)
    body = body[: body.rindex("</svg>")]
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    size = (float(found[1]), float(found[2])) if found else (72 * WIDTH, 72 * WIDTH)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"', body)) | set(re.findall(r"url\(#([^)]+)\)", body))
    body = re.sub(
        r' id="([^"]+)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "",
        body,
    )
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    return element(name, title, size, re.sub(r"\s*\n\s*", "\n", body))
