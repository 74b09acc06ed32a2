"""Every choice reads validation accuracy only."""

from dataclasses import replace

import numpy as np
import pytest
from report_factory import study

from retroprop.report.choices import all_on_arm, baseline_arm, choose, single_arms
from retroprop.report.summary import summarise


def with_noise_for_tests(results, seed):
    """The study with all test values replaced by noise."""
    rng = np.random.default_rng(seed)
    trials = tuple(
        trial
        if trial.test_accuracy is None
        else replace(
            trial,
            test_accuracy=float(rng.random()),
            test_correct=None if trial.test_correct is None else rng.random(360) < rng.random(),
        )
        for trial in results.trials
    )
    return replace(results, trials=trials)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_for_all_test_values_changes_no_choice(full, seed):
    assert choose(with_noise_for_tests(full, seed)) == choose(full)


def test_noise_for_all_test_values_changes_no_order_flag_or_rate(small):
    noisy, plain = summarise(with_noise_for_tests(small, 5)), summarise(small)
    shown = [(r.index, r.label, r.flags, r.multiplier, r.validation) for r in plain.arms]
    assert [(r.index, r.label, r.flags, r.multiplier, r.validation) for r in noisy.arms] == shown
    assert noisy.trial_flags == plain.trial_flags
    assert noisy.choices == plain.choices
    assert [r.test.mean for r in noisy.arms] != [r.test.mean for r in plain.arms]


def test_the_order_is_by_validation_and_references_are_never_best(full):
    found = choose(full)
    ranked = [found.validation[i] for i in found.order]
    assert ranked == sorted(ranked, reverse=True)
    assert not full.arms[found.best].reference
    assert not full.arms[found.smallest].reference


def test_the_smallest_set_is_within_one_standard_error(small):
    def lifted(trial):
        """All arms with residual are equally good but for noise; the rest is far behind."""
        noise = 0.01 * np.cos(7 * trial.arm + 3 * trial.seed)
        base = 0.9 if small.arms[trial.arm].levels[1] else 0.5
        return replace(trial, validation_accuracy=base + noise)

    changed = replace(small, trials=tuple(lifted(t) for t in small.trials))
    assert small.arms[choose(changed).smallest].label == "residual"


def test_without_reporting_trials_tuning_decides(small):
    tuned = replace(small, trials=tuple(t for t in small.trials if t.role == "tuning"))
    found = choose(tuned)
    assert found.validation[0] == pytest.approx(small.validation[0, small.chosen[0]].mean())
    assert found.best is not None
    assert found.picture_seed is None


def test_landmark_arms(full, tmp_path):
    labels = [arm.label for arm in full.arms]
    assert labels[baseline_arm(full)] == "baseline"
    assert full.arms[all_on_arm(full)].levels == (1, 1, 1, 1, 1)
    assert [labels[i] for i in single_arms(full)] == [f.name for f in full.factors]
    left = study(tmp_path, ("relu", "residual"), design="leave_one_out", seeds=2)
    assert baseline_arm(left) is None
    assert all_on_arm(left) == 0
