"""The state of a long training, written down between epochs."""

import os
import pickle
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from retroprop.ensemble.training import Training

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

    def take_up(self, training: Training) -> int:
        """Go on from the file, where there is one of this group; the epochs that it holds."""
        try:
            kept = torch.load(self.path, map_location=training.minibatches.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return 0  # none, or one that a full disk cut short
        if kept.get("group") != self.group:
            return 0
        training.restore(kept["state"])
        return training.epoch

    def keep(self, training: Training) -> None:
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
