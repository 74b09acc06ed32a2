"""Where data sets come from: the built-in digits, and MNIST from a local folder."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

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


def _mnist(root: Path) -> Dataset:
    from torchvision.datasets import MNIST

    try:
        train, test = (MNIST(str(root), train=part, download=False) for part in (True, False))
    except (RuntimeError, AssertionError, OSError, ValueError):  # missing, cut short or not MNIST at all
        raise DataMissing(
            f"MNIST was not found, or not whole, in {str(root)!r}. Put its four unpacked files in "
            f"{str(root / 'MNIST' / 'raw')!r}, or name the folder that holds MNIST/ with --data-root or "
            f"{VARIABLE}; torchvision.datasets.MNIST({str(root)!r}, download=True) fetches them where "
            "there is a network. Without it, `data: digits` runs everything."
        ) from None
    return Dataset(
        name="mnist",
        images=torch.cat((train.data, test.data)),
        labels=torch.cat((train.targets, test.targets)).to(torch.int64),
        classes=10,
        scale=255.0,
        sizes=(55_000, 5_000, 10_000),
        official_test=10_000,
        about="70,000 handwritten digits of 28x28 pixels; the 10,000 test images are the official ones.",
    )


_SOURCES: dict[str, Callable[[Path], Dataset]] = {"digits": _digits, "mnist": _mnist}


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
