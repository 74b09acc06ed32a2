"""He initialisation: the variance of the draw, and which site gets which."""

import pytest
import torch
from torch import nn

from retroprop import fixes
from retroprop.fix import apply
from retroprop.networks.mlp import MLP


def test_weights_have_variance_2_over_fan_in_and_biases_are_0():
    network = apply(MLP("200-300-100"), fixes.HeInit()).network
    weight = network.hidden[0].linear.weight.detach()
    # 60,000 normal draws: the relative standard error of the variance is 0.6 %.
    assert weight.var().item() == pytest.approx(2 / 200, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=0.002)
    assert network.output.linear.weight.detach().var().item() == pytest.approx(2 / 300, rel=0.05)
    assert all(p.abs().sum() == 0 for name, p in network.named_parameters() if name.endswith("bias"))


def test_the_fan_in_of_a_convolution_counts_its_window():
    conv = nn.Sequential(nn.Conv2d(20, 64, 5), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 2))
    network = apply(conv, fixes.HeInit(), example=torch.randn(2, 20, 8, 8)).network
    assert network[0].weight.detach().var().item() == pytest.approx(2 / 500, rel=0.04)


def test_a_signal_keeps_its_size_through_relu_layers():
    deep = MLP("256-" + "-".join(["256"] * 8) + "-10")
    network = apply(deep, [fixes.HeInit(), fixes.ReLU()]).network
    y = torch.randn(64, 256)
    for layer in network.hidden:
        y = layer(y)
    assert 0.5 < y.detach().square().mean().item() < 2


def test_a_start_does_not_depend_on_dtype():
    small, large = (apply(MLP("8-8-4").to(t), fixes.HeInit()).network for t in (torch.float32, torch.float64))
    weight = small.hidden[0].linear.weight
    assert torch.equal(weight.double(), large.hidden[0].linear.weight)


def test_each_layer_and_seed_has_its_own_start():
    network = apply(MLP("8-8-8-8"), fixes.HeInit()).network
    starts = [layer.linear.weight for layer in (*network.hidden, network.output)]
    starts.append(apply(MLP("8-8-8-8"), fixes.HeInit(), seed=1).network.output.linear.weight)
    assert all(not torch.equal(a, b) for i, a in enumerate(starts) for b in starts[:i])


def test_the_receipt_names_every_parameter():
    applied = apply(MLP("8-8-4"), fixes.HeInit())
    named = {edit.site for edit in applied.receipts[0].edits}
    assert named == {name for name, _ in applied.network.named_parameters()}
