"""A study small enough for tests, and a pool that trains it in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retroprop.ensemble.engine import Engine
from retroprop.study.pool import Answer, Pool
from retroprop.study.study import Study
from retroprop.study.worker import train


def small_study(out: Path, **changes: Any) -> Study:
    settings: dict[str, Any] = {
        "network": "64-8-10",
        "factors": ["relu", "batch_norm"],
        "references": [],
        "rates": [0.3, 1],
        "tuning_seeds": 1,
        "seeds": 2,
        "epochs": 2,
        "out": str(out),
    }
    return Study(**{**settings, **changes})


class Here(Pool):
    """Trains in this process; groups whose place is in `broken` fail."""

    def __init__(self, broken: Sequence[int] = ()) -> None:
        self.engine = Engine()
        self.broken = set(broken)
        self.trained = 0
        self.trials = 0

    def run(self, jobs: Sequence[tuple[int, dict[str, Any]]]) -> Iterator[Answer]:
        for key, job in jobs:
            self.trained += 1
            if self.trained in self.broken:
                yield key, {"error": "Traceback: the test broke this group"}
            else:
                self.trials += len(job["settings"])
                yield key, train(self.engine, job)

    def close(self) -> None:
        pass
