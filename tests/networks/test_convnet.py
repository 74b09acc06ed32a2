"""LeNet, and the plain and residual nets for CIFAR: sizes, starts, and what their blocks compute."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from retroprop.errors import RetropropError
from retroprop.fix import apply
from retroprop.fixes.residual import Residual
from retroprop.networks.convnet import DEPTHS, CifarNet, LeNet, Shortcut
from retroprop.networks.layer import ConvLayer, Shape
from retroprop.networks.named import build, network_names

COLOUR, SMALL = (3, 32, 32), (1, 8, 8)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def layers(network: LeNet | CifarNet) -> Iterator[nn.Module]:
    hidden, output = network.layer_paths()
    return (network.get_submodule(path) for path in (*hidden, output))


@pytest.mark.parametrize(
    ("depth", "plain", "residual", "millions"),
    [
        (20, 269_034, 269_722, 0.27),
        (32, 463_018, 464_154, 0.46),
        (44, 657_002, 658_586, 0.66),
        (56, 850_986, 853_018, 0.85),
    ],
)
def test_parameters_of_the_cifar_nets(depth: int, plain: int, residual: int, millions: float):
    """Table 6 of He et al. gives millions; a plain net has biases where a residual one has batch norms."""
    assert parameters(build(f"plain{depth}", COLOUR, 10)) == plain
    assert parameters(build(f"resnet{depth}", COLOUR, 10)) == residual
    assert round(residual / 1e6, 2) == millions


def test_depth_counts_the_layers_with_weights():
    for depth in DEPTHS:
        assert len(list(layers(CifarNet(depth, COLOUR, 10)))) == depth


def test_another_depth_is_refused():
    with pytest.raises(RetropropError, match=r"depth=18 was given; expected one of \(20, 32, 44, 56\)"):
        CifarNet(18, COLOUR, 10)


def test_lenet_has_the_sizes_of_1989():
    net = LeNet((1, 16, 16), 10)
    assert [layer.shape for layer in layers(net)] == [(12, 8, 8), (12, 4, 4), (30,), (10,)]
    assert [parameters(layer) for layer in layers(net)] == [
        1068 - 768 + 12,  # one bias a map, not one a unit
        12 * 12 * 25 + 12,  # each map sees all 12, not 8
        5790,
        310,
    ]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["lenet", "plain20", "resnet20"]),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 13), st.integers(1, 13)),
    classes=st.integers(1, 5),
)
def test_layers_have_the_shapes_that_they_declare(name: str, shape: Shape, classes: int):
    net = build(name, shape, classes).eval()
    seen: dict[int, list[Shape]] = {}

    def note(linear: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        seen[id(linear)] = [tuple(given[0].shape[1:]), tuple(out.shape[1:])]

    for layer in layers(net):
        layer.linear.register_forward_hook(note)
    assert net(torch.zeros(2, *shape)).shape == (2, classes)
    for layer in layers(net):
        assert seen[id(layer.linear)] == [layer.in_shape, layer.shape]


@pytest.mark.parametrize("name", network_names())
def test_a_seed_names_one_start_and_no_generator_is_touched(name: str):
    before = torch.get_rng_state()
    one = build(name, SMALL, 10, seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    again, other = (build(name, SMALL, 10, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(one[key], again[key]) for key in one)
    weights = [key for key in one if key.endswith("linear.weight")]
    assert not any(torch.equal(one[key], other[key]) for key in weights)


@pytest.mark.parametrize("name", network_names())
def test_every_parameter_gets_a_finite_gradient(name: str):
    net = build(name, SMALL, 10)
    net(torch.rand(4, *SMALL)).square().sum().backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


def test_a_plain_net_starts_as_the_1986_network_does():
    for path, parameter in build("plain20", SMALL, 10).named_parameters():
        assert float(parameter.detach().abs().max()) <= 0.3, path
    assert isinstance(build("plain20", SMALL, 10).output.activation, nn.Sigmoid)


def test_a_residual_net_starts_as_he_et_al_start_theirs():
    net = build("resnet20", SMALL, 10)
    for layer in layers(net):
        weight = layer.linear.weight
        fan_in = weight[0].numel()
        error = 4 * (2 / weight.numel()) ** 0.5  # four standard errors of a variance
        assert float(weight.detach().square().mean()) * fan_in / 2 == pytest.approx(1, abs=error)
    assert not net.output.linear.bias.any()
    assert not any(key.endswith("linear.bias") for key in net.state_dict() if key.startswith("hidden"))
    assert isinstance(net.output.activation, nn.Identity), "it gives logits"


def test_a_plain_net_is_its_layers_one_after_another():
    net = build("plain20", COLOUR, 10).double()
    x = torch.rand(2, *COLOUR, dtype=torch.float64)
    *hidden, output = layers(net)
    y = x
    for layer in hidden:
        y = layer(y)
    torch.testing.assert_close(net(x), output(y.mean((2, 3))), rtol=0, atol=1e-12)


def published(net: CifarNet, x: Tensor) -> Tensor:
    """He et al. 2015, written out: eq. 1 with the sum before the second ReLU, and option A."""

    def normed(layer: ConvLayer, x: Tensor, stride: int = 1) -> Tensor:
        y = functional.conv2d(x, layer.linear.weight, stride=stride, padding=1)
        centred = y - y.mean((0, 2, 3), keepdim=True)
        y = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        return y * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]

    stem, *blocks = net.hidden
    y = normed(stem, x).relu()
    for block in blocks:
        maps, into = block.second.shape[0], y.shape[1]
        stride = 1 if maps == into else 2
        identity = y.new_zeros(len(y), maps, *block.second.shape[1:])
        identity[:, :into] = y[:, :, ::stride, ::stride]
        y = (identity + normed(block.second, normed(block.first, y, stride).relu())).relu()
    return y.mean((2, 3)) @ net.output.linear.weight.T + net.output.linear.bias


def test_a_residual_net_computes_what_was_published():
    net = build("resnet32", COLOUR, 10).double().train()
    x = torch.rand(3, *COLOUR, dtype=torch.float64)
    torch.testing.assert_close(net(x), published(net, x), rtol=0, atol=1e-10)


@given(
    channels=st.integers(1, 4),
    maps=st.integers(0, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    leading=st.lists(st.integers(1, 3), max_size=2),
    stride=st.integers(1, 3),
)
def test_the_shortcut_keeps_pixels_and_adds_zeros(
    channels: int, maps: int, height: int, width: int, leading: list[int], stride: int
):
    x = torch.rand(*leading, channels, height, width)
    y = Shortcut(maps, stride)(x)
    assert torch.equal(y[..., :channels, :, :], x[..., ::stride, ::stride])
    assert y.shape[-3] == channels + maps
    assert not y[..., channels:, :, :].any()


def test_nothing_stands_on_the_identity_path_that_the_residual_fix_makes():
    """Where blocks add nothing, the sums that enter the first leave the last, whatever the units."""
    net = apply(build("plain20", COLOUR, 10), Residual()).network
    stem, *blocks = net.hidden
    for block in blocks:
        nn.init.zeros_(block.second.linear.weight)
        nn.init.zeros_(block.second.linear.bias)
    start = torch.randn(2, *stem.shape, requires_grad=True)
    sums, x = start, stem.units(start)
    for block in blocks:
        sums, x = block(sums, x)
    assert torch.equal(sums[:, :16], start[:, :, ::4, ::4])
    (gradient,) = torch.autograd.grad(sums.sum(), start)
    assert torch.equal(gradient[:, :, ::4, ::4], torch.ones(2, 16, 8, 8))


def test_the_residual_fix_lets_the_error_reach_the_first_layer():
    plain = build("plain20", SMALL, 10)
    x = torch.rand(8, *SMALL)
    norms = []
    for net in (plain, apply(plain, Residual()).network):
        net(x).square().sum().backward()
        norms.append(float(net.hidden[0].linear.weight.grad.norm() / net.output.linear.weight.grad.norm()))
    assert norms[1] > 10 * norms[0], f"the first layer's share of the gradient: {norms}"


@pytest.mark.parametrize("name", ["lenet", "plain20", "resnet20"])
def test_state_keys_are_paths_of_layers(name: str):
    net = build(name, SMALL, 10)
    hidden, output = net.layer_paths()
    keys = {
        f"{path}.{slot}.{key}"
        for path in (*hidden, output)
        for slot in ("linear", "norm")
        if slot in net.get_submodule(path)._modules
        for key in net.get_submodule(f"{path}.{slot}").state_dict()
    }
    assert set(net.state_dict()) == keys
    again = build(name, SMALL, 10, seed=1)
    again.load_state_dict(net.state_dict())
    x = torch.rand(2, *SMALL)
    assert torch.equal(net.eval()(x), again.eval()(x))
