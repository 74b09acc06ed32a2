"""A worker process: trains one group after another, told so through its standard input.

Run as `python -m retroprop.study.worker`. Jobs and answers are pickles; when the input closes, because the
parent ended in whatever way, the worker ends at once.
"""

import logging
import os
import pickle
import queue
import sys
import threading
import traceback
import warnings
from functools import lru_cache
from typing import Any, BinaryIO

import torch
from safetensors.torch import save

from retroprop.data.sources import load
from retroprop.ensemble import loop
from retroprop.ensemble.engine import Engine, GroupResult
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import NoTwin
from retroprop.study.trial import recipe_of


def main() -> None:
    """Answer every job until the input closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a print must not mix with the answers
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, jobs), daemon=True).start()
    engine = Engine()
    while True:
        job = jobs.get()
        try:
            answer: dict[str, Any] = train(engine, job)
        except Exception:
            answer = {"error": traceback.format_exc()}
        pickle.dump(answer, answers)
        answers.flush()


def _listen(source: BinaryIO, jobs: "queue.Queue[dict[str, Any]]") -> None:
    while True:
        try:
            jobs.put(pickle.load(source))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)


@lru_cache(maxsize=8)
def _seed_data(name: str, root: str | None, seed: str, dtype: str, device: str) -> SeedData:
    return SeedData.of(load(name, root), seed, getattr(torch, dtype), torch.device(device))


def train(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    """Train a group.

    Args:
        engine: kept from group to group.
        job: settings of every trial, data_root, device and compiled.

    Returns:
        Rows by trial, and a record of how the group ran.
    """
    settings = job["settings"]
    first = settings[0]
    seeds = [one["seed"] for one in settings]
    data = {
        seed: _seed_data(first["data"], job["data_root"], seed, first["dtype"], job["device"])
        for seed in seeds
    }
    schedule = Schedule(first["epochs"], first["batch"])
    test = not first["seed"].startswith("tuning")
    recipes = [recipe_of(one) for one in settings]
    try:
        result = engine.train(recipes, seeds, data, schedule, test=test, compiled=job["compiled"])
    except NoTwin as error:
        outcomes = [
            loop.train(loop.own_copy(recipe), data[seed], schedule, test=test)
            for recipe, seed in zip(recipes, seeds, strict=True)
        ]
        result = GroupResult(outcomes, False, 0.0, [f"one by one, because {error}"])
    record = {
        "members": len(settings),
        "compiled": result.compiled,
        "compile_seconds": result.compile_seconds,
        "seconds": sum(outcome.seconds for outcome in result.outcomes),
        "notes": result.notes,
        "peak_bytes": _peak_bytes(),
        "device": job["device"],
        "torch": str(torch.__version__),
    }
    return {"rows": [_row(outcome, test) for outcome in result.outcomes], "record": record}


def _peak_bytes() -> int:
    """Most memory this process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _row(outcome: Outcome, test: bool) -> dict[str, Any]:
    return {
        "result": {
            "train_loss": outcome.train_loss.tolist(),
            "validation_curve": outcome.validation_accuracy.tolist(),
            "train_accuracy": outcome.train_accuracy,
            "test_accuracy": outcome.test_accuracy,
            "gradient_first": outcome.gradient_first,
            "gradient_last": outcome.gradient_last,
            "diverged": outcome.diverged,
            "steps": outcome.steps,
            "seconds": outcome.seconds,
            "images": 0 if outcome.test_correct is None else len(outcome.test_correct),
        },
        "test_correct": outcome.test_correct,
        "weights": save({k: v.cpu() for k, v in outcome.tensors.items()}) if test else None,
    }


if __name__ == "__main__":
    main()
