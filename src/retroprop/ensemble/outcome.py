"""What one training leaves behind."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


@dataclass
class Outcome:
    """The result of one trial; accuracies are fractions in [0, 1].

    train_loss, validation_accuracy: `(epoch,)`.
    test_accuracy, test_correct: None unless the test set was asked for; `(image,)` bool.
    gradient_first, gradient_last: norm of the gradient by weight matrix, at the first step's and the
        last step's minibatch, the latter after the last update.
    steps: updates made; fewer than planned when the trial diverged.
    tensors: final parameters and buffers by name.
    seconds: of training, its share where it ran in a group.
    resumed: epochs that an interrupted run had done, of a trial alone.
    """

    train_loss: np.ndarray
    validation_accuracy: np.ndarray
    train_accuracy: float
    test_accuracy: float | None
    test_correct: np.ndarray | None
    gradient_first: dict[str, float]
    gradient_last: dict[str, float]
    diverged: bool
    steps: int
    seconds: float = 0.0
    resumed: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
