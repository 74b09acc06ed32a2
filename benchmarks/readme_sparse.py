"""The result sections of docs/sparse.md, from benchmarks/sparse_backprop.json and two landmarks."""

import json
from pathlib import Path
from typing import Any

from benchmarks.measuring import measured_on

ROOT = Path(__file__).parents[1]


def sections() -> dict[str, str]:
    """Text of every result section, by name."""
    return {
        **_speed(_result("benchmarks.sparse_backprop")),
        "sparse meprop": _landmark("experiments.sun2017_meprop"),
        "sparse ssprop": _landmark("experiments.zhong2024_ssprop"),
    }


def _result(module: str) -> dict[str, Any]:
    return json.loads((ROOT / module.replace(".", "/")).with_suffix(".json").read_text(encoding="utf-8"))


def _speed(speed: dict[str, Any]) -> dict[str, str]:
    made = f"{measured_on(speed)}, by `python -m benchmarks.sparse_backprop`."
    rows = [
        f"| {100 * float(keep):g} % | {row['dense / sparse']} | {100 * row['floor / sparse']:.0f} % |"
        for keep, row in speed["linear 1024 x 1024"].items()
    ]
    step, memory = speed["training step, 3 x 1024, 5 %"], speed["peak memory of Adam steps, sparse / dense"]
    table = speed["break-even"]
    shares = list(next(iter(table.values())))
    widths = [
        f"| {width} | {' | '.join(str(row[share]) for share in shares)} |" for width, row in table.items()
    ]
    images = [
        f"| {name} | {row['dense / sparse']} | {100 * row['floor / sparse']:.0f} % |"
        for name, row in speed["convolution 3x3, 20 %"].items()
    ]
    masked = [ratio for row in speed["masked"].values() for ratio in row.values()]
    each = speed["per example, 1024 x 1024"]
    short = ", ".join(
        f"{row['dense / sparse']} times as fast at {100 * float(keep):g} % kept"
        for keep, row in speed["linear 1024 x 1024"].items()
    )
    return {
        "sparse short": (
            f"The backward pass of a linear layer of 1,024 units is {short} (256 cases, one thread, "
            f"float32). {made}"
        ),
        "sparse linear": "\n".join(
            [
                "| kept | dense time / sparse time | share of the floor |",
                "|---|---|---|",
                *rows,
                "",
                "A whole training step of three layers of 1,024 units at 5 %, dense time over sparse time: "
                + ", ".join(f"{ratio} with {name}" for name, ratio in step.items())
                + ". Peak memory of whole Adam steps, over that of dense ones: at most "
                + f"{max(memory.values())}. "
                + made,
            ]
        ),
        "sparse break-even": "\n".join(
            [
                f"| units | {' | '.join(f'{100 * float(share):g} %' for share in shares)} |",
                "|---" * (len(shares) + 1) + "|",
                *widths,
                "",
                made,
            ]
        ),
        "sparse convolution": "\n".join(
            ["| layer | dense time / sparse time | share of the floor |", "|---|---|---|", *images, "", made]
        ),
        "sparse masked": (
            f"Masked passes take between {1 / max(masked):.2f} and {1 / min(masked):.2f} times as long as "
            "dense ones (layers of 256 to 1,024 units, 80 and 90 % kept). With units of every case they take "
            + " and ".join(
                f"{1 / row['dense / sparse']:.2f} times as long at {100 * float(keep):g} %"
                for keep, row in each.items()
            )
            + f" (1,024 units). {made}"
        ),
    }


def _landmark(module: str) -> str:
    found = _result(module)
    if "date" not in found:
        return "Not finished."
    claims = [
        f"| {claim['says']} | {claim['paper']} | {claim['mean']:+.2f} [{claim['interval'][0]:+.2f}, "
        f"{claim['interval'][1]:+.2f}] | {claim['verdict']} |"
        for claim in found["claims"]
    ]
    counted = found.get("operations of a step, share of dense", {})
    arms = [
        f"| {arm} | {accuracy:.2f} | {counted.get(arm, '')} | {found['seconds a trial'][arm]:g} |"
        for arm, accuracy in found["accuracy, %"].items()
    ]
    lines = [
        "| claim | the paper | ours, points [95 % interval] | verdict |",
        "|---|---|---|---|",
        *claims,
        "",
        "| arm | test accuracy, % | operations of a step, of dense | seconds a trial |",
        "|---|---|---|---|",
        *arms,
        "",
    ]
    for name, book in found.items():
        if name.startswith("bookkeeping"):
            said = f"{name.capitalize()}: {book['saved, %']} % of the convolutions' backward operations are "
            lines += [f"{said}saved (the paper: 40; {book['verdict']}).", ""]
    lines += [*(f"- {deviation}" for deviation in found["deviations"]), ""]
    seeds = found["claims"][0]["seeds"]
    lines.append(f"{seeds} paired seeds. {measured_on(found)}, by `python -m {module}`.")
    return "\n".join(lines)
