"""A stack of K modules for images is each of them alone: outputs, gradients, buffers."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from retroprop.errors import NoTwin
from retroprop.fixes.dropout import KeyedDropout
from retroprop.networks.layer import NoSkip
from retroprop.stacking.dispatch import (
    Choice,
    laid_out,
    member_tensors,
    members_of,
    register_container,
    stack,
)
from retroprop.stacking.images import StackedConv2d
from tests.stacking.test_twins import assert_same, randomised

Make = Callable[[], nn.Module]
CHANNELS, SIDE, CASES = 4, 6, 5


class HighwayLayer(nn.Module):
    """A gate decides how much of a layer and how much of its input comes through."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.gate = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = torch.sigmoid(self.gate(x))
        return share * torch.tanh(self.linear(x)) + (1 - share) * x


class ResidualBlock(nn.Module):
    """Two convolutions and the input beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.norm, self.act = nn.BatchNorm2d(CHANNELS), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.second(self.act(self.first(x)))) + x)


register_container(HighwayLayer)
register_container(ResidualBlock)

IMAGES: dict[str, Make] = {
    "convolution": lambda: nn.Conv2d(CHANNELS, 3, 3, stride=2, padding=1),
    "convolution, same padding, no bias": lambda: nn.Conv2d(CHANNELS, 3, 3, padding="same", bias=False),
    "convolution in groups, dilated": lambda: nn.Conv2d(CHANNELS, 6, 2, groups=2, dilation=2),
    "batch norm": lambda: nn.BatchNorm2d(CHANNELS),
    "batch norm, cumulative": lambda: nn.BatchNorm2d(CHANNELS, momentum=None),
    "layer norm": lambda: nn.LayerNorm((CHANNELS, SIDE, SIDE)),
    "layer norm over rows": lambda: nn.LayerNorm(SIDE),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "group norm, not affine": lambda: nn.GroupNorm(2, CHANNELS, affine=False),
    "max pooling": lambda: nn.MaxPool2d(2),
    "average pooling": lambda: nn.AvgPool2d(3, stride=1, padding=1),
    "global average pooling": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "flatten, then linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIDE**2, 3)),
    "dropout": lambda: KeyedDropout(0.4, (CHANNELS, SIDE, SIDE)),
    "linear on the last dimension": lambda: nn.Linear(SIDE, 3),
    "highway layer": HighwayLayer,
    "residual block": ResidualBlock,
}
VECTORS: dict[str, Make] = {
    "layer norm": lambda: nn.LayerNorm(CHANNELS),
    "layer norm, no bias": lambda: nn.LayerNorm(CHANNELS, bias=False),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "flatten": nn.Flatten,
}


def check(
    makes: list[Make], shape: tuple[int, ...], *, train: bool = True, shared: bool = False
) -> nn.Module:
    """Two passes forward and back, stacked and alone, over cases of a shape; gives the stack."""
    generator = torch.Generator().manual_seed(3)
    modules = [randomised(make, k).train(train) for k, make in enumerate(makes)]
    stacked = stack(modules).train(train)
    owners, size = members_of(stacked), len(modules)
    noise = torch.rand(size, CASES, *shape, generator=generator).double()
    for part in stacked.modules():
        if "noise" in part._buffers:
            part.noise = torch.stack([laid_out(noise[k]) for k in part.members])  # type: ignore[union-attr, arg-type]
    for step in range(2):
        cases = torch.randn(1 if shared else size, CASES, *shape, generator=generator).double()
        x = torch.stack([laid_out(one) for one in cases]).requires_grad_()
        stacked.zero_grad()
        out = stacked(x).expand(size, *stacked(x).shape[1:]) if step == 0 and not train else stacked(x)
        pulls = [torch.randn(laid_out(one).shape, generator=generator).double() for one in out]
        alone = [cases[0 if shared else k].clone().requires_grad_() for k in range(size)]
        outs = []
        for k, module in enumerate(modules):
            for part in module.modules():
                if isinstance(part, KeyedDropout):
                    part.noise = noise[k]
            module.zero_grad()
            outs.append(module(alone[k]))
        if len(out) == 1:  # a shared input that nothing has told apart yet
            assert_same(out[0], laid_out(outs[0]), "shared output")
            continue
        sum((laid_out(o) * p).sum() for o, p in zip(out, pulls, strict=True)).backward()  # type: ignore[union-attr]
        for k, own in enumerate(outs):
            (own * pulls[k]).sum().backward()
            assert_same(out[k], laid_out(own), f"pass {step}, member {k}, output")
            for name, p in modules[k].named_parameters():
                grads = {n: q.grad for n, q in stacked.named_parameters()}
                assert_same(member_tensors(grads, owners, k)[name], p.grad, f"member {k}, gradient of {name}")
            state = member_tensors(dict(stacked.state_dict()), owners, k)
            for name, tensor in modules[k].state_dict().items():
                assert_same(state[name], tensor, f"pass {step}, member {k}, {name}")
        if shared:
            total = sum(one.grad for one in alone)  # type: ignore[misc]
            assert_same(x.grad[0], laid_out(total), "gradient of the input")  # type: ignore[index, arg-type]
        else:
            for k, one in enumerate(alone):
                assert_same(x.grad[k], laid_out(one.grad), f"member {k}, gradient of the input")  # type: ignore[index, arg-type]
    return stacked


@pytest.mark.parametrize("shared", [False, True], ids=["own inputs", "one input"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, train: bool, shared: bool):
    for size in (1, 3):
        check([IMAGES[name]] * size, (CHANNELS, SIDE, SIDE), train=train, shared=shared)


@pytest.mark.parametrize("shared", [False, True], ids=["own inputs", "one input"])
@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str, shared: bool):
    check([VECTORS[name]] * 3, (CHANNELS,), shared=shared)


@pytest.mark.parametrize("shared", [False, True], ids=["own inputs", "one input"])
@pytest.mark.parametrize(
    "makes",
    [
        [nn.Sigmoid, nn.ReLU, nn.Sigmoid],
        [nn.Identity, lambda: nn.BatchNorm2d(CHANNELS), nn.Identity, lambda: nn.BatchNorm2d(CHANNELS)],
        [lambda: nn.GroupNorm(2, CHANNELS), lambda: nn.BatchNorm2d(CHANNELS), nn.Softplus],
        [IMAGES["dropout"], nn.Identity],
    ],
    ids=["activations", "norm or none", "norms", "dropout or none"],
)
def test_choices_of_images(makes: list[Make], shared: bool):
    assert isinstance(check(makes, (CHANNELS, SIDE, SIDE), shared=shared), Choice)


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_grouped_is_one_by_one(members: int, kernel: int, stride: int, padding: int, groups: int, bias: bool):
    """The way of a CUDA device, on the CPU."""
    torch.manual_seed(0)
    modules = [
        nn.Conv2d(4, 6, kernel, stride, padding, groups=groups, bias=bias).double() for _ in range(members)
    ]
    stacked = stack(modules)
    assert isinstance(stacked, StackedConv2d)
    for shared in (True, False):
        x = torch.randn(1 if shared else members, 3, 4, 7, 5, dtype=torch.float64)
        assert_same(stacked.grouped(x, stacked.bias), stacked.one_by_one(x), f"shared={shared}")


def test_a_nan_in_one_member_changes_no_bit_of_another():
    makes = [IMAGES["residual block"]] * 3
    modules = [randomised(make, k) for k, make in enumerate(makes)]
    x = torch.randn(3, CASES, CHANNELS, SIDE, SIDE).double()
    before = stack(modules)(x)
    with torch.no_grad():
        modules[1].first.weight[0, 0, 0, 0] = torch.nan  # type: ignore[union-attr, index]
    after = stack(modules)(x)
    assert after[1].isnan().any()
    for k in (0, 2):
        assert torch.equal(before[k], after[k]), f"member {k}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "circular"),
        (lambda: nn.Flatten(2), "all dimensions but the batch"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "indices"),
    ],
)
def test_what_has_no_twin_says_so(make: Make, words: str):
    with pytest.raises(NoTwin, match=words):
        stack([make(), make()])


def test_an_empty_skip_is_shared():
    assert not list(stack([NoSkip(), NoSkip()]).parameters())
