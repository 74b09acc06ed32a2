"""How an operator with a sparse backward pass is made known to PyTorch.

Each is two operators of `torch.library`: the exact forward pass, and a backward pass that autograd, the
compiler and the FLOP counter see as one step. Both take `input, weight` and `noise`, then options of their
own, then those of the rule, as an operator's schema can hold them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from retroprop.errors import RetropropError
from retroprop.sparse.selection import Per, Rule, Select

_RULE = "float keep, bool count, str per, str select, int block, bool dense_bias"
_library = torch.library.Library("retroprop", "FRAGMENT")  # type: ignore[no-untyped-call]

_OPERATORS: dict[str, "Operator"] = {}

Gradients = tuple[Tensor, Tensor, Tensor]
# Of input, weight and bias.
Wanted = Sequence[bool]


def packed(rule: Rule, dense_bias: bool) -> tuple[Any, ...]:
    """A rule as a schema holds it; see `_RULE`."""
    return (float(rule.keep), isinstance(rule.keep, int), rule.per, rule.select, rule.block, dense_bias)


@lru_cache(maxsize=1024)
def unpacked(
    keep: float, count: bool, per: Per, select: Select, block: int, dense_bias: bool
) -> tuple[Rule, bool]:
    """The rule, and whether the bias is dense, from the last options of an operator."""
    return Rule(int(keep) if count else keep, per, select, block), dense_bias


def plain_layout(tensor: Tensor) -> torch.memory_format:
    """Channels last for images that lie so, else contiguous."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format


class Forward(Protocol):
    """The exact forward pass."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor: ...


class Backward(Protocol):
    """Gradients of input, weight and bias; of those that are not wanted, any tensor."""

    def __call__(
        self,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        noise: Tensor | None,
        rule: Rule,
        dense_bias: bool,
        wanted: Wanted,
        *options: Any,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...


@dataclass(frozen=True)
class Operator:
    """A forward pass and its sparse backward pass.

    name: in torch.ops.retroprop.
    options: schema of the options of its own.
    products: floating point operations of the forward pass, from the shapes of input, weight and output.
    images: whether gradients lie as the input and the weight do, channels last or not.
    """

    name: str
    options: str
    forward: Forward
    backward: Backward
    products: Callable[[Sequence[int], Sequence[int], Sequence[int]], int]
    images: bool

    def register(self) -> Callable[..., Tensor]:
        """Define both operators with all that PyTorch asks for; gives what calls them."""
        there, back = f"retroprop::{self.name}", f"retroprop::{self.name}_backward"
        own = f"{self.options}, " if self.options else ""
        schema = f"Tensor? noise, {own}{_RULE}"
        torch.library.define(there, f"(Tensor x, Tensor weight, Tensor? bias, {schema}) -> Tensor")
        torch.library.define(
            back,
            f"(Tensor gradient, Tensor x, Tensor weight, {schema}, bool[3] wanted) -> "
            "(Tensor, Tensor, Tensor)",
        )
        torch.library.impl(there, "default", self._forward)
        torch.library.impl(back, "default", self.backward_pass)
        torch.library.register_fake(there, self._forward)
        torch.library.register_fake(back, self._fake_backward)
        torch.library.register_autograd(there, partial(_gradients, self.name), setup_context=_remember)
        torch.library.register_autograd(back, _refuse_second)
        op, op_back = (getattr(torch.ops.retroprop, n) for n in (self.name, f"{self.name}_backward"))
        torch.library.register_vmap(there, _each_for_itself(op))
        torch.library.register_vmap(back, _each_for_itself(op_back))
        for device, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
            _library.impl(self.name, _autocast(op, device), key)  # type: ignore[no-untyped-call]
        register_flop_formula(op)(self._flops)
        register_flop_formula(op_back)(self._backward_flops)
        _OPERATORS[self.name] = self
        return self._called

    def _called(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        device = x.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            x, weight, bias = _cast((x, weight, bias), device)
        return SparseBackward.apply(self.name, x, weight, bias, *rest)

    def _forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, noise: Tensor | None, *options: Any
    ) -> Tensor:
        del noise
        return self.forward(x, weight, bias, *options[:-6])

    def backward_pass(
        self,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        noise: Tensor | None,
        *options: Any,
    ) -> Gradients:
        device = gradient.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            # As precise as the forward pass was, wherever the backward pass is asked for.
            with torch.autocast(device, enabled=False):
                return self.backward_pass(gradient, x, weight, noise, *options)
        *own, wanted = options
        rule, dense_bias = unpacked(*own[-6:])
        found = self.backward(gradient, x, weight, noise, rule, dense_bias, wanted, *own[:-6])
        to_input, to_weight, to_bias = (
            gradient.new_empty(0) if one is None or not asked else one
            for one, asked in zip(found, wanted, strict=True)
        )
        return to_input, to_weight, to_bias

    def _fake_backward(self, gradient: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Gradients:
        wanted = rest[-1]
        shapes = (x.shape, weight.shape, weight.shape[:1])
        layouts = [plain_layout(one) if self.images else torch.contiguous_format for one in (x, weight)]
        to_input, to_weight, to_bias = (
            torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
            if asked
            else gradient.new_empty(0)
            for shape, layout, asked in zip(shapes, (*layouts, torch.contiguous_format), wanted, strict=True)
        )
        return to_input, to_weight, to_bias

    def _flops(self, x: Any, weight: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
        return self.products(x, weight, out_shape)

    def _backward_flops(
        self, gradient: Any, x: Any, weight: Any, *rest: Any, out_shape: Any = None, **_: Any
    ) -> int:
        *own, wanted = rest
        rule, _dense = unpacked(*own[-6:])
        full = self.products(x, weight, gradient)
        return sum(wanted[:2]) * full * rule.k(weight[0]) // weight[0]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, weight, _, noise, *ctx.options = inputs
    ctx.save_for_backward(x, weight, noise)


def _gradients(name: str, ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, noise = ctx.saved_tensors
    first = len(ctx.needs_input_grad) - len(ctx.options) - 4
    wanted = list(ctx.needs_input_grad[first : first + 3])
    backward = f"{name}_backward"
    arguments = (gradient, x, weight, noise, *ctx.options, wanted)
    if torch.is_grad_enabled():
        found = OnlyOnce.apply(getattr(torch.ops.retroprop, backward), *arguments)
    elif (
        torch.compiler.is_compiling()
        or is_in_torch_dispatch_mode()
        or torch._C._functorch.is_batchedtensor(gradient)
        or torch._C._functorch.is_legacy_batchedtensor(gradient)
    ):
        found = getattr(torch.ops.retroprop, backward)(*arguments)
    else:  # an ordinary backward pass: nobody looks at the operator, and its dispatch takes time
        found = _OPERATORS[name].backward_pass(*arguments)
    given = [one if asked else None for one, asked in zip(found, wanted, strict=True)]
    return (*given, None, *[None] * len(ctx.options))


class SparseBackward(torch.autograd.Function):
    """Calls a registered pair; torch.func, which the operators' own rule for autograd does not serve, too."""

    @staticmethod
    def forward(name: str, *inputs: Any) -> Tensor:
        return getattr(torch.ops.retroprop, name)(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.name, *rest = inputs
        _remember(ctx, tuple(rest), output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_gradients(ctx.name, ctx, *gradients))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *inputs: Any) -> tuple[Tensor, int]:
        out, dim = _each_for_itself(SparseBackward.apply)(info, in_dims, *inputs)
        return out, dim


