"""Sparse backward passes against dense autograd on a CUDA device; parts of `python -m benchmarks.gpu`.

A backward pass follows its forward pass. The floor of a layer is the larger of its products and its bytes at
the ceilings of the device: both products over the kept units; the gradient read once to rank units, the kept
part of it and of the weight, the input, and both gradients written once. Table 7 of meProp (Sun et al. 2017)
is a layer of 8,192 units and 1,024 cases on a GTX 1080; its times stand beside ours.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop import fixes
from retroprop.fix import apply
from retroprop.networks.mlp import MLP
from retroprop.sparse import Rule
from retroprop.sparse.linear_op import sparse_linear

ROUNDS = 20
# Milliseconds of the paper's table 7, by k; dense is 308.00 (read in the paper: grade A).
TABLE_7 = {8: 8.37, 16: 9.16, 32: 11.20, 64: 14.38, 128: 21.28, 256: 38.57, 512: 69.95}
DENSE_7 = 308.0


def milliseconds(forward: Callable[[], Tensor], tensors: list[Tensor], pull: Tensor) -> float:
    """Median time of the backward pass behind a forward pass, by the device's own clock where it has one."""
    found = []
    for i in range(ROUNDS + 3):
        out = forward()
        if pull.is_cuda:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            torch.autograd.grad(out, tensors, pull)
            last.record()
            torch.cuda.synchronize()
            took = first.elapsed_time(last)
        else:
            started = time.perf_counter()
            torch.autograd.grad(out, tensors, pull)
            took = 1000 * (time.perf_counter() - started)
        if i >= 3:
            found.append(took)
    return statistics.median(found)


def layer(width: int, cases: int, dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Input, weight and bias of a square layer, and a gradient to send back."""
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    generator = torch.Generator(device).manual_seed(0)
    drawn = [
        torch.randn(shape, generator=generator, **options).requires_grad_()
        for shape in ((cases, width), (width, width), (width,))
    ]
    return drawn, torch.randn((cases, width), generator=generator, **options)


def floor(width: int, cases: int, k: int, each: int, flops: float, bandwidth: float) -> float:
    """Milliseconds that no implementation can go below; see above.

    Args:
        width, cases, k: of the layer.
        each: bytes of a number.
        flops, bandwidth: ceilings of the device.
    """
    products = 4 * cases * k * width
    numbers = cases * width + cases * k + k * width + cases * width + cases * width + width * width
    return 1000 * max(products / flops, each * numbers / bandwidth)


def large_layer(
    ceilings: tuple[float, float], device: torch.device, width: int, cases: int
) -> dict[str, Any]:
    """Dense over sparse in bf16, and the share of the floor, by share kept; single units and blocks of 16."""
    tensors, pull = layer(width, cases, torch.bfloat16, device)
    dense = milliseconds(partial(functional.linear, *tensors), tensors, pull)
    found: dict[str, Any] = {"dense, ms": round(dense, 3)}
    for block in (1, 16):
        for keep in (0.05, 0.1, 0.25):
            rule = Rule(keep, block=block)
            sparse = milliseconds(partial(sparse_linear, *tensors, rule), tensors, pull)
            least = floor(width, cases, rule.k(width), 2, *ceilings)
            found[f"keep {keep:g}, blocks of {block}"] = {
                "dense / sparse": round(dense / sparse, 2),
                "floor / sparse": round(least / sparse, 2),
            }
    return found


def table_7(device: torch.device, width: int, cases: int, dtype: torch.dtype) -> dict[str, Any]:
    """Milliseconds and ratio to dense of ours beside the paper's, by k."""
    tensors, pull = layer(width, cases, dtype, device)
    dense = milliseconds(partial(functional.linear, *tensors), tensors, pull)
    found: dict[str, Any] = {"dense, ms": round(dense, 3), "dense of the paper, ms": DENSE_7}
    for k, paper in TABLE_7.items():
        sparse = milliseconds(partial(sparse_linear, *tensors, Rule(min(k, width))), tensors, pull)
        found[f"k = {k}"] = {
            "ms": round(sparse, 3),
            "dense / sparse": round(dense / sparse, 2),
            "dense / sparse of the paper": round(DENSE_7 / paper, 1),
        }
    return found


def adam_memory(device: torch.device, width: int) -> dict[str, float]:
    """Peak memory of a whole Adam step of three layers, sparse over dense, by share kept."""

    def peak(keep: float | None) -> int:
        sparse = [] if keep is None else [fixes.get("sparse_backprop")(keep)]
        network: nn.Module = apply(MLP([width] * 4 + [10]), [fixes.get("relu")(), *sparse]).network.to(device)
        optimizer = torch.optim.Adam(network.parameters())
        images, labels = torch.rand(64, width, device=device), torch.arange(64, device=device) % 10
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        return torch.cuda.max_memory_allocated() if device.type == "cuda" else 1

    dense = peak(None)
    return {f"keep {keep:g}": round(peak(keep) / dense, 3) for keep in (0.05, 0.25, 0.9)}
