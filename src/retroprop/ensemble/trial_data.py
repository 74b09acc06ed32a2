"""What a seed decides of a training besides the start: its minibatches and its noise.

Both the reference loop and the engine read them here, so they cannot differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from retroprop.augment import Augment
from retroprop.data.dataset import Dataset, split
from retroprop.errors import RetropropError
from retroprop.networks.keyed import Keyed
from retroprop.randomness import Seed, permutation, uniforms


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions to train.

    epochs: passes over the training images.
    batch: images a step, the rest of each shuffled epoch dropped; None takes the whole set in its own
        order, one step a pass (the sweeps of 1986).
    """

    epochs: int
    batch: int | None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RetropropError(f"epochs={self.epochs} was given; expected at least 1.")


@dataclass(frozen=True)
class SeedData:
    """One seed's images as tensors: `x` (case, feature), `t` (case, class), one-hot."""

    seed: Seed
    train_x: Tensor
    train_t: Tensor
    validation_x: Tensor
    validation_t: Tensor
    test_x: Tensor
    test_t: Tensor

    @classmethod
    def of(cls, data: Dataset, seed: Seed, dtype: torch.dtype, device: torch.device) -> "SeedData":
        """The split that a seed draws, on the device."""
        parts = split(data, seed)
        tensors = []
        for index in (parts.train, parts.validation, parts.test):
            labels = functional.one_hot(data.labels[index], data.classes)
            tensors += [data.inputs(index, dtype, device), labels.to(device, dtype)]
        return cls(seed, *tensors)

    def steps(self, schedule: Schedule) -> int:
        """Steps an epoch.

        Raises:
            RetropropError: when a minibatch is larger than the training set.
        """
        cases = len(self.train_x)
        if schedule.batch is not None and not 1 <= schedule.batch <= cases:
            raise RetropropError(
                f"batch={schedule.batch} was given; expected 1 to {cases}, the number of training images."
            )
        return 1 if schedule.batch is None else cases // schedule.batch

    def order(self, schedule: Schedule, epoch: int) -> Tensor:
        """Indices of the training images in an epoch's minibatches: `(step, case)`."""
        cases, steps = len(self.train_x), self.steps(schedule)
        if schedule.batch is None:
            return torch.arange(cases).unsqueeze(0)
        shuffled = permutation(cases, self.seed, "order", step=epoch)
        return shuffled[: steps * schedule.batch].reshape(steps, schedule.batch)


def augmented(
    augment: Sequence[Augment], data: SeedData, epoch: int, order: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of every minibatch of an epoch, `order` `(step, case)`, after augmentation."""
    drawn = [change.draw(data.seed, epoch, order).to(data.train_x) for change in augment]
    for i, index in enumerate(order.to(data.train_x.device)):
        x, t = data.train_x[index], data.train_t[index]
        for change, noise_of in zip(augment, drawn, strict=True):
            x, t = change(x, t, noise_of[i])
        yield x, t


def keyed_modules(network: torch.nn.Module) -> dict[str, Keyed]:
    """Modules of a network that need noise, by path."""
    return {path: module for path, module in network.named_modules() if isinstance(module, Keyed)}


def noise(module: Keyed, path: str, seed: Seed, epoch: int, order: Tensor) -> Tensor:
    """An epoch's noise for one module: `(step, case, *shape)` in [0, 1), float32."""
    return uniforms((*order.shape, *module.shape), seed, module.stream, path, epoch)
