"""How much faster a group trains than its trials one by one, side by side, one thread each.

`python -m benchmarks.engine_vs_loop` takes the 32 arms of the default study at one rate and seed. One side is
a group of them as the study runs it, compiled; the others train the same networks one after another: a
hand-written PyTorch loop (autograd and torch.optim.SGD), and Lightning with everything it shows or saves
switched off. Lightning on such small networks measures mostly its own loop and the DataLoader. Then the same
with two processes a side. What is compared is optimizer steps in the middle of a training, each side's
minibatches included, without compiling, setting up and evaluation.
"""

import gc
import logging
import subprocess
import sys
import time
import warnings
from typing import Any

import lightning
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import readme
from benchmarks.measuring import one_thread, ratios, side_by_side, write
from retroprop.data.sources import load
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import own_copy
from retroprop.ensemble.training import Training
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.fix import Recipe
from retroprop.study.study import Study
from retroprop.study.trial import make_trial, recipe_of, standing

ROUNDS = 5
# Epochs of one measurement, on either side.
EPOCHS = 5


def arms() -> tuple[list[Recipe], SeedData]:
    """The arms of the default study at one seed, as they stand in a group."""
    study = Study()
    found = [i for i, arm in enumerate(study.arms) if not arm.reference]
    trials = sorted((make_trial(study, i, "tuning", 0, 1.0) for i in found), key=standing)
    seed = trials[0].settings["seed"]
    data = SeedData.of(load(study.data), seed, torch.float32, torch.device("cpu"))
    return [recipe_of(trial.settings) for trial in trials], data


def group(recipes: list[Recipe], data: SeedData) -> tuple[Training, float]:
    """The arms as one compiled program, warmed up, and the seconds that compiling took."""
    training, result = Engine().start(
        recipes, [data.seed] * len(recipes), {data.seed: data}, Schedule(10_000, 64), compiled=True
    )
    assert result.compiled, result.notes
    training.run_epoch()
    gc.freeze()  # as a worker does, for all sides alike
    return training, result.compile_seconds


def engine_epochs(training: Training) -> float:
    """Seconds an epoch of all members."""
    started = time.perf_counter()
    for epoch in range(EPOCHS):
        draws = training.minibatches.draws(epoch)
        training.carried, _ = training.one_after_another(training.carried, draws)
    return (time.perf_counter() - started) / EPOCHS


def loop_epochs(recipes: list[Recipe], data: SeedData) -> float:
    """Seconds an epoch of all, by the loop that anyone would write."""
    x, y = data.inputs(data.train).flatten(1), data.outputs(data.train).argmax(1)
    total = 0.0
    for recipe in recipes:
        network = own_copy(recipe).network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=recipe.rule.rate, momentum=0.9)
        started = time.perf_counter()
        for epoch in range(EPOCHS):
            for index in data.order(Schedule(EPOCHS, 64), epoch):
                optimizer.zero_grad()
                cross_entropy(network(x[index]), y[index]).backward()
                optimizer.step()
        total += time.perf_counter() - started
    return total / EPOCHS


class Plain(lightning.LightningModule):
    """What a Lightning user would write."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.network, self.rate = own_copy(recipe).network, recipe.rule.rate

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """The loss of a minibatch."""
        x, y = batch
        return cross_entropy(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As in the other loop."""
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


def lightning_epochs(
    recipes: list[Recipe], data: SeedData, *, batch: int = 64, epochs: int = EPOCHS, accelerator: str = "cpu"
) -> float:
    """Seconds an epoch of all, by one Trainer after another; two lengths tell set-up from epochs."""
    train = TensorDataset(data.inputs(data.train).flatten(1), data.outputs(data.train).argmax(1))

    def fit(recipe: Recipe, length: int) -> float:
        trainer = lightning.Trainer(
            max_epochs=length, accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        model = Plain(recipe)
        loader = DataLoader(train, batch_size=batch, shuffle=True, drop_last=True)
        started = time.perf_counter()
        trainer.fit(model, loader)
        return time.perf_counter() - started

    return sum((fit(recipe, 1 + epochs) - fit(recipe, 1)) / epochs for recipe in recipes)


def both_cores(side: str) -> float:
    """Seconds an epoch of two processes that run one side each at the same time, on average."""
    command = [sys.executable, "-m", "benchmarks.engine_vs_loop", side]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return sum(float(process.communicate()[0].split()[-1]) for process in processes) / 2


def alone(side: str) -> float:
    """One side, for a process of its own."""
    recipes, data = arms()
    if side == "engine":
        training, _ = group(recipes, data)
        return sorted(engine_epochs(training) for _ in range(6 * ROUNDS))[3 * ROUNDS]
    return lightning_epochs(recipes, data)


def main() -> None:
    """Measure and write."""
    one_thread()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        sys.stdout.write(f"{alone(sys.argv[1])}\n")
        return
    recipes, data = arms()
    training, compiling = group(recipes, data)
    measured = side_by_side(
        {
            "engine": lambda: engine_epochs(training),
            "loop": lambda: loop_epochs(recipes, data),
            "lightning": lambda: lightning_epochs(recipes, data),
        },
        ROUNDS,
    )
    found = ratios(measured, "engine")
    rounds = {name: [round(1000 * s, 1) for s in seconds] for name, seconds in measured.items()}
    two = {side: both_cores(side) for side in ("engine", "lightning")}
    result = {
        "members": len(recipes),
        "steps an epoch": data.steps(Schedule(1, 64)),
        "loop / engine": found["loop"],
        "lightning / engine": found["lightning"],
        "lightning / engine, two processes each": round(two["lightning"] / two["engine"], 2),
        "milliseconds an epoch, by round": rounds,
        "compile seconds, apart": round(compiling, 1),
    }
    write(__file__, result)
    readme.write()


if __name__ == "__main__":
    main()
