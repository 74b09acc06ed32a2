"""Layers with named slots, in the one order in which fixes compose."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from retroprop.stacking.dispatch import register_container
from retroprop.stacking.twins import share_elementwise

Shape = tuple[int, ...]


class NoSkip(nn.Module):
    """An empty skip slot: the layer's output passes unchanged."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Give y. x: the layer's input, y: what the layer made of it."""
        return y


class Add(nn.Module):
    """A layer's output plus its input."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Give x + y. x: the layer's input, y: what the layer made of it, both of one shape."""
        return x + y


class HiddenLayer(nn.Module):
    """Linear, norm, activation, dropout, then the skip around all four.

    The 1986 layer has only the first and the third; the other slots are empty until a fix fills them.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_shape: Shape = (in_features,)
        self.shape: Shape = (out_features,)
        self.linear: nn.Module = nn.Linear(in_features, out_features)
        self.norm: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Sigmoid()
        self.dropout: nn.Module = nn.Identity()
        self.skip: nn.Module = NoSkip()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in) -> (batch, out)."""
        return self.skip(x, self.dropout(self.activation(self.norm(self.linear(x)))))


class ConvLayer(nn.Module):
    """Convolution, norm, activation, dropout: a hidden layer whose units are pixels of maps.

    It is padded with zeros so that stride 1 keeps height and width; stride 2 halves them, rounded up.
    All pixels of a map share their weights and their bias.

    Args:
        in_shape: channels, height and width of the input.
        maps: channels of the output.
        kernel: side of the window that a unit sees, odd.
        stride: pixels from one window to the next.
        bias: whether maps have one.
        skip: whether there is a slot for a skip too; the block that the layer stands in calls it.
    """

    def __init__(
        self,
        in_shape: Shape,
        maps: int,
        kernel: int,
        *,
        stride: int = 1,
        bias: bool = True,
        skip: bool = False,
    ) -> None:
        super().__init__()
        channels, *sides = in_shape
        self.in_shape: Shape = in_shape
        self.shape: Shape = (maps, *(-(-side // stride) for side in sides))
        self.linear: nn.Module = nn.Conv2d(channels, maps, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Sigmoid()
        self.dropout: nn.Module = nn.Identity()
        if skip:
            self.skip: nn.Module = NoSkip()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *in_shape) -> (batch, *shape)."""
        return self.units(self.linear(x))

    def units(self, sums: Tensor) -> Tensor:
        """What the units make of their sums. sums: (batch, *shape) -> the same."""
        return self.dropout(self.activation(self.norm(sums)))


class OutputLayer(nn.Module):
    """Linear and activation: the unit that only a loss fix may change."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_shape: Shape = (in_features,)
        self.shape: Shape = (out_features,)
        self.linear: nn.Module = nn.Linear(in_features, out_features)
        self.activation: nn.Module = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in) -> (batch, out)."""
        return self.activation(self.linear(x))


share_elementwise(NoSkip, bounded=True)
share_elementwise(Add, bounded=True)
register_container(HiddenLayer)
register_container(ConvLayer)
register_container(OutputLayer)


@runtime_checkable
class Layered(Protocol):
    """A network that names its layers, each with `in_shape`, `shape` and a slot for every role it has."""

    def layer_paths(self) -> tuple[list[str], str]:
        """Paths of the hidden layers, in the order data flows, and of the output layer."""
        ...
