"""From which width and share on a sparse backward pass is faster, measured on this machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from retroprop.sparse.linear_op import sparse_linear
from retroprop.sparse.selection import Rule

WIDTHS = (64, 128, 256, 512, 1024)
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75)


def speed_ups(
    widths: Sequence[int] = WIDTHS, shares: Sequence[float] = SHARES, batch: int = 256, repeats: int = 7
) -> dict[int, dict[float, float]]:
    """Dense time over sparse time of a layer's backward pass, by width and share kept.

    Args:
        widths: of square layers.
        shares: of the units that are kept.
        batch: cases.
        repeats: of each measurement; the median counts.
    """
    found: dict[int, dict[float, float]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for width in widths:
            shapes = ((batch, width), (width, width), (width,))
            tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
            pull = torch.randn(batch, width)
            dense = backward_seconds(functional.linear, tensors, pull, repeats)
            found[width] = {
                share: dense / backward_seconds(partial(_sparse, Rule(share)), tensors, pull, repeats)
                for share in shares
            }
    finally:
        torch.set_num_threads(threads)
    return found


def _sparse(rule: Rule, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return sparse_linear(x, weight, bias, rule)


def backward_seconds(
    forward: Callable[..., Tensor], tensors: Sequence[Tensor], pull: Tensor, repeats: int
) -> float:
    """Median seconds of the backward pass behind `forward(*tensors)`, after two that do not count."""
    seconds = []
    for _ in range(repeats + 2):
        out = forward(*tensors)
        started = time.perf_counter()
        torch.autograd.grad(out, tensors, pull)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])
