"""Losses against hand numbers and torch, in both layouts."""

import pytest
import torch
from torch.nn import functional

from retroprop.losses import Loss, cross_entropy, squared_error

LOSSES = [squared_error, cross_entropy]


def batch(cases: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(cases, classes, generator=generator, dtype=torch.float64)
    return output, torch.randn(cases, classes, generator=generator).double().softmax(1)


def test_squared_error_by_hand():
    output, target = torch.tensor([[0.9, 0.2], [0.5, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # half of 0.01 and 0.04, and half of 0.25 twice
    torch.testing.assert_close(squared_error(output, target), torch.tensor([0.025, 0.25]))


def test_slope_of_squared_error_is_eq_4():
    output, target = batch()
    output.requires_grad_()
    squared_error(output, target).sum().backward()
    torch.testing.assert_close(output.grad, (output - target).detach())


def test_cross_entropy_is_torchs():
    output, target = batch()
    expected = functional.cross_entropy(output, target, reduction="none")
    torch.testing.assert_close(cross_entropy(output, target), expected)
    labels = torch.tensor([0, 3, 1, 1, 2, 0])
    one_hot = functional.one_hot(labels, 4).double()
    expected = functional.cross_entropy(output, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(output, one_hot), expected)


def test_cross_entropy_stays_finite_for_huge_logits():
    value = cross_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(value, torch.tensor([2e4]))


@pytest.mark.parametrize("loss", LOSSES)
def test_one_value_a_case(loss: Loss):
    output, target = batch()
    assert loss(output, target).shape == (6,)


@pytest.mark.parametrize("loss", LOSSES)
def test_members_first_and_batch_last_give_the_same(loss: Loss):
    pairs = [batch(), tuple(tensor.flip(0) for tensor in batch())]
    outputs, targets = (torch.stack([pair[i].T for pair in pairs]) for i in (0, 1))
    expected = torch.stack([loss(output, target) for output, target in pairs])
    torch.testing.assert_close(loss(outputs, targets, 1), expected)
