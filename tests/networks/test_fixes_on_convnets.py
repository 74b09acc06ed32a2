"""Every registered fix on our conv nets: it applies, or says why not."""

import pytest
import torch
from torch import nn

from retroprop import fixes
from retroprop.errors import NothingMatched
from retroprop.fix import Applied, Fix, Recipe, apply
from retroprop.fixes.batch_norm import BatchNorm
from retroprop.fixes.dropout import Dropout
from retroprop.fixes.he_init import HeInit
from retroprop.fixes.relu import ReLU
from retroprop.fixes.residual import Residual
from retroprop.networks.layer import Add, ConvLayer
from retroprop.networks.named import build

SHAPE = (1, 8, 8)
# Fixes that find nothing to change, and what their message names.
REFUSED = {
    ("lenet", "residual"): "skip sites",
    ("resnet20", "relu"): "activation sites",
    ("resnet20", "batch_norm"): "norm sites",
    ("resnet20", "residual"): "skip sites",
}


def put_on(name: str, *chosen: Fix) -> Applied:
    required = [fixes.get(needed)() for fix in chosen for needed in fix.requires]
    return apply(Recipe(build(name, SHAPE, 10)), [*required, *chosen])


@pytest.mark.parametrize("name", ["lenet", "plain20", "resnet20"])
@pytest.mark.parametrize("fix", fixes.names())
def test_a_fix_applies_or_says_why_not(name: str, fix: str):
    if (name, fix) in REFUSED:
        with pytest.raises(NothingMatched, match=f"{fix} looked for {REFUSED[name, fix]} to change"):
            put_on(name, fixes.get(fix)())
        return
    applied = put_on(name, fixes.get(fix)())
    assert applied.receipts[-1].edits
    net = applied.network.train()
    net(torch.rand(4, *SHAPE)).square().sum().backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


def test_what_he_et_al_trained_is_the_plain_net_with_fixes():
    """As many layers, norms, skips and weights, but for the biases; their sums stand behind the norm."""
    net = put_on("plain20", ReLU(), BatchNorm(), Residual(), HeInit()).network
    other = build("resnet20", SHAPE, 10)
    for kind, count in {nn.Conv2d: 19, nn.BatchNorm2d: 19, nn.ReLU: 19, Add: 9}.items():
        counts = [sum(isinstance(module, kind) for module in one.modules()) for one in (net, other)]
        assert counts == [count, count], kind.__name__
    shapes = [
        [tuple(weight.shape) for path, weight in one.named_parameters() if not path.endswith("linear.bias")]
        for one in (net, other)
    ]
    assert shapes[0] == shapes[1]


def test_sites_are_all_hidden_layers():
    counts = {"relu": 19, "batch_norm": 19, "dropout": 19, "residual": 9}
    for fix, count in counts.items():
        (receipt,) = put_on("plain20", fixes.get(fix)()).receipts
        assert len(receipt.edits) == count, fix


def test_dropout_knows_the_shape_of_maps():
    net = put_on("lenet", Dropout(0.5)).network
    shapes = [layer.dropout.shape for layer in net.hidden]
    assert shapes == [(12, 4, 4), (12, 2, 2), (30,)]


def test_a_layer_of_ours_inside_another_network_keeps_its_slots():
    net = nn.Sequential(ConvLayer(SHAPE, 4, 3), nn.Flatten(), nn.Linear(256, 10))
    fixed = apply(net, [BatchNorm(), ReLU()], example=torch.rand(2, *SHAPE)).network
    assert isinstance(fixed[0].norm, nn.BatchNorm2d)
    assert isinstance(fixed[0].activation, nn.ReLU)