class OnlyOnce(torch.autograd.Function):
    """Calls a backward pass, which has no derivative of its own."""

    @staticmethod
    def forward(backward: Callable[..., Any], *inputs: Any) -> Any:
        return backward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        _refuse_second(ctx, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *inputs: Any) -> tuple[Any, Any]:
        return _each_for_itself(OnlyOnce.apply)(info, in_dims, *inputs)


def _refuse_second(ctx: Any, *gradients: Tensor) -> None:
    raise RetropropError(
        "A second derivative was asked for through a sparse backward pass, which has none: what it leaves "
        "out depends on the gradient itself. Use keep=1.0 where second derivatives are needed."
    )


def _each_for_itself(op: Callable[..., Any]) -> Callable[..., Any]:
    """The rule for vmap: one call for each; the stacked twins of the layers are the fast way."""

    def mapped(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        found = [
            op(
                *(
                    a.select(d, i) if isinstance(a, Tensor) and d is not None else a
                    for a, d in zip(arguments, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0,) * len(found[0])

    return mapped


_CAST = (torch.float32, torch.bfloat16, torch.float16)


def _cast(tensors: Sequence[Tensor | None], device: str) -> list[Any]:
    """Tensors in autocast's type, as for torch's own layers."""
    dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) if t is not None and t.dtype in _CAST else t for t in tensors]


def _autocast(op: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """The operator's rule for autocast."""

    def cast(*arguments: Any) -> Tensor:
        layer = _cast(arguments[:3], device)
        with torch.autocast(device, enabled=False):
            return op(*layer, *arguments[3:])

    return cast


def check_inputs(
    name: str,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    groups: int = 1,
) -> None:
    """Refuse what a layer cannot multiply.

    Raises:
        RetropropError: for other than floating point numbers, the wrong number of dimensions, or sizes that
            are not the weight's.
    """
    image = name == "conv2d"
    for what, tensor in (("input", input), ("weight", weight), ("bias", bias), ("noise", noise)):
        if tensor is None and what in ("bias", "noise"):
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise RetropropError(
                f"retroprop.sparse.{name} was given {what} of type {kind}; expected a tensor of floating "
                f"point numbers. Convert it with torch.as_tensor({what}).float()."
            )
    given = f"retroprop.sparse.{name} was given input {tuple(input.shape)} and weight {tuple(weight.shape)}; "
    if weight.ndim != (4 if image else 2):
        shape = "(out, in / groups, height, width)" if image else "(out, in)"
        raise RetropropError(f"{given}expected a weight {shape}.")
    if input.ndim < 1 or (image and input.ndim not in (3, 4)):
        shape = "(batch, channel, height, width) or (channel, height, width)" if image else "(batch, ..., in)"
        raise RetropropError(f"{given}expected input {shape}.")
    out, found, expected = len(weight), input.shape[-3 if image else -1], weight.shape[1] * groups
    if found != expected:
        raise RetropropError(f"{given}expected {expected} features or channels of input, found {found}.")
    if out % groups:
        raise RetropropError(f"{given}expected outputs that divide into groups={groups}.")
    if bias is not None and tuple(bias.shape) != (out,):
        raise RetropropError(f"{given}expected a bias ({out},), found {tuple(bias.shape)}.")
    if noise is not None and noise.shape[-1:] != (out,):
        raise RetropropError(f"{given}expected noise (1 or cases, {out}), found {tuple(noise.shape)}.")
