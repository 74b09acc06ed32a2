"""Sparse back-propagation against a slow reference written with masks."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from retroprop import fixes
from retroprop.errors import NothingMatched, RetropropError
from retroprop.fix import apply
from retroprop.networks.mlp import MLP
from retroprop.sparse import Rule, SparseLinear
from retroprop.sparse.layers import SparseLayer

CASES, INPUTS, UNITS = 6, 5, 8


def reference(x: Tensor, weight: Tensor, slope: Tensor, k: int, per: str) -> tuple[Tensor, ...]:
    """Gradients of input, weight and bias, unit by unit and case by case."""
    kept = torch.zeros_like(slope)
    for case in range(len(slope)):
        sizes = slope.abs().sum(0) if per == "batch" else slope[case].abs()
        for unit in sorted(range(UNITS), key=lambda j: -sizes[j])[:k]:
            kept[case, unit] = slope[case, unit]
    return kept @ weight, kept.T @ x, kept.sum(0)


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("keep", [1, 3, 0.5, 1.0])
def test_gradients_are_those_of_the_masked_reference(keep: float, per: str):
    dense = nn.Linear(INPUTS, UNITS).double()
    sparse = SparseLinear.like(dense, Rule(keep, per))
    x = torch.randn(CASES, INPUTS, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(CASES, UNITS, dtype=torch.float64)
    y = sparse(x)
    assert torch.equal(y, dense(x))
    found = torch.autograd.grad(y, [x, sparse.weight, sparse.bias], slope)
    k = keep if isinstance(keep, int) else round(keep * UNITS)
    for one, other in zip(found, reference(x, dense.weight, slope, k, per), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("per", ["batch", "example"])
def test_keep_all_is_dense_bit_for_bit(per: str):
    x = torch.randn(16, 12)
    plain = MLP("12-10-10-4")
    fixed = apply(plain, fixes.SparseBackprop(keep=1.0, per=per)).network
    for network in (plain, fixed):
        network(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, fixed.get_parameter(name).grad)


def test_tokens_count_as_cases():
    sparse = SparseLinear(INPUTS, UNITS, keep=2, per="batch").double()
    x = torch.randn(3, 4, INPUTS, dtype=torch.float64)
    slope = torch.randn(3, 4, UNITS, dtype=torch.float64)
    whole = torch.autograd.grad(sparse(x), sparse.weight, slope)[0]
    flat = torch.autograd.grad(sparse(x.flatten(0, 1)), sparse.weight, slope.flatten(0, 1))[0]
    assert torch.allclose(whole, flat)
    assert int((whole.abs().sum(1) > 0).sum()) == 2


def test_hidden_layers_are_sparse_and_the_output_is_dense():
    network = apply(MLP("12-10-8-4"), fixes.SparseBackprop(keep=0.25)).network
    assert [layer.linear.rule.k(layer.linear.units) for layer in network.hidden] == [2, 2]
    assert type(network.output.linear) is nn.Linear


@pytest.mark.parametrize("keep", [0, 0.0, -1, 1.5, -0.5])
def test_a_share_out_of_range_is_refused(keep: float):
    with pytest.raises(RetropropError, match="expected a share 0 < keep <= 1"):
        fixes.SparseBackprop(keep=keep)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"per": "row"}, "sparse_backprop: .*Known: batch, example"),
        ({"select": "biggest"}, "sparse_backprop: .*magnitude"),
        ({"schedule": "alternating"}, "Did you mean 'alternate'"),
        ({"dense_epochs": 0}, "dense_epochs=0 was given"),
        ({"layers": "hidden.0"}, "expected NAME = KEEP"),
        ({"layers": "hidden.0 = 1.5"}, "keep=1.5 was given"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], words: str):
    with pytest.raises(RetropropError, match=words):
        fixes.SparseBackprop(**settings)


def foreign(name: str) -> nn.Module:
    if name == "resnet18":
        return torchvision.models.resnet18(num_classes=10)
    return pytest.importorskip("timm").create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)


@pytest.mark.parametrize(("name", "head", "layers"), [("resnet18", "fc", 20), ("vit", "head", 49)])
def test_every_hidden_layer_of_a_foreign_network_is_sparse(name: str, head: str, layers: int):
    torch.manual_seed(0)
    network, x = foreign(name), torch.randn(2, 3, 32, 32)
    fixed = apply(network, fixes.SparseBackprop(0.5), example=x).network
    assert list(fixed.state_dict()) == list(network.state_dict())
    sparse = {path for path, module in fixed.named_modules() if isinstance(module, SparseLayer)}
    dense = {path for path, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    assert dense - sparse == {head}
    assert len(sparse) == layers
    for module in (fixed, network):
        module.train()
        torch.manual_seed(1)
    out = fixed(x)
    out.sum().backward()
    for path in sparse:
        rows = fixed.get_submodule(path).weight.grad.flatten(1).abs().sum(1)
        assert 0 < int(rows.gt(0).sum()) <= round(0.5 * len(rows)), path


def test_layers_are_skipped_and_set_apart_by_name():
    x = torch.randn(2, 3, 32, 32)
    fix = fixes.SparseBackprop(0.5, skip="layer4, *.conv1", layers="layer1 = 0.1, layer2.0.conv2 = 3")
    fixed = apply(foreign("resnet18"), fix, example=x).network
    kinds = {path: module for path, module in fixed.named_modules() if isinstance(module, nn.Conv2d)}
    for path, module in kinds.items():
        skipped = path.startswith("layer4") or path.endswith(".conv1")
        assert isinstance(module, SparseLayer) != skipped, path
    assert kinds["layer1.0.conv2"].rule.keep == 0.1
    assert kinds["layer2.0.conv2"].rule.keep == 3
    assert kinds["layer3.0.conv2"].rule.keep == 0.5
    with pytest.raises(NothingMatched, match=r"'layer5', which no hidden layer has"):
        apply(foreign("resnet18"), fixes.SparseBackprop(skip="layer5"), example=x)
