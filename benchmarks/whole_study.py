"""The whole default study from the command line, first with an empty and then with a filled compiler cache.

`python -m benchmarks.whole_study`: starting, checking, compiling, training, statistics and the report are
included, on all cores. The peer's time is computed, not run: the hand-written loop's optimizer step, measured
just before on the arms of the study one by one, times the steps of all trials, shared by as many processes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import readme
from benchmarks.engine_vs_loop import arms, loop_epochs
from benchmarks.measuring import one_thread, write
from retroprop.ensemble.trial_data import Schedule
from retroprop.study.checks import cores
from retroprop.study.study import Study


def ablate(folder: Path, cache: Path) -> float:
    """Seconds of `retroprop ablate`."""
    command = [sys.executable, "-m", "retroprop", "ablate", "--out", str(folder)]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and write."""
    one_thread()
    study = Study()
    recipes, data = arms()
    steps = data.steps(Schedule(1, study.batch))
    loop_step = min(loop_epochs(recipes, data) for _ in range(3)) / steps / len(recipes)
    tuned = len(study.rates) * study.tuning_seeds + study.seeds
    trials = tuned * len(study.arms)
    computed = trials * study.epochs * steps * loop_step / cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold, warm = (ablate(folder / run, folder / "cache") for run in ("cold", "warm"))
    result = {
        "trials": trials,
        "steps": trials * study.epochs * steps,
        "loop, computed / whole study, empty cache": round(computed / cold, 2),
        "loop, computed / whole study, filled cache": round(computed / warm, 2),
        "seconds here: loop computed, empty cache, filled cache": [round(s) for s in (computed, cold, warm)],
    }
    write(__file__, result)
    readme.write()


if __name__ == "__main__":
    main()
