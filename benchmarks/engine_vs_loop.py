"""How much faster a group trains than its trials one by one, in one run, one thread each.

`python -m benchmarks.engine_vs_loop` takes the 32 arms of the default study. One side is a group of them as
the study runs it, compiled; the other is a hand-written PyTorch loop (autograd and torch.optim.SGD) over
the same networks, one after another. Both are warmed up, and rounds alternate.
"""

import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import readme
from retroprop.data.sources import load
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import own_copy
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.study.study import Study
from retroprop.study.trial import make_trial, recipe_of, standing

RESULT = Path(__file__).with_suffix(".json")
ROUNDS = 3
EPOCHS = 10


def plain_loop(network: torch.nn.Module, data: SeedData, schedule: Schedule, rate: float) -> None:
    """The loop that anyone would write."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    labels = data.train_t.argmax(1)
    for epoch in range(schedule.epochs):
        network.train()
        for index in data.order(schedule, epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(data.train_x[index]), labels[index]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            (network(data.validation_x).argmax(1) == data.validation_t.argmax(1)).float().mean()


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    study = Study()
    arms = [i for i, arm in enumerate(study.arms) if not arm.reference]
    trials = sorted((make_trial(study, i, "tuning", 0, 1.0) for i in arms), key=standing)
    recipes = [recipe_of(trial.settings) for trial in trials]
    seed = trials[0].settings["seed"]
    data = SeedData.of(load(study.data), seed, torch.float32, torch.device("cpu"))
    schedule = Schedule(EPOCHS, study.batch)
    engine = Engine()

    def group() -> float:
        started = time.perf_counter()
        result = engine.train(
            recipes, [seed] * len(recipes), {seed: data}, schedule, test=False, compiled=True
        )
        assert result.compiled, result.notes
        return time.perf_counter() - started - result.compile_seconds

    def one_by_one() -> float:
        networks = [own_copy(recipe).network for recipe in recipes]
        started = time.perf_counter()
        for recipe, network in zip(recipes, networks, strict=True):
            plain_loop(network, data, schedule, recipe.rule.rate)
        return time.perf_counter() - started

    group(), one_by_one()
    pairs = [(group(), one_by_one()) for _ in range(ROUNDS)]
    ratios = [alone / together for together, alone in pairs]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, one thread",
        "torch": str(torch.__version__),
        "members": len(recipes),
        "steps": schedule.epochs * data.steps(schedule),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    readme.write()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
