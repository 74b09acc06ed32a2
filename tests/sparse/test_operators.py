"""The operators against plain loops in float64, and under everything that they are combined with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.library import opcheck
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from retroprop.errors import RetropropError
from retroprop.sparse import Rule, SparseConv2d, SparseLinear, conv2d, linear
from retroprop.sparse.registration import packed
from retroprop.sparse.selection import PER, SELECT
from tests.sparse import reference

CASES, INPUTS, UNITS = 6, 5, 8
GEOMETRIES: dict[str, dict[str, int]] = {
    "plain": {},
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "grouped": {"groups": 2, "padding": 1},
    "depthwise": {"groups": UNITS, "padding": 1},
}


def ways(*keeps: float) -> list[tuple[str, float]]:
    """Selections with what they may keep: variance takes a share."""
    return [(one, keep) for one in SELECT for keep in keeps if one != "variance" or isinstance(keep, float)]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise_for(rule: Rule, cases: int) -> Tensor | None:
    if not rule.draws:
        return None
    rows = cases if rule.per == "example" else 1
    return torch.rand(rows, UNITS, generator=torch.Generator().manual_seed(7)).double()


def assert_gradients(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other, name in zip(found, expected, ("input", "weight", "bias"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def convolution(geometry: dict[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    channels = UNITS if geometry.get("groups") == UNITS else 4
    x = numbers(3, channels, 6, 5)
    return x, numbers(UNITS, channels // geometry.get("groups", 1), 3, 3, seed=1), numbers(UNITS, seed=2)


@pytest.mark.parametrize(("select", "keep"), ways(1, 3, 0.5, 0.9))
@pytest.mark.parametrize("per", PER)
def test_linear_is_the_plain_loop(per: str, select: str, keep: float):
    rule = Rule(keep, per, select)  # type: ignore[arg-type]
    x, weight, bias = (
        t.requires_grad_() for t in (numbers(CASES, INPUTS), numbers(UNITS, INPUTS, seed=1), numbers(UNITS))
    )
    noise, pull = noise_for(rule, CASES), numbers(CASES, UNITS, seed=3)
    y = linear(x, weight, bias, keep=keep, per=rule.per, select=rule.select, noise=noise)
    assert torch.equal(y, functional.linear(x, weight, bias))
    found = torch.autograd.grad(y, (x, weight, bias), pull)
    assert_gradients(found, reference.linear(x.detach(), weight.detach(), pull, rule, noise))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("select", "keep"), ways(3, 0.9))
@pytest.mark.parametrize("per", PER)
def test_conv2d_is_the_plain_loop(per: str, select: str, keep: float, geometry: str):
    rule, how = Rule(keep, per, select), GEOMETRIES[geometry]  # type: ignore[arg-type]
    x, weight, bias = (t.requires_grad_() for t in convolution(how))
    noise = noise_for(rule, len(x))
    y = conv2d(x, weight, bias, **how, keep=keep, per=rule.per, select=rule.select, noise=noise)
    assert torch.equal(y, functional.conv2d(x, weight, bias, **how))
    pull = numbers(*y.shape, seed=3)
    found = torch.autograd.grad(y, (x, weight, bias), pull)
    assert_gradients(found, reference.conv2d(x, weight, pull, rule, noise, **how))


@pytest.mark.parametrize("select", SELECT)
@pytest.mark.parametrize("block", [2, 4])
def test_blocks_of_neighbours_are_kept_together(block: int, select: str):
    rule = Rule(0.5, "batch", select, block)  # type: ignore[arg-type]
    x, weight = numbers(CASES, INPUTS).requires_grad_(), numbers(UNITS, INPUTS, seed=1).requires_grad_()
    noise, pull = noise_for(rule, CASES), numbers(CASES, UNITS, seed=3)
    y = linear(x, weight, keep=0.5, select=rule.select, block=block, noise=noise)
    found = torch.autograd.grad(y, (x, weight), pull)
    assert_gradients(
        (*found, pull), (*reference.linear(x.detach(), weight.detach(), pull, rule, noise)[:2], pull)
    )


@pytest.mark.parametrize("keep", [0.25, 0.9])
def test_a_dense_bias_has_the_gradient_of_all_units(keep: float):
    bias, pull = numbers(UNITS).requires_grad_(), numbers(CASES, UNITS, seed=3)
    y = linear(numbers(CASES, INPUTS), numbers(UNITS, INPUTS), bias, keep=keep, dense_bias=True)
    assert torch.allclose(torch.autograd.grad(y, bias, pull)[0], pull.sum(0))
    x, weight, _ = convolution({})
    y = conv2d(x, weight, bias, keep=keep, dense_bias=True)
    pull = numbers(*y.shape, seed=3)
    assert torch.allclose(torch.autograd.grad(y, bias, pull)[0], pull.sum((0, 2, 3)))


@pytest.mark.parametrize(("select", "keep"), ways(1.0, UNITS))
@pytest.mark.parametrize("per", PER)
def test_all_kept_is_dense_bit_for_bit(per: Any, select: Any, keep: float):
    x, weight, bias = (t.float().requires_grad_() for t in convolution({}))
    how = {"keep": keep, "per": per, "select": select}
    flat, matrix = x.transpose(1, 3), weight[:, :, 0, 0]
    for sparse, dense in (
        (conv2d(x, weight, bias, **how), functional.conv2d(x, weight, bias)),
        (linear(flat, matrix, bias, **how), functional.linear(flat, matrix, bias)),
    ):
        pull = torch.randn(dense.shape, generator=torch.Generator().manual_seed(1))
        pairs = zip(*(torch.autograd.grad(y, (x, weight, bias), pull) for y in (sparse, dense)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("select", ["magnitude", "importance"])
@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "expanded"])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck looks at every tensor's
@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True)])
def test_opcheck(layout: str, per: Any, select: Any, trained: tuple[bool, bool]):
    """Schema, autograd, fake tensors and dynamic shapes, as torch itself checks them."""
    rule = Rule(0.5, per, select)
    x, weight, bias = (t.float() for t in convolution({}))
    flat, w = x[:, :, 0, :].transpose(1, 2), weight[:, :, 0, 0]
    if layout == "channels_last":
        x, weight = x.to(memory_format=torch.channels_last), weight.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        x, w = x.transpose(2, 3), w.T.contiguous().T
    elif layout == "expanded":
        x, flat = x[:1].expand(3, -1, -1, -1), flat[:1].expand(3, -1, -1)
    last = packed(rule, False)
    for op, given_, options in (
        (torch.ops.retroprop.sparse_linear, (flat, w, bias), ()),
        (torch.ops.retroprop.sparse_conv2d, (x, weight, bias), ([1, 1], [1, 1], [1, 1], 1)),
    ):
        rows = given_[0].shape[:-1].numel() if given_[0].ndim == 3 else 3
        noise = torch.rand(rows if per == "example" else 1, UNITS) if rule.draws else None
        there = [t.detach().requires_grad_(on) for t, on in zip(given_, (*trained, True), strict=True)]
        opcheck(op.default, (*there, noise, *options, *last))
    y = functional.linear(flat, w)
    opcheck(
        torch.ops.retroprop.sparse_linear_backward.default,
        (torch.randn_like(y), flat, w, torch.rand(y.shape[:2].numel(), UNITS), *last, [True, True, False]),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


class Both(nn.Module):
    """A small network with both kinds of layer."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.conv = SparseConv2d(3, 8, 3, padding=1, keep=0.25, **how)
        self.linear = SparseLinear(8 * 16, 16, keep=0.25, **how)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture
