"""What surgery knows of a network: its layers, and where each layer's roles are.

A layer is what one parameter layer begins: linear, norm, activation, dropout, and the skip around
all four.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor, nn

from retroprop.networks.layer import Layered
from retroprop.stacking.dispatch import register_container

Role = Literal["linear", "norm", "activation", "dropout", "skip"]
ROLES: tuple[Role, ...] = get_args(Role)


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
    """

    layers: list[Layer]
    functional: list[str] = field(default_factory=list)
    functional_output: list[str] = field(default_factory=list)


def named_layers(network: Layered) -> Anatomy:
    """The anatomy of a network that names its own layers."""
    hidden, output = network.layer_paths()
    layers = []
    for path in (*hidden, output):
        module = network.get_submodule(path)  # type: ignore[attr-defined]
        linear = module.linear
        roles = [role for role in ROLES if role in dict(module.named_children())]
        layers.append(
            Layer(
                name=path,
                paths={role: (f"{path}.{role}",) for role in roles},
                in_shape=(linear.in_features,),
                shape=(linear.out_features,),
                output=path == output,
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
