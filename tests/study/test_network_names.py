"""A study's network by name: what its trials hold, what they cost, and what is said of wrong names."""

import pytest
import torch

from retroprop.errors import RetropropError, UnknownName
from retroprop.networks.convnet import LeNet
from retroprop.study import trial
from retroprop.study.checks import arm_costs, checked_data, step_flops
from retroprop.study.runner import run
from retroprop.study.study import Study
from retroprop.study.trial import make_trial, recipe_of
from tests.study.small import Here, small_study


def test_a_worker_builds_a_trials_network_without_the_data(tmp_path, monkeypatch):
    study = small_study(tmp_path, network="lenet")
    settings = make_trial(study, 3, "reporting", 1, 0.3).settings
    assert (settings["network"], settings["input"], settings["classes"]) == ("lenet", [1, 8, 8], 10)
    monkeypatch.setattr(trial, "load", None)
    net = recipe_of(settings).network
    assert isinstance(net, LeNet)
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_what_a_network_is_built_for_is_part_of_a_trials_key(tmp_path):
    keys = {
        make_trial(small_study(tmp_path, network=network), 0, "tuning", 0, 1.0).key
        for network in ("64-8-10", "lenet", "plain20", "64-8-10")
    }
    assert len(keys) == 3


def test_costs_of_conv_nets_are_counted(tmp_path):
    study = small_study(tmp_path, network="lenet", factors=["relu"], batch=10)
    data = checked_data(study)
    plain, relu = arm_costs(study, data)
    assert plain == relu
    assert plain["parameters"] == 312 + 3612 + (48 + 1) * 30 + 310
    # Forward, and backward to weights and inputs; the first layer's inputs need none.
    products = [12 * 16 * 25, 12 * 4 * 12 * 25, 48 * 30, 30 * 10]
    assert plain["flops"] == 10 * 2 * (3 * sum(products) - products[0])


def test_flops_of_a_network_of_sizes_are_its_products(tmp_path):
    study = small_study(tmp_path, batch=10)
    recipe = recipe_of(make_trial(study, 0, "tuning", 0, 1.0).settings)
    assert step_flops(recipe, 10, (1, 8, 8)) == 10 * 2 * (3 * (64 * 8 + 8 * 10) - 64 * 8)


@pytest.mark.parametrize("references", [[], [{"name": "x", "hidden_layers": 1}]])
def test_a_misspelt_network_gets_its_close_match(references, tmp_path):
    with pytest.raises(UnknownName, match=r"Unknown network 'lenett'\. Did you mean 'lenet'"):
        checked_data(small_study(tmp_path, network="lenett", references=references))


def test_a_network_with_one_depth_has_no_shorter_reference(tmp_path):
    study = small_study(tmp_path, network="plain20", references=[{"name": "x", "hidden_layers": 1}])
    with pytest.raises(RetropropError, match="'x', and plain20 has one depth; expected a network of layer"):
        _ = study.arms
    whole = small_study(tmp_path, network="plain20", references=[{"name": "x"}])
    assert whole.arms[-1].network == "plain20"


def test_a_study_of_a_conv_net_runs(tmp_path):
    study = small_study(tmp_path, network="lenet", epochs=1, seeds=1, rates=[1])
    results = run(study, pool=Here())
    assert len(results.trials) == 2 * len(study.arms)
    assert not any(one.error for one in results.trials)
    assert all("hidden.0.linear.weight" in one.gradient_first for one in results.trials)


def test_a_network_with_a_name_has_one_depth_among_the_default_references():
    assert [arm.label for arm in Study(network="lenet").arms if arm.reference] == ["1986 recipe, this depth"]
    assert len([arm for arm in Study().arms if arm.reference]) == 2
