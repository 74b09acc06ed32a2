"""Whole studies simulated from tuning to claims, and the page made from the results."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retroprop.analysis import simulate
from retroprop.errors import RetropropError

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/retroprop/analysis").glob("*.py"))
WORLDS = {world.name: world for world in (*simulate.STUDY_WORLDS, *simulate.BASELINE_WORLDS)}
TWO_SEEDS = simulate.BASELINE_WORLDS[-1].name


FEW = 600
ERROR = np.sqrt(0.05 * 0.95 / FEW)


def rates(name, allow_for_tuning, studies=FEW):
    return simulate.claim_rates(
        WORLDS[name],
        studies=studies,
        generator=np.random.default_rng(20),
        allow_for_tuning=allow_for_tuning,
    )


@pytest.mark.parametrize("name", ["A/A, one rate is clearly best", "A/A, three rates are equally good"])
def test_a_a_studies_make_no_false_claims(name):
    false, true = rates(name, allow_for_tuning=False)
    assert 0.01 <= false <= 0.05 + 2 * ERROR  # and not by never claiming anything
    assert true == 0.0


def test_the_luck_of_tuning_makes_false_claims_unless_allowed_for():
    name = "A/A, the best rate leads by 1 point"
    assert rates(name, allow_for_tuning=False, studies=100)[0] > 0.1
    error = np.sqrt(0.05 * 0.95 / 150)
    assert rates(name, allow_for_tuning=True, studies=150)[0] <= 0.05 + 2 * error


def test_one_arm_that_is_hard_to_tune_makes_no_false_claims():
    name = "A/A, one at a time, the baseline is harder to tune"
    assert rates(name, allow_for_tuning=False, studies=200)[0] > 0.15
    assert rates(name, allow_for_tuning=True)[0] <= 0.05 + 2 * ERROR


def test_a_real_effect_is_claimed():
    name = "one factor adds 0.4 points, one rate is clearly best"
    for allow in (False, True):
        false, true = rates(name, allow_for_tuning=allow, studies=100)
        assert true > 0.9
        assert false <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)


def test_page_shows_the_results():
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "docs/methods.json").read_text(encoding="utf-8"))
    assert simulate.between_markers(page) == simulate.tables(results)
    assert {"date", "python", "numpy", "scipy", "statsmodels"} == set(results["made"])


def test_results_keep_the_promises():
    results = json.loads((ROOT / "docs/methods.json").read_text(encoding="utf-8"))
    for row in results["coverage"]:
        if row["symmetric"]:
            assert 0.93 <= row["covered"] <= 0.97, row
        elif row["seeds"] >= 15:
            assert row["covered"] >= 0.90, row
    assert all(0.93 <= row["covered"] <= 0.97 for row in results["images"])
    allowed = [row for row in results["claims"] if row["allow_for_tuning"]]
    assert [row["name"] for row in allowed] == list(WORLDS)
    assert all(row["any_false"] <= 0.05 for row in allowed if row["name"] != TWO_SEEDS)
    (limit,) = (row for row in allowed if row["name"] == TWO_SEEDS)
    assert limit["tuning_seeds"] == 2
    page = " ".join((ROOT / "docs/methods.md").read_text(encoding="utf-8").split())
    assert f"a false claim in {100 * limit['any_false']:.1f} % of studies" in page  # said in words too


def test_markers():
    page = f"head\n{simulate.BEGIN}\n\nold\n\n{simulate.END}\ntail\n"
    assert simulate.between_markers(page) == "old"
    with pytest.raises(RetropropError, match="0 begin and 0 end markers"):
        simulate.between_markers("no markers")


def test_command_writes_both_files(tmp_path, monkeypatch):
    results = json.loads((ROOT / "docs/methods.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(simulate, "run", lambda: results)
    page = tmp_path / "methods.md"
    page.write_text(f"head\n{simulate.BEGIN}\nold\n{simulate.END}\ntail\n", encoding="utf-8")
    simulate.main(["--docs", str(tmp_path)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("head\n")
    assert text.endswith("\ntail\n")
    assert simulate.between_markers(text) == simulate.tables(results)
    assert json.loads((tmp_path / "methods.json").read_text(encoding="utf-8")) == results


def test_a_small_run_has_every_table():
    results = simulate.run(scale=0.001)
    assert len(results["coverage"]) == 3 * len(simulate.SHAPES)
    assert len(results["claims"]) == 2 * len(WORLDS)
    assert simulate.tables(results).count("\n| ---") == 3


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_budgets(source):
    text = source.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


def test_the_package_is_light():
    code = (
        "import sys, retroprop.analysis;"
        "print([n for n in ('numpy', 'scipy', 'torch', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_analysis_needs_no_torch_and_no_pandas():
    imported = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    assert not {name for name in imported if name.split(".")[0] in {"torch", "pandas"}}
    ours = {name for name in imported if name.startswith("retroprop")}
    assert all(
        n.startswith("retroprop.analysis") or n in {"retroprop.errors", "retroprop.study.tuning"}
        for n in ours
    )
