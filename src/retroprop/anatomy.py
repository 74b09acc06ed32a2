"""What surgery knows of a network: its layers, and where each layer's roles are.

A layer is what one parameter layer begins: linear, norm, activation, dropout, and the skip around
all four. Here too is what tells one role from another: a module's kind, and where its tensors go.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from retroprop.networks.layer import Layered
from retroprop.stacking.dispatch import register_container
from retroprop.stacking.keyed import Keyed

Role = Literal["linear", "norm", "activation", "dropout", "skip"]
ROLES: tuple[Role, ...] = get_args(Role)

_NOT_ELEMENTWISE = ("GLU", "LogSoftmax", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin")
_ACTIVATIONS: tuple[type[nn.Module], ...] = tuple(
    getattr(torch_activations, name) for name in torch_activations.__all__ if name not in _NOT_ELEMENTWISE
)
_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear, _ConvNd),
    "norm": (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    "dropout": (_DropoutNd,),
    "distribution": (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d),
    "activation": _ACTIVATIONS,
}


@dataclass
class Layer:
    """Where one layer's roles are now. An absent role has no module yet.

    name: the path before any fix of what begins the layer.
    in_shape, shape: of its parameter layer's input and output, without the batch dimension;
        `shapes` has those of other roles where they differ.
    output: it gives the network's output.
    loose_activation: its activation is not fed by it directly, as behind the sum of a residual
        block.
    channels_first: its units are the first dimension of its shape, as a convolution's, not the last.
    span: paths of neighbours in one `nn.Sequential` that are the whole layer, so that a skip can go
        around them.
    """

    name: str
    paths: dict[Role, tuple[str, ...]]
    in_shape: tuple[int, ...]
    shape: tuple[int, ...]
    output: bool = False
    loose_activation: bool = False
    channels_first: bool = False
    shapes: dict[Role, tuple[int, ...]] = field(default_factory=dict)
    span: tuple[str, ...] = ()

    def shape_at(self, role: Role) -> tuple[int, ...]:
        """The shape, without the batch dimension, of what a role's module gives."""
        behind: tuple[Role, ...] = ("dropout", "activation") if role in ("dropout", "skip") else (role,)
        return next((self.shapes[one] for one in behind if one in self.shapes), self.shape)


@dataclass
class Anatomy:
    """All layers of a network in the order data flows, and what surgery cannot see.

    functional, functional_output: activations that a forward method calls as functions, in hidden
        layers and at the output.
    example: the batch that showed it.
    """

    layers: list[Layer]
    functional: list[str] = field(default_factory=list)
    functional_output: list[str] = field(default_factory=list)
    example: Tensor | None = None


def named_layers(network: Layered) -> Anatomy:
    """The anatomy of a network that names its own layers."""
    hidden, output = network.layer_paths()
    layers = []
    for path in (*hidden, output):
        module = network.get_submodule(path)  # type: ignore[attr-defined]
        roles = [role for role in ROLES if role in dict(module.named_children())]
        layers.append(
            Layer(
                name=path,
                paths={role: (f"{path}.{role}",) for role in roles},
                in_shape=module.in_shape,
                shape=module.shape,
                output=path == output,
                channels_first=isinstance(module.linear, _ConvNd),
            )
        )
    return Anatomy(layers)


def join(prefix: str, name: str) -> str:
    """The path of a child."""
    return f"{prefix}.{name}" if prefix else name


class SkipBlock(nn.Module):
    """Neighbours from a foreign `nn.Sequential` under their old keys, and the skip around them."""

    def __init__(self, inner: nn.Sequential, skip: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, ...) -> what the skip makes of x and inner(x)."""
        return self.skip(x, self.inner(x))


register_container(SkipBlock)


def kind_of(module: nn.Module, in_shape: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """The role that a module plays: linear, norm, activation, dropout, distribution, or none."""
    for kind, types in _KINDS.items():
        if isinstance(module, types):
            return kind
    if isinstance(module, Keyed) and module.stream == "dropout":
        return "dropout"
    plain = passes(module) and not any(True for _ in module.buffers())
    torch_own = type(module).__module__.startswith("torch.nn.modules")
    if plain and not torch_own and in_shape == shape and shape and _bends(module, shape):
        return "activation"
    return ""


def passes(module: nn.Module) -> bool:
    """Whether what a module gives is still its layer's: a leaf without parameters, as pooling."""
    return not any(True for _ in module.children()) and not any(True for _ in module.parameters())


