"""Main effects that mislead: a claimed interaction is as large as the main effect itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from retroprop.analysis.claims import HELPS, HURTS
from retroprop.analysis.records import Effect


@final
@dataclass(frozen=True)
class MisleadingMainEffect:
    """A factor whose effect depends on another factor by as much as it has effect at all.

    Attributes:
        main: The main effect of the factor's level, in points of accuracy.
        interaction: By how many points that effect changes when the other factor is switched on.
    """

    factor: str
    level: str
    other_factor: str
    other_level: str
    main: float
    interaction: float


def misleading_main_effects(effects: Sequence[Effect]) -> list[MisleadingMainEffect]:
    """Finds the main effects that must not be read alone.

    That is so when an interaction of the level is at least as large as its main effect and carries
    a claim of its own. Where its verdict is withheld or indicative, nothing is said. Both factors
    of an interaction are looked at.

    Args:
        effects: The effects of one study; only main effects and interactions in points are read.

    Returns:
        One record for each misleading main effect and interaction.
    """
    rows = [effect for effect in effects if effect.metric == "accuracy_points"]
    mains = {(row.factor, row.level): row.estimate for row in rows if row.kind == "main"}
    found = []
    for row in rows:
        if row.kind != "interaction" or row.claim not in {HELPS, HURTS}:
            continue
        one, two = (row.factor, row.level), (row.other_factor, row.other_level)
        found += [
            MisleadingMainEffect(*own, *other, mains[own], row.estimate)
            for own, other in ((one, two), (two, one))
            if own in mains and abs(row.estimate) >= abs(mains[own])
        ]
    return found
