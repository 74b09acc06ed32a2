"""Convolutional networks: LeCun's of 1989, and the plain and residual nets of He et al. for CIFAR."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop.errors import RetropropError
from retroprop.networks.layer import Add, ConvLayer, HiddenLayer, OutputLayer, Shape
from retroprop.networks.start import start_rectified, start_uniformly
from retroprop.randomness import Seed
from retroprop.stacking.dispatch import register_container, twin
from retroprop.stacking.twins import SameForAll

DEPTHS = (20, 32, 44, 56)


class LeNet(nn.Module):
    """Two layers of 12 maps with 5x5 windows and stride 2, 30 hidden units, and the output units.

    Kept of 1989: the layers and their sizes (on 16x16 images: 8x8, then 4x4), no pooling, weights shared
    within a map. Not kept: there, every unit has a bias of its own, a map of the second layer sees 8 of
    the 12 maps, borders are padded with the background's -1, units are scaled tanhs, and weights start
    within 2.4 / fan-in; here they are logistic and start like those of the 1986 network.

    Args:
        shape: channels, height and width of an image.
        classes: output units.
        seed: names the start; the same seed and sizes give the same weights on every machine.
        start: half-width of the interval that the weights start in.

    Source: LeCun et al. 1989, "Backpropagation applied to handwritten zip code recognition", section 3.
    """

    def __init__(self, shape: Shape, classes: int, *, seed: Seed = 0, start: float = 0.3) -> None:
        super().__init__()
        # torch starts every layer from its global generator, which is the caller's.
        with torch.random.fork_rng(devices=[]):
            first = ConvLayer(shape, 12, 5, stride=2)
            second = ConvLayer(first.shape, 12, 5, stride=2)
            third = HiddenLayer(torch.Size(second.shape).numel(), 30)
            self.hidden = nn.ModuleList([first, second, third])
            self.flatten = nn.Flatten()
            self.output = OutputLayer(30, classes)
        start_uniformly(self, seed, start)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channel, height, width) -> (batch, class)."""
        first, second, third = self.hidden
        return self.output(third(self.flatten(second(first(x)))))

    def layer_paths(self) -> tuple[list[str], str]:
        """Paths of the hidden layers, in the order data flows, and of the output layer."""
        return [f"hidden.{i}" for i in range(len(self.hidden))], "output"


