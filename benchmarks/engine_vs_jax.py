"""The engine against JAX's own way to train many networks at once: `python -m benchmarks.engine_vs_jax`.

Two trainings on the digits, one thread each: the 32 arms of the default study, and 128 sigmoid networks
64-64-64-10, whose matrix products alone are measured too. Both sides start from the same weights, and their
losses on the first minibatch must agree (dropout left out: the masks are other random numbers). JAX, from
the `bench` extra, runs in a process of its own: see benchmarks/jax_side.py. Not the same on both sides: the
engine multiplies only the kept units of sparse layers, JAX masks them; the engine updates running statistics.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import readme
from benchmarks.engine_vs_loop import arms, engine_epochs, group
from benchmarks.measuring import one_thread, write
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.fix import Recipe, apply, receipts_of
from retroprop.fixes.cross_entropy import CrossEntropy
from retroprop.networks.mlp import MLP
from retroprop.optim.rule_1986 import Rule1986

MEMBERS, ROUNDS, RATE = 128, 3, 0.1
FLAGS = ("relu", "batch_norm", "residual", "dropout", "sparse_backprop")


def given(recipes: list[Recipe], stack: list[Recipe], data: SeedData) -> dict[str, np.ndarray]:
    """Images, order, flags and weights, for the other side."""
    index = data.train
    arrays: dict[str, Any] = {
        "x": data.inputs(index).flatten(1).numpy(),
        "labels": data.outputs(index).argmax(1).numpy(),
        "order": data.order(Schedule(1, 64), 0).numpy(),
        "rate": np.float32(RATE),
        "flags": np.array(
            [[float(f in {r.fix.name for r in receipts_of(one.network)}) for f in FLAGS] for one in recipes],
            dtype=np.float32,
        ),
    }
    for name, members, hidden in (("factorial", recipes, 4), ("sigmoid", stack, 2)):
        states = [one.network.state_dict() for one in members]
        for i in range(hidden + 1):
            path = f"hidden.{i}" if i < hidden else "output"
            arrays[f"{name}/w{i}"] = np.stack([s[f"{path}.linear.weight"].numpy() for s in states])
            arrays[f"{name}/b{i}"] = np.stack([s[f"{path}.linear.bias"].numpy() for s in states])
            if name == "factorial" and i < hidden:
                size = len(states), 64
                arrays[f"{name}/g{i}"] = np.ones(size, dtype=np.float32)
                arrays[f"{name}/s{i}"] = np.zeros(size, dtype=np.float32)
    return arrays


def first_losses(recipes: list[Recipe], data: SeedData) -> np.ndarray:
    """Loss of every member on the first minibatch, without dropout."""
    index = data.train[data.order(Schedule(1, 64), 0)[0]]
    x, t = data.inputs(index), data.outputs(index)
    found = []
    for recipe in recipes:
        network = recipe.network.train()
        for module in network.modules():
            if "noise" in module._buffers:
                module.eval()
        with torch.no_grad():
            found.append(float(recipe.loss(network(x), t, -1).mean()))
    return np.array(found)


def products() -> float:
    """Seconds an epoch of the matrix products alone: forward, and both of the backward pass, of the stack."""
    sizes, steps = [(64, 64), (64, 64), (10, 64)], 18
    tensors = [
        (torch.randn(MEMBERS, o, i), torch.randn(MEMBERS, i, 64), torch.randn(MEMBERS, o, 64))
        for o, i in sizes
    ]
    started = time.perf_counter()
    for _ in range(steps):
        for k, (weight, x, slope) in enumerate(tensors):
            torch.bmm(weight, x)
            torch.bmm(slope, x.mT)
            if k:  # the images need no gradient
                torch.bmm(weight.mT, slope)
    return time.perf_counter() - started


def main() -> None:
    """Measure and write."""
    one_thread()
    recipes, data = arms()
    networks = [MLP("64-64-64-10", seed=seed) for seed in range(MEMBERS)]
    stack = [apply(Recipe(net, rule=Rule1986(RATE)), [CrossEntropy()]).recipe for net in networks]
    ours = {"factorial": group(recipes, data)[0], "sigmoid": group(stack, data)[0]}
    rounds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "given.npz", **given(recipes, stack, data))
        for _ in range(ROUNDS):
            command = [sys.executable, "-m", "benchmarks.jax_side", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            theirs = json.loads(done.stdout.splitlines()[-1])
            for name, training in ours.items():
                mine = min(engine_epochs(training) for _ in range(3))
                rounds.setdefault(name, []).append(theirs[name]["seconds"] / mine)
                if name == "sigmoid":
                    rounds.setdefault("products", []).append(mine / min(products() for _ in range(3)))
    for name, members in (("factorial", recipes), ("sigmoid", stack)):
        gap = np.abs(first_losses(members, data) - np.array(theirs[name]["losses"])).max()
        assert gap < 1e-4, f"the sides compute other losses for {name}: {gap}"
    middle = {name: round(sorted(values)[len(values) // 2], 2) for name, values in rounds.items()}
    result = {
        "jax": theirs["jax"],
        "32 arms: JAX / engine": middle["factorial"],
        "128 sigmoid networks: JAX / engine": middle["sigmoid"],
        "128 sigmoid networks: engine / its matrix products alone": middle["products"],
        "by round": {name: [round(value, 2) for value in values] for name, values in rounds.items()},
        "JAX compile seconds, apart": round(theirs["factorial"]["compile seconds"], 1),
    }
    write(__file__, result)
    readme.write()


if __name__ == "__main__":
    main()
