"""Dropout: rate, scaling, and masks that a trial keys."""

import pytest
import torch

from retroprop import fixes
from retroprop.ensemble.trial_data import SeedData, noise
from retroprop.errors import RetropropError
from retroprop.fix import apply
from retroprop.fixes.dropout import KeyedDropout, drop
from retroprop.networks.mlp import MLP


@pytest.mark.parametrize("keyed", [False, True])
def test_units_are_left_out_at_the_rate_and_the_others_scaled(keyed: bool):
    module = KeyedDropout(0.2, (50,))
    if keyed:
        module.noise = torch.rand(2000, 50)
    y = module(torch.ones(2000, 50))
    assert set(y.unique().tolist()) == {0.0, 1.25}
    # 100,000 draws: the standard error of the share is 0.0013.
    assert (y == 0).double().mean().item() == pytest.approx(0.2, abs=0.006)


def test_hand_numbers():
    x = torch.tensor([[1.0, 2, 3, 4]])
    said = torch.tensor([[0.0, 0.49, 0.5, 0.99]])
    assert drop(x, said, 0.5).tolist() == [[0, 0, 6, 8]]


def test_evaluation_and_p_0_pass_everything():
    x = torch.randn(3, 50)
    assert KeyedDropout(0.5, (50,)).eval()(x) is x
    assert KeyedDropout(0.0, (50,))(x) is x


def test_masks_depend_on_seed_path_epoch_and_case_alone():
    module = KeyedDropout(0.5, (7,))

    def drawn(path: str, seed: int, epoch: int, first: int = 0, last: int = 3) -> torch.Tensor:
        data = SeedData(seed, *[torch.empty(0)] * 5)
        return noise(module, path, data, epoch, (first, last), cases=4)

    first = drawn("hidden.0.dropout", 5, 0)
    assert first.shape == (3, 4, 7)
    assert torch.equal(first, drawn("hidden.0.dropout", 5, 0))
    assert torch.equal(first[1:], drawn("hidden.0.dropout", 5, 0, first=1)), "however many are drawn at once"
    for other in (("hidden.1.dropout", 5, 0), ("hidden.0.dropout", 6, 0), ("hidden.0.dropout", 5, 1)):
        assert not torch.equal(first, drawn(*other))
    assert len(first.view(-1, 7).unique(dim=0)) == 12


def test_keyed_noise_leaves_the_global_generator_alone():
    module = KeyedDropout(0.5, (7,))
    module.noise = torch.rand(4, 7)
    state = torch.get_rng_state()
    module(torch.ones(4, 7))
    assert torch.equal(state, torch.get_rng_state())


def test_it_stands_behind_hidden_activations_only():
    network = apply(MLP("8-6-5-4"), fixes.Dropout(0.5)).network
    found = {path for path, m in network.named_modules() if isinstance(m, KeyedDropout)}
    assert found == {"hidden.0.dropout", "hidden.1.dropout"}
    assert network.hidden[1].dropout.shape == (5,)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_p_out_of_range_is_refused(p: float):
    with pytest.raises(RetropropError, match="expected 0 <= p < 1"):
        fixes.Dropout(p)
