"""Residual connections: where they go, and what they add."""

import pytest
import torch

from retroprop import fixes
from retroprop.errors import NothingMatched
from retroprop.fix import apply
from retroprop.fixes.residual import Add
from retroprop.networks.layer import NoSkip
from retroprop.networks.mlp import MLP


def test_layers_that_keep_their_shape_add_their_input():
    network = MLP("8-6-6-6-4")
    fixed = apply(network, fixes.Residual()).network
    assert [type(layer.skip) for layer in fixed.hidden] == [NoSkip, Add, Add]
    x = torch.randn(5, 6)
    assert torch.equal(fixed.hidden[1](x), x + network.hidden[1](x))


def test_the_skip_goes_around_norm_and_dropout():
    network = apply(MLP("6-6-4"), [fixes.Residual(), fixes.BatchNorm(), fixes.Dropout(0.5)]).network
    layer = network.hidden[0]
    with torch.no_grad():
        layer.norm.weight.fill_(1e9)
        layer.norm.bias.fill_(-1e12)  # the activation is 0 now
    x = torch.randn(5, 6)
    assert torch.equal(layer(x), x)


def test_no_layer_of_one_shape_is_an_error():
    with pytest.raises(NothingMatched, match="residual looked for skip sites"):
        apply(MLP("8-6-5-4"), fixes.Residual())
