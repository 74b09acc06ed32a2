"""The 1986 network: layers of logistic units, trained by back-propagating errors."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retroprop.errors import RetropropError
from retroprop.networks.layer import HiddenLayer, OutputLayer
from retroprop.networks.start import start_uniformly
from retroprop.randomness import Seed
from retroprop.stacking.dispatch import register_container


class MLP(nn.Module):
    """Fully connected logistic units, every parameter started uniformly in (-start, start).

    A bias is a weight from a unit that is always on, so it starts like any other weight.

    Args:
        sizes: units of each layer from input to output, as `(64, 32, 10)` or `"64-32-10"`.
        seed: names the start; the same seed and sizes give the same weights on every machine.
        start: half-width of the interval that the weights start in.
        direct_links: the output units also see the input (the XOR network of PDP, p. 331).

    Raises:
        RetropropError: when the sizes are not two or more positive integers.

    Source: Rumelhart, Hinton & Williams 1986, eq. 1 and 2; start from the symmetry experiment.
    """

    def __init__(
        self,
        sizes: Sequence[int] | str,
        *,
        seed: Seed = 0,
        start: float = 0.3,
        direct_links: bool = False,
    ) -> None:
        super().__init__()
        units = parse_sizes(sizes)
        self.direct_links = direct_links
        self.flatten = nn.Flatten()
        into_output = units[-2] + (units[0] if direct_links and len(units) > 2 else 0)
        # torch starts every Linear from its global generator, which is the caller's.
        with torch.random.fork_rng(devices=[]):
            self.hidden = nn.ModuleList(HiddenLayer(a, b) for a, b in itertools.pairwise(units[:-1]))
            self.output = OutputLayer(into_output, units[-1])
        start_uniformly(self, seed, start)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in) or images (batch, ..., in) -> (batch, out)."""
        x = self.flatten(x)
        y = x
        for layer in self.hidden:
            y = layer(y)
        if self.direct_links and len(self.hidden):
            y = torch.cat((y, x.expand(y.shape[0], *x.shape[1:])), dim=1)
        return self.output(y)

    def layer_paths(self) -> tuple[list[str], str]:
        """Paths of the hidden layers, in the order data flows, and of the output layer."""
        return [f"hidden.{i}" for i in range(len(self.hidden))], "output"


register_container(MLP)


def parse_sizes(sizes: Sequence[int] | str) -> tuple[int, ...]:
    """Layer sizes as integers.

    Raises:
        RetropropError: when they are not two or more positive integers.
    """
    parts = sizes.split("-") if isinstance(sizes, str) else list(sizes)
    units = [int(part) if str(part).strip().isdecimal() else 0 for part in parts]
    if len(units) < 2 or min(units) < 1:
        raise RetropropError(
            f"Network sizes {sizes!r} were given; expected two or more positive integers from input "
            "to output, such as '64-32-10'."
        )
    return tuple(units)
