"""A convolution with an exact forward pass and a backward pass that keeps k output channels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from retroprop.errors import RetropropError
from retroprop.sparse.paths import gathers
from retroprop.sparse.registration import Operator, Wanted, check_inputs, packed, plain_layout
from retroprop.sparse.selection import Per, Rule, Select, kept_indices, multipliers

Pair = tuple[int, int]


def conv2d(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    keep: float = 0.25,
    per: Per = "batch",
    select: Select = "magnitude",
    block: int = 1,
    dense_bias: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.conv2d`, whose gradients come from k output channels alone.

    Args:
        input: `(batch, in, height, width)` or `(in, height, width)`.
        weight: `(out, in / groups, height, width)`.
        bias: `(out,)`.
        stride, padding, dilation, groups: as torch's.
        keep, per, select, block: see `Rule`; a channel's size is summed over its pixels.
        dense_bias: whether the bias gets the gradient of all channels.
        noise: uniform numbers in [0, 1) for a random selection: `(1, out)`, or `(batch, out)` per example;
            torch's generator draws them by default.

    Returns:
        `(batch, out, height, width)`, or without the batch as the input.

    Raises:
        RetropropError: for a rule out of range, or input that is not floating point or does not fit.

    Source: Zhong, Huang & Shi 2024 (ssProp): channels by the mean magnitude of their gradient.
    """
    rule = Rule(keep, per, select, block)
    geometry = (stride, padding, dilation, groups)
    return sparse_conv2d(input, weight, bias, *geometry, rule, dense_bias, noise, at_most_all=True)


def sparse_conv2d(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Pair,
    padding: int | Pair | str,
    dilation: int | Pair,
    groups: int,
    rule: Rule,
    dense_bias: bool = False,
    noise: Tensor | None = None,
    at_most_all: bool = False,
) -> Tensor:
    """`conv2d` with a rule that is there already; `at_most_all` refuses one of more units than there are."""
    check_inputs("conv2d", input, weight, bias, noise, groups=groups)
    out = weight.shape[0]
    if at_most_all:
        rule.check_units(out)
    if rule.dense(out):
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    rule.k(out)
    x = input if input.ndim == 4 else input.unsqueeze(0)
    strides, dilations = _pair(stride), _pair(dilation)
    x, around = _padded(x, padding, (weight.shape[2], weight.shape[3]), strides, dilations)
    if rule.draws and noise is None:
        cases = len(x) if rule.per == "example" else 1
        noise = torch.rand(cases, out, dtype=torch.float32, device=x.device)
    y = _operator(x, weight, bias, noise, strides, around, dilations, groups, *packed(rule, dense_bias))
    return y if input.ndim == 4 else y.squeeze(0)


def _pair(value: int | Pair) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _padded(
    x: Tensor, padding: int | Pair | str, kernel: Pair, stride: list[int], dilation: list[int]
) -> tuple[Tensor, list[int]]:
    """The input, and the padding on both of its sides that is still to be done."""
    if not isinstance(padding, str):
        return x, _pair(padding)
    if padding == "valid":
        return x, [0, 0]
    if padding != "same" or stride != [1, 1]:
        raise RetropropError(
            f"retroprop.sparse.conv2d was given padding={padding!r} and stride={tuple(stride)}; expected "
            "numbers, 'valid', or 'same' with stride 1."
        )
    total = [d * (size - 1) for d, size in zip(dilation, kernel, strict=True)]
    if any(t % 2 for t in total):
        (top, left), (low, right) = [t // 2 for t in total], [t - t // 2 for t in total]
        return functional.pad(x, (left, right, top, low)), [0, 0]
    return x, [t // 2 for t in total]


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    y = functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return y.contiguous(memory_format=plain_layout(x))


def _backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    noise: Tensor | None,
    rule: Rule,
    dense_bias: bool,
    wanted: Wanted,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if not x.numel():
        return torch.zeros_like(x), torch.zeros_like(weight), weight.new_zeros(weight.shape[:1])
    out = weight.shape[0]
    size = rule.size(gradient, [0, 2, 3] if rule.per == "batch" else [2, 3]).reshape(-1, out)
    depthwise = groups == out == x.shape[1]
    geometry = (stride, padding, dilation)
    if gathers(rule, out, groups=groups, inputs=x.shape[1]):
        units, factor = kept_indices(size, rule, noise)
        kept = channels(gradient, units[0])
        if factor is not None:
            kept = (kept * factor[0].view(-1, 1, 1)).to(kept.dtype)
        found = _gathered(kept, x, weight, units[0], depthwise, geometry, wanted)
    else:
        kept = (gradient * multipliers(size, rule, noise)[:, :, None, None]).to(gradient.dtype)
        found = _products_of(kept, x, weight, geometry, groups, wanted)
    to_input, to_weight, to_bias = found
    if dense_bias and wanted[2]:
        to_bias = gradient.sum((0, 2, 3))
    return (
        None if to_input is None else to_input.contiguous(memory_format=plain_layout(x)),
        None if to_weight is None else to_weight.contiguous(memory_format=plain_layout(weight)),
        to_bias,
    )


def channels(images: Tensor, kept: Tensor) -> Tensor:
    """Some channels of images `(batch, channel, height, width)`, which lie as the images do."""
    if plain_layout(images) is not torch.channels_last:
        return images.index_select(1, kept)
    # As a matrix of pixels: torch's selection along the last of four dimensions is many times slower.
    pixels = images.permute(0, 2, 3, 1)
    return pixels.flatten(0, 2).index_select(1, kept).view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)


def _products_of(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: tuple[list[int], list[int], list[int]],
    groups: int,
    wanted: Wanted,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Torch's own backward pass."""
    stride, padding, dilation = geometry
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], groups, list(wanted)
    )
    return found


def _gathered(
    kept: Tensor,
    x: Tensor,
    weight: Tensor,
    units: Tensor,
    depthwise: bool,
    geometry: tuple[list[int], list[int], list[int]],
    wanted: Wanted,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Products over the kept channels alone."""
    some = channels(x, units) if depthwise else x
    groups = len(units) if depthwise else 1
    part = _products_of(kept, some, weight.index_select(0, units), geometry, groups, wanted)
    to_input, to_weight, to_bias = part
    if depthwise and to_input is not None:
        to_input = torch.zeros_like(x).index_copy_(1, units, to_input)
    if to_weight is not None:
        to_weight = torch.zeros_like(weight).index_copy_(0, units, to_weight)
    if to_bias is not None:
        to_bias = weight.new_zeros(weight.shape[:1]).index_copy_(0, units, to_bias)
    return to_input, to_weight, to_bias


def _products(x: Sequence[int], weight: Sequence[int], output: Sequence[int]) -> int:
    return 2 * torch.Size(output).numel() * torch.Size(weight[1:]).numel()


_operator = Operator(
    "sparse_conv2d",
    "int[2] stride, int[2] padding, int[2] dilation, int groups",
    _forward,
    _backward,
    _products,
    images=True,
).register()
