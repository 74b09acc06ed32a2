"""Networks too large for the overhead to matter, on one thread: `python -m benchmarks.wide_and_conv`.

An MNIST-size MLP and a small convolutional network, as the planner trains them on a CPU (the MLP compiled, a
few members a group; convolutions one by one), side by side with a hand-written loop; and the MLP with bf16
products, with what that does to accuracy on the digits. The images are random: only time is measured on them.
"""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from benchmarks.engine_vs_loop import arms
from benchmarks.measuring import one_thread, ratios, side_by_side, write
from retroprop import fixes
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import Loop, own_copy
from retroprop.ensemble.planner import Item, most_members
from retroprop.ensemble.precision import Precision
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.fix import Recipe, apply
from retroprop.networks.named import build

SHAPE, STEPS, ROUNDS = (1, 28, 28), 12, 5


def random_images(batch: int) -> SeedData:
    """As many as one measurement takes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch * STEPS, *SHAPE), generator=generator, dtype=torch.uint8)
    index = torch.arange(len(images))
    return SeedData(0, images, torch.eye(10)[index % 10], index, index[:batch], index[:batch], 255.0)


def recipe(network: str) -> Recipe:
    """Rectified units and cross-entropy on a network by name."""
    bare = Recipe(build(network, SHAPE, 10))
    return apply(bare, [fixes.get("cross_entropy")(), fixes.get("relu")()]).recipe


def per_step(steps: Callable[[], int]) -> Callable[[], float]:
    """Seconds of one member's step, of something that takes and counts some."""

    def measure() -> float:
        started = time.perf_counter()
        count = steps()
        return (time.perf_counter() - started) / count

    return measure


def hand_written(network: str, data: SeedData, batch: int) -> Callable[[], int]:
    """The loop that anyone would write."""
    module = own_copy(recipe(network)).network
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    labels = data.targets.argmax(1)

    def run() -> int:
        for index in data.order(Schedule(1, batch), 0):
            optimizer.zero_grad()
            cross_entropy(module(data.inputs(data.train[index])), labels[data.train[index]]).backward()
            optimizer.step()
        return STEPS

    return run


def as_planned(
    network: str, data: SeedData, batch: int, precision: Precision = "float32"
) -> Callable[[], int]:
    """A group as the planner makes it, or a lone trial where it plans one."""
    schedule, given = Schedule(100, batch, precision), recipe(network)
    weights = sum(p.numel() for p in given.network.parameters())
    item = Item("", "", "", 1.0, (), weights, 1000, spatial=network == "lenet")
    members = most_members(item, 2**33, "cpu")
    if item.spatial:
        loop, epochs = Loop(own_copy(given), data, schedule), itertools.count()

        def one_by_one() -> int:
            return sum(loop.step(*minibatch) is not None for minibatch in loop.minibatches(next(epochs)))

        return one_by_one
    training, result = Engine().start([given] * members, [0] * members, {0: data}, schedule, compiled=True)
    assert result.compiled, result.notes

    def together() -> int:
        training.carried, _ = training.one_after_another(training.carried, training.minibatches.draws(0))
        return members * STEPS

    return together


def accuracy_change() -> dict[str, float]:
    """Points of validation accuracy, bf16 less float32: the default study's arms, one seed, 30 epochs."""
    recipes, data = arms()
    found = []
    for precision in ("float32", "bf16"):
        seeds = [data.seed] * len(recipes)
        schedule = Schedule(30, 64, precision)
        result = Engine().train(recipes, seeds, {data.seed: data}, schedule, test=False, compiled=True)
        found.append([100 * outcome.validation_accuracy[-1] for outcome in result.outcomes])
    gaps = [b - a for a, b in zip(*found, strict=True)]
    return {"mean": round(statistics.mean(gaps), 2), "standard deviation": round(statistics.stdev(gaps), 2)}


def main() -> None:
    """Measure and write."""
    one_thread()
    wide, narrow = random_images(128), random_images(64)
    mlp = "784-300-100-10"
    mlps = side_by_side(
        {
            "engine": per_step(as_planned(mlp, wide, 128)),
            "engine, bf16": per_step(as_planned(mlp, wide, 128, "bf16")),
            "loop": per_step(hand_written(mlp, wide, 128)),
        },
        ROUNDS,
    )
    convs = side_by_side(
        {
            "engine": per_step(as_planned("lenet", narrow, 64)),
            "loop": per_step(hand_written("lenet", narrow, 64)),
        },
        ROUNDS,
    )
    write(
        __file__,
        {
            "MLP 784-300-100-10, batch 128: loop / engine": ratios(mlps, "engine")["loop"],
            "MLP 784-300-100-10, batch 128: loop / engine with bf16": ratios(mlps, "engine, bf16")["loop"],
            "LeNet, batch 64: loop / engine": ratios(convs, "engine")["loop"],
            "bf16 less float32, points of validation accuracy over the 32 arms": accuracy_change(),
        },
    )


if __name__ == "__main__":
    main()
