"""Numbers and names as the report writes them, the same on every page and in every table."""

import math
from collections.abc import Sequence

from retroprop.analysis.claims import HELPS, HURTS
from retroprop.analysis.records import Effect
from retroprop.study.design import OFF, Factor

KIND_TITLES = {
    "main": "Main effects",
    "interaction": "Two-way interactions",
    "one_at_a_time": "One at a time",
    "add_one_in": "Add one in",
    "leave_one_out": "Leave one out",
    "shapley": "Shapley values",
}
NOTHING = "–"
MINUS = "−"


def signed(value: float, digits: int = 2) -> str:
    """`+4.10`, `−0.30`, or a dash for nan."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0.0:
        return text
    return ("+" if value > 0 else MINUS) + text


def points_of(effect: Effect) -> str:
    """The estimate of an effect as the report writes it."""
    return signed(effect.estimate)


def range_of(low: float, high: float) -> str:
    """`[+3.70, +4.50]`, or a dash where there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NOTHING
    return f"[{signed(low)}, {signed(high)}]"


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction in percent: `97.35`; a dash for nan."""
    return f"{100 * fraction:.{digits}f}" if math.isfinite(fraction) else NOTHING


def probability(p: float) -> str:
    """A p value: `0.0005`, `< 0.0001`; a dash for nan."""
    if not math.isfinite(p):
        return NOTHING
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def count(number: float) -> str:
    """A whole number with thin groups: `12 345`; a dash for nan."""
    return f"{number:,.0f}".replace(",", "\u202f") if math.isfinite(number) else NOTHING


def short(number: float) -> str:
    """A number in four digits at most: `0.01`, `2`, `1.5`; a dash for nan."""
    return f"{number:.4g}" if math.isfinite(number) else NOTHING


def plural(number: int, noun: str, more: str = "") -> str:
    """`1 seed`, `12 seeds`."""
    return f"{number} {noun if number == 1 else more or noun + 's'}"


def joined(items: Sequence[str], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def level_name(factors: Sequence[Factor], factor: str, level: str) -> str:
    """A level in a sentence: the factor's own name where it is off | on, else both."""
    found = next((f for f in factors if f.name == factor), None)
    if found is None or not level:
        return factor
    if len(found.levels) == 2 and found.labels[0] == OFF:
        return factor
    return level if level.split(" ", maxsplit=1)[0] == factor else f"{factor}: {level}"


def effect_name(factors: Sequence[Factor], effect: Effect) -> str:
    """`relu`, or `relu × residual` for an interaction."""
    own = level_name(factors, effect.factor, effect.level)
    if not effect.other_factor:
        return own
    return f"{own} × {level_name(factors, effect.other_factor, effect.other_level)}"


def claim_words(effect: Effect) -> str:
    """A claim in a table: two that help in an interaction are together worth more than their sum.

    Why a verdict is only indicative is the same for all rows; the answer of the report says it.
    """
    if effect.claim.startswith("indicative"):
        return "indicative"
    if effect.kind != "interaction":
        return effect.claim
    words = {HELPS: "more than the sum", HURTS: "less than the sum"}
    return words.get(effect.claim, effect.claim)


def one_in(ratio: float) -> str:
    """A ratio as a reader says it: `1/240`, or `0.8` where it is not small."""
    if not math.isfinite(ratio) or ratio <= 0:
        return NOTHING
    return f"1/{1 / ratio:,.0f}" if ratio < 0.5 else f"{ratio:.2g}"
