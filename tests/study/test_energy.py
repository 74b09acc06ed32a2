"""Joules by window and trial, from a counter that the tests turn."""

import math
from dataclasses import replace

import numpy as np
import pytest

from retroprop.report.page import render
from retroprop.report.summary import summarise
from retroprop.study.energy import Meter, find_counter, summary, trial_joules
from retroprop.study.progress import Watcher
from retroprop.study.runner import run
from tests.study.small import Here, small_study


class Device:
    """A device that takes some watts, and a clock that jumps."""

    device = "a device of the tests"

    def __init__(self, idle: float = 50.0) -> None:
        self.now, self.used, self.watts = 100.0, 7.0, idle

    def joules(self) -> float:
        return self.used

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds * self.watts

    def meter(self) -> Meter:
        return Meter(self, self.clock, self.sleep)


def test_windows_are_of_thirty_seconds_or_more_and_of_whole_groups():
    device = Device()
    meter = device.meter()
    assert meter.idle_watts == 50
    device.watts = 300
    found = []
    for group, seconds in enumerate([10, 10, 15, 40, 5]):
        device.sleep(seconds)
        found.append(meter.finished(group, compiling=1.0))
    assert [window is None for window in found] == [True, True, False, False, True]
    first, second = found[2], found[3]
    assert (first.seconds, first.joules) == (35, 35 * 300)
    assert first.groups == {0: 9.0, 1: 9.0, 2: 14.0}
    assert (second.seconds, second.groups) == (40, {3: 39.0})


def test_a_group_that_failed_or_began_earlier_charges_nobody():
    device = Device()
    meter = device.meter()
    device.watts = 300
    device.sleep(600)
    failed = meter.finished(0, measured=False)
    device.sleep(20)
    assert meter.finished(1) is None
    device.sleep(20)
    window = meter.finished(2, measured=False)
    assert (failed.groups, window.groups) == ({}, {1: 20.0})
    found = trial_joules(
        [failed.as_row(), window.as_row()], {"a": (0, 600.0), "b": (1, 15.0), "c": (2, 999.0)}
    )
    assert found == {"b": pytest.approx(20 * 300)}


def test_joules_are_shared_out_by_time():
    windows = [
        {"joules": 900.0, "seconds": 30.0, "idle_watts": 5.0, "device": "d", "groups": {"1": 20.0, "2": 8.0}}
    ]
    found = trial_joules(windows, {"a": (1, 15.0), "b": (1, 5.0), "c": (2, 10.0), "unmeasured": (3, 4.0)})
    assert found == {"a": 450.0, "b": 150.0, "c": 240.0}
    assert summary([]) == "not measured"
    assert summary(windows)["mean watts"] == 30.0


class Slow(Here):
    """Every group takes twenty seconds of the test's clock."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def run(self, jobs):
        for answer in super().run(jobs):
            self.device.sleep(20)
            yield answer


def test_a_study_keeps_its_joules(tmp_path):
    device = Device()
    results = run(small_study(tmp_path), pool=Slow(device), meter=device.meter())
    measured = [t for t in results.trials if math.isfinite(t.joules)]
    assert measured
    assert results.record["energy"]["idle watts before the study"] == 50
    total = sum(t.joules for t in measured)
    assert total == pytest.approx(results.record["energy"]["joules in measured windows"], rel=1e-3)
    again = run(small_study(tmp_path), pool=Here())
    assert {t.key: t.joules for t in measured} == {
        t.key: t.joules for t in again.trials if math.isfinite(t.joules)
    }


def test_without_a_counter_it_says_so(tmp_path):
    said = []

    class Listening(Watcher):
        def note(self, text: str) -> None:
            said.append(text)

    results = run(small_study(tmp_path), Listening(), Here(), energy=True)
    assert results.record["energy"] == "not measured"
    assert all(math.isnan(t.joules) for t in results.trials)
    assert any("energy is not measured: only CUDA devices" in text for text in said)


@pytest.mark.parametrize("measured", [False, True])
def test_the_report_sets_accuracy_against_costs(tmp_path, measured: bool):
    results = run(small_study(tmp_path), pool=Here())
    if measured:
        trials = tuple(replace(t, joules=100.0 + i) for i, t in enumerate(results.trials))
        results = replace(results, trials=trials)
    page = render(summarise(results))
    assert "figure-costs" in page
    assert ("joules a trial" in page) == measured
    assert ("Joules were not measured" in page) != measured
    assert ("not measured</td>" in page) != measured


def test_a_missing_library_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("retroprop.study.energy._uuid", lambda: "GPU-this one")
    counter, reason = find_counter("cuda")
    assert counter is None
    assert "pip install 'retroprop[energy]'" in reason


def test_a_counter_in_millijoules_is_read_in_joules(monkeypatch):
    import sys
    import types

    fake = types.ModuleType("pynvml")
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetHandleByUUID = {"GPU-this one": 7}.__getitem__
    fake.nvmlDeviceGetName = lambda handle: b"Some GPU"
    fake.nvmlDeviceGetTotalEnergyConsumption = lambda handle: np.uint64(2_500)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr("retroprop.study.energy._uuid", lambda: "GPU-this one")
    counter, reason = find_counter("cuda")
    assert not reason
    assert (counter.device, counter.joules()) == ("Some GPU", 2.5)
    monkeypatch.setattr("retroprop.study.energy._uuid", lambda: "GPU-another one")
    counter, reason = find_counter("cuda")
    assert counter is None
    assert "gives no count" in reason
