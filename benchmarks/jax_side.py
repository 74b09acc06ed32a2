"""The trainings of `benchmarks.engine_vs_jax` in JAX: jitted, vmap over members, scan over an epoch's steps.

Run as `python -m benchmarks.jax_side FOLDER`, which holds weights, flags and images; prints what it measures.
Choices are `jnp.where` by member, masks are drawn once for all members, sparse_backprop masks gradients.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

if hasattr(os, "sched_setaffinity") and __name__ == "__main__":  # one core, as the other side has one thread
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

KEPT, DROPPED, EPOCHS = 16, 0.1, 5
Network = Callable[..., Any]


@jax.custom_vjp
def sparse(y: Any, on: Any) -> Any:
    """Y; its gradient with only the KEPT largest units kept, where that is on."""
    return y


def _backward(on: Any, slope: Any) -> Any:
    size = jnp.abs(slope).sum(0)
    kept = size >= jax.lax.top_k(size, KEPT)[0][-1]
    return jnp.where((on > 0) & ~kept, 0.0, slope), jnp.zeros_like(on)


sparse.defvjp(lambda y, on: (y, on), _backward)


def factorial(weights: Any, flags: Any, batch: Any, noise: Any) -> Any:
    """Logits of one member; flags: relu, batch_norm, residual, dropout, sparse_backprop."""
    h = batch
    for i in range(4):
        y = sparse(h @ weights[f"w{i}"].T + weights[f"b{i}"], flags[4])
        normed = (y - y.mean(0)) * jax.lax.rsqrt(y.var(0) + 1e-5) * weights[f"g{i}"] + weights[f"s{i}"]
        y = jnp.where(flags[1] > 0, normed, y)
        y = jnp.where(flags[0] > 0, jnp.maximum(y, 0.0), jax.nn.sigmoid(y))
        dropped = jnp.where(noise[i] >= DROPPED, y / (1 - DROPPED), 0.0)
        h = jnp.where(flags[3] > 0, dropped, y) + flags[2] * h
    return h @ weights["w4"].T + weights["b4"]


def sigmoid(weights: Any, flags: Any, batch: Any, noise: Any) -> Any:
    """Logits of one plain network."""
    h = batch
    for i in range(2):
        h = jax.nn.sigmoid(h @ weights[f"w{i}"].T + weights[f"b{i}"])
    return h @ weights["w2"].T + weights["b2"]


def loss(network: Network, weights: Any, flags: Any, x: Any, labels: Any, noise: Any) -> Any:
    """Cross-entropy of a minibatch."""
    logits = network(weights, flags, x, noise)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def epoch(network: Network, given: Any, carried: Any, flags: Any) -> Any:
    """All members after one more epoch of momentum descent, and their losses."""

    def step(carried: Any, index: Any) -> Any:
        weights, velocity, key = carried
        key, own = jax.random.split(key)
        noise = jax.random.uniform(own, (4, len(index), 64)) if network is factorial else jnp.zeros(4)
        each = jax.vmap(jax.value_and_grad(partial(loss, network)), in_axes=(0, 0, None, None, None))
        losses, slopes = each(weights, flags, given["x"][index], given["labels"][index], noise)
        velocity = jax.tree.map(lambda v, g: 0.9 * v - given["rate"] * g, velocity, slopes)
        return (jax.tree.map(jnp.add, weights, velocity), velocity, key), losses

    return jax.lax.scan(step, carried, given["order"])


def measured(name: str, network: Network, given: dict[str, Any]) -> dict[str, Any]:
    """Losses on the first minibatch, and the time of an epoch."""
    prefix = f"{name}/"
    weights = {key[len(prefix) :]: jnp.asarray(v) for key, v in given.items() if key.startswith(prefix)}
    flags = given["flags"] if name == "factorial" else jnp.zeros((len(weights["w0"]), 5))
    first = jax.vmap(partial(loss, network), in_axes=(0, 0, None, None, None))
    index = given["order"][0]
    batch = given["x"][index], given["labels"][index], jnp.ones((4, 64, 64))
    losses = first(weights, flags.at[:, 3].set(0.0), *batch)
    data = {key: given[key] for key in ("x", "labels", "order", "rate")}
    run = jax.jit(lambda carried: epoch(network, data, carried, flags))
    carried = weights, jax.tree.map(jnp.zeros_like, weights), jax.random.key(0)
    started = time.perf_counter()
    jax.block_until_ready(run(carried))
    compiling, times = time.perf_counter() - started, []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(EPOCHS):
            carried, last = run(carried)
        jax.block_until_ready(last)
        times.append((time.perf_counter() - started) / EPOCHS)
    return {"losses": np.asarray(losses).tolist(), "compile seconds": compiling, "seconds": min(times)}


def main() -> None:
    """Measure and print."""
    arrays = np.load(Path(sys.argv[1]) / "given.npz")
    given = {name: jnp.asarray(arrays[name]) for name in arrays}
    found = {
        name: measured(name, network, given)
        for name, network in (("factorial", factorial), ("sigmoid", sigmoid))
    }
    sys.stdout.write(json.dumps({**found, "jax": jax.__version__}) + "\n")


if __name__ == "__main__":
    main()
