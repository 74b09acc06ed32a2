"""The summary of a study on a console."""

from typing import TYPE_CHECKING

from retroprop.analysis.claims import HELPS, HURTS
from retroprop.report.arms import ArmRow
from retroprop.report.choices import all_on_arm, baseline_arm
from retroprop.report.estimates import family_kind
from retroprop.report.summary import Summary
from retroprop.report.tables import arm_name
from retroprop.report.words import (
    claim_words,
    effect_name,
    percent,
    points_of,
    probability,
    range_of,
    short,
)

if TYPE_CHECKING:
    from rich.console import Console

_BEST = 5
_STYLES = {HELPS: "green", HURTS: "red"}


def print_summary(summary: Summary, console: "Console") -> None:
    """Prints the answer, the notes, the claim family and the best arms.

    Args:
        summary: What `retroprop.report.summary.summarise` made of a study.
        console: Where to print; its width decides how tables wrap.
    """
    from rich.text import Text

    console.print(Text(summary.answer, style="bold"))
    for note in summary.notes:
        console.print(Text(f"- {note}"))
    if summary.effects:
        _print_effects(summary, console)
    _print_arms(summary, console)


def _print_effects(summary: Summary, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Effects on test accuracy, in points", title_justify="left")
    table.add_column("effect", overflow="fold")
    for name in ("points", "95 % interval", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("claim", overflow="fold")
    for kind in (family_kind(summary.results), "interaction"):
        for e in summary.of_kind(kind):
            table.add_row(
                Text(effect_name(summary.results.factors, e)),
                points_of(e),
                range_of(e.low, e.high),
                probability(e.p_holm),
                Text(claim_words(e), style=_STYLES.get(e.claim, "")),
            )
        table.add_section()
    console.print(table)


def _print_arms(summary: Summary, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    shown = _shown(summary)
    title = f"Arms by validation accuracy ({len(shown)} of {len(summary.arms)}; accuracies in %)"
    table = Table(title=title, title_justify="left")
    table.add_column("", justify="right")
    table.add_column("arm", overflow="fold")
    for name in ("validation", "test", "rate x"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("flags", overflow="fold")
    for place, row in shown:
        table.add_row(
            str(place),
            Text(arm_name(row)),
            percent(row.validation),
            percent(row.test.mean),
            short(row.multiplier),
            Text(", ".join(row.flags)),
        )
    console.print(table)


def _shown(summary: Summary) -> list[tuple[int, ArmRow]]:
    """The best arms, the baseline, all on and the references, each with its place."""
    always = {baseline_arm(summary.results), all_on_arm(summary.results), summary.choices.smallest}
    return [
        (place, row)
        for place, row in enumerate(summary.arms, start=1)
        if place <= _BEST or row.reference or row.index in always
    ]
