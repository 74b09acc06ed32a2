"""What sparse layers save: counted products, and whether that can be seen on a clock."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retroprop.sparse.layers import SparseLayer
from retroprop.sparse.paths import gathers

# Choosing and moving units costs about what so many operations cost, measured: docs/performance.md.
WORTH = 10_000_000


@dataclass(frozen=True)
class Saving:
    """One layer.

    name: in the network. units: of the layer. kept: the most that a sparse backward pass keeps.
    flops: of its dense backward pass, both products. density: share of them that is done now.
    gathered: whether products run over the kept units alone; see `gathers`.
    """

    name: str
    units: int
    kept: int
    flops: int
    density: float
    gathered: bool

    def gains(self, times: float = 1) -> bool:
        """Whether a sparse backward pass is faster, and not only on paper; with `times` the minibatch."""
        return self.gathered and times * self.flops * (1 - self.kept / self.units) > WORTH


def savings(network: nn.Module, *inputs: Tensor) -> list[Saving]:
    """What every sparse layer of a network saves in one backward pass.

    Args:
        network: it is left as it is; its layers count as they are now, see `begin_epoch`.
        inputs: a minibatch.
    """
    if not sparse_layers(network):
        return []
    network = copy.deepcopy(network).train()
    outputs: dict[str, int] = {}
    for name, layer in sparse_layers(network).items():
        layer.register_forward_hook(_counting(outputs, name))
    with torch.no_grad():
        network(*inputs)
    return [_saving(name, layer, outputs.get(name, 0)) for name, layer in sparse_layers(network).items()]


def sparse_layers(network: nn.Module) -> dict[str, SparseLayer]:
    """Sparse layers by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, SparseLayer)}


def backward_flops(layer: SparseLayer, outputs: int) -> int:
    """Operations of a dense backward pass over so many output numbers: both products."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return 2 * 2 * outputs * weight[0].numel()


def saved_share(savings: list[Saving]) -> float:
    """Share of the sparse layers' backward products that is left out."""
    whole = sum(one.flops for one in savings)
    return sum(one.flops * (1 - one.density) for one in savings) / whole if whole else 0.0


def _saving(name: str, layer: SparseLayer, outputs: int) -> Saving:
    kept = layer.rule.k(layer.units)
    groups, inputs = (layer.groups, layer.in_channels) if isinstance(layer, nn.Conv2d) else (1, 0)
    gathered = gathers(layer.rule, layer.units, groups, inputs)
    return Saving(name, layer.units, kept, backward_flops(layer, outputs), layer.density(), gathered)


def _counting(outputs: dict[str, int], name: str) -> Any:
    def count(module: nn.Module, given: Any, out: Tensor) -> None:
        outputs[name] = outputs.get(name, 0) + out.numel()

    return count
