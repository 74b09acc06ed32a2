"""The README's result sections, written from the result files beside this one."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"


def _result(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def sections() -> dict[str, str]:
    """Text of every result section, by name."""
    study, speed = _result("default_study"), _result("engine_vs_loop")
    made = (
        f"Measured on {study['date']} with {study['machine']['machine']}, torch "
        f"{study['machine']['torch']}, by `python -m benchmarks.default_study`."
    )
    effects = ["| fix | main effect, points | 95 % interval | verdict |", "|---|---|---|---|"]
    effects += ["| {effect} | {points} | {interval} | {claim} |".format(**row) for row in study["effects"]]
    arms = ["| arm | test accuracy, % | 95 % interval | flags |", "|---|---|---|---|"]
    arms += ["| {arm} | {test} | {interval} | {flags} |".format(**row) for row in study["arms"]]
    return {
        "answer": f"> {study['answer']}",
        "effects": "\n".join([*effects, "", *arms, "", made]),
        "gradients": (
            "The first layer's gradient at the first step, as a share of the output layer's: "
            + "; ".join(f"{arm} {share}" for arm, share in study["gradients"].items())
            + "."
        ),
        "speed": (
            f"The {speed['members']} arms of a seed train as one compiled program, "
            f"{speed['loop / engine']:.1f} times as fast as a hand-written PyTorch loop does one by one, "
            f"and {speed['lightning / engine']:.1f} times as fast as Lightning does, which on networks this "
            "small measures mostly its loop and loader "
            f"(one thread each, compile time apart, all in one run on {speed['date']}: "
            "`python -m benchmarks.engine_vs_loop`), and each trial's result is that of training alone."
        ),
    }


def rendered(text: str) -> str:
    """The README with its result sections filled in."""
    for name, found in sections().items():
        start = f"<!-- result: {name} -->\n"
        before, _, after = text.partition(start)
        text = before + start + found + "\n" + after[after.index("<!-- /result -->") :]
    return text


def write() -> None:
    """Fill the README in."""
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
