"""What a CUDA device makes of studies: `python -m benchmarks.gpu`, part of `make gpu`.

1,600 trainings of 784-256-256-256-10 on MNIST (32 arms, 5 rates, 10 seeds, 10 epochs, batch 128) as the
planner groups them; the same network by Lightning, one after another; the share of the roofline, from the
products and bytes that a step needs at least and ceilings measured in the same run; a small convolutional
network over seeds; and sparse backward passes (benchmarks/gpu_sparse.py). Each part stands alone: one that
fails leaves its reason in the result file. `--smoke` runs everything tiny on the CPU and writes nothing.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_sparse
from benchmarks.engine_vs_loop import lightning_epochs
from benchmarks.measuring import made_on
from retroprop.data.dataset import Dataset
from retroprop.data.sources import load
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import Loop, own_copy
from retroprop.ensemble.planner import Item, has_compiler, plan
from retroprop.ensemble.precision import Precision, products_in, tf32
from retroprop.ensemble.training import Training
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import DataMissing
from retroprop.fix import Recipe, apply
from retroprop.fixes.cross_entropy import CrossEntropy
from retroprop.networks.named import build
from retroprop.study.study import Study

RESULT = Path(os.environ.get("OUT", Path(__file__).parent)) / "gpu.json"
SMOKE = "--smoke" in sys.argv
DEVICE = torch.device("cpu" if SMOKE else "cuda")
NETWORK = "64-16-16-10" if SMOKE else "784-256-256-256-10"
RATES, SEEDS, EPOCHS, BATCH = ([1.0], 1, 1, 64) if SMOKE else ([0.03, 0.1, 0.3, 1.0, 3.0], 10, 10, 128)


def images() -> Dataset:
    """MNIST, or as many random images of its size where it is not there; digits for smoke."""
    if SMOKE:
        return load("digits")
    try:
        return load("mnist")
    except DataMissing:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(0, 256, (70_000, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.arange(70_000) % 10
        sizes = (55_000, 5_000, 10_000)
        return Dataset("random images of MNIST's size", drawn, labels, 10, 255.0, sizes, 10_000, "")


def all_trials(data: Dataset) -> tuple[dict[str, tuple[Recipe, int]], list[Item]]:
    """Recipe and seed of every training by key, and the same as the planner sees them."""
    arms = [arm for arm in Study().arms if not arm.reference][: 4 if SMOKE else None]
    recipes, items = {}, []
    for a, arm in enumerate(arms):
        for seed in range(SEEDS):
            made = apply(Recipe(build(NETWORK, data.shape, 10, seed)), list(arm.fixes), seed=seed).recipe
            weights = sum(p.numel() for p in made.network.parameters())
            for rate in RATES:
                key = f"{a} {rate} {seed}"
                recipes[key] = replace(made, rule=replace(made.rule, rate=made.rule.rate * rate)), seed
                steps = EPOCHS * (data.sizes[0] // BATCH)
                items.append(Item(key, "p", str(seed), rate, (f"{a:02}",), weights, steps, 2000 * BATCH))
    return recipes, items


def waited(run: Callable[[], Any]) -> float:
    """Seconds until the device has done it."""
    started = time.perf_counter()
    run()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def trainings(data: Dataset, precision: Precision) -> dict[str, Any]:
    """All trainings from start to end, as the study's worker does them."""
    recipes, items = all_trials(data)
    free = torch.cuda.mem_get_info()[0] * 0.75 if DEVICE.type == "cuda" else 2**30
    groups = plan(items, memory=free, compiler=has_compiler(), device=DEVICE.type)
    schedule, engine = Schedule(EPOCHS, BATCH, precision), Engine()
    by_seed = {seed: SeedData.of(data, seed, torch.float32, DEVICE) for seed in range(SEEDS)}
    compiling, notes, accuracies = 0.0, set(), []

    def run() -> None:
        nonlocal compiling
        for group in groups:
            members = [recipes[key] for key in group.keys]
            result = engine.train(
                [recipe for recipe, _ in members], [seed for _, seed in members], by_seed, schedule,
                test=False, compiled=group.way == "compiled",
            )  # fmt: skip
            compiling += result.compile_seconds
            notes.update(result.notes)
            accuracies.extend(float(outcome.validation_accuracy[-1]) for outcome in result.outcomes)

    seconds = waited(run)
    return {
        "trainings": len(items),
        "groups": len(groups),
        "members a group": max(len(group.keys) for group in groups),
        "way": sorted({group.way for group in groups}),
        "seconds": round(seconds, 1),
        "of which compiling": round(compiling, 1),
        "best validation accuracy": round(max(accuracies), 4),
        "notes": sorted(notes),
        "most memory, GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if DEVICE.type == "cuda"
        else 0,
    }


