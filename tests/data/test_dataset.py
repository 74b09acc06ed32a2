"""Data sets and their splits."""

from pathlib import Path

import pytest
import torch

from retroprop.data import sources
from retroprop.data.dataset import Dataset, Split, split
from retroprop.ensemble.trial_data import SeedData
from retroprop.errors import DataMissing, RetropropError, UnknownName

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return sources.load("digits")


def parts(of: Split) -> list[torch.Tensor]:
    return [of.train, of.validation, of.test]


def assert_stratified(data: Dataset, pool: torch.Tensor, of: Split) -> None:
    classes = data.labels[pool].bincount(minlength=data.classes)
    for name in PARTS if not data.official_test else PARTS[:2]:
        part = getattr(of, name)
        counts = data.labels[part].bincount(minlength=data.classes)
        fair = classes * len(part) / len(pool)
        worst = float((counts - fair).abs().max())
        assert worst <= 1, f"{name}: a class is off its share by {worst:.2f} images"


def test_digits(digits: Dataset):
    assert digits.images.shape == (1797, 8, 8)
    assert digits.images.dtype == torch.uint8
    assert int(digits.images.max()) == 16
    assert digits.labels.unique().tolist() == list(range(10))
    assert digits.features == 64
    assert digits.chance == pytest.approx(183 / 1797)
    data = SeedData.of(digits, 0, torch.float64, torch.device("cpu"))
    inputs = data.inputs(torch.arange(5))
    assert inputs.shape == (5, *digits.shape) == (5, 1, 8, 8)
    assert inputs.dtype == torch.float64
    assert (float(inputs.min()), float(inputs.max())) == (0.0, 1.0)


@pytest.mark.parametrize("seed", [0, 1, "tuning-3"])
def test_digits_split(digits: Dataset, seed: int | str):
    drawn = split(digits, seed)
    assert [len(part) for part in parts(drawn)] == [1152, 285, 360]
    together = torch.cat(parts(drawn))
    assert together.sort().values.tolist() == list(range(1797)), "parts overlap or leave images out"
    assert_stratified(digits, torch.arange(1797), drawn)


def test_a_seed_names_one_split(digits: Dataset):
    one, again, other = split(digits, 0), split(digits, 0), split(digits, 1)
    for a, b, c in zip(parts(one), parts(again), parts(other), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def lopsided(sizes: tuple[int, int, int], official_test: int = 0) -> Dataset:
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate((70, 20, 7, 3))])
    labels = labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1).expand(100, 2, 2).contiguous()
    return Dataset("lopsided", images, labels, 4, 255.0, sizes, official_test, "")


@pytest.mark.parametrize("sizes", [(60, 20, 20), (33, 11, 7), (97, 2, 1), (10, 45, 45)])
def test_rare_classes_are_spread_too(sizes: tuple[int, int, int]):
    data = lopsided(sizes)
    drawn = split(data, 0)
    assert tuple(len(part) for part in parts(drawn)) == sizes
    assert len(torch.cat(parts(drawn)).unique()) == sum(sizes)
    assert_stratified(data, torch.arange(100), drawn)


def test_an_official_test_set_is_the_end_in_every_split():
    data = lopsided((50, 20, 30), official_test=30)
    for seed in range(3):
        drawn = split(data, seed)
        assert drawn.test.tolist() == list(range(70, 100))
        assert int(torch.cat((drawn.train, drawn.validation)).max()) < 70
        assert_stratified(data, torch.arange(70), drawn)


def test_more_images_than_there_are_is_an_error():
    with pytest.raises(RetropropError, match=r"100 images to split; \(80, 20, 20\)"):
        split(lopsided((80, 20, 20)), 0)


def test_fingerprint_sees_images_labels_and_sizes(digits: Dataset):
    base = lopsided((60, 20, 20))
    images, labels = base.images.clone(), base.labels.clone()
    images[3, 0, 0] += 1
    labels[3] = (labels[3] + 1) % 4
    prints = {
        lopsided((60, 20, 20)).fingerprint(),
        lopsided((60, 20, 10)).fingerprint(),
        Dataset("lopsided", images, base.labels, 4, 255.0, base.sizes, 0, "").fingerprint(),
        Dataset("lopsided", base.images, labels, 4, 255.0, base.sizes, 0, "").fingerprint(),
        digits.fingerprint(),
    }
    assert len(prints) == 5
    assert base.fingerprint() == lopsided((60, 20, 20)).fingerprint()


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownName, match="digits"):
        sources.load("digit")


def test_missing_mnist_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(DataMissing) as error:
        sources.load("mnist", tmp_path)
    for hint in (str(tmp_path / "MNIST" / "raw"), "--data-root", sources.VARIABLE, "download=True"):
        assert hint in str(error.value)


def test_root_is_the_one_given_then_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(sources.VARIABLE, str(tmp_path))
    assert sources.data_root() == tmp_path
    assert sources.data_root("elsewhere") == Path("elsewhere")
    monkeypatch.delenv(sources.VARIABLE)
    assert sources.data_root() == Path("data")


def test_mnist_from_the_named_folder():
    if not (sources.data_root() / "MNIST").is_dir():
        pytest.skip(f"{sources.VARIABLE} names no folder that holds MNIST/")
    mnist = sources.load("mnist")
    assert mnist.images.shape == (70_000, 28, 28)
    assert mnist.labels[:60_000].bincount().tolist()[:3] == [5923, 6742, 5958]
    drawn = split(mnist, 0)
    assert [len(part) for part in parts(drawn)] == [55_000, 5_000, 10_000]
    assert drawn.test.tolist() == list(range(60_000, 70_000))
    assert_stratified(mnist, torch.arange(60_000), drawn)
