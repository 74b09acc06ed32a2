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
    """The energy counter of a CUDA device, which NVIDIA's driver keeps.

    Args:
        uuid: of the device; its index may be another one in the driver than in torch.
    """

    def __init__(self, uuid: str) -> None:
        import pynvml  # type: ignore[import-not-found]

        pynvml.nvmlInit()
        self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
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
        return NvmlCounter(_uuid()), ""
    except ImportError:
        return None, "energy is not measured: nvidia-ml-py is missing; pip install 'retroprop[energy]'"
    except Exception as error:
        return None, f"energy is not measured: the device gives no count ({error})"


def _uuid() -> str:
    """Of the CUDA device that torch uses, as the driver writes it."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


@dataclass
class Window:
    """A stretch of training, some whole groups.

    joules, seconds: of all of it, the device's idle power included.
    idle_watts: of the device before the first group.
    groups: ids of those that are measured, with the seconds that each took of the window, compiling left out.
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
        self._last = self._started

    def finished(self, group: int, *, compiling: float = 0.0, measured: bool = True) -> Window | None:
        """Note that a group has just ended; a window, when it is long enough to be closed.

        What is left over at the end of a study is too short to be measured.

        Args:
            group: its id.
            compiling: seconds of it that went into compiling.
            measured: False for a group that failed, or began before this run: its share is nobody's.
        """
        now, joules = self.clock(), self.counter.joules()
        if measured:
            self._waiting[group] = max(0.0, now - self._last - compiling)
        self._last = now
        if now - self._started < SHORTEST:
            return None
        window = Window(
            self.counter.device, joules - self._joules, now - self._started, self.idle_watts, self._waiting
        )
        self._waiting = {}
        self._begin()
        return window


def trial_joules(windows: list[dict[str, Any]], trials: dict[str, tuple[int, float]]) -> dict[str, float]:
    """Joules by trial: a group's share of its window by time, a trial's of its group by seconds of training.

    Args:
        windows: as `Window.as_row` gave them.
        trials: group and seconds of every trial, by key.
    """
    trained: dict[int, float] = {}
    for group, seconds in trials.values():
        trained[group] = trained.get(group, 0.0) + seconds
    joules: dict[int, float] = {}
    for window in windows:
        watts = window["joules"] / window["seconds"]
        joules |= {int(group): watts * seconds for group, seconds in window["groups"].items()}
    return {
        key: joules[group] * seconds / trained[group]
        for key, (group, seconds) in trials.items()
        if group in joules and trained[group]
    }


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
