"""The answer of a study in one sentence, made from its claims and nothing else."""

from collections.abc import Callable, Sequence

from retroprop.analysis.claims import HELPS, HURTS, NO_CLAIM
from retroprop.analysis.misleading import MisleadingMainEffect
from retroprop.analysis.records import Effect
from retroprop.report.estimates import family_kind
from retroprop.report.words import effect_name, joined, level_name, plural
from retroprop.study.results import Results

_TAILS = {
    "main": " on average over the other factors",
    "one_at_a_time": " when added alone to the baseline",
    "leave_one_out": " with all other fixes on",
}


def answer(results: Results, effects: Sequence[Effect], misleading: Sequence[MisleadingMainEffect]) -> str:
    """Says what the study found.

    Args:
        results: The study.
        effects: Its effects, with claims.
        misleading: Main effects that must not be read alone.

    Returns:
        One sentence. It names an effect only where the study claims it.
    """
    kind = family_kind(results)
    judged = [e for e in effects if e.metric == "accuracy_points" and e.kind == kind]
    if not judged:
        return (
            "There is no answer yet: no reporting seed is finished in every arm of the design, so "
            "no two arms can be compared."
        )
    seeds = judged[0].seeds
    indicative = [e for e in judged if e.claim.startswith("indicative")]
    if len(indicative) == len(judged):
        why = indicative[0].claim.removeprefix("indicative: ").replace("needs", "a verdict needs")
        return f"There is no verdict yet, only indicative estimates: {why}."
    parts = [part for part in _parts(results, judged, kind) if part]
    parts += _caution(results, judged, misleading)
    return f"On {plural(seeds, 'fresh seed')}, {'; '.join(parts)}."


def _parts(results: Results, judged: Sequence[Effect], kind: str) -> list[str]:
    helps = [e for e in judged if e.claim == HELPS]
    hurts = [e for e in judged if e.claim == HURTS]
    silent = [e for e in judged if e.claim == NO_CLAIM]
    withheld = [e for e in judged if e.claim.startswith("withheld")]
    tail = "" if kind == "main" and len(results.factors) == 1 else _TAILS[kind]

    def names(rows: Sequence[Effect]) -> str:
        return joined([effect_name(results.factors, e) for e in rows])

    raised = _moved(helps, names, "raises", "raise", tail)
    lowered = _moved(hurts, names, "lowers", "lower", "" if raised else tail)
    nothing = ""
    if silent:
        lead = f"for {names(silent)} the study makes no claim"
        nothing = lead if raised or lowered or withheld else f"{lead} about test accuracy"
    kept = f"the verdict on {names(withheld)} is withheld" if withheld else ""
    return [raised, lowered, nothing, kept]


def _moved(
    rows: Sequence[Effect], names: Callable[[Sequence[Effect]], str], one: str, more: str, tail: str
) -> str:
    """`a and b each raise test accuracy, by 4.1 and 3.9 points ...`."""
    if not rows:
        return ""
    sizes = joined([f"{abs(e.estimate):.1f}" for e in rows])
    if len(rows) == 1:
        return f"{names(rows)} {one} test accuracy by {sizes} points{tail}"
    return f"{names(rows)} each {more} test accuracy, by {sizes} points{tail}"


def _caution(
    results: Results, judged: Sequence[Effect], misleading: Sequence[MisleadingMainEffect]
) -> list[str]:
    """A clause where claimed main effects must not be read alone."""
    claimed = [(e.factor, e.level) for e in judged if e.claim in {HELPS, HURTS}]
    caught = {(row.factor, row.level) for row in misleading}
    names = [level_name(results.factors, *own) for own in claimed if own in caught]
    if not names:
        return []
    if len(names) == 1:
        return [f"but the number for {names[0]} misleads when read alone: a claimed interaction is as large"]
    if len(names) == len(claimed):
        return ["but each of these numbers misleads when read alone: a claimed interaction is as large"]
    return [f"but the numbers for {joined(names)} mislead when read alone: a claimed interaction is as large"]