def by_lightning(data: Dataset, seconds_ours: float, trainings_ours: int) -> dict[str, Any]:
    """Seconds of one training by Lightning on the same device, and how many times ours that is."""
    recipe, seed = next(iter(all_trials(data)[0].values()))
    own = SeedData.of(data, seed, torch.float32, torch.device("cpu"))
    epoch = lightning_epochs([recipe], own, batch=BATCH, epochs=1, accelerator="cpu" if SMOKE else "gpu")
    each = seconds_ours / trainings_ours
    return {"seconds a training": round(epoch * EPOCHS, 2), "times ours": round(epoch * EPOCHS / each, 1)}


def one_group(data: Dataset, precision: Precision) -> Training:
    """All arms and rates of a seed, as a group in training."""
    recipes, items = all_trials(data)
    members = [recipes[item.key][0] for item in sorted(items, key=lambda i: i.standing) if item.seed == "0"]
    own = {0: SeedData.of(data, 0, torch.float32, DEVICE)}
    schedule = Schedule(EPOCHS, BATCH, precision)
    compiled = DEVICE.type == "cuda" and has_compiler()
    return Engine().start(members, [0] * len(members), own, schedule, compiled=compiled)[0]


def ceilings(precision: Precision) -> tuple[float, float]:
    """Products and bytes a second: of one large product, and of one large copy."""
    side = 512 if SMOKE else 8192
    one, other = (torch.randn(side, side, device=DEVICE) for _ in range(2))
    values = torch.randn(2**20 if SMOKE else 2**29, device=DEVICE)
    kept = torch.empty_like(values)
    with products_in(precision, DEVICE):
        product = min(waited(lambda: one @ other) for _ in range(10))
    copy = min(waited(lambda: kept.copy_(values)) for _ in range(10))
    return 2 * side**3 / product, 8 * values.numel() / copy


def roofline(data: Dataset, precision: Precision) -> dict[str, Any]:
    """Share of a step that its products and bytes would take at the ceilings of this device."""
    with tf32(precision):
        flops, bandwidth = ceilings(precision)
        training = one_group(data, precision)
        steps = training.minibatches.data[0].steps(training.minibatches.schedule)

        def epoch() -> None:
            draws = training.minibatches.draws(0)
            training.carried, _ = training.stepper(training.carried, draws)

        epoch()
        seconds = min(waited(epoch) for _ in range(3)) / steps
    sizes = [int(part) for part in NETWORK.split("-")]
    layers = list(pairwise(sizes))
    weights = sum((i + 1) * o for i, o in layers)
    # Forward and both backward products; the first layer's input needs no gradient.
    products = 2 * BATCH * sum((3 if k else 2) * i * o for k, (i, o) in enumerate(layers))
    # Weights read forward and backward; gradient, weights and momentum read and written at the update; what
    # a layer gives is written once, and read forward and backward.
    numbers = weights * (2 + 2 + 2 + 2) + 3 * BATCH * sum(o for _, o in layers)
    members = training.program.size
    floor = max(members * products / flops, members * 4 * numbers / bandwidth)
    return {
        "members": members,
        "TFLOP/s of a large product": round(flops / 1e12, 1),
        "GB/s of a copy": round(bandwidth / 1e9),
        "microseconds a step": round(1e6 * seconds, 1),
        "microseconds at the ceilings": round(1e6 * floor, 1),
        "share of the roofline": round(floor / seconds, 3),
    }


