"""Sparse backward passes against dense autograd on a CPU: `python -m benchmarks.sparse_backprop`.

One thread, float32. A backward pass follows its forward pass, as in training, so caches are as cold as
there. The floor of a linear layer is what no implementation can leave out, measured in the same run at the
same place: both products over columns that are gathered already, reading the gradient once and writing the
weight's gradient once. That of a convolution is torch's own backward pass over channels that are gathered
already.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import one_thread, side_by_side, write
from retroprop import fixes
from retroprop.fix import apply
from retroprop.networks.mlp import MLP
from retroprop.sparse import Rule
from retroprop.sparse.break_even import speed_ups
from retroprop.sparse.conv_op import sparse_conv2d
from retroprop.sparse.linear_op import sparse_linear

BATCH, ROUNDS = 256, 15
CONVOLUTIONS = ((64, 32), (128, 16), (256, 8))
Shown = dict[str, float]


def behind(forward: Callable[[], Any], timed: Callable[[Any], Any]) -> Callable[[], float]:
    """Seconds of something that follows a forward pass, the best of three."""

    def measure() -> float:
        seconds = []
        for _ in range(3):
            made = forward()
            started = time.perf_counter()
            timed(made)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    return measure


def backward(tensors: Sequence[Tensor], pull: Tensor) -> Callable[[Tensor], Any]:
    """The backward pass of an output."""
    return lambda out: torch.autograd.grad(out, tensors, pull)


def medians(sides: dict[str, Callable[[], float]], ours: str, others: Sequence[str]) -> Shown:
    """How many times as long the others take, the median over rounds."""
    measured = side_by_side(sides, ROUNDS)
    return {
        name: round(statistics.median(a / b for a, b in zip(measured[name], measured[ours], strict=True)), 2)
        for name in others
    }


def linear(width: int, keep: float, per: str = "batch") -> Shown:
    """Dense and floor over sparse, of a square layer."""
    rule = Rule(keep, per)  # type: ignore[arg-type]
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in ((BATCH, width), (width, width), (width,)))
    pull = torch.randn(BATCH, width)
    inner, matrix = x.detach(), weight.detach()
    units = pull.abs().sum(0).topk(rule.k(width)).indices
    kept, rows = pull.index_select(1, units), matrix.index_select(0, units)

    def floor(_: Any) -> None:
        torch.sum(pull)
        matrix.new_zeros(matrix.shape)
        kept @ rows
        kept.mT @ inner

    dense = partial(functional.linear, x, weight, bias)
    sides = {
        "dense": behind(dense, backward((x, weight, bias), pull)),
        "sparse": behind(partial(sparse_linear, x, weight, bias, rule), backward((x, weight, bias), pull)),
        "floor": behind(dense, floor),
    }
    found = medians(sides, "sparse", ("dense", "floor"))
    return {"dense / sparse": found["dense"], "floor / sparse": found["floor"]}


def convolution(channels: int, side: int, keep: float, layout: torch.memory_format) -> Shown:
    """Dense and floor over sparse, of a 3x3 convolution of a batch of 64."""
    rule = Rule(keep)
    shape = (64, channels, side, side)
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, requires_grad=True)
    bias = torch.randn(channels, requires_grad=True)
    pull = torch.randn(shape).contiguous(memory_format=layout)
    units = pull.abs().sum((0, 2, 3)).topk(rule.k(channels)).indices
    kept = pull.index_select(1, units).contiguous(memory_format=layout)
    rows, inner = weight.detach().index_select(0, units), x.detach()
    ones = [1, 1]

    def floor(_: Any) -> None:
        torch.ops.aten.convolution_backward(
            kept, inner, rows, [len(units)], ones, ones, ones, False, [0, 0], 1, [True, True, True]
        )

    dense = partial(functional.conv2d, x, weight, bias, 1, 1)
    sparse = partial(sparse_conv2d, x, weight, bias, 1, 1, 1, 1, rule)
    sides = {
        "dense": behind(dense, backward((x, weight, bias), pull)),
        "sparse": behind(sparse, backward((x, weight, bias), pull)),
        "floor": behind(dense, floor),
    }
    found = medians(sides, "sparse", ("dense", "floor"))
    return {"dense / sparse": found["dense"], "floor / sparse": found["floor"]}


def mlp(keep: float | None, width: int = 1024, layers: int = 3) -> nn.Module:
    """Hidden rectified layers and ten outputs."""
    network = MLP([width] * (layers + 1) + [10])
    sparse = [] if keep is None else [fixes.get("sparse_backprop")(keep)]
    return apply(network, [fixes.get("relu")(), *sparse]).network


def training_step(keep: float) -> Shown:
    """A whole step, dense over sparse, with two optimizers."""
    found = {}
    images, labels = torch.rand(BATCH, 1024), torch.arange(BATCH) % 10
    optimizers = {
        "SGD with momentum": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
        "Adam": torch.optim.Adam,
    }
    for name, make in optimizers.items():

        def steps(keep: float | None, make: Any = make) -> Callable[[], float]:
            network = mlp(keep)
            optimizer = make(network.parameters())

            def step() -> None:
                optimizer.zero_grad()
                functional.cross_entropy(network(images), labels).backward()
                optimizer.step()

            return behind(lambda: None, lambda _: step())

        sides = {"dense": steps(None), "sparse": steps(keep)}
        found[name] = medians(sides, "sparse", ("dense",))["dense"]
    return found


def peak_bytes(keep: float | None) -> int:
    """What three Adam steps of a large network add to the peak memory of a process of their own."""
    command = [sys.executable, "-m", "benchmarks.sparse_backprop", "--memory", json.dumps(keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak() -> int:
    """Most bytes that this process has had; getrusage would count its parent's before the start."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def print_peak(keep: float | None) -> None:
    """In that process."""
    images, labels = torch.rand(64, 3072), torch.arange(64) % 10
    before = peak()
    network = mlp(keep, width=3072)
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    print(peak() - before)


def main() -> None:
    """Measure everything and write the result file."""
    one_thread()
    torch.manual_seed(0)
    layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    dense_peak = peak_bytes(None)
    result = {
        "setting": f"one thread, float32, batch {BATCH} (convolutions: 64), medians of {ROUNDS} rounds",
        "linear 1024 x 1024": {f"{keep:g}": linear(1024, keep) for keep in (0.05, 0.1, 0.25)},
        "masked": {
            f"{width}": {f"{keep:g}": linear(width, keep)["dense / sparse"] for keep in (0.8, 0.9)}
            for width in (256, 512, 1024)
        },
        "per example, 1024 x 1024": {f"{keep:g}": linear(1024, keep, "example") for keep in (0.05, 0.25)},
        "break-even": {
            f"{width}": {f"{keep:g}": round(ratio, 2) for keep, ratio in row.items()}
            for width, row in speed_ups(repeats=25).items()
        },
        "training step, 3 x 1024, 5 %": training_step(0.05),
        "convolution 3x3, 20 %": {
            f"{channels} channels, {side}x{side}, {name}": convolution(channels, side, 0.2, layout)
            for channels, side in CONVOLUTIONS
            for name, layout in layouts.items()
        },
        "peak memory of Adam steps, sparse / dense": {
            f"{keep:g}": round(peak_bytes(keep) / dense_peak, 3) for keep in (0.05, 0.25, 0.5, 0.75, 0.9)
        },
    }
    write(__file__, result)


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print_peak(json.loads(sys.argv[-1]))
    else:
        main()
