"""How the parameters of a network start: by seed and name, so alike on every machine."""

import torch
from torch import nn

from retroprop.randomness import Seed, derived_seed, uniforms


def start_uniformly(network: nn.Module, seed: Seed, half_width: float) -> None:
    """Start every parameter uniformly in (-half_width, half_width), in place.

    A bias is a weight from a unit that is always on, so it starts like any other weight.

    Source: the symmetry experiment of Rumelhart, Hinton & Williams 1986.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            draw = uniforms(tuple(parameter.shape), seed, "start", name)
            parameter.copy_((2 * draw - 1) * half_width)


def start_rectified(network: nn.Module, seed: Seed) -> None:
    """Start weights from a normal distribution of variance 2 / fan-in and their biases at 0, in place.

    What has no weight of two or more dimensions, such as a norm, keeps its start.

    Source: He, Zhang, Ren & Sun 2015 (rectifiers), eq. 10.
    """
    with torch.no_grad():
        for path, module in network.named_modules():
            own = dict(module.named_parameters(recurse=False))
            weight, bias = own.get("weight"), own.get("bias")
            if weight is None or weight.ndim < 2:
                continue
            generator = torch.Generator().manual_seed(derived_seed(seed, "start", f"{path}.weight"))
            draw = torch.randn(weight.shape, generator=generator)
            weight.copy_(draw * (2 / weight[0].numel()) ** 0.5)
            if bias is not None:
                bias.zero_()
