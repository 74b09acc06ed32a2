"""Layers with named slots, in the one order in which fixes compose."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from retroprop.stacking.dispatch import register_container
from retroprop.stacking.twins import share_elementwise


class NoSkip(nn.Module):
    """An empty skip slot: the layer's output passes unchanged."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Give y. x: the layer's input, y: what the layer made of it."""
        return y


class HiddenLayer(nn.Module):
    """Linear, norm, activation, dropout, then the skip around all four.

    The 1986 layer has only the first and the third; the other slots are empty until a fix fills them.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear: nn.Module = nn.Linear(in_features, out_features)
        self.norm: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Sigmoid()
        self.dropout: nn.Module = nn.Identity()
        self.skip: nn.Module = NoSkip()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in) -> (batch, out)."""
        return self.skip(x, self.dropout(self.activation(self.norm(self.linear(x)))))


class OutputLayer(nn.Module):
    """Linear and activation: the unit that only a loss fix may change."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear: nn.Module = nn.Linear(in_features, out_features)
        self.activation: nn.Module = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in) -> (batch, out)."""
        return self.activation(self.linear(x))


share_elementwise(NoSkip, bounded=True)
register_container(HiddenLayer)
register_container(OutputLayer)


@runtime_checkable
class Layered(Protocol):
    """A network that names its layers: the paths of `HiddenLayer`s in order, and the output's."""

    def layer_paths(self) -> tuple[list[str], str]:
        """Paths of the hidden layers, in the order data flows, and of the output layer."""
        ...
