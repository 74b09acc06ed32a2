"""The command line as a user meets it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from retroprop.cli import COMMANDS, main

SMALL = """
name: small
network: 64-8-10
factors: [relu, batch_norm]
references: []
rates: [0.3, 1]
tuning_seeds: 1
seeds: 3
epochs: 2
"""


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


@pytest.mark.parametrize("arguments", [[], *[[command] for command in COMMANDS]], ids=str)
def test_help_comes_within_a_second_and_without_torch(arguments):
    code = (
        "import sys; from retroprop.cli import main\n"
        f"try: main({[*arguments, '--help']!r})\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    subprocess.run([sys.executable, "-c", "import jsonargparse, rich"], check=True)  # warm the disk cache
    times = []
    for _ in range(3):
        before = os.times()
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = os.times()
        # Processor time: the clock on the wall also counts whatever else the machine does.
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        times.append(spent)
        assert run.returncode == 0, run.stderr
        assert "usage" in run.stdout.lower()
    assert min(times) < 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["abblate"], "Did you mean 'ablate'"),
        (["ablate", "--sed", "3"], "Did you mean '--seeds'"),
        (["ablate", "--seed", "3"], "Did you mean '--seeds'"),
        (["ablate", "--seeds", "0"], "seeds=0"),
        (["ablate", "--seeds", "x"], "seeds"),
        (["ablate", "--factors", "[rellu]", "--dry-run"], "Did you mean 'relu'"),
        (["ablate", "missing.yaml"], "could not be read"),
        (["ablate", "--network", "64", "--dry-run"], "two or more"),
        (["ablate", "study.yaml", "other.yaml"], "other.yaml"),
        (["report", "nowhere"], "No study was found"),
        (["report", "--fodler", "x"], "--f"),
        (["fixes", "x"], "'x'"),
        (["ablate", "--device", "cuda", "--dry-run"], "no CUDA device"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, words):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(SMALL)
    code, _, said = call(capsys, *arguments)
    assert code == 2
    assert words in said
    assert "Traceback" not in said


def test_print_config_is_a_study_file_with_flags_in_it(capsys, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(SMALL)
    code, said, _ = call(
        capsys, "ablate", str(file), "--tuning-seeds", "2", "--batch", "null", "--print_config"
    )
    assert code == 0
    given = yaml.safe_load(said)
    assert (given["tuning_seeds"], given["batch"], given["name"]) == (2, None, "small")
    assert given["factors"] == ["relu", "batch_norm"]


def test_dry_run_plans_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(SMALL)
    code, said, _ = call(capsys, "ablate", "study.yaml", "--dry-run")
    assert code == 0
    assert "8 tuning trials" in said
    assert "12 reporting trials" in said
    assert "minutes" in said
    assert not (tmp_path / "runs").exists()


def test_fixes_lists_every_fix_with_year_and_paper(capsys):
    from retroprop import fixes

    code, said, _ = call(capsys, "fixes")
    assert code == 0
    for name in fixes.names():
        assert name in said
        assert str(fixes.get(name).paper.year) in said


def test_doctor_names_versions_data_and_what_is_slower(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("retroprop.ensemble.planner.shutil.which", lambda name: None)
    code, said, _ = call(capsys, "doctor", "--data-root", str(tmp_path))
    assert code == 0
    for word in ("torch", "1,797 images", "not found", "No C++ compiler", "MNIST was not found"):
        assert word in said


def test_ablate_trains_reports_and_goes_on(tmp_path):
    """The whole path through worker processes, then again from the store, then the report alone."""
    (tmp_path / "study.yaml").write_text(SMALL)

    def retroprop(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "retroprop", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    first = retroprop("ablate", "study.yaml")
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs" / "small"
    assert str(folder / "report.html") in first.stdout
    for name in ("study.yaml", "study.db", "report.html", "effects.csv", "trials.csv"):
        assert (folder / name).stat().st_size > 0, name
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 + 4 * 3
    assert all((row["test_accuracy"] == "") == (row["role"] == "tuning") for row in rows)
    effects = (folder / "effects.csv").read_bytes()
    again = retroprop("ablate", "study.yaml")
    assert again.returncode == 0
    assert "0 groups to train" in again.stdout
    assert (folder / "effects.csv").read_bytes() == effects
    (folder / "report.html").unlink()
    alone = retroprop("report", str(folder))
    assert alone.returncode == 0
    assert (folder / "report.html").exists()


def test_a_failed_trial_gives_exit_code_1_and_still_a_report(tmp_path, capsys, monkeypatch):
    from retroprop.study import runner
    from tests.study.small import Here

    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(SMALL)
    monkeypatch.setattr(runner, "Pool", lambda *_: Here(broken=[2]))
    code, said, _ = call(capsys, "ablate", "study.yaml")
    assert code == 1
    assert "trials failed" in said
    assert Path("runs/small/report.html").exists()


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path, capsys, monkeypatch):
    from retroprop.study import runner
    from tests.study.small import Here

    class Interrupted(Here):
        def run(self, jobs):
            for count, answer in enumerate(super().run(jobs)):
                if count == 1:
                    raise KeyboardInterrupt
                yield answer

    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(SMALL + "memory: 0.0003\n")
    monkeypatch.setattr(runner, "Pool", lambda *_: Interrupted())
    code, said, _ = call(capsys, "ablate", "study.yaml")
    assert code == 130
    assert "the same command goes on" in said
    pool = Here()
    monkeypatch.setattr(runner, "Pool", lambda *_: pool)
    code, said, _ = call(capsys, "ablate", "study.yaml")
    assert code == 0
    assert "finished before" in said
    assert pool.trials < 20
