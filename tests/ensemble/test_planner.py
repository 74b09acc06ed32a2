"""Every trial is planned once, in groups that fit, the same for the same trials."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retroprop.ensemble.planner import Group, Item, most_members, plan

GIB = 2.0**30


def items(arms: int, rates: int, seeds: int, **settings: object) -> list[Item]:
    base = Item("", "p", "", 1.0, (), weights=21_000, steps=540, activations=25_000)
    base = replace(base, **settings)  # type: ignore[arg-type]
    return [
        replace(
            base, key=f"{arm} {rate} {seed}", seed=f"tuning/{seed}", replica=10.0**rate, standing=(str(arm),)
        )
        for arm in range(arms)
        for rate in range(rates)
        for seed in range(seeds)
    ]


def planned(
    given: list[Item], memory: float = GIB, device: str = "cpu", compiler: bool = True
) -> list[Group]:
    return plan(given, memory=memory, compiler=compiler, device=device)


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(10, 2_000_000),
    st.floats(1e3, 1e10),
    st.sampled_from(["cpu", "cuda"]),
)
def test_every_trial_is_in_one_group_that_fits(
    arms: int, rates: int, seeds: int, weights: int, memory: float, device: str
):
    given_items = items(arms, rates, seeds, weights=weights)
    groups = planned(given_items, memory, device)
    keys = [key for group in groups for key in group.keys]
    assert sorted(keys) == sorted(item.key for item in given_items)
    most = most_members(given_items[0], memory, device)
    assert max(len(group.keys) for group in groups) <= most
    assert most == 1 or most * given_items[0].bytes <= memory


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 4), st.randoms())
def test_the_order_they_come_in_does_not_matter(arms: int, rates: int, seeds: int, shuffler: random.Random):
    ordered = items(arms, rates, seeds)
    shuffled = list(ordered)
    shuffler.shuffle(shuffled)
    assert planned(shuffled) == planned(ordered)


def test_the_arms_of_a_seed_and_rate_share_a_compiled_step():
    groups = planned(items(arms=32, rates=6, seeds=3))
    assert len(groups) == 18
    assert {group.way for group in groups} == {"compiled"}
    arms = [[key.split()[0] for key in group.keys] for group in groups]
    assert all(one == arms[0] for one in arms), "groups hold other arms, so each would compile its own step"


def test_compiling_has_to_be_worth_its_while():
    assert {group.way for group in planned(items(4, 1, 1))} == {"eager"}
    assert {group.way for group in planned(items(32, 6, 3), compiler=False)} == {"eager"}


def test_what_cannot_share_a_program_or_gains_nothing_is_trained_alone():
    for settings in ({"alone": True}, {"spatial": True}, {"weights": 300_000}):
        groups = planned(items(4, 1, 1, **settings))
        assert {group.way for group in groups} == {"alone"}, settings
        assert [len(group.keys) for group in groups] == [1] * 4, settings
    assert {group.way for group in planned(items(4, 1, 1, spatial=True), device="cuda")} == {"eager"}


def test_larger_networks_share_a_program_where_the_compiler_pays():
    groups = planned(items(4, 5, 40, weights=266_000, steps=4_000))
    assert {group.way for group in groups} == {"compiled"}
    assert max(len(group.keys) for group in groups) <= 4


def test_what_is_not_compilable_stays_eager():
    assert {group.way for group in planned(items(32, 6, 3, compilable=False))} == {"eager"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_less_memory_makes_smaller_groups(device: str):
    one = items(32, 6, 1)[0]
    sizes = [most_members(one, memory, device) for memory in (1, 10 * one.bytes, 20 * one.bytes)]
    assert sizes == [1, 10, 20]
