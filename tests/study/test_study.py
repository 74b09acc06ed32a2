"""A study file's keys, and what is said of wrong ones."""

from pathlib import Path

import pytest
import yaml

from retroprop import fixes
from retroprop.errors import Conflict, RetropropError, UnknownName
from retroprop.study.study import Study, read_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_its_arms_can_be_built(path):
    study = Study.load(path)
    assert study.arms
    assert study.name == path.stem


def test_the_default_study_is_the_file_of_that_name():
    path = Path(__file__).parents[2] / "configs" / "digits.yaml"
    resolved = list(Study.load(path).built_factors)
    default = list(Study().built_factors)
    assert resolved == default
    given, known = Study.load(path).settings(), Study().settings()
    assert {k: v for k, v in given.items() if k != "factors"} == {
        k: v for k, v in known.items() if k != "factors"
    }


def test_the_default_study_has_960_trials_and_two_references():
    study = Study()
    arms = [arm for arm in study.arms if not arm.reference]
    assert len(arms) == 32
    assert len(study.arms) == 34
    assert len(arms) * (len(study.rates) * study.tuning_seeds + study.seeds) == 960
    assert [arm.network for arm in study.arms[-2:]] == ["64-64-64-64-64-10", "64-64-10"]
    assert all(not arm.fixes for arm in study.arms[-2:])


def test_settings_survive_yaml():
    study = Study(factors=[fixes.ReLU(), fixes.Dropout(p=0.2), ["off", "tanh"]], held=[])
    again = Study.from_mapping(yaml.safe_load(yaml.safe_dump(study.settings())))
    assert again.built_factors == study.built_factors


def test_off_in_yaml_is_a_level():
    study = Study.from_mapping(yaml.safe_load("factors: [[off, tanh, relu]]"))
    (factor,) = study.built_factors
    assert factor.name == "activation"
    assert factor.labels == ("off", "tanh", "relu")


def test_levels_of_one_fix_are_a_factor_of_its_name():
    study = Study(factors=[["off", {"dropout": {"p": 0.1}}, {"dropout": {"p": 0.3}}]])
    (factor,) = study.built_factors
    assert (factor.name, factor.labels) == ("dropout", ("off", "dropout p=0.1", "dropout p=0.3"))


def test_one_at_a_time_and_leave_one_out():
    single = Study(design="one_at_a_time", factors=["relu", ["off", "he_init"]], references=[])
    assert [arm.label for arm in single.arms] == ["baseline", "relu", "he_init"]
    left = Study(design="leave_one_out", factors=["relu", "residual"], references=[])
    assert [arm.levels for arm in left.arms] == [(1, 1), (0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": -3}, "at least 1"),
        ({"seeds": "many"}, "seeds='many'"),
        ({"seeds": True}, "seeds=True"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"rates": [0]}, "positive"),
        ({"rates": [-1]}, "positive"),
        ({"rates": []}, "positive"),
        ({"rates": [1, 0.1]}, "smallest first"),
        ({"rates": 1}, "a list"),
        ({"recipe": {"rate": -1}}, "recipe.rate"),
        ({"recipe": {"momentum": 1}}, "momentum"),
        ({"recipe": 3}, "mapping"),
        ({"factors": "relu"}, "a list"),
        ({"factors": []}, "at least one"),
        ({"memory": 0}, "memory=0"),
        ({"name": "a/b"}, "plain name"),
        ({"name": 3}, "expected text"),
        ({"out": 3}, "folder"),
    ],
)
def test_a_wrong_value_is_named(changes, words):
    with pytest.raises(RetropropError, match=words):
        Study(**changes)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"sedes": 3}, "seeds"),
        ({"design": "full_factorail"}, "full_factorial"),
        ({"device": "cud"}, "cuda"),
        ({"precision": "bf61"}, "bf16"),
        ({"recipe": {"rat": 1}}, "rate"),
    ],
)
def test_a_misspelt_word_gets_its_close_match(changes, hint):
    with pytest.raises(UnknownName, match=f"Did you mean '{hint}'"):
        Study.from_mapping(changes)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (["rellu"], "Did you mean 'relu'"),
        ([{"dropout": {"pp": 0.1}}], "setting of dropout 'pp'"),
        ([{"dropout": {"p": "much"}}], "dropout.p='much'"),
        ([{"dropout": {"p": 1.5}}], "0 <= p < 1"),
        ([{"dropout": 0.1}], "mapping"),
        ([{"dropout": {}, "relu": {}}], "a name"),
        ([["relu"]], "two or more"),
        ([["off", "off"]], "two or more"),
        (["relu", "relu"], "twice"),
        ([3], "a name"),
    ],
)
def test_a_wrong_factor_is_named(factors, words):
    with pytest.raises(RetropropError, match=words):
        _ = Study(factors=factors).arms


def test_two_fixes_of_one_slot_conflict():
    with pytest.raises(Conflict, match="both fill the slot 'activation'"):
        _ = Study(factors=["relu", "tanh"]).arms


def test_a_reference_with_a_wrong_key_or_too_many_layers():
    with pytest.raises(UnknownName, match="hidden_layers"):
        _ = Study(references=[{"name": "x", "hiden_layers": 1}]).arms
    with pytest.raises(RetropropError, match="expected 0 to 4"):
        _ = Study(references=[{"name": "x", "hidden_layers": 9}]).arms
    with pytest.raises(RetropropError, match="with a name"):
        _ = Study(references=["x"]).arms


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RetropropError, match="could not be read"):
        read_yaml(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("seeds: [1,\nname: }")
    with pytest.raises(RetropropError, match="not valid YAML at line"):
        read_yaml(bad)
    bad.write_text("- just\n- a list")
    with pytest.raises(RetropropError, match="holds list"):
        read_yaml(bad)
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RetropropError):
        read_yaml(bad)