def _bends(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a module of unknown type works element by element and is not linear.

    Seen by trying: it must commute with a permutation of the elements, and its value half-way
    between two batches must differ from half the sum of its values.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, *shape), generator=generator)
    order = torch.randperm(x.numel(), generator=generator)
    moved = x.flatten()[order].view_as(x)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            at_x, at_moved = module.forward(x.clone()), module.forward(moved.clone())
            between = module.forward((x + moved) / 2)
    except Exception:
        return False
    if not isinstance(at_x, Tensor) or at_x.shape != x.shape:
        return False
    commutes = torch.allclose(at_x.flatten()[order].view_as(x), at_moved, atol=1e-6)
    return commutes and not torch.allclose(between, (at_x + at_moved) / 2, atol=1e-3)


def slots_of(network: nn.Module) -> dict[int, list[str]]:
    """Every place of every module, one path each; a parent that stands twice counts once."""
    slots: dict[int, list[str]] = {id(network): [""]}
    seen: set[tuple[int, str]] = set()
    for path, module in network.named_modules(remove_duplicate=False):
        for name, child in module._modules.items():
            if child is not None and (id(module), name) not in seen:
                seen.add((id(module), name))
                slots.setdefault(id(child), []).append(join(path, name))
    return slots


_GUESSED_SIZES = (64, 224, 32, 28)
# Steps of autograd's graph between a gate and the product: its shape alone, or 1 - gate.
_GATE_STEPS = (
    "View",
    "UnsafeView",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Expand",
    "Permute",
    "Transpose",
    "Rsub",
)


def nodes_of(value: Any) -> list[Any]:
    """Of autograd's graph, what gave each tensor in a nest of tuples, mappings and dataclasses."""
    if isinstance(value, Tensor):
        return [value.grad_fn] if value.grad_fn is not None else []
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (tuple, list, set)):
        return []
    return [node for one in value for node in nodes_of(one)]


class Flow:
    """What autograd's graph of a run shows.

    at_output: nodes from which a returned tensor is reached without another parameter layer between.
    inner: nodes that reach a parameter layer.
    """

    def __init__(self, returned: list[Any], linear: list[Any]) -> None:
        self.readers: dict[Any, list[Any]] = {}
        self.at_output = self._below(returned, set(linear))
        below = [deeper for node in linear for deeper, _ in node.next_functions if deeper is not None]
        self.inner = self._below(below, set())
        for node in self.at_output | self.inner:
            for deeper, _ in node.next_functions:
                self.readers.setdefault(deeper, []).append(node)

    def _below(self, roots: list[Any], last: set[Any]) -> set[Any]:
        found, todo = set(roots), list(roots)
        while todo:
            node = todo.pop()
            deeper = {one for one, _ in node.next_functions if one is not None} if node not in last else set()
            todo += deeper - found
            found |= deeper
        return found

    def factors(self, node: Any) -> list[Any]:
        """What a node is multiplied with, if nothing else reads it; empty if anything does."""
        found = []
        for reader in self.readers.get(node, []):
            name = type(reader).__name__
            others = [one for one, _ in reader.next_functions if one is not node]
            if name.startswith(_GATE_STEPS):
                further = self.factors(reader)
            elif name.startswith("MulBackward"):
                # A number or a parameter only scales.
                further = [
                    one for one in others if one is not None and "AccumulateGrad" not in type(one).__name__
                ]
            else:
                further = []
            if not further:
                return []
            found += further
        return found


def guesses(network: nn.Module) -> Iterator[Tensor]:
    """Batches of two cases that the first parameter layer would take."""
    for module in network.modules():
        if not isinstance(module, (nn.Linear, _ConvNd)):
            continue
        generator = torch.Generator().manual_seed(0)
        if isinstance(module, nn.Linear):
            shapes: list[tuple[int, ...]] = [(2, module.in_features)]
        else:
            sides = _GUESSED_SIZES if module.weight.ndim < 5 else (16,)
            shapes = [(2, module.in_channels, *[side] * (module.weight.ndim - 2)) for side in sides]
        for shape in shapes:
            yield torch.randn(shape, generator=generator).to(module.weight)
        return
