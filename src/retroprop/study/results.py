"""What a study has found so far, read from its store."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retroprop.study.design import Arm, Factor


@dataclass(frozen=True)
class TrialResult:
    """One finished trial. Accuracies are fractions in [0, 1]; gradients are norms by weight matrix.

    role: "tuning", "reporting", or "reference" (a reporting trial of a reference arm).
    seed: number of the seed within its role, from 0.
    multiplier, rate: learning rate as a multiple of the recipe's base rate, and itself.
    train_loss, validation_curve: `(epoch,)`.
    test_accuracy, test_correct: None for tuning trials; the latter `(image,)` bool.
    seconds: its share of its group's training time.
    parameters: number of trained values. flops: of one step, counted, forward and backward.
    error: why the trial failed, empty if it did not; then all numbers are NaN.
    joules: its share of what its group's device took, idle power included; NaN where it was not measured.
    """

    key: str
    arm: int
    role: str
    seed: int
    multiplier: float
    rate: float
    steps: int
    seconds: float
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float | None
    diverged: bool
    train_loss: np.ndarray
    validation_curve: np.ndarray
    gradient_first: dict[str, float]
    gradient_last: dict[str, float]
    test_correct: np.ndarray | None
    parameters: int
    flops: int
    weights: str
    error: str = ""
    joules: float = float("nan")


@dataclass(frozen=True)
class Look:
    """One earlier analysis: when, and which reporting seeds it saw."""

    time: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Results:
    """A study and its finished trials.

    arms: those of the design, then the reference arms; trials name them by index.
    chosen: index into `multipliers` of the rate that tuning chose, by arm; -1 before tuning is done.
    validation: `(arm, rate, seed)` of tuning trials; NaN where missing. diverged: likewise, bool.
    chance: accuracy of always naming the commonest class.
    images: test images of one trial. official_test: they are the same in every trial.
    folder: of the study; weights of reporting trials lie in `weights/<key>.safetensors`.
    record: versions, device, seconds, notes and whatever else a reader may want to know.
    """

    name: str
    settings: dict[str, object]
    factors: tuple[Factor, ...]
    design: str
    held: tuple[str, ...]
    arms: tuple[Arm, ...]
    multipliers: tuple[float, ...]
    chosen: tuple[int, ...]
    validation: np.ndarray
    diverged: np.ndarray
    trials: tuple[TrialResult, ...]
    chance: float
    images: int
    official_test: bool
    data_about: str
    folder: Path
    looks: tuple[Look, ...] = ()
    record: dict[str, object] = field(default_factory=dict)

    def reporting(self, arm: int) -> list[TrialResult]:
        """Finished reporting trials of an arm at its chosen rate, by seed."""
        own = [t for t in self.trials if t.arm == arm and t.role != "tuning" and not t.error]
        return sorted(own, key=lambda trial: trial.seed)

    def shared_seeds(self) -> list[int]:
        """Reporting seeds that every arm of the design has finished: those that make pairs."""
        finished = [
            {t.seed for t in self.reporting(i)} for i, arm in enumerate(self.arms) if not arm.reference
        ]
        return sorted(set.intersection(*finished)) if finished else []

    def first_layer(self, key: str) -> np.ndarray:
        """First-layer weights `(unit, pixel)` of a reporting trial."""
        from safetensors.numpy import load_file

        tensors = load_file(self.folder / "weights" / f"{key}.safetensors")
        return next(t for name, t in sorted(tensors.items()) if t.ndim == 2 and ".0." in name)
