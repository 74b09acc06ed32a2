"""Fixes from what a study file says."""

import pytest

from retroprop import fixes
from retroprop.errors import RetropropError, UnknownName
from retroprop.fix_config import build_fix


@pytest.mark.parametrize("spec", ["dropout", {"dropout": None}, {"dropout": {}}, {"dropout": {"p": 0.5}}])
def test_ways_to_write_one_fix(spec: object):
    assert build_fix(spec) == fixes.Dropout(p=0.5)
    assert build_fix(fixes.Dropout(p=0.5)) == fixes.Dropout(p=0.5)


def test_a_share_may_be_a_number_of_units():
    assert build_fix({"sparse_backprop": {"keep": 3}}) == fixes.SparseBackprop(keep=3)


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("drop_out", UnknownName, "Did you mean 'dropout'"),
        ({"relu": {"x": 1}}, UnknownName, "The fix relu has no settings; 'x' was given"),
        ({"dropout": {"q": 1}}, UnknownName, "Unknown setting of dropout 'q'"),
        ({"dropout": {"p": "half"}}, RetropropError, "dropout.p='half' was given; expected a number"),
        ({"dropout": {"p": True}}, RetropropError, "expected a number, such as 0.5"),
        ({"dropout": {"p": 1.0}}, RetropropError, "expected 0 <= p < 1"),
        ({"sparse_backprop": {"per": 3}}, RetropropError, "expected str, such as 'batch'"),
        ({"dropout": 0.5}, RetropropError, "expected its settings as a mapping"),
        ({"dropout": {}, "relu": {}}, RetropropError, "expected a name such as relu"),
        (3, RetropropError, "The fix 3 was given"),
    ],
)
def test_what_is_wrong_is_named(spec: object, error: type[Exception], said: str):
    with pytest.raises(error) as caught:
        build_fix(spec)
    assert said in str(caught.value)