class Shortcut(nn.Module):
    """The identity where maps shrink and grow in number: every second pixel, and new maps of zeros.

    It has no parameters.

    Args:
        maps: how many maps are new.
        stride: pixels from one that is kept to the next.

    Source: He, Zhang, Ren & Sun 2015, section 3.3, option A.
    """

    def __init__(self, maps: int, stride: int) -> None:
        super().__init__()
        self.maps = maps
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., channel, height, width) -> (..., channel + maps, height / stride, width / stride)."""
        kept = x[..., :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, 0, self.maps))

    def extra_repr(self) -> str:
        return f"maps={self.maps}, stride={self.stride}"


@twin.register(Shortcut)
def _(first: Shortcut, modules: object) -> nn.Module:
    return SameForAll(first, bounded=True)


class Block(nn.Module):
    """Two convolutional layers, and a slot for a skip around them.

    Between blocks go the sums that units are given, and what units make of them. A skip adds the sums
    that enter a block to those that leave it, so nothing stands on the identity path, whatever the units
    are; without one these are two plain layers.

    Source: He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks", fig. 1 b.
    """

    def __init__(self, in_shape: Shape, maps: int, *, stride: int) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = _parts(in_shape, maps, stride, bias=True)

    def forward(self, sums: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """sums, x: of the layer below, (batch, *in_shape) -> the same of this block."""
        sums = self.second.skip(self.shortcut(sums), self.second.linear(self.first(x)))
        return sums, self.second.units(sums)


class PublishedBlock(nn.Module):
    """The residual block as first published: batch norms, rectified units, one of them behind the sum.

    Source: He, Zhang, Ren & Sun 2015, eq. 1 and fig. 2.
    """

    def __init__(self, in_shape: Shape, maps: int, *, stride: int) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = _parts(in_shape, maps, stride, bias=False)
        self.second.skip = Add()
        for layer in (self.first, self.second):
            _rectify(layer)

    def forward(self, sums: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """sums: not used; x: of the layer below, (batch, *in_shape) -> the same of this block."""
        sums = self.second.norm(self.second.linear(self.first(x)))
        sums = self.second.skip(self.shortcut(x), sums)
        return sums, self.second.dropout(self.second.activation(sums))


def _parts(in_shape: Shape, maps: int, stride: int, *, bias: bool) -> tuple[ConvLayer, ConvLayer, nn.Module]:
    """The two layers of a block, and what makes its input as large as its output."""
    first = ConvLayer(in_shape, maps, 3, stride=stride, bias=bias)
    second = ConvLayer(first.shape, maps, 3, bias=bias, skip=True)
    same = first.shape == in_shape
    return first, second, nn.Identity() if same else Shortcut(maps - in_shape[0], stride)


def _rectify(layer: ConvLayer) -> None:
    """Give a layer batch norm and rectified units, in place."""
    layer.norm, layer.activation = nn.BatchNorm2d(layer.shape[0]), nn.ReLU()


class CifarNet(nn.Module):
    """A 3x3 convolution, three groups of blocks of 16, 32 and 64 maps, a mean over pixels, the output.

    The second and third groups halve height and width at their start. There are `depth` layers with
    weights.

    Args:
        depth: 20, 32, 44 or 56.
        shape: channels, height and width of an image; 3, 32, 32 in the paper.
        classes: output units.
        seed: names the start; the same seed and sizes give the same weights on every machine.
        residual: False gives a plain net of 1986: logistic units, no norms, uniform start; fixes make of
            it what it is to be, and the residual fix adds sums before units (see `Block`). True gives
            what He et al. trained: rectified units and batch norms, no biases at convolutions, skips with
            option A, their start (2 / fan-in), and logits, which need the loss cross-entropy.
        start: half-width of the interval that the weights of a plain net start in.

    Raises:
        RetropropError: for another depth.

    Source: He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition", section 4.2.
    """

    def __init__(
        self,
        depth: int,
        shape: Shape,
        classes: int,
        *,
        seed: Seed = 0,
        residual: bool = False,
        start: float = 0.3,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise RetropropError(f"depth={depth!r} was given; expected one of {DEPTHS}.")
        with torch.random.fork_rng(devices=[]):
            stem = ConvLayer(shape, 16, 3, bias=not residual)
            if residual:
                _rectify(stem)
            layers: list[nn.Module] = [stem]
            into = stem.shape
            for maps in (16, 32, 64):
                for i in range((depth - 2) // 6):
                    stride = 2 if i == 0 and maps > 16 else 1
                    block = (PublishedBlock if residual else Block)(into, maps, stride=stride)
                    into = block.second.shape
                    layers.append(block)
            self.hidden = nn.ModuleList(layers)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.flatten = nn.Flatten()
            self.output = OutputLayer(64, classes)
        if residual:
            self.output.activation = nn.Identity()
            start_rectified(self, seed)
        else:
            start_uniformly(self, seed, start)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channel, height, width) -> (batch, class)."""
        stem, *blocks = self.hidden
        sums = cast(ConvLayer, stem).linear(x)
        x = cast(ConvLayer, stem).units(sums)
        for block in blocks:
            sums, x = block(sums, x)
        return self.output(self.flatten(self.pool(x)))

    def layer_paths(self) -> tuple[list[str], str]:
        """Paths of the hidden layers, in the order data flows, and of the output layer."""
        blocks = range(1, len(self.hidden))
        inside = [f"hidden.{i}.{layer}" for i in blocks for layer in ("first", "second")]
        return ["hidden.0", *inside], "output"


for _kind in (LeNet, Block, PublishedBlock, CifarNet):
    register_container(_kind)
