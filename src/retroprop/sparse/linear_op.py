"""A linear map with an exact forward pass and a backward pass that keeps k output units."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from retroprop.sparse.paths import gathers
from retroprop.sparse.registration import Operator, Wanted, check_inputs, packed
from retroprop.sparse.selection import Per, Rule, Select, kept_indices, multipliers


def linear(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    keep: float = 0.25,
    per: Per = "batch",
    select: Select = "magnitude",
    block: int = 1,
    dense_bias: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.linear`, whose gradients come from k output units alone.

    Args:
        input: `(batch, ..., in)`; dimensions between count as cases.
        weight: `(out, in)`.
        bias: `(out,)`.
        keep, per, select, block: see `Rule`.
        dense_bias: whether the bias gets the gradient of all units.
        noise: uniform numbers in [0, 1) for a random selection: `(1, out)`, or `(cases, out)` per example;
            torch's generator draws them by default.

    Returns:
        `(batch, ..., out)`.

    Raises:
        RetropropError: for a rule out of range, or input that is not floating point or of another width.

    Source: Sun et al. 2017 (meProp), section 2.
    """
    rule = Rule(keep, per, select, block)
    return sparse_linear(input, weight, bias, rule, dense_bias, noise, at_most_all=True)


def sparse_linear(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    rule: Rule,
    dense_bias: bool = False,
    noise: Tensor | None = None,
    at_most_all: bool = False,
) -> Tensor:
    """`linear` with a rule that is there already; `at_most_all` refuses one of more units than there are."""
    check_inputs("linear", input, weight, bias, noise)
    out = weight.shape[0]
    if at_most_all:
        rule.check_units(out)
    if rule.dense(out) or not weight.numel():
        return functional.linear(input, weight, bias)
    rule.k(out)
    if rule.draws and noise is None:
        cases = input.shape[:-1].numel() if rule.per == "example" else 1
        noise = torch.rand(cases, out, dtype=torch.float32, device=input.device)
    return _operator(input, weight, bias, noise, *packed(rule, dense_bias))


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(x, weight, bias).contiguous()


def _backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    noise: Tensor | None,
    rule: Rule,
    dense_bias: bool,
    wanted: Wanted,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    g, rows = (t.flatten(0, -2) if t.ndim > 1 else t.unsqueeze(0) for t in (gradient, x))
    over = [0] if rule.per == "batch" else []
    size = rule.size(g, over).reshape(-1, weight.shape[0])
    if noise is not None:
        noise = noise.reshape(-1, weight.shape[0])
    if gathers(rule, weight.shape[0]):
        units, factor = kept_indices(size, rule, noise)
        found = _kept_products(g, rows, weight, units[0], None if factor is None else factor[0], wanted, rule)
    else:
        found = _masked((g * multipliers(size, rule, noise)).to(g.dtype), rows, weight, wanted)
    to_input, to_weight, to_bias = found
    if dense_bias and wanted[2]:
        to_bias = g.sum(0)
    return None if to_input is None else to_input.view(x.shape), to_weight, to_bias


def _masked(
    kept: Tensor, x: Tensor, weight: Tensor, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    return (
        kept @ weight if wanted[0] else None,
        kept.mT @ x if wanted[1] else None,
        kept.sum(0) if wanted[2] else None,
    )


def _kept_products(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    units: Tensor,
    factor: Tensor | None,
    wanted: Wanted,
    rule: Rule,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Products over the kept units: by kernels that read them in place, where there are some."""
    if g.is_cuda and _has_triton():
        from retroprop.sparse import kernels

        if kernels.supported(g, x, weight):
            return kernels.products(g, x, weight, units, factor, wanted, rule.block)
    return _gathered(g, x, weight, units, factor, wanted)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


# Units whose products are made at once: enough for full speed, and copies of so few take little memory.
_AT_ONCE = 128


def _gathered(
    g: Tensor, x: Tensor, weight: Tensor, units: Tensor, factor: Tensor | None, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Products over the kept units alone, of rows and columns that are copied together."""
    to_input = None
    to_weight = weight.new_zeros(weight.shape) if wanted[1] else None
    to_bias = weight.new_zeros(weight.shape[:1]) if wanted[2] else None
    for first in range(0, len(units), _AT_ONCE):
        some = units[first : first + _AT_ONCE]
        kept = g.index_select(1, some)
        if factor is not None:
            kept = (kept * factor[first : first + _AT_ONCE]).to(kept.dtype)
        if to_weight is not None:
            to_weight.index_copy_(0, some, kept.mT @ x)
        if to_bias is not None:
            to_bias.index_copy_(0, some, kept.sum(0))
        if wanted[0]:
            rows = weight.index_select(0, some)
            to_input = kept @ rows if to_input is None else to_input.addmm_(kept, rows)
    return to_input, to_weight, to_bias


def _products(x: Sequence[int], weight: Sequence[int], output: Sequence[int]) -> int:
    return 2 * torch.Size(output).numel() * weight[1]


_operator = Operator("sparse_linear", "", _forward, _backward, _products, images=False).register()
