"""A stack of K modules is each of them alone: outputs, gradients, buffers."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from retroprop.errors import NoTwin, RetropropError
from retroprop.fixes.dropout import KeyedDropout
from retroprop.fixes.residual import Add
from retroprop.networks.layer import HiddenLayer, NoSkip
from retroprop.networks.mlp import MLP
from retroprop.sparse import SparseLinear
from retroprop.stacking.dispatch import Choice, member_tensors, members_of, original_name, stack
from retroprop.stacking.twins import SameForAll, StackedLinear

UNITS, CASES = 6, 9
Make = Callable[[], nn.Module]


def randomised(make: Make, seed: int) -> nn.Module:
    """A float64 module with random parameters and running statistics."""
    generator, module = torch.Generator().manual_seed(seed), make().double()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.numel():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
                tensor.mul_(1 if tensor.min() > 1 else torch.randn((), generator=generator).sign())
        for name, tensor in module.named_buffers():
            if name.endswith("running_var"):
                tensor.abs_()
            if name.endswith("num_batches_tracked"):
                tensor.fill_(3 + seed)
    return module


def inputs(members: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(members, CASES, UNITS, generator=generator, dtype=torch.float64)


def set_noise(module: nn.Module, drawn: Tensor) -> None:
    for part in module.modules():
        if isinstance(part, KeyedDropout):
            part.noise = drawn


def set_stacked_noise(stacked: nn.Module, drawn: Tensor) -> None:
    for part in stacked.modules():
        if "noise" in part._buffers:
            part.noise = drawn[list(part.members)].mT.contiguous()


def assert_same(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=lambda m: f"{what}: {m}")


def check(modules: Sequence[nn.Module], *, train: bool = True, shared_input: bool = False) -> nn.Module:
    """Two passes forward and back, stacked and alone; gives the stack."""
    modules = [copy.deepcopy(module).train(train) for module in modules]
    stacked = stack([copy.deepcopy(module) for module in modules])
    owners = members_of(stacked)
    noise = torch.rand(len(modules), CASES, UNITS, generator=torch.Generator().manual_seed(5)).double()
    set_stacked_noise(stacked, noise)
    for i in range(2):
        x = inputs(1 if shared_input else len(modules), i)
        x_kub = x.mT.contiguous().requires_grad_()
        stacked.zero_grad()
        out = stacked(x_kub)
        pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(i)).double()
        if len(out) == len(modules):
            (out * pull).sum().backward()
        gradients = {name: p.grad for name, p in stacked.named_parameters()}
        tensors = dict(stacked.state_dict())
        pulled_back = torch.zeros_like(x_kub)
        for k, module in enumerate(modules):
            set_noise(module, noise[k])
            module.zero_grad()
            own_x = x[0 if shared_input else k].clone().requires_grad_()
            own = module(own_x)
            (own * pull[k if len(out) > 1 else 0].T).sum().backward()
            pulled_back[0 if shared_input else k] += own_x.grad.T
            assert_same(out[k if len(out) > 1 else 0].T, own, f"pass {i}, member {k}, output")
            for name, p in module.named_parameters():
                found = member_tensors(gradients, owners, k)[name]
                assert_same(found, p.grad, f"pass {i}, member {k}, gradient of {name}")
            state = member_tensors(tensors, owners, k)
            assert set(state) == set(module.state_dict()), f"member {k} holds {set(state)}"
            for name, tensor in module.state_dict().items():
                assert_same(state[name], tensor, f"pass {i}, member {k}, {name}")
        if len(out) == len(modules):
            assert_same(x_kub.grad, pulled_back, f"pass {i}, gradient of the input")
    return stacked


ALIKE: dict[str, Make] = {
    "linear": lambda: nn.Linear(UNITS, 4),
    "linear without bias": lambda: nn.Linear(UNITS, 4, bias=False),
    "sparse linear per batch": lambda: SparseLinear(UNITS, 5, keep=2, per="batch"),
    "sparse linear per example": lambda: SparseLinear(UNITS, 5, keep=0.4, per="example"),
    "sparse linear, all kept": lambda: SparseLinear(UNITS, 5, keep=1.0),
    "batch norm": lambda: nn.BatchNorm1d(UNITS),
    "batch norm, cumulative": lambda: nn.BatchNorm1d(UNITS, momentum=None),
    "batch norm, not affine": lambda: nn.BatchNorm1d(UNITS, affine=False),
    "batch norm, untracked": lambda: nn.BatchNorm1d(UNITS, track_running_stats=False),
    "dropout": lambda: KeyedDropout(0.4, (UNITS,)),
    "hidden layer": lambda: HiddenLayer(UNITS, UNITS),
    "mlp": lambda: MLP((UNITS, 5, 4, 3)),
    "mlp with direct links": lambda: MLP((UNITS, 5, 3), direct_links=True),
    "sequence": lambda: nn.Sequential(
        nn.Linear(UNITS, UNITS), nn.BatchNorm1d(UNITS), nn.Tanh(), KeyedDropout(0.3, (UNITS,))
    ),
}


@pytest.mark.parametrize("shared_input", [False, True], ids=["own inputs", "one input"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", ALIKE)
def test_a_stack_is_each_alone(name: str, train: bool, shared_input: bool):
    modules = [randomised(ALIKE[name], seed) for seed in range(4)]
    check(modules, train=train, shared_input=shared_input)


@pytest.mark.parametrize(
    "kind",
    [
        nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
        nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid,
    ],
)  # fmt: skip
def test_activations_are_shared(kind: type[nn.Module]):
    assert isinstance(check([kind() for _ in range(3)]), SameForAll)


CHOICES: dict[str, tuple[list[Make], bool]] = {
    "activations": ([nn.Sigmoid, nn.ReLU, nn.Tanh], True),
    "slopes": ([lambda: nn.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.3)], True),
    "dropout or none": ([lambda: KeyedDropout(0.5, (UNITS,)), nn.Identity], True),
    "rates of dropout": (
        [lambda: KeyedDropout(0.5, (UNITS,)), lambda: KeyedDropout(0.2, (UNITS,))],
        True,
    ),
    "norm or none": ([lambda: nn.BatchNorm1d(UNITS), nn.Identity], False),
    "dense or sparse": (
        [lambda: nn.Linear(UNITS, 4), lambda: SparseLinear(UNITS, 4, keep=1)],
        False,
    ),
    "bias or none": ([lambda: nn.Linear(UNITS, 4), lambda: nn.Linear(UNITS, 4, bias=False)], False),
    "three norms": (
        [lambda: nn.BatchNorm1d(UNITS), nn.Identity, lambda: nn.BatchNorm1d(UNITS, momentum=0.5)],
        False,
    ),
    "sequences without tensors": (
        [lambda: nn.Sequential(nn.ReLU(), KeyedDropout(0.5, (UNITS,))), nn.Tanh],
        True,
    ),
    "sequences without tensors, mixed inside": (
        [lambda: nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.LeakyReLU(0.2)), nn.Tanh],
        True,
    ),
    "sequences with tensors": (
        [
            lambda: nn.Sequential(nn.Linear(UNITS, UNITS), KeyedDropout(0.5, (UNITS,))),
            lambda: nn.Linear(UNITS, UNITS),
        ],
        False,
    ),
}
ORDERS = {"in runs": [0, 0, 1, 1, 2], "scrambled": [1, 0, 2, 0, 1, 1, 2], "one each": [2, 1, 0]}


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_each_alone(name: str, order: str, train: bool):
    makes, by_mask = CHOICES[name]
    places = [place % len(makes) for place in ORDERS[order]]
    stacked = check([randomised(makes[p], k) for k, p in enumerate(places)], train=train)
    if isinstance(stacked, Choice):
        assert stacked.by_mask == by_mask
    else:
        assert name == "sequences without tensors, mixed inside"


@pytest.mark.parametrize("order", ORDERS)
def test_choices_take_a_shared_input(order: str):
    makes = [lambda: nn.Linear(UNITS, 4), lambda: SparseLinear(UNITS, 4, keep=2)]
    places = [place % 2 for place in ORDERS[order]]
    check([randomised(makes[p], k) for k, p in enumerate(places)], shared_input=True)


def fixed_layers() -> list[nn.Module]:
    """Hidden layers that differ in every slot."""
    layers = [randomised(lambda: HiddenLayer(UNITS, UNITS), seed) for seed in range(5)]
    layers[0].norm = randomised(lambda: nn.BatchNorm1d(UNITS), 7)
    layers[3].norm = randomised(lambda: nn.BatchNorm1d(UNITS), 8)
    layers[1].activation = nn.ReLU()
    layers[3].activation = nn.ReLU()
    layers[1].dropout = KeyedDropout(0.5, (UNITS,))
    layers[4].dropout = KeyedDropout(0.5, (UNITS,))
    layers[2].skip = Add()
    layers[0].linear = randomised(lambda: SparseLinear(UNITS, UNITS, keep=2), 0)
    assert isinstance(layers[4].skip, NoSkip)
    return layers


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [4, 2, 0, 3, 1]])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_layers_that_differ_in_every_slot(order: list[int], train: bool):
    layers = fixed_layers()
    check([layers[place] for place in order], train=train)


def test_skip_choice_takes_both_inputs():
    stacked = stack([Add(), NoSkip(), Add()])
    x, y = torch.randn(3, UNITS, CASES), torch.randn(3, UNITS, CASES)
    assert torch.equal(stacked(x, y), torch.stack([x[0] + y[0], y[1], x[2] + y[2]]))


def test_nan_of_one_member_changes_no_other_by_a_bit():
    layers = fixed_layers()
    clean = stack([copy.deepcopy(layer) for layer in layers])
    with torch.no_grad():
        layers[1].linear.weight.fill_(float("nan"))
        layers[3].linear.bias.fill_(float("inf"))
    poisoned = stack(layers)
    noise, pull = torch.rand(5, CASES, UNITS).double(), torch.randn(5, UNITS, CASES).double()
    outs, slopes, states = [], [], []
    for stacked in (clean, poisoned):
        set_stacked_noise(stacked, noise)
        x = inputs(5).mT.contiguous().requires_grad_()
        out = stacked(x)
        (out * pull).sum().backward()
        owners = members_of(stacked)
        gradients = {name: p.grad for name, p in stacked.named_parameters()}
        outs.append(out)
        slopes.append([{"x": x.grad[k], **member_tensors(gradients, owners, k)} for k in range(5)])
        states.append([member_tensors(stacked.state_dict(), owners, k) for k in range(5)])
    assert outs[1][1].isnan().any()
    for k in (0, 2, 4):
        assert torch.equal(outs[0][k], outs[1][k]), f"output of member {k}"
        for kept in (slopes, states):
            for name, tensor in kept[0][k].items():
                assert torch.equal(tensor, kept[1][k][name]), f"{name} of member {k}"


def test_tied_weights_are_refused():
    """Stacked path by path they would come apart."""

    def tied() -> nn.Module:
        linear = nn.Linear(3, 3)
        return nn.Sequential(linear, nn.Tanh(), linear)

    with pytest.raises(NoTwin, match="twice"):
        stack([tied(), tied()])


def test_hooks_are_refused():
    """A twin would not call them."""
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(NoTwin, match="hook"):
        stack([hooked, nn.Linear(3, 3)])


@pytest.mark.parametrize("linked", [[0, 1, 0], [1, 0, 0, 1, 1]])
def test_containers_that_differ_in_a_plain_attribute_become_a_choice(linked: list[int]):
    """Else the shell of the first would decide for all."""
    links = [lambda: MLP((UNITS, 2, 2)), lambda: MLP((UNITS, 2, 2), direct_links=True)]
    stacked = check([randomised(links[link], seed) for seed, link in enumerate(linked)])
    assert type(stacked) is Choice


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(NoTwin, match="ModuleList"):
        stack([MLP("3-2-2"), MLP("3-2-2-2")])


def test_frozen_parameters_are_not_merged_with_trained_ones():
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)
    two.requires_grad_(False)
    stacked = stack([one, two, nn.Linear(3, 3)])
    asked = {
        (k, original_name(name)): p.requires_grad
        for name, p in stacked.named_parameters()
        for k in members_of(stacked)[name]
    }
    assert {k for (k, _), wanted in asked.items() if not wanted} == {1}


def test_originals_are_left_as_they_are():
    layers = [layer.eval() for layer in fixed_layers()]
    before = [copy.deepcopy(layer.state_dict()) for layer in layers]
    stacked = stack(layers).train()
    with torch.no_grad():
        for p in stacked.parameters():
            p.zero_()
    for layer, state in zip(layers, before, strict=True):
        assert not any(module.training for module in layer.modules()), "training mode leaked"
        for name, tensor in layer.state_dict().items():
            assert torch.equal(tensor, state[name]), name


def test_names_are_the_originals():
    layers = fixed_layers()
    owners = members_of(stack(layers))
    for k, layer in enumerate(layers):
        held = {original_name(name) for name, members in owners.items() if k in members}
        assert set(layer.state_dict()) <= held
    assert type(stack([nn.Linear(2, 2)])) is StackedLinear


@pytest.mark.parametrize("kind", ["linear", "sparse linear", "sparse linear, dense bias"])
def test_under_autocast_a_stack_rounds_as_each_alone(kind: str):
    """Sums with the bias are of as many bits, and rounded once; a dense bias is added apart."""
    make: dict[str, Make] = {
        "linear": lambda: nn.Linear(UNITS, 5),
        "sparse linear": lambda: SparseLinear(UNITS, 5, keep=2),
        "sparse linear, dense bias": lambda: SparseLinear(UNITS, 5, keep=2, dense_bias=True),
    }
    modules = [randomised(make[kind], seed).float() for seed in range(3)]
    stacked, x = stack(modules), inputs(3).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = stacked(x.mT.contiguous())
        alone = torch.stack([module(one).T for module, one in zip(modules, x, strict=True)])
    assert out.dtype == alone.dtype == torch.bfloat16
    assert torch.allclose(out.float(), alone.float(), rtol=2**-7, atol=2**-6)
    if kind != "sparse linear, dense bias":
        assert torch.equal(out, alone)


def test_a_norm_beside_none_leaves_the_others_as_they_are():
    """Also in bf16, where statistics are in float32."""
    modules = [nn.BatchNorm1d(UNITS), nn.Identity(), nn.BatchNorm1d(UNITS), nn.Identity()]
    x = inputs(4).bfloat16().mT.contiguous()
    out = stack(modules)(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out[1], x[1])
    assert torch.equal(out[3], x[3])


def test_a_norm_of_one_case_is_refused_without_statistics_too():
    stacked = stack([nn.BatchNorm1d(UNITS, track_running_stats=False) for _ in range(2)])
    with pytest.raises(RetropropError, match="minibatch of one case"):
        stacked(torch.ones(2, UNITS, 1))
