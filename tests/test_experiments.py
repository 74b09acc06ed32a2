"""Landmarks: verdicts follow from paired differences, and result files hold what was declared."""

import importlib
import json
from pathlib import Path

import pytest

from experiments.paired import Claim, declared
from retroprop.sparse.savings import sparse_layers

LANDMARKS = ("sun2017_meprop", "zhong2024_ssprop")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [([0.4, 0.5, 0.6], "reproduced"), ([-0.5, 0.5, 0.6], "partly"), ([-0.4, -0.5, -0.6], "not reproduced")],
)
def test_a_verdict_takes_the_whole_interval(differences: list[float], verdict: str):
    claim = Claim("a is better than b", "a", "b", 0.0, True, "so it says")
    other = Claim("b is worse than a", "b", "a", 0.0, False, "so it says")
    accuracies = {"a": [0.9 + d / 100 for d in differences], "b": [0.9] * len(differences)}
    assert claim.verdict(accuracies)["verdict"] == verdict
    assert other.verdict(accuracies)["verdict"] == verdict


@pytest.mark.parametrize("name", LANDMARKS)
def test_a_result_file_holds_what_was_declared(name: str):
    module = importlib.import_module(f"experiments.{name}")
    path = Path(module.__file__).with_suffix(".json")
    found = json.loads(path.read_text(encoding="utf-8"))
    settings = json.loads(json.dumps(module.SETTINGS))
    assert found["declared"] == declared(module.SETTINGS, module.CLAIMS)
    assert found["settings"] == settings
    accuracies = {
        arm: [found["trials"][f"{arm} / {seed}"]["test"] for seed in settings["seeds"]]
        for arm in settings["arms"]
    }
    assert found["claims"] == [claim.verdict(accuracies) for claim in module.CLAIMS]
    assert list(found["deviations"]) == list(module.DEVIATIONS)


def test_ssprop_saves_two_fifths_of_the_backward_operations():
    from experiments.zhong2024_ssprop import bookkeeping

    found = bookkeeping()
    assert abs(found["saved, %"] - 40) <= 2
    assert found["dense epochs, share of dense"] == 1.0


@pytest.mark.parametrize("name", LANDMARKS)
def test_every_arm_can_be_built(name: str):
    module = importlib.import_module(f"experiments.{name}")
    for arm in module.ARMS:
        sparse = sparse_layers(module.recipe(arm, 0).network)
        assert bool(sparse) == ("keep" in repr(module.ARMS[arm])), arm
