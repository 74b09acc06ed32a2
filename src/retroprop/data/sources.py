"""Where data sets come from: the built-in digits, and MNIST and its like from a local folder."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retroprop.data.dataset import Dataset
from retroprop.errors import DataMissing, UnknownName

VARIABLE = "RETROPROP_DATA"


def data_root(given: str | Path | None = None) -> Path:
    """The folder that holds MNIST/ and friends: the one given, or RETROPROP_DATA, or ./data."""
    return Path(given or os.environ.get(VARIABLE) or "data").expanduser()


def _digits(root: Path) -> Dataset:
    del root
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        name="digits",
        images=torch.from_numpy(bunch.images).to(torch.uint8),
        labels=torch.from_numpy(bunch.target).to(torch.int64),
        classes=10,
        scale=16.0,
        sizes=(1152, 285, 360),
        official_test=0,
        about="1,797 handwritten digits of 8x8 pixels; every split mixes the same known writers, so "
        "accuracy on new writers would be lower.",
    )


def _missing(title: str, root: Path, folder: Path, files: str, kind: str) -> DataMissing:
    """What to say of data that torchvision could not read from a folder below the root."""
    return DataMissing(
        f"{title} was not found, or not whole, in {str(root)!r}. Put {files} in {str(root / folder)!r}, or "
        f"name the folder that holds {folder.parts[0]}/ with --data-root or {VARIABLE}; "
        f"torchvision.datasets.{kind}({str(root)!r}, download=True) fetches them where there is a network. "
        "Without it, `data: digits` runs everything."
    )


# What torchvision raises of files that are missing, cut short, or something else.
_UNREADABLE = (RuntimeError, AssertionError, OSError, ValueError)


def _idx(kind: type[Any], root: Path, name: str, title: str, about: str) -> Dataset:
    """MNIST, or what comes in four files like its own, as a class of torchvision reads it."""
    try:
        train, test = (kind(str(root), train=part, download=False) for part in (True, False))
    except _UNREADABLE:
        folder = Path(kind.__name__, "raw")
        raise _missing(title, root, folder, "its four unpacked files", kind.__name__) from None
    return Dataset(
        name=name,
        images=torch.cat((train.data, test.data)),
        labels=torch.cat((train.targets, test.targets)).to(torch.int64),
        classes=10,
        scale=255.0,
        sizes=(55_000, 5_000, 10_000),
        official_test=10_000,
        about=f"70,000 {about} of 28x28 pixels; the 10,000 test images are the official ones.",
    )


def _mnist(root: Path) -> Dataset:
    from torchvision.datasets import MNIST

    return _idx(MNIST, root, "mnist", "MNIST", "handwritten digits")


def _fashion_mnist(root: Path) -> Dataset:
    from torchvision.datasets import FashionMNIST

    return _idx(FashionMNIST, root, "fashion_mnist", "Fashion-MNIST", "pictures of clothes")


def _cifar10(root: Path) -> Dataset:
    from torchvision.datasets import CIFAR10

    try:
        train, test = (CIFAR10(str(root), train=part, download=False) for part in (True, False))
    except _UNREADABLE:
        files = "its unpacked batches (data_batch_1 to 5, test_batch, batches.meta)"
        folder = Path(CIFAR10.base_folder)
        raise _missing("CIFAR-10", root, folder, files, "CIFAR10") from None
    images = torch.cat([torch.from_numpy(part.data) for part in (train, test)])
    return Dataset(
        name="cifar10",
        images=images.permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor([*train.targets, *test.targets], dtype=torch.int64),
        classes=10,
        scale=255.0,
        sizes=(45_000, 5_000, 10_000),
        official_test=10_000,
        about="60,000 photographs of ten kinds of things, 32x32 pixels in colour; the 10,000 test images are "
        "the official ones.",
    )


def _cifar10_jpeg(root: Path) -> Dataset:
    from torchvision.datasets import ImageFolder

    folder = root / "cifar10"
    try:
        train, test = (ImageFolder(str(folder / part)) for part in ("train", "test"))
        pictures = [np.asarray(picture) for part in (train, test) for picture, _ in part]
        images = torch.from_numpy(np.stack(pictures))
    except _UNREADABLE:
        raise DataMissing(
            f"CIFAR-10 as JPEG files was not found, or not whole, in {str(root)!r}. Put its images in "
            f"{str(folder / 'train')!r} and {str(folder / 'test')!r}, a folder for each class, or name the "
            f"folder that holds cifar10/ with --data-root or {VARIABLE}. Without it, `data: digits` runs "
            "everything."
        ) from None
    return Dataset(
        name="cifar10_jpeg_q90",
        images=images.permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor([*train.targets, *test.targets], dtype=torch.int64),
        classes=len(train.classes),
        scale=255.0,
        sizes=(len(train) - 5_000, 5_000, len(test)),
        official_test=len(test),
        about="CIFAR-10 (JPEG q90): photographs of ten kinds of things, 32x32 pixels in colour, compressed "
        "again with loss; accuracies are close to, but not, those of the lossless set. The test images are "
        "the official ones.",
    )


_SOURCES: dict[str, Callable[[Path], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar10_jpeg_q90": _cifar10_jpeg,
}


def data_names() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(_SOURCES)


@cache
def _loaded(name: str, root: Path) -> Dataset:
    return _SOURCES[name](root)


def load(name: str, root: str | Path | None = None) -> Dataset:
    """A data set by name.

    Args:
        name: one of `data_names()`.
        root: the folder that holds it; see `data_root`.

    Raises:
        UnknownName: when there is no such data set.
        DataMissing: when it is not on this machine; the message says how to get it.
    """
    if name not in _SOURCES:
        raise UnknownName("data set", name, _SOURCES)
    return _loaded(name, data_root(root))