def network() -> Both:
    torch.manual_seed(0)
    return Both()


IMAGES = torch.linspace(-1, 1, 5 * 3 * 16).sin().reshape(5, 3, 4, 4)


def gradients(network: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    network.zero_grad()
    loss().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, one in found.items():
        torch.testing.assert_close(
            one, expected[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def eager(network: Both) -> dict[str, Tensor]:
    return gradients(network, lambda: network(IMAGES).square().mean())


def test_compiled_without_a_graph_break(network: Both):
    compiled = torch.compile(network, fullgraph=True)
    assert_same(gradients(network, lambda: compiled(IMAGES).square().mean()), eager(network))


def test_compiled_functions_without_a_graph_break():
    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return (
            linear(x, weight, keep=0.5).square().mean()
            + linear(x, weight, keep=2, select="importance").mean()
        )

    x, weight = torch.randn(4, INPUTS), torch.randn(UNITS, INPUTS, requires_grad=True)
    torch.compile(loss, fullgraph=True)(x, weight).backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_checkpointing(network: Both):
    for reentrant in (False, True):
        x = IMAGES.clone().requires_grad_()
        found = gradients(
            network, lambda x=x, r=reentrant: checkpoint(network, x, use_reentrant=r).square().mean()
        )
        assert_same(found, eager(network))


def test_checkpointing_draws_the_same_units_again():
    torch.manual_seed(0)
    network = Both(select="random")
    found = []
    for again in (False, True):
        torch.manual_seed(1)
        run = (lambda x: checkpoint(network, x, use_reentrant=False)) if again else network
        found.append(gradients(network, lambda run=run: run(IMAGES).square().mean()))
    assert_same(*found)


def test_gradient_accumulation(network: Both):
    whole = eager(network)
    network.zero_grad()
    for _ in range(2):
        (network(IMAGES).square().mean() / 2).backward()
    assert_same({name: p.grad for name, p in network.named_parameters()}, whole)


def test_functional_call_and_torch_func(network: Both):
    parameters = dict(network.named_parameters())

    def loss(tensors: dict[str, Tensor], x: Tensor = IMAGES) -> Tensor:
        return functional_call(network, tensors, (x,)).square().mean()

    expected = eager(network)
    assert_same(grad(loss)(parameters), expected)
    doubled = {name: torch.stack([p, p]) for name, p in parameters.items()}
    mapped = vmap(grad(loss))(doubled)
    for k in (0, 1):
        assert_same({name: g[k] for name, g in mapped.items()}, expected)


@pytest.mark.parametrize("select", SELECT)
def test_autocast(select: str):
    torch.manual_seed(0)
    network = Both(select=select)

    def loss(dtype: torch.dtype | None) -> Tensor:
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            out = network(IMAGES)
            assert out.dtype == (dtype or torch.float32)
            return out.float().square().mean()

    found, expected = (gradients(network, lambda d=d: loss(d)) for d in (torch.bfloat16, None))
    assert all(g.dtype == torch.float32 for g in found.values())
    if select in ("magnitude", "random"):  # what is drawn by size may differ with its rounding
        assert_same(found, expected, tolerance=0.02)


def test_the_operator_itself_knows_autocast():
    x, weight, _ = (t.float() for t in convolution({}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.ops.retroprop.sparse_linear(
            x[:, :, 0, 0], weight[:, :, 0, 0], None, None, *packed(Rule(), False)
        )
    assert y.dtype == torch.bfloat16


def test_channels_last(network: Both):
    expected = eager(network)
    last = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = IMAGES.to(memory_format=torch.channels_last)
    assert last.conv(x).is_contiguous(memory_format=torch.channels_last)
    assert_same(gradients(last, lambda: last(x).square().mean()), expected)


@given(st.integers(0, 4), st.integers(1, 3), st.booleans(), st.sampled_from(SELECT), st.sampled_from(PER))
@settings(max_examples=60, deadline=None)
def test_any_layout_and_batch(cases: int, tokens: int, transposed: bool, select: Any, per: Any):
    """Empty batches, tokens and views give finite gradients of the right shape."""
    x = (
        torch.randn(tokens, cases, INPUTS).transpose(0, 1)
        if transposed
        else torch.randn(cases, tokens, INPUTS)
    )
    x, weight = x.requires_grad_(), torch.randn(INPUTS, UNITS).T.requires_grad_()
    linear(x, weight, keep=0.5, select=select, per=per).sum().backward()
    images = torch.randn(cases, 4, 3, tokens + 2).transpose(2, 3).requires_grad_()
    kernel = torch.randn(UNITS, 4, 3, 3, requires_grad=True)
    conv2d(images, kernel, keep=0.5, select=select, per=per).sum().backward()
    for tensor in (x, weight, images, kernel):
        assert tensor.grad is not None
        assert tensor.grad.shape == tensor.shape
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
def test_padding_by_name(padding: str, kernel: tuple[int, int]):
    x, weight = numbers(2, 4, 6, 6).requires_grad_(), numbers(UNITS, 4, *kernel, seed=1)
    y = conv2d(x, weight, padding=padding, dilation=2 if padding == "same" else 1, keep=3)
    dense = functional.conv2d(x, weight, padding=padding, dilation=2 if padding == "same" else 1)
    assert torch.allclose(y, dense)
    pull = numbers(*y.shape, seed=3)
    expected = torch.autograd.grad(dense, x, reference.kept(pull.flatten(2), Rule(3), None).view_as(pull))[0]
    assert torch.allclose(torch.autograd.grad(y, x, pull)[0], expected)


def test_images_without_a_batch():
    x, weight, bias = convolution({})
    assert torch.allclose(conv2d(x[0], weight, bias, keep=2), functional.conv2d(x[0], weight, bias))


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_second_derivative_is_refused(keep: float):
    x, weight, _ = (t.requires_grad_() for t in convolution({}))
    for y in (conv2d(x, weight, keep=keep), linear(x.mT, weight[:, 0].flatten(1)[:, :6], keep=keep)):
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RetropropError, match="second derivative"):
            first.sum().backward()


def test_flops_are_those_of_the_kept_units():
    x, weight = torch.randn(16, 32), torch.randn(64, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        linear(x.requires_grad_(), weight, keep=0.25).sum().backward()
    assert counter.get_total_flops() == 2 * 16 * 32 * 64 * (1 + 2 * 0.25)
    with FlopCounterMode(display=False) as counter:
        linear(x.detach(), weight, keep=0.25).sum().backward()  # the first layer of a network
    assert counter.get_total_flops() == 2 * 16 * 32 * 64 * (1 + 0.25)
    images, kernel = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(16, 4, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        conv2d(images, kernel, padding=1, keep=0.25).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 64) * 16 * 4 * 9 * (1 + 2 * 0.25)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: linear(torch.ones(2, 3, dtype=torch.int64), torch.ones(4, 3)), "type torch.int64"),
        (lambda: linear(torch.ones(2, 3), torch.ones(4, 3, dtype=torch.complex64)), "type torch.complex64"),
        (lambda: linear(torch.ones(2, 3), torch.ones(4, 5)), "expected 5 features or channels"),
        (lambda: linear(torch.ones(2, 3), torch.ones(4, 3), keep=0), "keep=0 was given"),
        (lambda: linear(torch.ones(2, 3), torch.ones(4, 3), select="largest"), "Unknown selection 'largest'"),
        (lambda: linear(torch.ones(2, 3), torch.ones(4, 3), block=3), "expected a divisor of 4"),
        (lambda: linear(torch.ones(2, 3), torch.ones(3)), "expected a weight (out, in)"),
        (lambda: linear(torch.tensor(1.0), torch.ones(4, 3)), "expected input (batch, ..., in)"),
        (lambda: conv2d(torch.ones(2, 3), torch.ones(4, 3, 1, 1)), "expected input (batch, channel,"),
        (lambda: conv2d(torch.ones(1, 3, 4, 4), torch.ones(4, 3)), "expected a weight (out, in / groups"),
        (lambda: conv2d(torch.ones(1, 3, 4, 4), torch.ones(4, 2, 1, 1)), "expected 2 features or channels"),
        (
            lambda: conv2d(torch.ones(1, 3, 4, 4), torch.ones(4, 3, 3, 3), stride=2, padding="same"),
            "'same' with stride 1",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: Callable[[], Tensor], words: str):
    with pytest.raises(RetropropError) as error:
        call()
    assert words in str(error.value)


def test_more_units_than_there_are_is_refused_where_the_layer_is_known():
    x, weight, _ = convolution({})
    for call in (
        lambda: linear(torch.randn(3, 4), torch.randn(8, 4), keep=9),
        lambda: conv2d(x, weight, keep=len(weight) + 1),
        lambda: SparseLinear(4, 8, keep=9),
        lambda: SparseConv2d(3, 8, 3, keep=9),
    ):
        with pytest.raises(RetropropError, match=r"keep=\d+ was given for a layer of \d+ units"):
            call()


def test_what_does_not_fit_is_named():
    x, weight = torch.randn(3, 4), torch.randn(8, 4)
    for how, said in (
        ({"bias": torch.ones(8, dtype=torch.int64)}, "bias of type torch.int64"),
        ({"bias": torch.ones(7)}, r"expected a bias \(8,\), found \(7,\)"),
        ({"noise": torch.rand(1, 5), "select": "random"}, r"expected noise .* found \(1, 5\)"),
        ({"select": None}, "Unknown selection None"),
    ):
        with pytest.raises(RetropropError, match=said):
            linear(x, weight, **how)
    with pytest.raises(RetropropError, match="input of type list"):
        linear([1.0, 2.0], weight)
    with pytest.raises(RetropropError, match="groups=3"):
        conv2d(torch.randn(2, 6, 5, 5), torch.randn(4, 2, 3, 3), groups=3)


@pytest.mark.parametrize("keep", [0.25, 0.9])
def test_a_backward_pass_under_autocast_is_as_precise_as_its_forward_pass(keep: float):
    layer, x = SparseLinear(16, 32, keep=keep), torch.randn(4, 16)
    plain = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    y = layer(x).sum()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.autograd.grad(y, layer.weight)[0], plain)


def test_batched_gradients():
    x, weight = torch.randn(4, 8), torch.randn(8, 8, requires_grad=True)
    pulls = torch.randn(3, 4, 8)
    found = torch.autograd.grad(linear(x, weight, keep=0.5), weight, pulls, is_grads_batched=True)[0]
    for one, pull in zip(found, pulls, strict=True):
        assert torch.allclose(one, torch.autograd.grad(linear(x, weight, keep=0.5), weight, pull)[0])


def test_meta_devices_and_layers_without_width():
    layer = SparseLinear(6, 8, keep=0.5, device="meta")
    assert layer(torch.randn(4, 6, device="meta")).shape == (4, 8)
    assert layer.noise.device.type == "meta"
    for inside, out in ((0, 4), (4, 0)):
        x = torch.randn(3, inside, requires_grad=True)
        weight = torch.randn(out, inside, requires_grad=True)
        linear(x, weight, keep=0.5).sum().backward()
        assert x.grad.shape == x.shape


def test_images_channels_last_through_a_linear_layer_compile():
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(5, 6, requires_grad=True)
    torch.library.opcheck(
        torch.ops.retroprop.sparse_linear_backward,
        (torch.randn(2, 4, 6, 5), x, weight, None, 0.4, False, "batch", "magnitude", 1, False, [True] * 3),
        test_utils=("test_faketensor",),
    )
