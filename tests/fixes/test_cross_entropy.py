"""Cross-entropy against torch's own, and what becomes of the output."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from retroprop import fixes
from retroprop.errors import AlreadyApplied, RetropropError
from retroprop.fix import Recipe, apply
from retroprop.losses import cross_entropy
from retroprop.networks.mlp import MLP


def test_it_is_torchs_loss_one_value_a_case():
    logits = torch.randn(7, 5, dtype=torch.float64)
    labels = torch.arange(7) % 5
    hard = functional.one_hot(labels, 5).double()
    expected = functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(cross_entropy(logits, hard), expected)
    soft = torch.softmax(torch.randn(7, 5, dtype=torch.float64), 1)
    expected = functional.cross_entropy(logits, soft, reduction="none")
    assert torch.allclose(cross_entropy(logits, soft), expected)


def test_members_first_and_the_batch_last_gives_the_same():
    logits, target = torch.randn(3, 7, 5), torch.softmax(torch.randn(3, 7, 5), 2)
    stacked = cross_entropy(logits.transpose(1, 2), target.transpose(1, 2), dim=1)
    assert torch.allclose(stacked, cross_entropy(logits, target), atol=1e-6)


def test_logistic_outputs_become_logits_and_hidden_units_stay():
    applied = apply(Recipe(MLP("8-6-4")), fixes.CrossEntropy())
    assert applied.recipe.loss is cross_entropy
    assert type(applied.network.output.activation) is nn.Identity
    assert type(applied.network.hidden[0].activation) is nn.Sigmoid
    assert [(e.site, e.after) for e in applied.receipts[0].edits] == [
        ("loss", "cross_entropy"),
        ("output.activation", "logits"),
    ]


def test_a_foreign_network_loses_its_softmax():
    network = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4), nn.Softmax(-1))
    fixed = apply(Recipe(network), fixes.CrossEntropy()).network
    assert type(fixed[3]) is nn.Identity


def test_a_recipe_that_has_it_says_already_there():
    with pytest.raises(AlreadyApplied, match="already there"):
        apply(Recipe(MLP("8-6-4"), loss=cross_entropy), fixes.CrossEntropy())
    with pytest.raises(RetropropError, match=r"Give retroprop\.Recipe"):
        apply(MLP("8-6-4"), fixes.CrossEntropy())
