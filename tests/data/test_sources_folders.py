"""Data sets that torchvision reads from a local folder."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from retroprop.data import sources
from retroprop.errors import DataMissing

FOLDERS = {
    "mnist": ("MNIST/raw", "MNIST"),
    "fashion_mnist": ("FashionMNIST/raw", "FashionMNIST"),
    "cifar10": ("cifar-10-batches-py", "CIFAR10"),
}


IMAGES = {"cifar10_jpeg_q90"}  # folders of image files


def test_every_data_set_but_the_digits_needs_a_folder():
    assert set(sources.data_names()) == {"digits", *FOLDERS, *IMAGES}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("cut_short", [False, True])
def test_what_is_missing_or_cut_short_says_how_to_get_it(name: str, cut_short: bool, tmp_path: Path):
    folder, kind = FOLDERS[name]
    if cut_short:
        (tmp_path / folder).mkdir(parents=True)
        for file in ("train-images-idx3-ubyte", "data_batch_1", "batches.meta"):
            (tmp_path / folder / file).write_bytes(b"\x00\x00\x08\x03\x00")
    with pytest.raises(DataMissing) as error:
        sources.load(name, tmp_path)
    hints = (str(tmp_path / folder), f"holds {folder.split('/')[0]}/", f"torchvision.datasets.{kind}(")
    for hint in (*hints, "--data-root", sources.VARIABLE, "download=True", "`data: digits`"):
        assert hint in str(error.value)


def write_batches(folder: Path, images: np.ndarray, labels: list[int]) -> dict[str, str]:
    """CIFAR-10's batches of fewer images; gives the checksums of the files."""
    parts = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    each = len(images) // len(parts)
    sums = {}
    for i, file in enumerate(parts):
        some = slice(i * each, (i + 1) * each)
        content = pickle.dumps({"data": images[some].reshape(each, -1), "labels": labels[some]})
        (folder / file).write_bytes(content)
        sums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    content = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(content)
    return {**sums, "batches.meta": hashlib.md5(content, usedforsecurity=False).hexdigest()}


def test_cifar_images_are_channels_first_training_before_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
    labels = [i % 10 for i in range(60)]
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    sums = write_batches(folder, images, labels)
    for parts in ("train_list", "test_list"):
        listed = [[file, sums[file]] for file, _ in getattr(CIFAR10, parts)]
        monkeypatch.setattr(CIFAR10, parts, listed)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    data = sources.load("cifar10", tmp_path)
    assert torch.equal(data.images, torch.from_numpy(images))
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous()
    assert data.labels.tolist() == labels
    assert data.shape == (3, 32, 32)
    assert (data.sizes, data.official_test) == ((45_000, 5_000, 10_000), 10_000)


def test_cifar_from_the_named_folder():
    if not (sources.data_root() / "cifar-10-batches-py").is_dir():
        pytest.skip(f"{sources.VARIABLE} names no folder that holds cifar-10-batches-py/")
    data = sources.load("cifar10")
    assert data.images.shape == (60_000, 3, 32, 32)
    assert data.labels[-10_000:].bincount().tolist() == [1000] * 10
