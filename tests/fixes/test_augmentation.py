"""Augmentations against what they do to one image at a time; keyed, and the same in a group as alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retroprop import fixes
from retroprop.augment import Augment
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import train
from retroprop.ensemble.trial_data import Schedule
from retroprop.errors import Conflict, RetropropError
from retroprop.fix import Recipe, apply
from retroprop.networks.mlp import MLP
from tests.ensemble.test_engine import assert_equal, data_of

FIXES = {
    "shift": {"pixels": 2},
    "crop": {"padding": 3},
    "flip": {"p": 0.4},
    "cutout": {"size": 3},
}


def augment(name: str, **settings: float) -> Augment:
    recipe = apply(Recipe(MLP("16-4")), fixes.get(name)(**settings)).recipe
    (found,) = recipe.augment
    return found


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    new = np.zeros_like(image)
    height, width = image.shape[-2:]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                new[:, row, column] = image[:, row - down, column - right]
    return new


def slow_shift(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return moved(image, *(int(n * 5) - 2 for n in noise))


def slow_crop(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
    top, left = (int(n * 7) for n in noise)
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]


def slow_flip(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return image[:, :, ::-1] if noise[0] < 0.4 else image


def slow_cutout(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    new, (row, column) = image.copy(), (int(n * side) for n, side in zip(noise, image.shape[1:], strict=True))
    new[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 0
    return new


SLOW: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "shift": slow_shift,
    "crop": slow_crop,
    "flip": slow_flip,
    "cutout": slow_cutout,
}


@pytest.mark.parametrize("name", FIXES)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_a_batch_is_each_image(name: str, cases: int, channels: int, height: int, width: int, seed: int):
    change, generator = augment(name, **FIXES[name]), torch.Generator().manual_seed(seed)
    x = torch.rand(cases, channels, height, width, generator=generator)
    t = torch.eye(4)[torch.arange(cases) % 4]
    noise = torch.rand(cases, *change.noise_shape(), generator=generator)
    kept = x.clone()
    found, targets = change(x, t, noise)
    assert torch.equal(x, kept), "the images given were changed"
    assert torch.equal(targets, t)
    for k in range(cases):
        expected = SLOW[name](x[k].numpy(), noise[k].numpy())
        assert np.array_equal(found[k].numpy(), expected), f"image {k}"


@pytest.mark.parametrize("name", FIXES)
def test_noise_at_its_ends_stays_inside(name: str):
    change = augment(name, **FIXES[name])
    x = torch.rand(2, 1, 5, 5)
    for value in (0.0, 1 - 2**-24):
        change(x, torch.eye(2), torch.full((2, *change.noise_shape()), value))


@pytest.mark.parametrize("name", FIXES)
def test_vectors_are_refused(name: str):
    change = augment(name, **FIXES[name])
    with pytest.raises(RetropropError, match=rf"{name} was given inputs \(3, 16\); expected images"):
        change(torch.rand(3, 16), torch.eye(3), torch.rand(3, *change.noise_shape()))


def test_every_epoch_and_case_is_changed_in_its_own_way():
    change, order = augment("shift", pixels=3), torch.arange(40).view(2, 20)
    first = change.draw(5, 0, order)
    assert first.shape == (2, 20, 2)
    assert torch.equal(first, change.draw(5, 0, order))
    assert not torch.equal(first, change.draw(5, 1, order))
    assert not torch.equal(first, change.draw(6, 0, order))
    assert not torch.equal(first, augment("crop", padding=3).draw(5, 0, order))
    assert len(first.view(-1, 2).unique(dim=0)) == 40


def test_members_with_their_own_augmentations_train_as_alone():
    arms = [(), ("shift",), ("crop", "flip"), ("shift", "flip", "cutout")]
    members = [(seed, arm) for seed in (0, 1) for arm in arms]

    def recipe(seed: int, arm: tuple[str, ...]) -> Recipe:
        bare = Recipe(MLP("16-8-4", seed=seed).double())
        return apply(bare, [fixes.get(name)(**FIXES[name]) for name in arm], seed=seed).recipe

    data, schedule = data_of([0, 1]), Schedule(10, 10)
    recipes, seeds = [recipe(*member) for member in members], [seed for seed, _ in members]
    result = Engine().train(recipes, seeds, data, schedule, test=True, compiled=False)
    for (seed, arm), outcome in zip(members, result.outcomes, strict=True):
        assert_equal(outcome, train(recipe(seed, arm), data[seed], schedule, test=True), 1e-10, (seed, arm))
    weights = [outcome.tensors["hidden.0.linear.weight"] for outcome in result.outcomes[:4]]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 4, "two arms trained alike"


def test_shift_and_crop_are_one_change():
    with pytest.raises(Conflict, match="'shift'"):
        apply(Recipe(MLP("16-4")), [fixes.get("shift")(), fixes.get("crop")()])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("shift", {"pixels": -1}),
        ("shift", {"pixels": 0.5}),
        ("crop", {"padding": -2}),
        ("flip", {"p": 1.5}),
        ("cutout", {"size": -1}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, float]):
    with pytest.raises(RetropropError, match=f"{name} was given"):
        fixes.get(name)(**settings)


def test_down_and_to_the_left_by_one():
    image: Tensor = torch.arange(9.0).view(1, 1, 3, 3)
    change = augment("shift", pixels=1)
    found, _ = change(image, torch.eye(1), torch.tensor([[0.99, 0.0]]))
    assert found[0, 0].tolist() == [[0, 0, 0], [1, 2, 0], [4, 5, 0]]
