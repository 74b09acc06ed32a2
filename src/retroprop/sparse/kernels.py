"""Triton kernels for the two products of a sparse backward pass, which read the kept columns in place.

Nothing is gathered beforehand: a kernel loads the columns of the gradient, and the rows of the weight, by the
indices of the kept units, and writes rows of the weight's gradient where they belong. Sums are in float32.
Units kept in blocks of neighbours are loaded as runs, as wide as the hardware loads.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

# Triton compiles a function as it stands, which Python's types say nothing about.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"


@triton.jit
def _to_input(
    gradient, weight, units, factor, out, cases, inputs, k, gradient_stride, weight_stride,
    WEIGHED: tl.constexpr, RUN: tl.constexpr, PRECISION: tl.constexpr,
    CASES: tl.constexpr, INPUTS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """out[case, input] = sum over kept units of gradient[case, unit] * weight[unit, input]."""
    across = tl.cdiv(inputs, INPUTS)
    # Neighbours in the grid share the gradient's rows, which stay in the cache.
    case = tl.program_id(0) // across * CASES + tl.arange(0, CASES)
    column = tl.program_id(0) % across * INPUTS + tl.arange(0, INPUTS)
    rows, columns = case.to(tl.int64) * gradient_stride, column[None, :]
    total = tl.zeros((CASES, INPUTS), tl.float32)
    for first in range(0, k, UNITS):
        place = first + tl.arange(0, UNITS)
        kept = tl.load(units + place, mask=place < k, other=0)
        if RUN > 1:
            kept = tl.max_contiguous(tl.multiple_of(kept, RUN), RUN)
        g = tl.load(
            gradient + rows[:, None] + kept[None, :],
            mask=(case[:, None] < cases) & (place[None, :] < k),
            other=0.0,
        )
        if WEIGHED:
            times = tl.load(factor + place, mask=place < k, other=0.0)
            g = (g * times[None, :]).to(g.dtype)
        w = tl.load(
            weight + kept.to(tl.int64)[:, None] * weight_stride + columns,
            mask=(place[:, None] < k) & (columns < inputs),
            other=0.0,
        )
        total = tl.dot(g, w, total, input_precision=PRECISION)
    at = out + case.to(tl.int64)[:, None] * inputs + columns
    tl.store(at, total.to(out.dtype.element_ty), mask=(case[:, None] < cases) & (columns < inputs))


@triton.jit
def _to_weight(
    gradient, x, units, factor, out, bias, cases, inputs, k, gradient_stride, x_stride,
    WEIGHED: tl.constexpr, BIASED: tl.constexpr, RUN: tl.constexpr, PRECISION: tl.constexpr,
    CASES: tl.constexpr, INPUTS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """out[unit, input] = sum over cases of gradient[case, unit] * x[case, input]; bias[unit] without x."""
    across = tl.cdiv(inputs, INPUTS)
    group = tl.program_id(0) % across
    place = tl.program_id(0) // across * UNITS + tl.arange(0, UNITS)
    column = group * INPUTS + tl.arange(0, INPUTS)
    kept = tl.load(units + place, mask=place < k, other=0)
    if RUN > 1:
        kept = tl.max_contiguous(tl.multiple_of(kept, RUN), RUN)
    total = tl.zeros((UNITS, INPUTS), tl.float32)
    alone = tl.zeros((UNITS,), tl.float32)
    for first in range(0, cases, CASES):
        case = first + tl.arange(0, CASES)
        g = tl.load(
            gradient + case.to(tl.int64)[:, None] * gradient_stride + kept[None, :],
            mask=(case[:, None] < cases) & (place[None, :] < k),
            other=0.0,
        )
        if WEIGHED:
            times = tl.load(factor + place, mask=place < k, other=0.0)
            g = (g * times[None, :]).to(g.dtype)
        if BIASED:
            alone += tl.sum(g.to(tl.float32), 0)
        row = tl.load(
            x + case.to(tl.int64)[:, None] * x_stride + column[None, :],
            mask=(case[:, None] < cases) & (column[None, :] < inputs),
            other=0.0,
        )
        total = tl.dot(tl.trans(g), row, total, input_precision=PRECISION)
    at = out + kept.to(tl.int64)[:, None] * inputs + column[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=(place[:, None] < k) & (column[None, :] < inputs))
    if BIASED and group == 0:
        tl.store(bias + kept, alone.to(bias.dtype.element_ty), mask=place < k)


def supported(*tensors: Tensor) -> bool:
    """Whether the kernels take these: on a CUDA device, of one type that tensor cores multiply."""
    types = {tensor.dtype for tensor in tensors}
    return all(tensor.is_cuda for tensor in tensors) and types in (
        {torch.float32},
        {torch.bfloat16},
        {torch.float16},
    )


def products(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    units: Tensor,
    factor: Tensor | None,
    wanted: Sequence[bool],
    block: int = 1,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias from the kept units alone.

    Args:
        gradient: of the output, `(case, out)`.
        x: input, `(case, in)`.
        weight: `(out, in)`.
        units: indices of the kept units `(k,)`.
        factor: what each is multiplied by, `(k,)`; None for 1.
        wanted: of input, weight and bias.
        block: units come in blocks of so many neighbours.
    """
    gradient, x, weight = (_rows(tensor) for tensor in (gradient, x, weight))
    (cases, inputs), k = x.shape, len(units)
    options = _options(gradient, k, block, factor is not None)
    to_input = to_weight = to_bias = None
    factor = gradient if factor is None else factor.contiguous()  # never read where all are 1
    if wanted[0]:
        to_input = torch.empty_like(x, memory_format=torch.contiguous_format)
        grid = (triton.cdiv(cases, options["CASES"]) * triton.cdiv(inputs, options["INPUTS"]),)
        _to_input[grid](
            gradient, weight, units, factor, to_input, cases, inputs, k,
            gradient.stride(0), weight.stride(0), **options,
        )  # fmt: skip
    if wanted[1] or wanted[2]:
        to_weight = weight.new_zeros(weight.shape)
        to_bias = weight.new_zeros(weight.shape[:1])
        # Here cases are what is summed over, and units are rows.
        options |= {"CASES": options["UNITS"], "UNITS": _size(k, 16, 128)}
        grid = (triton.cdiv(k, options["UNITS"]) * triton.cdiv(inputs, options["INPUTS"]),)
        _to_weight[grid](
            gradient, x, units, factor, to_weight, to_bias, cases, inputs, k,
            gradient.stride(0), x.stride(0), BIASED=wanted[2], **options,
        )  # fmt: skip
    return to_input, to_weight, to_bias


def _rows(tensor: Tensor) -> Tensor:
    """With rows that lie in one piece."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _size(count: int, least: int, most: int) -> int:
    return max(least, min(most, triton.next_power_of_2(count)))


def _options(gradient: Tensor, k: int, block: int, weighed: bool) -> dict[str, Any]:
    """Sizes of tiles: fixed, so that the same call gives the same numbers."""
    small = gradient.dtype != torch.float32
    exact = torch.backends.cuda.matmul.fp32_precision != "tf32"
    run = block & -block  # the largest power of two that divides the block
    return {
        "WEIGHED": weighed,
        "RUN": min(run, 8),
        "PRECISION": "ieee" if exact and not small else "tf32",
        "CASES": 128,
        "INPUTS": 128,
        "UNITS": _size(k, 16, 64 if small else 32),
        "num_warps": 8,
        "num_stages": 3,
    }
