"""Run the default study and write what the README says of it.

`python -m benchmarks.default_study [FOLDER]` trains what FOLDER (runs/digits) lacks, then writes
benchmarks/default_study.json, docs/effects.svg and the README's result sections.
"""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import readme
from retroprop.report.pictures import family_picture
from retroprop.report.summary import Summary, summarise
from retroprop.report.words import claim_words, effect_name, one_in, percent, range_of, signed
from retroprop.study.study import Study

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "default_study.json"


def measured(summary: Summary) -> dict[str, Any]:
    """What the README needs of a study, as plain values."""
    results = summary.results
    factors = results.factors
    single = {0, 1}
    shown = [
        row
        for row in summary.arms
        if row.reference or sum(results.arms[row.index].levels) in {*single, len(factors)}
    ]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            key: results.record[key] for key in ("machine", "accelerator", "python", "torch", "retroprop")
        },
        "answer": summary.answer,
        "seeds": len(summary.seeds),
        "effects": [
            {
                "effect": effect_name(factors, effect),
                "points": signed(effect.estimate),
                "interval": range_of(effect.low, effect.high),
                "claim": claim_words(effect),
            }
            for effect in summary.of_kind("main")
        ],
        "gradients": {
            results.arms[arm].label: one_in(summary.gradients.first(arm)) for arm in summary.gradients.arms
        },
        "arms": [
            {
                "arm": row.label + (" (outside the design)" if row.reference else ""),
                "test": percent(row.test.mean),
                "interval": f"{percent(row.test.low)} to {percent(row.test.high)}",
                "flags": ", ".join(row.flags),
            }
            for row in shown
        ],
    }


def standalone(svg: str) -> str:
    """A figure of the report as a file of its own: with its colours and a white ground."""
    import retroprop.report

    style = Path(retroprop.report.__path__[0], "templates", "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+):\s*([^;]+);", style[: style.index("}")]))
    svg = re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], svg)
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background: #fff"'
    return svg.replace("<svg", head, 1)


def main() -> None:
    """Train, measure, write."""
    study = Study.load(ROOT / "configs" / "digits.yaml", **({"out": sys.argv[1]} if sys.argv[1:] else {}))
    summary = summarise(study.run())
    result = measured(summary)
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    picture = family_picture(summary)
    if picture is not None:
        (ROOT / "docs" / "effects.svg").write_text(standalone(picture.svg), encoding="utf-8")
    readme.write()
    sys.stdout.write(f"Wrote {RESULT}, docs/effects.svg and the README's results.\n")


if __name__ == "__main__":
    main()
