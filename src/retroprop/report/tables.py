"""The tables of a study as text: CSV for programs, Markdown and LaTeX for papers."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields

from retroprop.analysis.records import Effect
from retroprop.report.arms import ArmRow
from retroprop.report.estimates import family_kind
from retroprop.report.summary import Summary
from retroprop.report.words import (
    KIND_TITLES,
    NOTHING,
    claim_words,
    effect_name,
    percent,
    points_of,
    probability,
    range_of,
    short,
)

EFFECT_COLUMNS = tuple(field.name for field in fields(Effect))
_EFFECT_HEAD = ("Effect", "Kind", "Points", "95 % interval", "p (Holm)", "Claim")
_ARM_HEAD = ("Arm", "Validation %", "Test %", "95 % interval", "sd", "Rate ×", "Seeds", "Flags")


def effects_csv(summary: Summary) -> str:
    """All effects in both metrics, at full precision; an empty cell is nan."""
    return _csv(EFFECT_COLUMNS, (astuple(effect) for effect in summary.effects))


def trials_csv(summary: Summary) -> str:
    """One row a trial; test accuracy is empty for tuning trials, levels for references."""
    results = summary.results
    names = [factor.name for factor in results.factors]
    head = ["arm", "role", "seed", "multiplier", "rate", *names, "steps", "seconds"]
    head += ["train_accuracy", "validation_accuracy", "test_accuracy", "flags"]
    head += ["parameters", "flops", "key", "error"]
    rows = []
    for trial, flags in zip(results.trials, summary.trial_flags, strict=True):
        arm = results.arms[trial.arm]
        levels = [f.labels[i] for f, i in zip(results.factors, arm.levels, strict=False)]
        levels += [""] * (len(names) - len(levels))
        test = None if trial.role == "tuning" else trial.test_accuracy
        row = [arm.label, trial.role, trial.seed, trial.multiplier, trial.rate, *levels]
        row += [trial.steps, trial.seconds, trial.train_accuracy, trial.validation_accuracy, test]
        row += ["; ".join(flags), trial.parameters, trial.flops, trial.key, trial.error]
        rows.append(row)
    return _csv(head, rows)


def effects_markdown(summary: Summary) -> str:
    """The answer, the effects and the arms as a Markdown page."""
    parts = [f"# {_md(summary.results.name)}", _md(summary.answer)]
    parts += [f"- {_md(note)}" for note in summary.notes]
    if summary.effects:
        parts += ["## Effects on test accuracy, in points"]
        parts += [_markdown_table(_EFFECT_HEAD, effect_cells(summary), "llrrrl")]
    parts += ["## Arms, by validation accuracy"]
    parts += [_markdown_table(_ARM_HEAD, arm_cells(summary), "lrrrrrrl")]
    return "\n\n".join(parts) + "\n"


def effects_latex(summary: Summary) -> str:
    """The effects and the arms as two LaTeX tabulars that need no package."""
    parts = [f"% {' '.join(summary.answer.split())}"]
    if summary.effects:
        parts += ["% Effects on test accuracy, in points."]
        parts += [_latex_table(_EFFECT_HEAD, effect_cells(summary), "llrrrl")]
    parts += ["% Arms, by validation accuracy."]
    parts += [_latex_table(_ARM_HEAD, arm_cells(summary), "lrrrrrrl")]
    return "\n\n".join(parts) + "\n"


def effect_cells(summary: Summary) -> list[tuple[str, ...]]:
    """Cells of the effects in points, the claim family first."""
    family = {family_kind(summary.results), "interaction"}
    rows = summary.of_kind(*KIND_TITLES)
    ordered = [e for e in rows if e.kind in family] + [e for e in rows if e.kind not in family]
    return [
        (
            effect_name(summary.results.factors, e),
            KIND_TITLES[e.kind].lower(),
            points_of(e),
            range_of(e.low, e.high),
            probability(e.p_holm),
            claim_words(e) or NOTHING,
        )
        for e in ordered
    ]


def arm_cells(summary: Summary) -> list[tuple[str, ...]]:
    """Cells of the arms, the best validation accuracy first."""
    return [
        (
            arm_name(row),
            percent(row.validation),
            percent(row.test.mean),
            test_range(row),
            percent(row.test.deviation),
            short(row.multiplier),
            str(row.seeds),
            ", ".join(row.flags) or NOTHING,
        )
        for row in summary.arms
    ]


def arm_name(row: ArmRow) -> str:
    """An arm in a table, a reference marked as such."""
    return f"{row.label} (reference)" if row.reference else row.label


def test_range(row: ArmRow) -> str:
    """The interval of an arm's test accuracy in percent."""
    if not (math.isfinite(row.test.low) and math.isfinite(row.test.high)):
        return NOTHING
    return f"[{percent(row.test.low)}, {percent(row.test.high)}]"


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if _empty(value) else value for value in row])
    return out.getvalue()


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    lines = [head, rule, *([_md(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    kept = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]|#":
        kept = kept.replace(mark, "\\" + mark)
    return kept


_LATEX = {
    "\\": r"\textbackslash{}",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "−": r"$-$",
    "+": r"$+$",
    "×": r"$\times$",
    "–": "--",
    "\u202f": r"\,",
}


def _latex_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\hline", _latex_row(head), r"\hline"]
    lines += [_latex_row(row) for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


def _latex_row(cells: Sequence[str]) -> str:
    # A row that starts with "[" would be read as an option of the line break before it.
    texts = ["".join(_LATEX.get(letter, letter) for letter in " ".join(c.split())) for c in cells]
    return " & ".join(f"{{{t}}}" if t.startswith("[") else t for t in texts) + r" \\"