def conv_over_seeds(count: int) -> dict[str, Any]:
    """A residual net over seeds as one program, against one by one with ordinary autograd."""
    shape, batch, cases = (3, 32, 32), 128, 128 * (2 if SMOKE else 20)
    drawn = torch.randint(0, 256, (cases, *shape), dtype=torch.uint8, device=DEVICE)
    at = torch.arange(cases, device=DEVICE)
    own = {
        seed: SeedData(seed, drawn, torch.eye(10, device=DEVICE)[at % 10], at, at[:batch], at[:batch], 255.0)
        for seed in range(count)
    }
    recipes = [apply(Recipe(build("resnet20", shape, 10, seed)), [CrossEntropy()]).recipe for seed in own]
    schedule = Schedule(1, batch)
    training, _ = Engine().start(recipes, list(own), own, schedule, compiled=False)
    loop = Loop(own_copy(recipes[0]), own[0], schedule)

    def together() -> None:
        training.carried, _ = training.stepper(training.carried, training.minibatches.draws(0))

    def alone() -> None:
        for minibatch in loop.minibatches(0):
            loop.step(*minibatch)

    together(), alone()
    ours = min(waited(together) for _ in range(2)) / count
    return {"members": count, "one by one / together": round(min(waited(alone) for _ in range(2)) / ours, 2)}


def table_7(dtype: torch.dtype) -> dict[str, Any]:
    """Table 7 of meProp, products of float32 in tf32."""
    with tf32("tf32"):
        width, cases = (64, 32) if SMOKE else (8192, 1024)
        return gpu_sparse.table_7(DEVICE, width, cases, dtype)


def attempted(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part finds, or why it does not."""
    try:
        return part()
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def main() -> None:
    """Measure and write after every part."""
    data = images()
    result: dict[str, Any] = {"status": "measured", **made_on(), "images": data.name}
    if DEVICE.type == "cuda":
        result["device"] = torch.cuda.get_device_name()
    precisions: tuple[Precision, ...] = ("float32",) if SMOKE else ("tf32", "float32", "bf16")
    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    for p in precisions:
        parts[f"trainings, {p}"] = lambda p=p: trainings(data, p)  # type: ignore[misc]
        parts[f"roofline, {p}"] = lambda p=p: roofline(data, p)  # type: ignore[misc]
    first = f"trainings, {precisions[0]}"
    parts["Lightning"] = lambda: by_lightning(data, result[first]["seconds"], result[first]["trainings"])
    parts["resnet20 over seeds"] = lambda: conv_over_seeds(2 if SMOKE else 8)
    wide, rows = (64, 32) if SMOKE else (4096, 8192)
    parts["sparse backward, 4096 x 4096, 8,192 rows, bf16"] = lambda: gpu_sparse.large_layer(
        ceilings("bf16"), DEVICE, wide, rows
    )
    parts["meProp, table 7, tf32"] = lambda: table_7(torch.float32)
    parts["meProp, table 7, bf16"] = lambda: table_7(torch.bfloat16)
    parts["memory of Adam steps, sparse / dense"] = lambda: gpu_sparse.adam_memory(
        DEVICE, 64 if SMOKE else 4096
    )
    for name, part in parts.items():
        result[name] = attempted(part)
        sys.stdout.write(f"{name}: {json.dumps(result[name])}\n")
        sys.stdout.flush()
        if not SMOKE:
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if SMOKE and any("failed" in result[name] for name in parts):
        sys.exit(1)


if __name__ == "__main__":
    main()
