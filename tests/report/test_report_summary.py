"""What a summary says, for whole and for broken studies."""

from dataclasses import replace

import numpy as np
import pytest
from report_factory import CHANCE, diverged, failed, places, study, with_trials

from retroprop.report.estimates import estimate, luck_of_tuning
from retroprop.report.facts import harm_sentences, looks_sentence, misleading_sentences
from retroprop.report.summary import summarise
from retroprop.study.results import Look


def test_the_answer_names_what_is_claimed(summary):
    assert summary.answer.startswith("On 12 fresh seeds, relu, batch_norm and residual each raise ")
    assert "dropout" in summary.answer
    for effect in summary.of_kind("main"):
        if effect.claim == "helps":
            assert f"{effect.estimate:.1f}" in summary.answer
    assert "mislead when read alone: a claimed interaction is as large" in summary.answer
    assert summary.answer.endswith(".")


def test_nothing_is_claimed_where_there_is_no_effect(tmp_path):
    three = ("relu", "residual", "dropout")
    results = study(tmp_path, three, gains=dict.fromkeys(three, 0.0), references=False)
    said = summarise(results).answer
    assert "the study makes no claim about test accuracy" in said
    assert "raise" not in said
    assert "lower" not in said


def test_one_seed_is_indicative(tmp_path):
    found = summarise(study(tmp_path, ("relu", "residual"), seeds=1, references=False))
    assert found.answer.startswith("There is no verdict yet, only indicative estimates: 1 seed ")
    assert "needs 7" in found.answer
    assert len(found.effects) > 0


def test_a_diverged_trial_counts_as_chance(small):
    place = places(small, 0)[2]
    found = summarise(with_trials(small, {place: diverged()}))
    row = found.row(0)
    own = [t.test_accuracy for t in small.reporting(0)]
    own[2] = CHANCE
    assert row.test.mean == pytest.approx(sum(own) / len(own))
    assert "diverged" in row.flags
    assert found.trial_flags[place] == ("diverged", "did not learn")
    assert any("1 reporting trial diverged and counts as chance" in note for note in found.notes)


def test_failed_trials_leave_the_shared_seeds(small):
    found = summarise(with_trials(small, {places(small, 3)[i]: failed() for i in (0, 5)}))
    assert found.seeds == (1, 2, 3, 4, 6, 7, 8, 9, 10, 11)
    assert {e.seeds for e in found.effects} == {10}
    assert any("residual + dropout" in n and "10 seeds that all" in n for n in found.notes)
    assert any("2 trials failed with: out of memory" in note for note in found.notes)
    assert "failed" in found.row(3).flags


def test_an_arm_without_trials_leaves_no_effects(small):
    found = summarise(with_trials(small, dict.fromkeys(places(small, 3), failed())))
    assert found.effects == ()
    assert found.answer.startswith("There is no answer yet")
    assert any("No seed is finished in every arm" in note for note in found.notes)


def test_no_trials_at_all(small):
    empty = replace(small, trials=(), chosen=(-1,) * len(small.arms))
    found = summarise(empty)
    assert found.effects == ()
    assert found.choices.best is None
    assert found.notes == ("No reporting trial is finished yet, so there are no effects. Finish the study.",)


@pytest.mark.parametrize("design", ["one_at_a_time", "leave_one_out"])
def test_designs_of_one_factor_at_a_time(tmp_path, design):
    found = summarise(study(tmp_path, ("relu", "residual", "dropout"), design=design))
    rows = found.of_kind(design)
    assert [e.factor for e in rows] == ["relu", "residual", "dropout"]
    assert all(e.claim for e in rows)
    assert {e.kind for e in found.effects} == {design}
    assert found.answer.startswith("On 12 fresh seeds, relu")


def test_leave_one_out_is_what_all_on_has_more(tmp_path):
    results = study(tmp_path, ("relu", "residual"), design="leave_one_out")
    found = summarise(results)
    means = {row.index: row.test.mean for row in found.arms}
    without_relu = next(i for i, arm in enumerate(results.arms) if arm.levels == (0, 1))
    assert found.of_kind("leave_one_out")[0].estimate == pytest.approx(100 * (means[0] - means[without_relu]))


def test_factors_with_many_levels(tmp_path):
    levels = (["off", "tanh", "relu"], ["off", {"dropout": {"p": 0.1}}, {"dropout": {"p": 0.3}}])
    found = summarise(study(tmp_path, levels, gains={"activation": 1.0, "dropout": -0.5}))
    assert len(found.of_kind("main")) == 4
    assert len(found.of_kind("interaction")) == 4
    assert "activation: tanh" in found.answer
    assert "dropout p=0.3" in found.answer


