"""Where fixes land on networks of every make."""

import contextlib
import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from retroprop import fixes
from retroprop.errors import AlreadyApplied, Conflict, NothingMatched, RetropropError, UnknownName
from retroprop.fix import Fix, ModelFix, Recipe, apply
from retroprop.fixes.dropout import KeyedDropout
from retroprop.fixes.residual import Add
from retroprop.networks.mlp import MLP
from retroprop.sparse import SparseLinear
from retroprop.surgery import Surgeon
from retroprop.tracing import traced_layers
from tests import zoo

RELU, TANH, DROPOUT = fixes.get("relu")(), fixes.get("tanh")(), fixes.get("dropout")()
NORM, RESIDUAL, HE = fixes.get("batch_norm")(), fixes.get("residual")(), fixes.get("he_init")()
SPARSE = fixes.get("sparse_backprop")(keep=2)
ENTROPY = fixes.get("cross_entropy")()
ALL = [fixes.get(name)() for name in fixes.names()]


def types(network: nn.Module, kind: type[nn.Module]) -> list[str]:
    found = network.named_modules(remove_duplicate=False)
    return [path for path, module in found if type(module) is kind]


def anatomy(name: str) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    layers = traced_layers(zoo.build(name), zoo.example(name)).layers
    return [(layer.name, dict(layer.paths)) for layer in layers]


def test_the_1986_network_has_a_site_of_every_role_in_every_hidden_layer():
    surgeon = Surgeon(MLP("8-6-5-4"))
    for role in ("linear", "norm", "activation", "dropout", "skip"):
        assert [site.name for site in surgeon.sites(role)] == [
            f"hidden.0.{role}",
            f"hidden.1.{role}",
        ]
        assert [site.shape for site in surgeon.sites(role)] == [(6,), (5,)]
    assert [site.name for site in surgeon.sites("linear", output=True)][-1] == "output.linear"


def test_a_trace_shows_what_feeds_what():
    assert anatomy("sequential") == [
        ("0", {"linear": ("0",), "activation": ("1",)}),
        ("2", {"linear": ("2",), "activation": ("3",)}),
        ("4", {"linear": ("4",)}),
    ]
    assert anatomy("residual_convnet") == [
        ("0", {"linear": ("0",), "activation": ("1",)}),
        ("2.conv1", {"linear": ("2.conv1",), "norm": ("2.bn1",), "activation": ("2.relu",)}),
        ("2.conv2", {"linear": ("2.conv2",), "norm": ("2.bn2",), "activation": ("2.relu",)}),
        ("5", {"linear": ("5",)}),
    ]


def test_the_activation_behind_an_in_place_sum_is_loose():
    layers = traced_layers(zoo.build("residual_convnet"), zoo.example("convnet")).layers
    assert [layer.loose_activation for layer in layers] == [False, False, True, False]


def test_the_last_parameter_layer_is_the_output_and_keeps_its_activation():
    fixed = apply(zoo.build("lenet"), RELU, example=zoo.example("lenet")).network
    assert types(fixed, nn.Sigmoid) == ["6"]
    assert types(fixed, nn.ReLU) == ["2"]


def test_a_site_behind_pooling_has_the_shape_there():
    fixed = apply(zoo.build("lenet"), DROPOUT, example=zoo.example("lenet")).network
    assert fixed.get_submodule("2.dropout").shape == (4, 3, 3)


def test_a_module_that_torch_does_not_know_is_seen_to_be_an_activation():
    fixed = apply(zoo.own_activation(), RELU).network
    assert [type(module) for module in fixed] == [nn.Linear, zoo.Halve, nn.ReLU, nn.Linear]


