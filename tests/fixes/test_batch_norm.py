"""Batch normalisation against the formula of the paper."""

import pytest
import torch
from torch import nn

from retroprop import fixes
from retroprop.errors import RetropropError
from retroprop.fix import apply
from retroprop.networks.mlp import MLP


def fixed(**settings: float) -> nn.Module:
    return apply(MLP("4-3-2").double(), fixes.BatchNorm(**settings)).network


def test_it_stands_between_the_linear_layer_and_the_activation():
    network, x = fixed(), torch.randn(6, 4, dtype=torch.float64)
    hidden = network.hidden[0]
    z = hidden.linear(x)
    mean = z.sum(0) / 6
    var = ((z - mean) ** 2).sum(0) / 6
    y = 1 / (1 + torch.exp(-(z - mean) / torch.sqrt(var + 1e-5)))
    assert torch.allclose(hidden(x), y, atol=1e-12)
    assert type(network.output.linear) is nn.Linear


def test_hand_numbers():
    norm = fixed(eps=1e-12).hidden[0].norm
    x = torch.tensor([[1.0, 0, 2], [3.0, 0, 2], [5.0, 3, 2]], dtype=torch.float64)
    y = norm(x)
    root = (3 / 2) ** 0.5
    assert y[:, 0].tolist() == pytest.approx([-root, 0, root])
    assert y[:, 1].tolist() == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5])
    assert y[:, 2].tolist() == [0, 0, 0]


def test_evaluation_uses_running_statistics_with_the_unbiased_variance():
    norm = fixed(momentum=0.25).hidden[0].norm
    x = torch.tensor([[1.0, 0, 2], [3.0, 0, 2], [5.0, 3, 2]], dtype=torch.float64)
    norm(x)
    assert norm.running_mean.tolist() == pytest.approx([0.25 * 3, 0.25 * 1, 0.25 * 2])
    assert norm.running_var.tolist() == pytest.approx([0.75 + 0.25 * 4, 0.75 + 0.25 * 3, 0.75])
    y = norm.eval()(x)
    expected = (x - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    assert torch.allclose(y, expected.detach())


def test_it_starts_with_scale_1_and_shift_0():
    norm = fixed().hidden[0].norm
    assert norm.weight.tolist() == [1, 1, 1]
    assert norm.bias.tolist() == [0, 0, 0]


def test_images_are_normalised_by_channel_and_tokens_not_at_all():
    image = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 2))
    network = apply(image, fixes.BatchNorm(), example=torch.randn(2, 3, 8, 8)).network
    assert type(network[0].norm) is nn.BatchNorm2d
    assert network[0].norm.num_features == 5
    sound = nn.Sequential(nn.Conv1d(3, 5, 3), nn.ReLU(), nn.Conv1d(5, 2, 3))
    assert apply(sound, fixes.BatchNorm(), example=torch.randn(2, 3, 9)).network[0].norm.num_features == 5
    tokens = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    for x in (torch.randn(2, 7, 8), torch.randn(2, 7, 7, 8)):  # pixels with their channels last too
        with pytest.raises(RetropropError, match="batch_norm looked for norm sites"):
            apply(tokens, fixes.BatchNorm(), example=x)


@pytest.mark.parametrize("settings", [{"eps": 0.0}, {"momentum": 0.0}, {"momentum": 1.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]):
    with pytest.raises(RetropropError, match="expected eps > 0 and 0 < momentum <= 1"):
        fixes.BatchNorm(**settings)
