"""What all benchmarks share: the machine's name, medians of rounds, result files."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def one_thread() -> None:
    """As the workers of a study run."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def made_on() -> dict[str, str]:
    """Machine, versions and date, for a result file."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores",
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def measured_on(result: Mapping[str, Any]) -> str:
    """The beginning of a sentence that says where a result file's numbers come from."""
    return f"Measured on {result['date']} with {result['machine']}, torch {result['torch']}"


def side_by_side(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What every side measures, in rounds that take all sides in turn; the first round only warms up."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, measure in sides.items():
            value = measure()
            if i:
                measured[name].append(value)
    return measured


def ratios(measured: Mapping[str, list[float]], ours: str) -> dict[str, float]:
    """How many times as long every other side takes, the median over rounds."""
    return {
        name: round(statistics.median(a / b for a, b in zip(values, measured[ours], strict=True)), 2)
        for name, values in measured.items()
        if name != ours
    }


def write(script: str, result: Mapping[str, Any]) -> None:
    """Write a script's result file beside it, with the machine, and print it."""
    path = Path(script).with_suffix(".json")
    text = json.dumps({**made_on(), **result}, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