def test_a_second_activation_stands_for_itself():
    network = nn.Sequential(
        nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh(), nn.ELU(), nn.Linear(8, 4), nn.Sigmoid(), nn.Tanh()
    )
    fixed = apply(network, [RELU, DROPOUT]).network
    kinds = [type(m).__name__ for m in fixed.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == ["ReLU", "Linear", "ReLU", "KeyedDropout", "ReLU", "Linear", "Sigmoid", "Tanh"]


def test_an_activation_inside_a_norm_is_found():
    class NormAct(nn.BatchNorm1d):
        def __init__(self) -> None:
            super().__init__(8)
            self.act = nn.SELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(super().forward(x))

    network = nn.Sequential(nn.Linear(8, 8), NormAct(), nn.Linear(8, 4))
    (layer, _) = traced_layers(network, None).layers
    assert layer.paths == {"linear": ("0",), "norm": ("1",), "activation": ("1.act",)}
    assert not layer.loose_activation


def test_a_shared_activation_is_replaced_at_both_places_by_one_module():
    fixed = apply(zoo.shared_activation(), RELU).network
    assert types(fixed, nn.ReLU) == ["1", "3"]
    assert fixed[1] is fixed[3]


def test_a_module_at_a_hidden_and_the_output_place_is_split():
    fixed = apply(zoo.shared_with_output(), RELU).network
    assert [type(module).__name__ for module in fixed] == ["Linear", "ReLU", "Linear", "Sigmoid"]
    logits = apply(Recipe(zoo.shared_with_output()), ENTROPY).network
    assert [type(module).__name__ for module in logits] == [
        "Linear", "Sigmoid", "Linear", "Identity"
    ]  # fmt: skip


@pytest.mark.parametrize("fix", [RELU, DROPOUT, ENTROPY], ids=lambda fix: fix.name)
def test_one_path_that_is_hidden_and_output_is_an_error_that_names_both(fix: Fix):
    with pytest.raises(RetropropError, match=r"'act'.*layer '(first|second)'.*layer '(first|second)'"):
        apply(Recipe(zoo.OneActivation()), fix, example=torch.randn(2, 8))


def test_tied_layers_stay_tied():
    fixed = apply(zoo.tied(), SPARSE).network
    assert types(fixed, SparseLinear) == ["0", "2"]
    assert fixed[0] is fixed[2]
    assert len(list(fixed.parameters())) == 4


def test_a_layer_called_three_times_is_wrapped_once():
    fixed = apply(zoo.Iterated(), [NORM, DROPOUT, RELU], example=zoo.example("iterated")).network
    assert types(fixed, nn.BatchNorm1d) == ["linear.norm"]
    assert types(fixed, KeyedDropout) == ["act.dropout"]
    assert types(fixed, nn.ReLU) == ["act.activation"]


def test_a_block_that_stands_twice_is_one_place():
    block = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
    fixed = apply(nn.Sequential(block, block, nn.Linear(8, 4)), [NORM, RESIDUAL, RELU]).network
    assert fixed[0] is fixed[1]
    assert len({id(m) for m in fixed.modules() if isinstance(m, (Add, nn.BatchNorm1d))}) == 2
    assert fixed(torch.randn(4, 8)).shape == (4, 4)


def test_a_skip_wraps_neighbours_and_moves_no_later_key():
    network = zoo.sequential()
    fixed = apply(network, RESIDUAL).network
    assert list(dict(fixed.named_children())) == ["0", "1", "2", "3", "4"]
    assert types(fixed, Add) == ["0.skip", "2.skip"]
    x = torch.randn(4, 8)
    y = x + network[1](network[0](x))
    y = y + network[3](network[2](y))
    assert torch.equal(fixed(x), network[4](y))


def test_fixes_find_their_sites_after_wrapping():
    fixed = apply(zoo.sequential(), [RELU, NORM, DROPOUT, RESIDUAL, HE]).network
    block = fixed.get_submodule("0.inner")
    kinds = [type(m) for m in block.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, KeyedDropout]
    later = apply(apply(zoo.sequential(), RESIDUAL).network, [RELU, NORM, HE]).network
    assert types(later, nn.Sigmoid) == []
    assert len(types(later, nn.BatchNorm1d)) == 2


def test_a_network_of_ours_inside_another_keeps_its_slots():
    fixed = apply(nn.Sequential(nn.Flatten(), MLP("8-8-8-4")), [RELU, NORM, DROPOUT, RESIDUAL])
    own = apply(MLP("8-8-8-4"), [RELU, NORM, DROPOUT, RESIDUAL])
    assert str(fixed.network[1]) == str(own.network)


def test_edits_put_neighbours_out_of_place():
    for fix in (TANH, SPARSE):
        network = nn.Sequential(
            nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Dropout(0.2, inplace=True), nn.Linear(8, 4)
        )
        fixed = apply(network, fix).network
        fixed(torch.randn(4, 8)).sum().backward()


def test_functional_activations_are_an_error_that_names_them():
    with pytest.raises(NothingMatched, match=r"relu in the forward .*sigmoid in the forward"):
        apply(zoo.Functional(), RELU)
    with pytest.raises(NothingMatched, match="out of reach: relu"):
        apply(zoo.Functional(), DROPOUT)
    apply(zoo.Functional(), [NORM, SPARSE, HE])


def outputs(network: nn.Module, example: torch.Tensor | None = None) -> list[str]:
    return [layer.name for layer in traced_layers(network, example).layers if layer.output]


def test_every_layer_that_gives_a_returned_tensor_is_an_output():
    assert outputs(zoo.TwoHeads()) == ["value", "policy"]
    assert outputs(zoo.ShortCut()) == ["short", "out"]
    assert outputs(zoo.KeepsHidden()) == ["second.0", "out"]
    assert outputs(zoo.Functional()) == ["output"]
    fixed = apply(zoo.TwoHeads(), [RELU, NORM, DROPOUT], example=torch.randn(2, 8)).network
    assert types(fixed, nn.Sigmoid) == ["squash", "policy_squash"]
    assert types(fixed, nn.ReLU) == ["body.1.activation"]
    assert types(fixed, nn.BatchNorm1d) == ["body.0.norm"]
    assert types(apply(zoo.ShortCut(), RELU, example=torch.randn(2, 8)).network, nn.Sigmoid) == ["act"]


def test_outputs_are_found_in_dataclasses_and_without_a_graph():
    @dataclass
    class Answer:
        logits: torch.Tensor

    class Wrapped(zoo.TwoHeads):
        def forward(self, x: torch.Tensor) -> Answer:
            return Answer(super().forward(x)["policy"][0])

    class Detached(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).detach()

    class NoGrad(nn.Sequential):
        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    assert outputs(Wrapped(), torch.randn(2, 8)) == ["policy"]
    for kind in (Detached, NoGrad):
        network = kind(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4), nn.Sigmoid())
        assert outputs(network) == ["2"]
        assert types(apply(network, RELU).network, nn.Sigmoid) == ["3"]


