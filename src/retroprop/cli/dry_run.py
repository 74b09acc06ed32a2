"""`retroprop ablate --dry-run`: the plan of a study, with the minutes it may take."""

import itertools
import time
from collections import Counter

import torch
from rich.console import Console

from retroprop.data.sources import load
from retroprop.ensemble.loop import Loop, own_copy
from retroprop.ensemble.planner import Group
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.study.prepared import Prepared, prepare
from retroprop.study.runner import reporting_trials, tuning_trials
from retroprop.study.study import Study
from retroprop.study.trial import make_trial, recipe_of

# Time of a member's step as a share of a plain step alone, seen on two cores; a rough guide.
_SHARES = {"compiled": 0.15, "eager": 0.6, "alone": 1.0}
_SECONDS_TO_COMPILE = 25.0


def show_plan(study: Study) -> int:
    """Print what would be trained, in what groups, and an estimate of the minutes."""
    console = Console()
    prepared = prepare(study)
    tuning = tuning_trials(study)
    middle = len(study.rates) // 2
    reporting = reporting_trials(study, [middle] * len(study.arms))
    groups = [*prepared.plan(tuning), *prepared.plan(reporting)]
    console.print(f"[bold]{study.name}[/]: {study.network} on {study.data}, {prepared.device}")
    references = sum(arm.reference for arm in study.arms)
    console.print(
        f"{len(study.arms) - references} arms ({study.design}) and {references} reference arms; "
        f"{len(tuning)} tuning trials ({len(study.rates)} rates x {study.tuning_seeds} seeds an arm), "
        f"then {len(reporting)} reporting trials ({study.seeds} seeds an arm).",
        soft_wrap=True,
    )
    sizes = Counter((len(group.keys), group.way) for group in groups)
    for (size, way), count in sorted(sizes.items(), reverse=True):
        together = f"{count} groups of {size} members as one program, {way}"
        how = f"{count} trials one by one" if way == "alone" else together
        console.print(f"  {how}, {prepared.steps} steps each")
    for text in prepared.notes:
        console.print(f"  {text}", soft_wrap=True, markup=False)
    minutes = _estimate(study, prepared, groups) / 60
    console.print(
        f"About {minutes:.1f} minutes on {prepared.workers} worker processes: an estimate from a few plain "
        "steps timed now. Nothing was trained and nothing written.",
        soft_wrap=True,
    )
    return 0


def _estimate(study: Study, prepared: Prepared, groups: list[Group]) -> float:
    """Seconds, from a plain step of the arm with the most fixes."""
    torch.set_num_threads(1)
    arm = max(range(len(study.arms)), key=lambda i: len(study.arms[i].fixes))
    recipe = own_copy(recipe_of(make_trial(study, arm, "tuning", 0, study.rates[0]).settings))
    data = SeedData.of(load(study.data, study.data_root), "tuning/0", torch.float32, torch.device("cpu"))
    loop = Loop(recipe, data, Schedule(1, study.batch))
    batches = list(itertools.islice(loop.minibatches(0), 20))
    loop.step(*batches[0])
    started = time.perf_counter()
    timed = [loop.step(*batches[i % len(batches)]) for i in range(20)]
    plain = (time.perf_counter() - started) / len(timed)
    total = 0.0
    for group in groups:
        share = _SHARES[group.way]
        total += len(group.keys) * prepared.steps * plain * share
    compiling = _SECONDS_TO_COMPILE if any(group.way == "compiled" for group in groups) else 0.0
    return total / prepared.workers + compiling
