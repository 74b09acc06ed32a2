"""Runs a study: plans what is missing, trains it on worker processes, writes it down."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from retroprop.ensemble.planner import Group, has_compiler
from retroprop.errors import RetropropError, StoreError
from retroprop.study.checks import arm_costs, checked_data
from retroprop.study.energy import SHORTEST, Meter, find_counter
from retroprop.study.pool import Pool
from retroprop.study.prepared import Prepared, prepare
from retroprop.study.progress import Watcher
from retroprop.study.reader import chosen_rates, read, tuning_grid
from retroprop.study.results import Results
from retroprop.study.store import Store, code_hash, open_store
from retroprop.study.study import Study
from retroprop.study.trial import Trial, make_trial


def tuning_trials(study: Study) -> list[Trial]:
    """All trials that choose rates."""
    return [
        make_trial(study, arm, "tuning", seed, rate)
        for arm in range(len(study.arms))
        for rate in study.rates
        for seed in range(study.tuning_seeds)
    ]


def reporting_trials(study: Study, chosen: Sequence[int]) -> list[Trial]:
    """All trials that are reported, each arm at the rate that tuning chose."""
    return [
        make_trial(study, arm, "reporting", seed, study.rates[rate])
        for arm, rate in enumerate(chosen)
        for seed in range(study.seeds)
        if rate >= 0
    ]


def _hold(lock: int) -> None:
    """Lock an open file until this process ends, in whatever way."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder for one process.

    Raises:
        RetropropError: when the folder cannot be written.
        StoreError: when another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RetropropError(
            f"The folder {str(folder)!r} cannot be written ({error.strerror}). Give another with --out."
        ) from None
    try:
        try:
            _hold(lock)
        except OSError:
            raise StoreError(
                f"Another process is running the study in {str(folder)!r}. Wait for it, or give another "
                "folder with --out."
            ) from None
        yield
    finally:
        os.close(lock)


def run(
    study: Study,
    watcher: Watcher | None = None,
    pool: Pool | None = None,
    *,
    energy: bool = False,
    meter: Meter | None = None,
) -> Results:
    """Train what is not in the store yet.

    Args:
        study: what to train.
        watcher: hears how it goes.
        pool: of workers, closed afterwards; one worker a core by default.
        energy: whether to measure joules, where the device counts them; its idle power is measured first.
        meter: of energy; tests bring their own.

    Raises:
        RetropropError: when the study cannot be run as it is; nothing finished is lost.
    """
    watcher = watcher or Watcher()
    prepared = prepare(study)
    with locked(study.folder):
        made_by = {"code": code_hash(), "data": prepared.fingerprint}
        with open_store(study.folder, made_by) as store:
            write_settings(study)
            if not has_compiler():
                watcher.note("no C++ compiler was found, so steps run eager, several times slower")
            for text in prepared.notes:
                watcher.note(text)
            if energy and meter is None:
                meter = _meter(prepared.device, watcher)
            pool = pool or Pool(prepared.workers, study.folder / "worker.log")
            try:
                tuning = tuning_trials(study)
                _train(study, prepared, store, pool, watcher, "tuning", tuning, meter)
                chosen = chosen_rates(*tuning_grid(study, store), study)
                reporting = reporting_trials(study, chosen)
                _train(study, prepared, store, pool, watcher, "reporting", reporting, meter)
            finally:
                pool.close()
            return _looked_at(read(study, store, prepared.costs), store)


def load_results(folder: Path) -> Results:
    """What a finished or interrupted study has found, without training.

    Raises:
        StoreError: when there is no store that this version reads.
    """
    with open_store(folder, None) as store:
        study = Study.load(folder / "study.yaml", out=str(folder))
        return _looked_at(read(study, store, arm_costs(study, checked_data(study))), store)


def _looked_at(results: Results, store: Store) -> Results:
    """Note in the store that so many reporting seeds have been seen."""
    seeds = results.shared_seeds()
    if seeds and (not results.looks or results.looks[-1].seeds != tuple(seeds)):
        store.log_look(seeds, results.settings)
    return results


def write_settings(study: Study) -> None:
    """Write the resolved study beside its store."""
    part = study.folder / "study.yaml.part"
    part.write_text(yaml.safe_dump(study.resolved(), sort_keys=False), encoding="utf-8")
    os.replace(part, study.folder / "study.yaml")


def _meter(device: str, watcher: Watcher) -> Meter | None:
    counter, reason = find_counter(device)
    if counter is None:
        watcher.note(reason)
        return None
    watcher.note(f"the idle power of {counter.device} is measured for {SHORTEST:.0f} seconds")
    return Meter(counter)


def _train(
    study: Study,
    prepared: Prepared,
    store: Store,
    pool: Pool,
    watcher: Watcher,
    phase: str,
    trials: Sequence[Trial],
    meter: Meter | None,
) -> None:
    """Train the trials of one phase that are not in the store."""
    by_key = {trial.key: trial for trial in trials}
    finished = store.finished()
    missing = {key: trial for key, trial in by_key.items() if key not in finished}
    # The stored plan is used as it is: another packing, or eager for compiled, would round otherwise. Only
    # a group that holds a trial this study does not want any more is planned anew.
    store.drop_plan([i for i, group in store.planned(phase) if not missing.keys() >= set(group.keys)])
    waiting = {key for _, group in store.planned(phase) for key in group.keys}
    store.add_plan(phase, prepared.plan([t for key, t in missing.items() if key not in waiting]))
    groups = dict(store.planned(phase))
    watcher.planned(phase, len(by_key), len(by_key) - len(missing), len(groups))
    jobs = [(i, _job(study, prepared, group, missing)) for i, group in groups.items()]
    scores: dict[tuple[int, float], list[float]] = {}
    said: set[str] = set()
    for i, answer in pool.run(jobs):
        members = [missing[key] for key in groups[i].keys]
        if "error" in answer:
            store.fail(i, answer["error"])
            _measure(store, meter, i, measured=False)
            watcher.failed(phase, len(members), answer["error"])
            continue
        store.finish(i, members, answer["rows"], answer["record"])
        record = answer["record"]
        _measure(store, meter, i, compiling=record["compile_seconds"], measured=not record["resumed"])
        for text in answer["record"]["notes"]:
            if text not in said:
                watcher.note(text)
            said.add(text)
        for trial, row in zip(members, answer["rows"], strict=True):
            if not study.arms[trial.arm].reference:
                score = 0.0 if row["result"]["diverged"] else row["result"]["validation_curve"][-1]
                scores.setdefault((trial.arm, trial.multiplier), []).append(score)
        best = max(scores, key=lambda arm: float(np.mean(scores[arm])), default=None)
        label = study.arms[best[0]].label if best else ""
        value = float(np.mean(scores[best])) if best else 0.0
        watcher.group_done(phase, len(members), label, value)


def _measure(store: Store, meter: Meter | None, group: int, **how: Any) -> None:
    """Tell the meter, where there is one, of a group that has ended."""
    if meter and (window := meter.finished(group, **how)):
        store.add_window(window.as_row())


def _job(study: Study, prepared: Prepared, group: Group, trials: dict[str, Trial]) -> dict[str, Any]:
    return {
        "settings": [trials[key].settings for key in group.keys],
        "data_root": study.data_root,
        "device": prepared.device,
        "way": group.way,
        "checkpoint": str(study.folder / "checkpoints" / f"{group.keys[0]}.pt"),
    }