def test_every_output_becomes_logits_and_no_hidden_layer_does():
    two = apply(Recipe(zoo.TwoHeads()), ENTROPY, example=torch.randn(2, 8))
    assert types(two.network, nn.Sigmoid) == ["body.1"]
    assert len(two.receipts[0].edits) == 3
    kept = apply(Recipe(zoo.KeepsHidden()), [ENTROPY, RELU], example=torch.randn(2, 8)).network
    assert types(kept, nn.Sigmoid) == ["second.1"]
    assert types(kept, nn.ReLU) == ["first.1"]


def verified(network: nn.Module, fix: Fix) -> None:
    surgeon = Surgeon(network, example=torch.randn(2, 8))
    surgeon.begin(fix.name)
    fix.amend(Recipe(network), surgeon)
    surgeon.verify()


@pytest.mark.parametrize(
    ("network", "fix", "path"),
    [
        (zoo.Aliased(), RELU, "act"),
        (zoo.Aliased(), DROPOUT, "act"),
        (zoo.Aliased(), NORM, "a"),
        (zoo.Aliased(), SPARSE, "a"),
        (zoo.HalfAliased(), RELU, "act"),
        (zoo.HalfAliased(), DROPOUT, "act"),
    ],
)
def test_a_module_that_the_network_keeps_calling_is_an_error(network: nn.Module, fix: Fix, path: str):
    with pytest.raises(RetropropError, match=f"module at '{path}' .*keeps another reference"):
        verified(copy.deepcopy(network), fix)


def test_a_network_that_cannot_run_with_what_was_placed_is_an_error():
    class OneNumber(zoo.Iterated):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.linear.weight.mean()

    with pytest.raises(RetropropError, match="with new modules at linear it raised AttributeError"):
        verified(OneNumber(), NORM)


@pytest.mark.parametrize(
    "build", [zoo.sequential, zoo.tied, zoo.shared_with_output, zoo.Iterated, zoo.TwoHeads]
)
def test_what_is_called_is_verified(build):
    for fix in (RELU, NORM, DROPOUT, SPARSE, RESIDUAL, HE, ENTROPY):
        with contextlib.suppress(NothingMatched):
            verified(build(), fix)


def test_a_block_that_is_tapped_is_no_place_for_a_skip():
    assert len(Surgeon(zoo.sequential()).sites("skip")) == 2
    with pytest.raises(NothingMatched, match="residual looked for skip sites"):
        apply(zoo.Tapped(), RESIDUAL, example=torch.randn(2, 8))


