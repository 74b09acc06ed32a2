"""Running, resuming and widening a study."""

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from retroprop.errors import DataMissing, NothingMatched, RetropropError, StoreError
from retroprop.study import runner
from retroprop.study.runner import load_results, locked, run
from retroprop.study.store import open_store
from tests.study.small import Here, small_study


def numbers(results):
    """All that a trial's seed and plan decide, without times."""
    found = {}
    for trial in results.trials:
        row = dataclasses.asdict(trial)
        del row["seconds"]
        found[trial.key] = {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()
        }
    return found


def test_every_arm_is_tuned_then_reported_at_its_rate(tmp_path):
    results = run(small_study(tmp_path), pool=Here())
    assert results.shared_seeds() == [0, 1]
    assert sum(t.role == "tuning" for t in results.trials) == 4 * 2
    for arm in range(4):
        trials = results.reporting(arm)
        assert {t.multiplier for t in trials} == {results.multipliers[results.chosen[arm]]}
        assert all(0 <= t.test_accuracy <= 1 and len(t.test_correct) == 360 for t in trials)
    assert all(t.test_accuracy is None for t in results.trials if t.role == "tuning")


def test_the_same_call_gives_the_same_numbers_and_trains_nothing_twice(tmp_path):
    first = run(small_study(tmp_path / "a"), pool=Here())
    again = Here()
    second = run(small_study(tmp_path / "a"), pool=again)
    assert again.trials == 0
    elsewhere = run(small_study(tmp_path / "b"), pool=Here())
    assert numbers(first) == numbers(second) == numbers(elsewhere)


def test_more_seeds_and_one_more_factor_reuse_what_is_there(tmp_path):
    run(small_study(tmp_path), pool=Here())
    more = Here()
    results = run(small_study(tmp_path, seeds=3), pool=more)
    assert more.trials == 4
    assert results.shared_seeds() == [0, 1, 2]
    wider = Here()
    factors = ["relu", "batch_norm", "residual"]
    with pytest.raises(NothingMatched, match="residual"):
        run(small_study(tmp_path, factors=factors), pool=Here())
    factors[-1] = {"dropout": {"p": 0.2}}
    run(small_study(tmp_path, factors=factors), pool=wider)
    assert wider.trials == 4 * 2 + 4 * 2


def test_a_failed_group_is_reported_and_tried_again(tmp_path):
    results = run(small_study(tmp_path), pool=Here(broken=[2]))
    failed = [t for t in results.trials if t.error]
    assert failed
    assert all("the test broke" in t.error for t in failed)
    assert {t.role for t in failed} == {"reporting"}
    mended = run(small_study(tmp_path), pool=Here())
    assert not any(t.error for t in mended.trials)
    assert numbers(mended) == numbers(run(small_study(tmp_path / "b"), pool=Here()))


def test_choices_do_not_read_test_values(tmp_path):
    before = run(small_study(tmp_path), pool=Here())
    with sqlite3.connect(tmp_path / "study.db") as connection:
        rows = connection.execute("SELECT key, result FROM trials").fetchall()
        for i, (key, result) in enumerate(rows):
            noisy = result.replace('"test_accuracy": 0.', f'"test_accuracy": 0.{i % 10}')
            connection.execute("UPDATE trials SET result = ? WHERE key = ?", (noisy, key))
    connection.close()
    again = Here()
    after = run(small_study(tmp_path), pool=again)
    assert again.trials == 0
    assert after.chosen == before.chosen
    changed = [a.test_accuracy != b.test_accuracy for a, b in zip(after.trials, before.trials, strict=False)]
    assert any(changed)


def test_groups_of_other_sizes_give_the_same_numbers_to_rounding(tmp_path):
    whole = run(small_study(tmp_path / "a"), pool=Here())
    small = Here()
    split = run(small_study(tmp_path / "b", memory=0.0003), pool=small)
    assert small.trained > 4
    for one, other in zip(whole.trials, split.trials, strict=True):
        assert one.key == other.key
        np.testing.assert_allclose(one.train_loss, other.train_loss, rtol=1e-4)


def test_a_diverged_trial_counts_as_chance_and_stays(tmp_path):
    study = small_study(tmp_path, rates=[1, 1e30], recipe={"rate": 0.1, "momentum": 0.9})
    results = run(study, pool=Here())
    relu = next(i for i, arm in enumerate(results.arms) if arm.label == "relu")
    assert results.diverged[relu, 1].all()
    assert results.chosen[relu] == 0
    assert not any(t.diverged for t in results.trials if t.role == "reporting")


