"""What a kill or a lack of memory in the middle of a group may cost: time, never a number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from retroprop.ensemble.checkpoint import Checkpoint
from retroprop.ensemble.engine import Engine, GroupResult
from retroprop.ensemble.loop import Alone, train
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.training import Training
from retroprop.ensemble.trial_data import Schedule
from retroprop.errors import RetropropError
from retroprop.fix import apply
from retroprop.fixes.adam import Adam
from tests.ensemble.test_engine import assert_equal, assert_identical, data_of, mixed, recipe

LONG = Schedule(epochs=6, batch=10)


def run(checkpoint: Checkpoint | None = None, *, adam: bool = False) -> GroupResult:
    """A group with a member that diverges."""
    members = [*mixed(), ("tanh", float("inf"), 0)]
    recipes = [recipe(arm, seed, rate, torch.float32) for arm, rate, seed in members]
    if adam:
        recipes = [apply(one, Adam()).recipe for one in recipes]
    seeds = [seed for *_, seed in members]
    data = data_of([0, 1], torch.float32)
    return Engine().train(recipes, seeds, data, LONG, test=True, compiled=False, checkpoint=checkpoint)


def stopped_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Training.run_epoch

    def run_epoch(self: Training) -> None:
        if self.epoch == epochs:
            raise KeyboardInterrupt
        plain(self)

    monkeypatch.setattr(Training, "run_epoch", run_epoch)


@pytest.mark.parametrize("adam", [False, True], ids=["1986 rule", "adam"])
def test_a_training_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adam: bool):
    checkpoint = Checkpoint(tmp_path / "group.pt", "a", every=0)
    with monkeypatch.context() as patch:
        stopped_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, adam=adam)
    resumed = run(checkpoint, adam=adam)
    assert resumed.resumed == 4
    for k, (one, other) in enumerate(zip(resumed.outcomes, run(adam=adam).outcomes, strict=True)):
        assert_identical(one, other, k)
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_a_trial_alone_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def alone(checkpoint: Checkpoint | None = None) -> Outcome:
        made = apply(recipe("all", 0, 0.1, torch.float32), Adam()).recipe
        data = data_of([0], torch.float32)[0]
        return train(made, data, LONG, test=True, checkpoint=checkpoint)

    plain = Alone.run_epoch

    def run_epoch(self: Alone) -> None:
        if self.epoch == 3:
            raise KeyboardInterrupt
        plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Alone, "run_epoch", run_epoch)
        with pytest.raises(KeyboardInterrupt):
            alone(Checkpoint(tmp_path / "trial.pt", "a", every=0))
    started = []
    monkeypatch.setattr(Alone, "run_epoch", lambda self: (started.append(self.epoch), plain(self)))
    resumed = alone(Checkpoint(tmp_path / "trial.pt", "a", every=0))
    assert started == [3, 4, 5]
    assert resumed.resumed == 3
    assert_identical(resumed, alone(), "alone")


def test_a_file_of_another_group_or_cut_short_is_not_taken_up(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "group.pt", "a", every=0)
    run(checkpoint)
    assert run(Checkpoint(checkpoint.path, "b")).resumed == 0
    whole = checkpoint.path.read_bytes()
    for damaged in (b"", whole[:1000], whole[: len(whole) // 2], b"nonsense"):
        checkpoint.path.write_bytes(damaged)
        assert run(Checkpoint(checkpoint.path, "a")).resumed == 0


def test_a_short_training_leaves_no_file(tmp_path: Path):
    run(Checkpoint(tmp_path / "group.pt", "a", every=1000))
    assert not list(tmp_path.iterdir())


SLOW = """
import sys, time
from pathlib import Path
from retroprop.ensemble.checkpoint import Checkpoint
from retroprop.ensemble.loop import Alone, train
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.training import Training
from tests.ensemble.test_interruptions import run
plain = Training.run_epoch
def run_epoch(self):
    plain(self)
    time.sleep(0.5)
Training.run_epoch = run_epoch
run(Checkpoint(Path(sys.argv[1]), "a", every=0))
"""


def test_kill_9_in_the_middle_of_a_group(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "group.pt", "a", every=0)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(checkpoint.path)], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 120
    while not checkpoint.path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = run(checkpoint)
    assert 0 < resumed.resumed < LONG.epochs
    for k, (one, other) in enumerate(zip(resumed.outcomes, run().outcomes, strict=True)):
        assert_identical(one, other, k)


def test_a_group_that_does_not_fit_is_halved_until_it_does(monkeypatch: pytest.MonkeyPatch):
    whole = run()
    plain = Training.run_epoch

    def run_epoch(self: Training) -> None:
        if self.program.size > 7:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        plain(self)

    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    halved = run()
    assert halved.halved
    assert any("a group of 25 was halved" in note for note in halved.notes), halved.notes
    assert halved.outcomes.pop().diverged
    for k, (one, other) in enumerate(zip(halved.outcomes, whole.outcomes[:-1], strict=True)):
        assert_equal(one, other, 1e-3, k)


def test_too_little_memory_for_one_member_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    def run_epoch(self: Training) -> None:
        raise MemoryError

    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    with pytest.raises(RetropropError, match="group of one member"):
        run()


def test_another_error_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch):
    def run_epoch(self: Training) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    with pytest.raises(RuntimeError, match="shapes"):
        run()


SCARCE = """
import resource
import torch
from retroprop import MLP, Recipe
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.trial_data import Schedule
from tests.ensemble.test_engine import data_of
torch.set_num_threads(1)
recipes = [Recipe(MLP("16-700-700-4", seed=seed)) for seed in range(16)]
data = data_of(range(16), torch.float32)
Engine().train(recipes[:1], [0], data, Schedule(1, 10), test=False, compiled=False)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 90 * 2**20,) * 2)
result = Engine().train(recipes, list(range(16)), data, Schedule(1, 10), test=False, compiled=False)
print("halved", result.halved, len(result.outcomes))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a Linux process table")
def test_memory_that_really_runs_out():
    command = [sys.executable, "-c", SCARCE]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["halved", "True", "16"], done.stdout + done.stderr