def test_a_gate_is_no_activation():
    fixed = apply(zoo.Gated(), RELU, example=torch.randn(2, 8)).network
    assert type(fixed.gate) is nn.Sigmoid
    assert type(fixed.act) is nn.ReLU
    apply(zoo.Gated(torch.sigmoid), RELU, example=torch.randn(2, 8))
    scaled = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), zoo.Halve(), nn.Linear(8, 4))
    assert types(apply(scaled, RELU).network, nn.Sigmoid) == []
    with pytest.raises(NothingMatched, match=r"x \* Sigmoid\(x\) in the forward method of ByHand"):
        apply(zoo.ByHand(), RELU)


@pytest.mark.parametrize(
    "function",
    [torch.special.expit, functional.logsigmoid, functional.softsign, torch.sigmoid_, functional.tanhshrink],
)
def test_functions_of_every_spelling_are_seen(function):
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.output = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(self.output(function(self.hidden(x))))

    with pytest.raises(NothingMatched, match="in the forward method of Calls, which surgery cannot see"):
        apply(Calls(), RELU)
    with pytest.raises(RetropropError, match="in the forward method of Calls on it"):
        apply(Recipe(Calls()), ENTROPY)


def test_a_functional_output_stops_loss_fixes_alone():
    apply(zoo.FunctionalOutput(), RELU)
    with pytest.raises(RetropropError, match="sigmoid in the forward method of FunctionalOutput"):
        apply(Recipe(zoo.FunctionalOutput()), ENTROPY)


def test_a_bare_linear_layer_is_all_output():
    with pytest.raises(NothingMatched, match="looked for activation sites"):
        apply(nn.Linear(8, 4), RELU)
    assert apply(nn.Linear(8, 4), HE).network.bias.abs().sum() == 0


@pytest.mark.parametrize("fix", ALL, ids=lambda fix: fix.name)
def test_nothing_matched_names_what_was_looked_for(fix: Fix):
    if not isinstance(fix, ModelFix) or fix.name == "he_init":
        pytest.skip("changes the recipe or every network")
    with pytest.raises(NothingMatched, match=rf"{fix.name} looked for (linear|norm|activation|dropout|skip)"):
        apply(MLP("8-4"), fix)


@pytest.mark.parametrize("name", [*zoo.VECTORS, *zoo.IMAGES])
@pytest.mark.parametrize("fix", ALL, ids=lambda fix: fix.name)
def test_every_fix_on_every_network_trains_or_says_why_not(fix: Fix, name: str):
    network, x = zoo.build(name), zoo.example(name)
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    try:
        fixed = apply(Recipe(network), fix, example=x)
    except NothingMatched as error:
        if fix.name not in str(error):
            raise
        return
    finally:
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert fixed.receipts[0].edits
    output = fixed.network(x)
    assert output.shape == (4, 4)
    functional.mse_loss(output, torch.zeros_like(output)).backward()
    for path, parameter in fixed.network.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", [*zoo.VECTORS, *zoo.IMAGES])
def test_what_is_wrapped_or_replaced_computes_what_it_did(name: str):
    network, x = zoo.build(name), zoo.example(name)
    fixed = network
    for fix in (fixes.get("dropout")(p=0.0), fixes.get("sparse_backprop")(keep=1.0)):
        with contextlib.suppress(NothingMatched):
            fixed = apply(fixed, fix, example=x).network
    outputs, slopes = [], []
    for one in (network, fixed):
        torch.manual_seed(0)
        outputs.append(one(x))
        parameters = [p for _, p in sorted((n.replace(".linear", ""), p) for n, p in one.named_parameters())]
        slopes.append(torch.autograd.grad(outputs[-1].sum(), parameters))
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("name", [*zoo.VECTORS, *zoo.IMAGES])
def test_without_an_example_one_is_guessed(name: str):
    seen, guessed = (traced_layers(zoo.build(name), x).layers for x in (zoo.example(name), None))
    assert [layer.paths for layer in seen] == [layer.paths for layer in guessed]


def test_a_guess_that_fails_asks_for_an_example():
    odd = nn.Sequential(nn.Unflatten(1, (7, 1)), nn.Flatten(), nn.Linear(8, 8), nn.Sigmoid())
    with pytest.raises(RetropropError, match=r"guessed batch .*\(2, 8\).*Pass example="):
        apply(odd, HE)
    with pytest.raises(RetropropError, match=r"the example batch .*\(2, 9\)"):
        apply(zoo.sequential(), RELU, example=torch.randn(2, 9))
    with pytest.raises(RetropropError, match=r"no nn\.Linear and no convolution"):
        apply(nn.Sequential(nn.Sigmoid()), RELU, example=torch.randn(2, 9))


