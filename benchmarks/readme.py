"""The result sections of README and docs, written from the result files beside this one."""

import json
from pathlib import Path
from typing import Any

from benchmarks import readme_sparse
from benchmarks.measuring import measured_on

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent / "docs"
PAGES = (FOLDER.parent / "README.md", DOCS / "performance.md", DOCS / "sparse.md")


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


def performance() -> dict[str, str]:
    """Text of the sections about speed and memory, by name."""
    names = ("engine_vs_loop", "study_sizes", "wide_and_conv", "gpu", "whole_study", "engine_vs_jax")
    speed, sizes, wide, gpu, whole, jax = (_result(name) for name in names)
    large, by_size = sizes["large study"], sizes["microseconds of a member's step"]
    seconds = "seconds to find all finished, checks and results included"
    change = wide["bf16 less float32, points of validation accuracy over the 32 arms"]
    shown = [f"| {name.replace(': ', ' | ')} | {wide[name]} |" for name in wide if "loop / engine" in name]
    return {
        "steady": (
            f"One member's optimizer step, {speed['members']} arms of the default study as one compiled "
            "group:\n\n"
            "| peer, one by one | its time / ours |\n|---|---|\n"
            f"| hand-written loop (autograd, torch.optim.SGD), one thread each | {speed['loop / engine']} |\n"
            "| Lightning, bar, logger and checkpoints off, one thread each | "
            f"{speed['lightning / engine']} |\n"
            "| Lightning, two processes each | "
            f"{speed['lightning / engine, two processes each']} |\n\n"
            f"{measured_on(speed)}, by `python -m benchmarks.engine_vs_loop`."
        ),
        "sizes": (
            "Time per member and step does not grow with the study: over "
            f"{', '.join(by_size)} the slowest takes "
            f"{sizes['slowest / fastest size']} times as long as the fastest. {large['trials']:,} trials of "
            f"the default network: {large['seconds to plan']} s to plan them, {large[seconds]} s to find "
            f"them all finished, and {large['most memory of all processes, GiB']} GiB at most in all "
            f"processes together ({large['most memory of one worker, GiB']} GiB in a worker, most of it "
            "torch and its compiler). "
            f"{measured_on(sizes)}, by `python -m benchmarks.study_sizes`."
        ),
        "wide": (
            "Networks too large for overhead to matter, as the planner trains them, on one thread:\n\n"
            "| network | peer | its time / ours |\n|---|---|---|\n" + "\n".join(shown) + "\n\n"
            "With bf16 products the validation accuracy of the default study's arms changes by "
            f"{change['mean']} points on average (standard deviation {change['standard deviation']}). "
            f"{measured_on(wide)}, by `python -m benchmarks.wide_and_conv`."
        ),
        "jax": (
            f"JAX {jax['jax']} (jitted vmap over members and scan over steps, one core; `bench` extra) "
            f"takes {jax['32 arms: JAX / engine']} times our time for the 32 arms, and "
            f"{jax['128 sigmoid networks: JAX / engine']} times for 128 sigmoid networks 64-64-64-10. Ours "
            f"for these is {jax['128 sigmoid networks: engine / its matrix products alone']} times that of "
            f"their matrix products alone. {measured_on(jax)}, by `python -m benchmarks.engine_vs_jax`."
        ),
        "whole": (
            f"The whole default study, {whole['trials']:,} trials, from the command line to the report, "
            "against the time that the hand-written loop would take for the training alone on as many "
            "processes (computed from its step): "
            f"{whole['loop, computed / whole study, empty cache']} times as fast with an empty compiler "
            "cache, "
            f"{whole['loop, computed / whole study, filled cache']} times with a filled one. "
            f"{measured_on(whole)}, by `python -m benchmarks.whole_study`."
        ),
        "gpu": _on_gpu(gpu),
    }


def _on_gpu(gpu: dict[str, Any]) -> str:
    if gpu["status"] == "not measured":
        return "On a GPU: not measured. `make gpu` measures it where there is one."
    rows = [
        f"| {name} | {'; '.join(f'{key} {value}' for key, value in found.items())} |"
        for name, found in gpu.items()
        if isinstance(found, dict)
    ]
    return "\n".join(
        ["| on a GPU | measured |", "|---|---|", *rows, "", f"{measured_on(gpu)}, by `make gpu`."]
    )


def rendered(text: str) -> str:
    """A page with its result sections filled in."""
    for name, found in {**sections(), **performance(), **readme_sparse.sections()}.items():
        start = f"<!-- result: {name} -->\n"
        if start not in text:
            continue
        before, _, after = text.partition(start)
        text = before + start + found + "\n" + after[after.index("<!-- /result -->") :]
    return text


def write() -> None:
    """Fill the pages in."""
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
