"""The plan says which trials run how, and why."""

import torch
from torch import nn

from retroprop.ensemble.loop import own_copy
from retroprop.study import prepared, trial
from retroprop.study.prepared import prepare
from retroprop.study.runner import run, tuning_trials
from tests.study.small import Here, small_study


def ways(study):
    found = prepare(study)
    return {group.way for group in found.plan(tuning_trials(study))}, found.notes


def test_small_networks_train_together_and_need_no_word(tmp_path):
    assert ways(small_study(tmp_path)) == ({"eager"}, [])


def test_convolutions_train_one_by_one_on_a_cpu_and_the_plan_says_so(tmp_path):
    study = small_study(tmp_path, network="lenet", device="cpu")
    found, notes = ways(study)
    assert found == {"alone"}
    (note,) = notes
    assert note.startswith("4 arms train one by one: convolutions gain nothing from company on a CPU (")


def test_large_networks_train_one_by_one_and_the_plan_says_so(tmp_path):
    found, (note,) = ways(small_study(tmp_path, network="64-500-500-10"))
    assert found == {"alone"}
    assert "slower in company that is not compiled" in note


class Peeking(nn.Module):
    """What vmap refuses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.detach().sum()) > 0 else 2 * x


def test_an_arm_that_cannot_be_stacked_trains_alone_and_the_others_together(tmp_path, monkeypatch):
    def recipe_of(settings):
        made = own_copy(trial.recipe_of(settings))  # others find the original in a cache
        if any("relu" in fix for fix in settings["fixes"]):
            made.network.hidden[0].activation = Peeking()
        return made

    monkeypatch.setattr(prepared, "recipe_of", recipe_of)
    study = small_study(tmp_path)
    found = prepare(study)
    groups = found.plan(tuning_trials(study))
    assert [len(group.keys) for group in groups if group.way == "eager"] == [4]
    assert [len(group.keys) for group in groups if group.way == "alone"] == [1] * 4
    (note,) = found.notes
    assert note.startswith("2 arms train one by one: Peeking has no stacked twin, and vmap refuses it")


def test_a_study_of_a_convolutional_network_runs_from_end_to_end(tmp_path):
    study = small_study(tmp_path, network="lenet", rates=[1], epochs=1, seeds=1, factors=["relu"])
    results = run(study, pool=Here())
    assert len(results.trials) == 4
    assert results.record["groups one by one"] == 4
    assert not list((tmp_path / "checkpoints").glob("*"))