def test_verdicts_after_a_look_need_the_new_seeds(small):
    every = tuple(range(12))
    looks = (Look("2026-01-01", every[:8]), Look("2026-01-02", every))
    found = summarise(replace(small, looks=looks))
    judged = found.of_kind("main", "interaction")
    assert any(e.claim.startswith("withheld") for e in judged)
    assert not any(e.claim in {"helps", "hurts"} for e in judged)
    assert any("Earlier looks saw 8 of the 12 seeds, and the others" in note for note in found.notes)
    said = looks_sentence(replace(small, looks=looks))
    assert said == "2 earlier looks: 2026-01-01 (8 seeds), 2026-01-02 (12 seeds)."
    same = summarise(replace(small, looks=(Look("2026-01-02", every),)))
    assert repr(same.effects) == repr(summarise(small).effects)


def test_new_seeds_are_those_that_no_partial_look_saw(small):
    # One look saw the last seeds and one a few of the first; a seed that is gone does not count.
    looks = (Look("1", (9, 10, 11, 40)), Look("2", (0, 9)), Look("3", tuple(range(12))))
    assert estimate(replace(small, looks=looks)).looked == 4
    other = (Look("1", (50, 51)),)
    assert estimate(replace(small, looks=other)).looked == 0


def test_no_verdict_stands_where_looks_saw_every_seed_in_parts(small):
    looks = (Look("1", tuple(range(7))), Look("2", tuple(range(5, 12))))
    found = summarise(replace(small, looks=looks))
    assert all(e.claim.startswith("withheld") for e in found.of_kind("main", "interaction"))
    assert any("no seed is new" in note for note in found.notes)


def test_the_luck_of_tuning_is_counted_by_arm(small):
    even = np.full(small.validation.shape, 0.5)
    even[:, 2] = 0.9
    even[1, 1] = [0.95, 0.94, 0.8]  # arm 1 nearly chose another rate
    luck = luck_of_tuning(replace(small, validation=even))
    assert luck[1] > 0.0
    assert luck[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    even[2, 0, 0] = np.nan  # its tuning is not finished
    assert luck_of_tuning(replace(small, validation=even))[2] == pytest.approx(luck[1], rel=0.3)
    one = replace(small, validation=even[:, :, :1], diverged=small.diverged[:, :, :1])
    assert not luck_of_tuning(one).any()


def test_a_fixed_test_set_adds_an_interval_over_images(tmp_path):
    results = study(tmp_path, ("relu", "residual"), official=True, references=False)
    found = summarise(results)
    assert [i.factor for i in found.images] == ["relu", "residual", "relu"]
    for first, second in zip(found.of_kind("main", "interaction"), found.images, strict=True):
        assert second.estimate == pytest.approx(first.estimate)
        assert second.high - second.low >= first.high - first.low
    place = places(results, 0)[0]
    without = summarise(with_trials(results, {place: {"test_correct": None}}))
    assert without.images == ()
    assert any("kept no correctness by image" in note for note in without.notes)


def test_the_vanishing_gradient_is_measured(summary):
    flow = summary.gradients
    assert flow.layers[0] == "hidden.0.linear.weight"
    assert flow.layers[-1] == "output.linear.weight"
    assert flow.first(0) == pytest.approx(0.32**5, rel=0.2)
    assert flow.first(None) != flow.first(None)


def test_layers_are_in_order_of_their_numbers(small):
    names = [f"hidden.{i}.linear.weight" for i in (0, 1, 10, 11, 2, 3)] + ["output.linear.weight"]
    level = {"gradient_first": dict.fromkeys(names, 1.0)}
    changed = with_trials(small, dict.fromkeys(range(len(small.trials)), level))
    layers = summarise(changed).gradients.layers
    assert [name.split(".")[1] for name in layers] == ["0", "1", "2", "3", "10", "11", "linear"]


def test_harm_alone_is_explained_only_where_it_is_measured(summary, small):
    said = " ".join(harm_sentences(summary))
    assert "dropout" in said
    assert "does not test" in said
    assert "Measured with all other fixes on: dropout" in said
    assert "one fix added alone to the baseline: dropout −" in said
    assert "Rows like this carry no verdict, only an interval." in said
    assert "made it worse" not in said
    level = {"gradient_first": {"hidden.0.linear.weight": 1.0, "output.linear.weight": 1.0}}
    flat = with_trials(small, dict.fromkeys(range(len(small.trials)), level))
    assert harm_sentences(summarise(flat)) == []


def test_misleading_main_effects_get_one_sentence_each(summary):
    said = misleading_sentences(summary)
    assert len(said) == len({(m.factor, m.level) for m in summary.misleading})
    assert said[0].startswith("The main effect of relu (+")
    claimed = [e for e in summary.of_kind("interaction") if e.claim in {"helps", "hurts"}]
    pairs = {frozenset((e.factor, e.other_factor)) for e in claimed}
    assert all({m.factor, m.other_factor} in pairs for m in summary.misleading)
