"""ReLU and tanh: hidden units change, the output unit stays logistic."""

import pytest
import torch
from torch import nn

from retroprop import fixes
from retroprop.errors import Conflict
from retroprop.fix import Fix, apply
from retroprop.networks.mlp import MLP


@pytest.mark.parametrize(
    ("fix", "values"),
    [
        (fixes.ReLU(), [0.0, 0.0, 2.0]),
        (fixes.Tanh(), [-0.7615941559557649, 0.0, 0.9640275800758169]),
    ],
)
def test_hidden_units_change_and_the_output_does_not(fix: Fix, values: list[float]):
    applied = apply(MLP("8-6-5-4"), fix)
    x = torch.tensor([-1.0, 0, 2], dtype=torch.float64)
    for layer in applied.network.hidden:
        assert layer.activation(x).tolist() == pytest.approx(values)
    assert type(applied.network.output.activation) is nn.Sigmoid
    assert [edit.before for edit in applied.receipts[0].edits] == ["Sigmoid()"] * 2


def test_two_activations_conflict():
    with pytest.raises(Conflict, match="both fill the slot 'activation'"):
        apply(MLP("8-6-4"), [fixes.Tanh(), fixes.ReLU()])
