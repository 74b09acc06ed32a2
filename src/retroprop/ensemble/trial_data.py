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
from retroprop.ensemble.precision import PRECISIONS, Precision
from retroprop.errors import RetropropError, UnknownName
from retroprop.randomness import Seed, permutation, uniforms
from retroprop.stacking.keyed import Keyed

# Steps whose noise is drawn in one go: enough to pay for the call, few enough to stay small.
STEPS_AT_ONCE = 32
# Images that pass through a network together at evaluation; on a CPU so few that what the members of a group
# make of them stays in the cache.
EVALUATED_AT_ONCE = 2048
EVALUATED_AT_ONCE_ON_CPU = 128


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions to train.

    epochs: passes over the training images.
    batch: images a step, the rest of each shuffled epoch dropped; None takes the whole set in its own
        order, one step a pass (the sweeps of 1986).
    precision: of matrix products: float32; tf32, on CUDA devices that have it; bf16, by autocast.
    """

    epochs: int
    batch: int | None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RetropropError(f"epochs={self.epochs} was given; expected at least 1.")
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class SeedData:
    """One seed's split of the images.

    images: `(image, ...)`, shared by all seeds and kept as they come, such as bytes.
    targets: `(image, class)`, a distribution each; one-hot.
    scale, dtype: what images are divided by, and the type of what networks see.
    train, validation, test: indices `(case,)`.
    """

    seed: Seed
    images: Tensor
    targets: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    scale: float = 1.0
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, data: Dataset, seed: Seed, dtype: torch.dtype, device: torch.device) -> "SeedData":
        """The split that a seed draws, on the device."""
        there = data.to(device)
        parts = split(data, seed)
        images = there.images.unsqueeze(1) if there.images.ndim == 3 else there.images
        targets = functional.one_hot(there.labels, data.classes).to(torch.uint8)
        train, validation, test = (p.to(device) for p in (parts.train, parts.validation, parts.test))
        return cls(seed, images, targets, train, validation, test, data.scale, dtype)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def inputs(self, index: Tensor) -> Tensor:
        """What a network sees of images: `(*index.shape, channel, height, width)`, in [0, 1]."""
        return self.images[index].to(self.dtype) / self.scale

    def outputs(self, index: Tensor) -> Tensor:
        """What a network should say of images: `(*index.shape, class)`."""
        return self.targets[index].to(self.dtype)

    def steps(self, schedule: Schedule) -> int:
        """Steps an epoch.

        Raises:
            RetropropError: when a minibatch is larger than the training set.
        """
        cases = len(self.train)
        if schedule.batch is not None and not 1 <= schedule.batch <= cases:
            raise RetropropError(
                f"batch={schedule.batch} was given; expected 1 to {cases}, the number of training images."
            )
        return 1 if schedule.batch is None else cases // schedule.batch

    def portions(self, count: int) -> Iterator[tuple[slice, int]]:
        """Cases that pass through a network together at evaluation, and how many of them, the last, are new.

        All are of one size, so the last portion begins with cases that came before. The size is that of the
        validation images' portions, so that one compiled evaluation serves all parts that are as large.
        """
        most = EVALUATED_AT_ONCE_ON_CPU if self.device.type == "cpu" else EVALUATED_AT_ONCE
        whole = len(self.validation)
        size = min(-(-whole // -(-whole // most)) if whole >= most else most, count)
        done = 0
        for end in (min(size * (i + 1), count) for i in range(-(-count // size) if size else 0)):
            yield slice(end - size, end), end - done
            done = end

    def order(self, schedule: Schedule, epoch: int) -> Tensor:
        """Places in `train` of the images in an epoch's minibatches: `(step, case)`, on the CPU."""
        cases, steps = len(self.train), self.steps(schedule)
        if schedule.batch is None:
            return torch.arange(cases).unsqueeze(0)
        shuffled = permutation(cases, self.seed, "order", step=epoch)
        return shuffled[: steps * schedule.batch].reshape(steps, schedule.batch)


def chunks(order: Tensor) -> Iterator[tuple[int, int]]:
    """First and last + 1 of the steps whose noise is drawn together."""
    for start in range(0, len(order), STEPS_AT_ONCE):
        yield start, min(start + STEPS_AT_ONCE, len(order))


def augmentation_noise(augment: Sequence[Augment], data: SeedData, epoch: int, order: Tensor) -> list[Tensor]:
    """An epoch's noise of every augmentation: `(step, case, *noise_shape())` each."""
    return [change.draw(data.seed, epoch, order).to(data.device, data.dtype) for change in augment]


def minibatch(
    data: SeedData, index: Tensor, augment: Sequence[Augment], drawn: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one step, after augmentation.

    Args:
        data: of the seed.
        index: places in `train`, `(case,)`.
        augment: changes, one after another.
        drawn: the step's noise of each, `(case, *noise_shape())`.
    """
    images = data.train[index]
    x, t = data.inputs(images), data.outputs(images)
    for change, noise_of in zip(augment, drawn, strict=True):
        x, t = change(x, t, noise_of)
    return x, t


def keyed_modules(network: torch.nn.Module) -> dict[str, Keyed]:
    """Modules of a network that need noise, by path."""
    return {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, Keyed) and module.shape is not None
    }


def noise(module: Keyed, path: str, data: SeedData, epoch: int, steps: tuple[int, int], cases: int) -> Tensor:
    """Noise of some steps of an epoch for one module: `(step, case or 1, *shape)` in [0, 1)."""
    first, last = steps
    shape = module.noise_shape(cases)
    numbers = uniforms(
        (last - first, *shape),
        data.seed,
        module.stream,
        path,
        epoch,
        skip=first * torch.Size(shape).numel(),
        device=data.device,
    )
    return numbers.to(data.device, data.dtype)
