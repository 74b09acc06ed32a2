"""From the store to results: which trials belong to a study as it is now, and what tuning chose."""

from dataclasses import replace
from typing import Any

import numpy as np

from retroprop.data.sources import load
from retroprop.study.checks import machine
from retroprop.study.energy import summary, trial_joules
from retroprop.study.results import Look, Results, TrialResult
from retroprop.study.store import Store
from retroprop.study.study import Study
from retroprop.study.trial import Trial, make_trial, recipe_of
from retroprop.study.tuning import choose_rate

_NAN = float("nan")


def tuning_grid(study: Study, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Validation accuracy after the last epoch, and divergence, of tuning trials: `(arm, rate, seed)`."""
    shape = (len(study.arms), len(study.rates), study.tuning_seeds)
    validation, diverged = np.full(shape, _NAN), np.zeros(shape, dtype=bool)
    found = {key: result for key, result, _, _ in store.rows()}
    for place in np.ndindex(*shape):
        arm, rate, seed = place
        result = found.get(make_trial(study, arm, "tuning", seed, study.rates[rate]).key)
        if result is not None:
            validation[place] = result["validation_curve"][-1]
            diverged[place] = result["diverged"]
    return validation, diverged


def chosen_rates(validation: np.ndarray, diverged: np.ndarray, study: Study) -> list[int]:
    """Index of the rate that tuning chooses, by arm; -1 where its tuning is not finished."""
    chance = load(study.data, study.data_root).chance
    complete = ~np.isnan(validation).any(axis=(1, 2))
    chosen = np.full(len(complete), -1)
    if complete.any():
        chosen[complete] = choose_rate(validation[complete], diverged[complete], study.rates, chance=chance)
    return chosen.tolist()


def read(study: Study, store: Store, costs: list[dict[str, Any]]) -> Results:
    """Results of a study from its store."""
    data = load(study.data, study.data_root)
    validation, diverged = tuning_grid(study, store)
    chosen = chosen_rates(validation, diverged, study)
    rows = {key: (result, right, weights) for key, result, right, weights in store.rows()}
    failures = store.failures()
    trials: list[TrialResult] = []
    groups = store.groups_of_trials()
    joules = trial_joules(store.windows(), {k: (groups[k], row[0]["seconds"]) for k, row in rows.items()})
    for trial in _all_trials(study, chosen):
        if trial.key in rows:
            made = _result(study, trial, *rows[trial.key], costs[trial.arm])
            trials.append(replace(made, joules=joules.get(trial.key, _NAN)))
        elif trial.key in failures:
            trials.append(_failure(study, trial, failures[trial.key], costs[trial.arm]))
    return Results(
        name=study.name,
        settings=study.resolved(),
        factors=study.built_factors,
        design=study.design,
        held=tuple(_held(study)),
        arms=study.arms,
        multipliers=tuple(float(rate) for rate in study.rates),
        chosen=tuple(chosen),
        validation=validation,
        diverged=diverged,
        trials=tuple(trials),
        chance=data.chance,
        images=data.sizes[2],
        official_test=bool(data.official_test),
        data_about=data.about,
        folder=study.folder,
        looks=tuple(Look(time, seeds) for time, seeds in store.looks()),
        record={**_record(store), "sparse on paper": _on_paper(costs)},
    )


def _held(study: Study) -> list[str]:
    from retroprop.fix_config import build_fix
    from retroprop.study.design import fix_label

    return [fix_label(build_fix(spec)) for spec in study.held]


def _all_trials(study: Study, chosen: list[int]) -> list[Trial]:
    from retroprop.study.runner import reporting_trials, tuning_trials

    return [*tuning_trials(study), *reporting_trials(study, chosen)]


def _result(
    study: Study,
    trial: Trial,
    found: dict[str, Any],
    right: np.ndarray | None,
    weights: str,
    cost: dict[str, Any],
) -> TrialResult:
    return TrialResult(
        **_identity(study, trial),
        steps=found["steps"],
        seconds=found["seconds"],
        train_accuracy=found["train_accuracy"],
        validation_accuracy=found["validation_curve"][-1],
        test_accuracy=found["test_accuracy"],
        diverged=found["diverged"],
        train_loss=np.array(found["train_loss"]),
        validation_curve=np.array(found["validation_curve"]),
        gradient_first=found["gradient_first"],
        gradient_last=found["gradient_last"],
        test_correct=right,
        weights=weights,
        parameters=cost["parameters"],
        flops=cost["flops"],
    )


def _failure(study: Study, trial: Trial, error: str, cost: dict[str, Any]) -> TrialResult:
    return TrialResult(
        **_identity(study, trial),
        steps=0,
        seconds=_NAN,
        train_accuracy=_NAN,
        validation_accuracy=_NAN,
        test_accuracy=None,
        diverged=False,
        train_loss=np.array([]),
        validation_curve=np.array([]),
        gradient_first={},
        gradient_last={},
        test_correct=None,
        weights="",
        error=error,
        parameters=cost["parameters"],
        flops=cost["flops"],
    )


def _identity(study: Study, trial: Trial) -> dict[str, Any]:
    reference = study.arms[trial.arm].reference and trial.role == "reporting"
    rule = recipe_of({**trial.settings, "seed": "tuning/0"}).rule
    return {
        "key": trial.key,
        "arm": trial.arm,
        "role": "reference" if reference else trial.role,
        "seed": trial.seed,
        "multiplier": trial.multiplier,
        "rate": rule.rate,
    }


def _on_paper(costs: list[dict[str, Any]]) -> list[str]:
    """Sparse layers of any arm that save operations and no time."""
    return list(dict.fromkeys(layer for cost in costs for layer in cost["on paper"]))


def _record(store: Store) -> dict[str, object]:
    groups = store.records()
    return {
        **machine(),
        **{key: value for key, value in store.meta().items() if key in ("code", "data")},
        "groups": len(groups),
        "compiled groups": sum(group["way"] == "compiled" for group in groups),
        "groups one by one": sum(group["way"] == "alone" for group in groups),
        "groups halved for memory": sum(group["halved"] for group in groups),
        "training seconds": sum(group["seconds"] for group in groups),
        "compile seconds": sum(group["compile_seconds"] for group in groups),
        "peak bytes of a worker": max((group["peak_bytes"] for group in groups), default=0),
        "devices": sorted({group["device"] for group in groups}),
        "torch of the trials": sorted({group["torch"] for group in groups}),
        "notes": sorted({note for group in groups for note in group["notes"]}),
        "energy": summary(store.windows()),
    }
