"""Every registered fix obeys every law: a new file in fixes/ is covered without editing anything."""

import itertools
from collections.abc import Callable

import pytest
import torch

from retroprop import fixes
from retroprop.errors import NoTwin
from retroprop.fix import Fix
from retroprop.testing import LAWS, check_fix, check_pair, training_laws

SETTINGS = {
    "dropout": [{}, {"p": 0.2}],
    "sparse_backprop": [{}, {"keep": 3}, {"keep": 0.5, "per": "example"}],
}
CASES = [fixes.get(name)(**settings) for name in fixes.names() for settings in SETTINGS.get(name, [{}])]


def shown(fix: Fix) -> str:
    return str(fix.config()).strip("{}").replace("'", "")


@pytest.mark.parametrize("fix", CASES, ids=shown)
@pytest.mark.parametrize("law", list(LAWS.values()), ids=list(LAWS))
def test_law(law: Callable[[Fix], None], fix: Fix):
    law(fix)


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(fixes.names(), 2)))
def test_every_pair_composes_or_conflicts(one: str, other: str):
    check_pair(fixes.get(one)(), fixes.get(other)())


@pytest.mark.parametrize("name", fixes.names())
def test_our_own_fixes_can_be_fused(name: str):
    members = [one.recipe for group in training_laws._groups(fixes.get(name)(), torch.float32)
               for one in group]  # fmt: skip
    from retroprop.stacking.dispatch import stack

    try:
        stack([recipe.network for recipe in members[4:]])
    except NoTwin as error:
        pytest.fail(str(error))


def test_the_laws_are_sixteen_in_order():
    assert len(LAWS) == 16
    assert list(LAWS)[:2] == ["metadata", "value_object"]
    assert list(LAWS)[-3:] == ["fused", "shared_modules", "foreign"]
    check_fix(fixes.get("tanh")())
