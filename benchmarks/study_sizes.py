"""What the size of a study costs: `python -m benchmarks.study_sizes`.

Time of a member's step as the number of trials grows, through the study's own plan in one process, compiled
whatever the planner thinks of so few steps; then 10,016 trials of the default network for one epoch, on all
cores: time to plan them, most memory of all processes together, and time to find them finished.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import one_thread, write
from retroprop.ensemble import planner
from retroprop.ensemble.engine import Engine
from retroprop.study.pool import Answer, Pool
from retroprop.study.prepared import prepare
from retroprop.study.runner import reporting_trials, run, tuning_trials
from retroprop.study.study import Study
from retroprop.study.worker import train

SIZES = (32, 256, 1024, 4096)
FACTORS = ["relu", "batch_norm", "residual", {"dropout": {"p": 0.1}}]
EPOCHS = 5


class Here(Pool):
    """Trains in this process, so that all sizes share one compiled step."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.seconds = 0.0

    def run(self, jobs: Sequence[tuple[int, dict[str, Any]]]) -> Iterator[Answer]:
        """Give (id, answer) for every job."""
        for key, job in jobs:
            answer = train(self.engine, job)
            self.seconds += answer["record"]["seconds"]
            yield key, answer

    def close(self) -> None:
        """Nothing to end."""


def member_step(trials: int, pool: Here, folder: Path) -> float:
    """Microseconds of a member's step in a study of so many trials, evaluation included."""
    settings = {"factors": FACTORS, "references": [], "rates": [1], "tuning_seeds": 1, "epochs": EPOCHS}
    study = Study(**settings, seeds=trials // 16 - 1, out=str(folder / str(trials)))
    pool.seconds = 0.0
    results = run(study, pool=pool)
    assert len(results.trials) == trials
    return 1e6 * pool.seconds / trials / results.trials[0].steps


def sizes(folder: Path) -> dict[str, float]:
    """By number of trials; the first study is run twice, as it compiles."""
    pool = Here()
    member_step(64, pool, folder)
    return {f"{trials:,} trials": round(member_step(trials, pool, folder), 1) for trials in SIZES}


def held() -> int:
    """Bytes that this process and all below it hold; what several share is counted once."""
    parents, total = {}, 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for process in parents:
        above = process
        while above not in (os.getpid(), 0):
            above = parents.get(above, 0)
        with contextlib.suppress(OSError):
            if above:
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def large(folder: Path) -> dict[str, Any]:
    """Ten thousand trials of the default network."""
    study = Study(references=[], tuning_seeds=13, seeds=235, epochs=1, out=str(folder / "large"))
    started = time.perf_counter()
    prepared = prepare(study)
    checked = time.perf_counter() - started
    started = time.perf_counter()
    trials = [*tuning_trials(study), *reporting_trials(study, [0] * len(study.arms))]
    groups = prepared.plan(trials)
    planned = time.perf_counter() - started
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    results = run(study)
    done.set()
    watcher.join()
    assert not any(trial.error for trial in results.trials)
    started = time.perf_counter()
    run(study)
    return {
        "trials": len(results.trials),
        "groups": len(groups),
        "seconds to check the study": round(checked, 2),
        "seconds to plan": round(planned, 2),
        "seconds to find all finished, checks and results included": round(time.perf_counter() - started, 2),
        "most memory of all processes, GiB": round(peak[0] / 2**30, 2),
        "most memory of one worker, GiB": round(float(results.record["peak bytes of a worker"]) / 2**30, 2),  # type: ignore[arg-type]
    }


def main() -> None:
    """Measure and write."""
    one_thread()
    folder = Path(tempfile.mkdtemp())
    worth, planner._WORTH_COMPILING = planner._WORTH_COMPILING, 0.0
    try:
        by_size = sizes(folder)
        planner._WORTH_COMPILING = worth
        ten_thousand = large(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    slowest, fastest = max(by_size.values()), min(by_size.values())
    write(
        __file__,
        {
            "slowest / fastest size": round(slowest / fastest, 2),
            "microseconds of a member's step": by_size,
            "large study": ten_thousand,
        },
    )


if __name__ == "__main__":
    main()