def test_kill_9_and_again_gives_the_same_numbers(tmp_path):
    settings = {"memory": 0.0003, "epochs": 8, "seeds": 3}
    study = small_study(tmp_path / "killed", **settings)
    study.folder.mkdir()
    runner.write_settings(study)
    command = [sys.executable, "-m", "retroprop", "ablate", str(study.folder / "study.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        path = study.folder / "study.db"
        if path.exists():
            with open_store(study.folder, None) as store:
                if store.finished():
                    break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open_store(study.folder, None) as store:
        before = store.finished()
    assert before, "the first run finished no group within two minutes"
    rest = Here()
    resumed = run(study, pool=rest)
    assert rest.trials == len(resumed.trials) - len(before)
    whole = run(small_study(tmp_path / "whole", **settings), pool=Here())
    assert numbers(resumed) == numbers(whole)


def test_a_second_process_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(StoreError, match="Another process"):
        run(small_study(tmp_path), pool=Here())


@pytest.mark.parametrize(("kind", "value"), [("code", "0000"), ("data", "0000")])
def test_a_store_of_other_code_or_data_is_refused_by_name(tmp_path, kind, value):
    run(small_study(tmp_path, seeds=1), pool=Here())
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, kind))
    connection.close()
    with pytest.raises(StoreError, match=f"other {kind}.*--out"):
        run(small_study(tmp_path), pool=Here())
    assert load_results(tmp_path).shared_seeds() == [0]


def test_a_store_of_another_schema_is_refused(tmp_path):
    run(small_study(tmp_path, seeds=1), pool=Here())
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    with pytest.raises(StoreError, match="schema '99'"):
        run(small_study(tmp_path), pool=Here())


def test_a_corrupt_store_is_left_as_it_is(tmp_path):
    path = tmp_path / "study.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="corrupt"):
        run(small_study(tmp_path), pool=Here())
    assert path.read_bytes() == b"this is no database" * 100


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RetropropError, match="cannot be written"):
        run(small_study(tmp_path / "file" / "study"), pool=Here())


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(StoreError, match="No study was found"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "32-8-10"}, "64 pixels and 10 classes"),
        ({"network": "64-8-3"}, "64 pixels and 10 classes"),
        ({"network": "64-x-10"}, "positive integers"),
        ({"batch": 5000}, "at most 1152"),
        ({"memory": 1e-6}, "Give more with --memory"),
        ({"network": "64-60000-60000-10", "memory": 1.0}, "Give more with --memory"),
        ({"device": "cpu", "precision": "tf32"}, "only CUDA devices have it"),
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"factors": ["residual"]}, "looked for skip sites"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_first_step(tmp_path, changes, words):
    with pytest.raises(RetropropError, match=words):
        run(small_study(tmp_path / "out", **changes), pool=Here())
    assert not (tmp_path / "out" / "study.db").exists()


def test_bf16_products_train_and_are_other_trials(tmp_path):
    exact = run(small_study(tmp_path), pool=Here())
    short = Here()
    rounded = run(small_study(tmp_path, precision="bf16"), pool=short)
    assert short.trials == len(rounded.trials)
    for one, other in zip(exact.trials, rounded.trials, strict=True):
        assert one.key != other.key
        assert not np.array_equal(one.train_loss, other.train_loss)
        np.testing.assert_allclose(one.train_loss, other.train_loss, rtol=0.05)


def test_missing_data_says_how_to_get_it(tmp_path):
    study = small_study(tmp_path, data="mnist", network="784-8-10", data_root=str(tmp_path))
    with pytest.raises(DataMissing, match="RETROPROP_DATA"):
        run(study, pool=Here())


def test_a_failed_tuning_group_is_reported_and_tried_again(tmp_path):
    study = small_study(tmp_path, memory=0.0003)
    results = run(study, pool=Here(broken=[1]))
    failed = [t for t in results.trials if t.error]
    assert {t.role for t in failed} == {"tuning"}
    assert -1 in results.chosen
    mended = run(study, pool=Here())
    assert not any(t.error for t in mended.trials)
    assert -1 not in mended.chosen


def test_a_resumed_run_uses_the_stored_plan_as_it_is(tmp_path, monkeypatch):
    """Less is left after a stop, but what was planned compiled stays compiled."""
    from retroprop.ensemble import planner

    def compiled(folder):
        with open_store(folder, None) as store:
            return [group.way == "compiled" for _, group in store.planned("reporting")]

    class Stopped(Here):
        """Trains all of tuning and one group of reporting; here it is the plan that counts."""

        def run(self, jobs):
            for count, (key, job) in enumerate(jobs):
                if count and job["settings"][0]["seed"].startswith("reporting"):
                    raise KeyboardInterrupt
                yield from super().run([(key, {**job, "way": "eager"})])

    study = small_study(tmp_path, memory=0.0003, seeds=4)
    monkeypatch.setattr(planner, "_WORTH_COMPILING", 0.001)
    with pytest.raises(KeyboardInterrupt):
        run(study, pool=Stopped())
    before = compiled(tmp_path)
    assert before
    assert all(before)
    with pytest.raises(KeyboardInterrupt):
        run(study, pool=Stopped())
    assert len(compiled(tmp_path)) == len(before) - 1
    assert all(compiled(tmp_path))
