"""Benchmarks run: what needs no quiet machine is tried at its smallest."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import made_on, ratios, side_by_side

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py") if file.stem != "__init__")


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_can_be_imported_and_says_what_it_measures(name: str):
    if name == "jax_side":
        pytest.importorskip("jax", reason="JAX is in the bench extra")
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_every_result_says_where_and_when_it_was_made():
    assert all(made_on().values())


def test_sides_take_turns_and_the_first_round_only_warms_up():
    calls: list[str] = []

    def side(name: str, seconds: float):
        def measure() -> float:
            calls.append(name)
            return seconds * len(calls)

        return measure

    measured = side_by_side({"ours": side("ours", 1.0), "theirs": side("theirs", 3.0)}, rounds=2)
    assert calls == ["ours", "theirs"] * 3
    assert measured == {"ours": [3.0, 5.0], "theirs": [12.0, 18.0]}
    assert ratios(measured, "ours") == {"theirs": 3.8}


def test_the_gpu_benchmark_runs_at_its_smallest():
    command = [sys.executable, "-m", "benchmarks.gpu", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
