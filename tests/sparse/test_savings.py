"""Savings are those that the counter counts, and small layers are called what they are."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from retroprop.sparse import Rule, Schedule, SparseConv2d, SparseLinear, begin_epoch
from retroprop.sparse.break_even import speed_ups
from retroprop.sparse.savings import saved_share, savings


def test_savings_are_counted_flops():
    layers = [SparseConv2d(4, 8, 3, padding=1, keep=0.25), nn.Flatten(), SparseLinear(8 * 25, 16, keep=0.5)]
    network, x = nn.Sequential(*layers), torch.randn(3, 4, 5, 5, requires_grad=True)
    found = savings(network, x)
    assert [(one.name, one.units, one.kept) for one in found] == [("0", 8, 2), ("2", 16, 8)]
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    forward = sum(one.flops for one in found) // 2
    assert counter.get_total_flops() == forward + sum(one.flops * one.density for one in found)
    assert saved_share(found) == 1 - (counter.get_total_flops() - forward) / (2 * forward)


def test_half_of_the_epochs_dense_saves_forty_percent_of_ssprop():
    """Its bookkeeping: every other epoch keeps 20 % of the channels."""
    conv = nn.Conv2d(3, 50, 3)
    layer = SparseConv2d.like(conv, Rule(0.2), schedule=Schedule("alternate"))
    shares = []
    for epoch in range(10):
        begin_epoch(layer, epoch)
        shares.append(saved_share(savings(layer, torch.randn(2, 3, 8, 8))))
    assert abs(sum(shares) / len(shares) - 0.4) < 1e-9


def test_small_layers_gain_on_paper_alone():
    x = torch.randn(256, 1024)
    assert savings(nn.Sequential(SparseLinear(1024, 1024, keep=0.1)), x)[0].gains()
    small = savings(nn.Sequential(SparseLinear(64, 64, keep=0.1)), x[:, :64])[0]
    assert not small.gains()
    assert small.gains(times=100)
    for rule in (Rule(0.1, per="example"), Rule(0.1, select="variance"), Rule(0.9)):
        assert not savings(SparseLinear.like(nn.Linear(1024, 1024), rule), x)[0].gains(), rule


def test_break_even_is_measured_by_width_and_share():
    found = speed_ups(widths=(8, 16), shares=(0.25,), batch=4, repeats=1)
    assert found.keys() == {8, 16}
    assert all(ratio > 0 for ratios in found.values() for ratio in ratios.values())
