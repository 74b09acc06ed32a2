"""Factors, levels and arms: which combinations of fixes a study trains."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retroprop.errors import RetropropError, UnknownName
from retroprop.fix_config import build_fix

if TYPE_CHECKING:
    from retroprop.fix import Fix

FixSpec = str | dict[str, Any]
OFF = "off"


@dataclass(frozen=True)
class Level:
    """One answer to a factor's question: a fix, or none."""

    label: str
    fix: "Fix | None"


@dataclass(frozen=True)
class Factor:
    """One question with two or more levels; effects are against the first."""

    name: str
    levels: tuple[Level, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the levels."""
        return tuple(level.label for level in self.levels)


@dataclass(frozen=True)
class Arm:
    """One level of every factor, or a reference outside the design.

    levels: index of a level by factor; empty for a reference arm.
    fixes: held ones and those of the levels.
    """

    label: str
    levels: tuple[int, ...]
    fixes: tuple["Fix", ...]
    network: str
    reference: bool = False


def fix_label(fix: "Fix") -> str:
    """A short name: `relu`, `dropout p=0.1`."""
    config = fix.config()
    if isinstance(config, str):
        return config
    ((name, changed),) = config.items()
    return " ".join([name, *(f"{key}={value}" for key, value in changed.items())])


def build_factor(spec: Any) -> Factor:
    """A factor from what a study file says: a fix (off | on), or a list of levels.

    `off` as a level means none of the fixes; a list means just the levels it names, effects being
    against the first.

    Raises:
        RetropropError: for fewer than two levels, or a level given twice.
    """
    if not isinstance(spec, (list, tuple)):
        fix = build_fix(spec)
        return Factor(fix.name, (Level(OFF, None), Level(fix_label(fix), fix)))
    levels = []
    for item in spec:
        if item is None or item is False or item == OFF:
            levels.append(Level(OFF, None))
        else:
            fix = build_fix(item)
            levels.append(Level(fix_label(fix), fix))
    if len(levels) < 2 or len(set(levels)) < len(levels):
        raise RetropropError(
            f"The factor {list(spec)!r} was given; expected two or more different levels, such as "
            "[off, tanh, relu]."
        )
    present = [level.fix for level in levels if level.fix is not None]
    names = list(dict.fromkeys(fix.name for fix in present))
    slots = {fix.slot for fix in present}
    name = names[0] if len(names) == 1 else slots.pop() if len(slots) == 1 else "/".join(names)
    return Factor(name or "/".join(names), tuple(levels))


def _full_factorial(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(size) for size in sizes)))


def _one_at_a_time(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    base = (0,) * len(sizes)
    single = [(*base[:i], level, *base[i + 1 :]) for i, size in enumerate(sizes) for level in range(1, size)]
    return [base, *single]


def _leave_one_out(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    full = tuple(size - 1 for size in sizes)
    return [full, *((*full[:i], 0, *full[i + 1 :]) for i in range(len(sizes)))]


DESIGNS = {
    "full_factorial": _full_factorial,
    "one_at_a_time": _one_at_a_time,
    "leave_one_out": _leave_one_out,
}


def build_arms(factors: Sequence[Factor], held: Sequence["Fix"], design: str, network: str) -> list[Arm]:
    """All arms of a design, the one with every factor at its first level first where there is one.

    Raises:
        UnknownName: for an unknown design.
        AlreadyApplied, Conflict: when an arm's fixes do not go together.
        RetropropError: when two factors have one name.
    """
    from retroprop.fix import check_together

    if design not in DESIGNS:
        raise UnknownName("design", design, DESIGNS)
    names = [factor.name for factor in factors]
    for name in names:
        if names.count(name) > 1:
            raise RetropropError(
                f"The factor {name!r} was given twice; give it once, with all its levels as a list."
            )
    arms = []
    for levels in DESIGNS[design]([len(factor.levels) for factor in factors]):
        chosen = [factor.levels[i] for factor, i in zip(factors, levels, strict=True)]
        fixes = [level.fix for level in chosen if level.fix is not None]
        check_together([*held, *fixes])
        on = [level.label for level, i in zip(chosen, levels, strict=True) if i]
        arms.append(Arm(" + ".join(on) or "baseline", levels, (*held, *fixes), network))
    return arms
