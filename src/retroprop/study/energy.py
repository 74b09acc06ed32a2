"""Joules of a study, from the counter that a device keeps, over windows long enough to mean something."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

# A counter moves in steps, and other work comes and goes: shorter windows are not to be trusted.
SHORTEST = 30.0


class Counter(Protocol):
    """What counts a device's energy.

    device: its name.
    """

    device: str

    def joules(self) -> float:
        """Energy so far, from some beginning."""
        ...


class NvmlCounter:
    """The energy counter of the first CUDA device, which NVIDIA's driver keeps."""

    def __init__(self) -> None:
        import pynvml  # type: ignore[import-not-found]

        pynvml.nvmlInit()
        self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(self._handle)
        self.device = name.decode() if isinstance(name, bytes) else str(name)
        self.joules()  # a device without a counter says so now

    def joules(self) -> float:
        """Energy since the driver was loaded; the driver counts millijoules."""
        return float(self._read(self._handle)) / 1000


def find_counter(device: str) -> tuple[Counter | None, str]:
    """The counter of the device that trains, or None and why there is none."""
    if device != "cuda":
        return None, "energy is not measured: only CUDA devices have a counter that is read here"
    try:
        return NvmlCounter(), ""
    except ImportError:
        return None, "energy is not measured: nvidia-ml-py is missing; pip install 'retroprop[energy]'"
    except Exception as error:
        return None, f"energy is not measured: the device gives no count ({error})"


@dataclass
class Window:
    """A stretch of training, some whole groups.

    joules, seconds: of all of it, the device's idle power included.
    idle_watts: of the device before the first group. groups: their ids, with their seconds of training.
    """

    device: str
    joules: float
    seconds: float
    idle_watts: float
    groups: dict[int, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """As a store keeps it."""
        return asdict(self)


class Meter:
    """Sorts the groups of a study, one after another on one device, into windows.

    Args:
        counter: of the device.
        clock, sleep: of the system; tests bring their own.
    """

    def __init__(
        self,
        counter: Counter,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.counter, self.clock = counter, clock
        self.idle_watts = self._idle(sleep)
        self._waiting: dict[int, float] = {}
        self._begin()

    def _idle(self, sleep: Callable[[float], None]) -> float:
        before, started = self.counter.joules(), self.clock()
        sleep(SHORTEST)
        return (self.counter.joules() - before) / (self.clock() - started)

    def _begin(self) -> None:
        self._joules, self._started = self.counter.joules(), self.clock()

    def finished(self, group: int, seconds: float) -> Window | None:
        """Note a group that has just finished; a window, when it is long enough to be closed.

        What is left over at the end of a study is too short to be measured.
        """
        self._waiting[group] = seconds
        now, joules = self.clock(), self.counter.joules()
        if now - self._started < SHORTEST:
            return None
        window = Window(
            self.counter.device, joules - self._joules, now - self._started, self.idle_watts, self._waiting
        )
        self._waiting = {}
        self._begin()
        return window


def trial_joules(windows: list[dict[str, Any]], trials: dict[str, tuple[int, float]]) -> dict[str, float]:
    """Joules by trial: a window's, shared out by seconds of training.

    Args:
        windows: as `Window.as_row` gave them.
        trials: group and seconds of every trial, by key.
    """
    rates: dict[int, float] = {}
    for window in windows:
        whole = sum(window["groups"].values())
        for group in window["groups"]:
            rates[int(group)] = window["joules"] / whole if whole else 0.0
    return {key: rates[group] * seconds for key, (group, seconds) in trials.items() if group in rates}


def summary(windows: list[dict[str, Any]]) -> str | dict[str, Any]:
    """What the record of a study says of its energy."""
    if not windows:
        return "not measured"
    joules, seconds = (sum(window[name] for window in windows) for name in ("joules", "seconds"))
    return {
        "device": windows[0]["device"],
        "joules in measured windows": round(joules, 1),
        "mean watts": round(joules / seconds, 1),
        "idle watts before the study": round(windows[0]["idle_watts"], 1),
        "windows of 30 seconds or more": len(windows),
    }