def test_mode_dtype_and_device_are_kept(device: torch.device):
    network = zoo.build("sequential").to(device, torch.float64).eval()
    fixed = apply(network, [NORM, DROPOUT, RESIDUAL]).network
    assert not any(module.training for module in fixed.modules())
    floats = [t for t in fixed.state_dict().values() if t.is_floating_point()]
    assert {(t.dtype, t.device.type) for t in floats} == {(torch.float64, device.type)}


def test_a_frozen_child_stays_frozen():
    network = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 4))
    network[1].eval()
    fixed = apply(network, [DROPOUT, RESIDUAL]).network
    assert fixed.get_submodule("0.skip").training
    assert not fixed.get_submodule("0.inner.1").training


def test_new_modules_start_from_the_seed_and_the_site_alone():
    def start(seed: int, *others: Fix) -> torch.Tensor:
        torch.manual_seed(torch.seed() % 1000)
        fixed = apply(zoo.build("sequential"), [HE, *others], seed=seed).network
        return dict(fixed.named_parameters())["4.weight"]

    assert torch.equal(start(1), start(1, RELU, NORM))
    assert not torch.equal(start(1), start(2))


@pytest.mark.filterwarnings("ignore")
def test_wrapped_networks_are_refused():
    compiled = torch.compile(zoo.sequential())
    with pytest.raises(RetropropError, match=r"OptimizedModule was given.*then call torch.compile"):
        apply(compiled, RELU)
    with pytest.raises(RetropropError, match="The module at '0' is a OptimizedModule"):
        apply(nn.Sequential(compiled, nn.Linear(4, 4)), RELU)
    with pytest.raises(RetropropError, match=r"wrapped in DataParallel.*\.module"):
        apply(nn.DataParallel(zoo.sequential()), RELU)
    with pytest.raises(RetropropError, match="script"):
        apply(torch.jit.script(zoo.sequential()), RELU)


def test_a_distributed_network_is_refused(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(RetropropError, match="wrapped in DistributedDataParallel"):
            apply(nn.parallel.DistributedDataParallel(zoo.sequential()), RELU)
    finally:
        torch.distributed.destroy_process_group()


def test_twice_and_clashes_are_errors():
    once = apply(zoo.sequential(), RELU).network
    with pytest.raises(AlreadyApplied):
        apply(once, RELU)
    with pytest.raises(AlreadyApplied):
        apply(zoo.sequential(), [RELU, RELU])
    with pytest.raises(Conflict, match="'relu' and 'tanh'"):
        apply(zoo.sequential(), [RELU, TANH])
    with pytest.raises(Conflict):
        apply(once, TANH)
    with pytest.raises(RetropropError, match=r"retroprop\.Recipe"):
        apply(once, ENTROPY)
    with pytest.raises(RetropropError, match="fix instance, such as ReLU"):
        apply(once, [fixes.get("relu")])
    with pytest.raises(UnknownName, match=r"Unknown role 'nrom'. Did you mean 'norm'"):
        Surgeon(zoo.sequential()).sites("nrom")


TORCHVISION = {
    "resnet18": {"batch_norm", "relu", "residual"},
    "mobilenet_v3_small": set(),
    "vit_tiny_patch16_224": {"residual"},
}


def test_both_heads_of_a_segmentation_network_are_outputs():
    models = pytest.importorskip("torchvision").models.segmentation
    network = models.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    assert outputs(network, torch.randn(2, 3, 32, 32)) == ["classifier.4", "aux_classifier.4"]


@pytest.mark.parametrize(("name", "gates"), [("mobilenet_v3_small", 9), ("efficientnet_b0", 16)])
def test_gates_of_torchvision_stay(name: str, gates: int):
    network = getattr(pytest.importorskip("torchvision").models, name)(weights=None)
    fixed = apply(network, RELU, example=torch.randn(2, 3, 32, 32)).network
    assert len(types(fixed, nn.Sigmoid) + types(fixed, nn.Hardsigmoid)) == gates


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision_and_timm(name: str):
    if name.startswith("vit"):
        network = pytest.importorskip("timm").create_model(name, pretrained=False, img_size=64)
    else:
        network = getattr(pytest.importorskip("torchvision").models, name)(weights=None)
    x = torch.randn(2, 3, 64, 64)
    refused = set()
    for fix in ALL:
        try:
            fixed = apply(Recipe(network), fix, example=x).network
        except NothingMatched:
            refused.add(fix.name)
            continue
        fixed.train()(x).square().sum().backward()
    assert refused - {"sparse_backprop"} == TORCHVISION[name]
