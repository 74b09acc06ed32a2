"""Networks by name: layer sizes such as `64-64-10`, or one of the convolutional networks."""

import math
from collections.abc import Callable
from functools import partial

from torch import nn

from retroprop.errors import RetropropError, UnknownName
from retroprop.networks.convnet import DEPTHS, CifarNet, LeNet
from retroprop.networks.layer import Shape
from retroprop.networks.mlp import MLP, parse_sizes
from retroprop.randomness import Seed

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet": LeNet,
    **{f"plain{depth}": partial(CifarNet, depth) for depth in DEPTHS},
    **{f"resnet{depth}": partial(CifarNet, depth, residual=True) for depth in DEPTHS},
}


def network_names() -> tuple[str, ...]:
    """Names of all networks that have one."""
    return tuple(_NETWORKS)


def is_sizes(name: str) -> bool:
    """Whether a network is given by its layers' sizes, not by a name."""
    return not name[:1].isalpha()


def check_name(name: str) -> None:
    """Whether there is such a network.

    Raises:
        UnknownName: when it is no sizes, and no network has that name.
    """
    if not is_sizes(name) and name not in _NETWORKS:
        raise UnknownName("network", name, _NETWORKS)


def check(name: str, shape: Shape, classes: int) -> None:
    """Whether there is such a network, and it fits the data.

    Args:
        name: sizes joined by hyphens, or one of `network_names()`.
        shape: channels, height and width of an image.
        classes: of the images.

    Raises:
        UnknownName: when no network has that name.
        RetropropError: when it has other inputs or outputs than the data.
    """
    check_name(name)
    if not is_sizes(name):
        return
    sizes = parse_sizes(name)
    pixels = math.prod(shape)
    if (sizes[0], sizes[-1]) != (pixels, classes):
        raise RetropropError(
            f"The network {name} takes {sizes[0]} inputs and gives {sizes[-1]} outputs; the data have "
            f"{pixels} pixels and {classes} classes. Give a network such as {pixels}-64-{classes}."
        )


def build(name: str, shape: Shape, classes: int, seed: Seed = 0) -> nn.Module:
    """A network by name, for images `(batch, *shape)`; see `check`."""
    check(name, shape, classes)
    return MLP(name, seed=seed) if is_sizes(name) else _NETWORKS[name](shape, classes, seed=seed)
