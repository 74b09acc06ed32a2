"""Looks: what happens to verdicts when seeds were added after someone saw the analysis."""

from collections.abc import Sequence
from dataclasses import replace

from retroprop.analysis.claims import HELPS, HURTS, NO_CLAIM
from retroprop.analysis.records import Effect
from retroprop.errors import RetropropError

WITHHELD = "withheld: seeds were added after a look and the new seeds alone do not confirm it"


def withhold_after_looks(effects_all: Sequence[Effect], effects_new_only: Sequence[Effect]) -> list[Effect]:
    """Withholds every verdict that the seeds added after the last look do not give on their own.

    Looking and adding seeds until a verdict appears finds one too often, also where there is no
    effect. The new seeds, taken alone, were not chosen by any look.

    Args:
        effects_all: The effects over all reporting seeds.
        effects_new_only: The same effects over the new seeds only.

    Returns:
        The effects over all seeds. A verdict ("helps", "hurts", "no claim") stays where the new
        seeds alone give the same one; elsewhere it is replaced by a sentence. Rows without a
        verdict are as they were.

    Raises:
        RetropropError: A row with a verdict has no counterpart in the new seeds.
    """
    new = {_key(effect): effect.claim for effect in effects_new_only}
    found = []
    for effect in effects_all:
        if effect.claim not in {HELPS, HURTS, NO_CLAIM}:
            found.append(effect)
            continue
        if _key(effect) not in new:
            raise RetropropError(
                f"The effects of the new seeds have no row {_key(effect)}; expected the same"
                " design analysed twice, over all seeds and over the new ones."
            )
        confirmed = new[_key(effect)] == effect.claim
        found.append(effect if confirmed else replace(effect, claim=WITHHELD))
    return found


def _key(effect: Effect) -> tuple[str, ...]:
    """What makes two rows the same question."""
    return (
        effect.metric,
        effect.kind,
        effect.factor,
        effect.level,
        effect.other_factor,
        effect.other_level,
    )
