"""Landmarks whose claims are about paired seeds: trials in two processes, intervals, verdicts, a result file.

A landmark declares its arms, claims and seeds as plain values; the result file holds their hash, so that a
later change of either shows. Finished trials are kept in the result file as they come, and are not run again.
"""

import hashlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from benchmarks.measuring import made_on
from retroprop.study.checks import cores

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What the paper says of one arm against another, in points of test accuracy.

    arm, against: names of arms. bound: of the mean of arm - against.
    above: whether the mean is to lie above the bound, or below it.
    paper: its own numbers, and the grade of our knowledge of them.
    """

    says: str
    arm: str
    against: str
    bound: float
    above: bool
    paper: str

    def verdict(self, accuracies: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Mean, 95 % interval of Student's t over paired seeds, and what follows.

        Reproduced: the whole interval is on the right side. Partly: the mean alone is.
        """
        pairs = zip(accuracies[self.arm], accuracies[self.against], strict=True)
        differences = [100 * (a - b) for a, b in pairs]
        mean, n = statistics.fmean(differences), len(differences)
        half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
        worst = mean - half if self.above else mean + half
        right = [value > self.bound if self.above else value < self.bound for value in (worst, mean)]
        found = "reproduced" if right[0] else "partly" if right[1] else "not reproduced"
        return {
            **asdict(self),
            "mean": round(mean, 3),
            "interval": [round(mean - half, 3), round(mean + half, 3)],
            "seeds": n,
            "verdict": found,
        }


def declared(settings: Mapping[str, Any], claims: Sequence[Claim]) -> str:
    """Hash of everything that was fixed before the first run."""
    text = json.dumps([settings, [asdict(claim) for claim in claims]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(
    script: str,
    settings: Mapping[str, Any],
    claims: Sequence[Claim],
    train: Callable[[str, int], Trial],
    about: Mapping[str, Any],
) -> None:
    """Run what is not in the result file yet, and write it with verdicts.

    Args:
        script: path of the landmark; the result file stands beside it.
        settings: with `arms` (by name) and `seeds`, and all that decides the numbers.
        claims: of the paper.
        train: one trial, by arm and seed, in a process of its own; gives `test`, an accuracy, and more.
        about: what a reader must know: deviations, and facts that need no training.
    """
    path, key = Path(script).with_suffix(".json"), declared(settings, claims)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    trials = kept["trials"] if kept.get("declared") == key else {}
    names = [f"{arm} / {seed}" for seed in settings["seeds"] for arm in settings["arms"]]
    with ProcessPoolExecutor(cores(), initializer=_alone) as pool:
        waiting = {pool.submit(train, *_parts(name)): name for name in names if name not in trials}
        for done in as_completed(waiting):
            trials[waiting[done]] = done.result()
            _write(path, {"declared": key, "settings": settings, "trials": trials})
            sys.stdout.write(f"{len(trials)} of {len(names)}: {waiting[done]}: {done.result()['test']:.4f}\n")
            sys.stdout.flush()
    accuracies = {
        arm: [trials[f"{arm} / {seed}"]["test"] for seed in settings["seeds"]] for arm in settings["arms"]
    }
    result = {
        **made_on(),
        "claims": [claim.verdict(accuracies) for claim in claims],
        "accuracy, %": {arm: round(100 * statistics.fmean(found), 2) for arm, found in accuracies.items()},
        "seconds a trial": {
            arm: round(statistics.median(trials[f"{arm} / {s}"]["seconds"] for s in settings["seeds"]), 1)
            for arm in settings["arms"]
        },
        **about,
        "declared": key,
        "settings": settings,
        "trials": trials,
    }
    _write(path, result)
    for claim in result["claims"]:
        sys.stdout.write(f"{claim['verdict']}: {claim['says']}: {claim['mean']} {claim['interval']}\n")


def _parts(name: str) -> tuple[str, int]:
    arm, _, seed = name.rpartition(" / ")
    return arm, int(seed)


def _alone() -> None:
    torch.set_num_threads(1)


def _write(path: Path, result: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
