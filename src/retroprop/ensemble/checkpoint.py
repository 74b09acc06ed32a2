"""The state of a long training, written down between epochs."""

import os
import pickle
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch


class Epochs(Protocol):
    """A training that goes on epoch after epoch."""

    epoch: int

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        ...

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        ...

    def run_epoch(self) -> None:
        """Train for one more epoch."""

    def state(self) -> dict[str, Any]:
        """All that the rest depends on, as tensors and plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


# Seconds of training that an interruption may cost.
EVERY = 15.0


@dataclass
class Checkpoint:
    """A file that holds the state of one group in training.

    path: of the file; it is made when the training lasts longer than `every` seconds.
    group: names the group and the way it is trained; the state of another one is never taken up.
    """

    path: Path
    group: str
    every: float = EVERY
    _last: float = field(default_factory=time.perf_counter)

    def part(self, name: str) -> "Checkpoint":
        """Of a part of the group."""
        return replace(
            self, path=self.path.with_suffix(f".{name}{self.path.suffix}"), group=f"{self.group} {name}"
        )

    def take_up(self, training: Epochs) -> int:
        """Go on from the file, where there is one of this group; the epochs that it holds."""
        try:
            kept = torch.load(self.path, map_location=training.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return 0  # none, or one that a full disk cut short
        if kept.get("group") != self.group:
            return 0
        training.restore(kept["state"])
        return training.epoch

    def keep(self, training: Epochs) -> None:
        """Write the state down, if it is time to and there is more to come."""
        if training.done or time.perf_counter() - self._last < self.every:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save({"group": self.group, "state": training.state()}, part)
        os.replace(part, self.path)
        self._last = time.perf_counter()

    def remove(self) -> None:
        """Remove the file and those of its parts."""
        for file in self.path.parent.glob(f"{self.path.stem}.*"):
            file.unlink(missing_ok=True)


def run(training: Epochs, checkpoint: Checkpoint | None) -> int:
    """Train to the end, with a checkpoint now and then; the epochs that an earlier run had done."""
    resumed = checkpoint.take_up(training) if checkpoint is not None else 0
    while not training.done:
        training.run_epoch()
        if checkpoint is not None:
            checkpoint.keep(training)
    return resumed
