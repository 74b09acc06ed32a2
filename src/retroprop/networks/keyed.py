"""Modules that need random numbers, and how a trial hands them over."""

from typing import ClassVar

import torch
from torch import Tensor, nn


class Keyed(nn.Module):
    """A module whose random numbers a trial draws for it, keyed by seed, stream, path and step.

    `noise` holds uniform numbers in [0, 1), one minibatch's worth: `(batch, *shape)`. It is empty
    outside a trial, and then the module uses torch's generator.
    """

    stream: ClassVar[str]
    noise: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("noise", torch.empty(0), persistent=False)
