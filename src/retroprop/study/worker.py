"""A worker process: trains one group after another, told so through its standard input.

Run as `python -m retroprop.study.worker LOCK`; LOCK is a file that lets one worker compile at a time. Jobs
and answers are pickles; when the input closes, because the parent ended in whatever way, the worker ends at
once.
"""

import gc
import hashlib
import json
import logging
import os
import pickle
import queue
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save

from retroprop.data.dataset import Dataset
from retroprop.data.sources import load
from retroprop.ensemble import loop
from retroprop.ensemble.checkpoint import Checkpoint
from retroprop.ensemble.engine import Engine, GroupResult
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.fix import Recipe
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
    engine = Engine(Path(sys.argv[1]))
    while True:
        job = jobs.get()
        try:
            answer: dict[str, Any] = train(engine, job)
        except Exception:
            answer = {"error": traceback.format_exc()}
        pickle.dump(answer, answers)
        answers.flush()
        if "CUDA error" in answer.get("error", ""):  # nothing works on the device in this process any more
            os._exit(1)


def _listen(source: BinaryIO, jobs: "queue.Queue[dict[str, Any]]") -> None:
    while True:
        try:
            jobs.put(pickle.load(source))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)


@lru_cache(maxsize=1)
def _dataset(name: str, root: str | None, device: str) -> Dataset:
    return load(name, root).to(torch.device(device))


@lru_cache(maxsize=64)
def _seed_data(name: str, root: str | None, seed: str, dtype: str, device: str) -> SeedData:
    data = _dataset(name, root, device)
    return SeedData.of(data, seed, getattr(torch, dtype), torch.device(device))


def train(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    """Train a group.

    Args:
        engine: kept from group to group.
        job: settings of every trial, data_root, device, way; optionally checkpoint, a file,
            and halved, for a group that may be too large for this machine.

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
    schedule = Schedule(first["epochs"], first["batch"], first["precision"])
    test = not first["seed"].startswith("tuning")
    recipes = [recipe_of(one) for one in settings]
    checkpoint = _checkpoint(job)
    if job["way"] == "alone":
        result = _alone(recipes, seeds, data, schedule, test, checkpoint)
    else:
        run = engine.train_halves if job.get("halved") and len(recipes) > 1 else engine.train
        result = run(
            recipes,
            seeds,
            data,
            schedule,
            test=test,
            compiled=job["way"] == "compiled",
            checkpoint=checkpoint,
        )
    if checkpoint is not None:
        checkpoint.remove()
    if result.compile_seconds:
        gc.freeze()  # to look through all that compiling leaves behind takes 2 % of each later step
    record = {
        "members": len(settings),
        "way": "compiled" if result.compiled else "alone" if job["way"] == "alone" else "eager",
        "compile_seconds": result.compile_seconds,
        "seconds": sum(outcome.seconds for outcome in result.outcomes),
        "notes": result.notes,
        "resumed": result.resumed,
        "halved": result.halved,
        "peak_bytes": _peak_bytes(job["device"]),
        "device": job["device"],
        "torch": str(torch.__version__),
    }
    return {"rows": [_row(outcome, test) for outcome in result.outcomes], "record": record}


def _checkpoint(job: dict[str, Any]) -> Checkpoint | None:
    """Where the group leaves its state; its name holds all that decides its numbers."""
    if job.get("checkpoint") is None:
        return None
    text = json.dumps([job["settings"], job["way"], job["device"]], sort_keys=True)
    name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return Checkpoint(Path(job["checkpoint"]), name)


def _alone(
    recipes: Sequence[Recipe],
    seeds: Sequence[str],
    data: Mapping[str, SeedData],
    schedule: Schedule,
    test: bool,
    checkpoint: Checkpoint | None,
) -> GroupResult:
    """Trials that do not share a program, one after another."""
    outcomes = []
    for k, (recipe, seed) in enumerate(zip(recipes, seeds, strict=True)):
        own = checkpoint and checkpoint.part(str(k))
        outcomes.append(loop.train(loop.own_copy(recipe), data[seed], schedule, test=test, checkpoint=own))
    return GroupResult(outcomes, False, 0.0, resumed=max(outcome.resumed for outcome in outcomes))


def _peak_bytes(device: str) -> int:
    """Most memory this process has held, on the device where it is one; 0 where the system does not say."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
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
