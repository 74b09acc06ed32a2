"""Modules that need random numbers, and how a trial hands them over."""

from typing import ClassVar

import torch
from torch import Tensor, nn

# What decides which numbers a module at some path gets: its stream, and the shape of a case's numbers or,
# where the batch shares one set, of the batch's.
Draw = tuple[str, tuple[int, ...], bool]


class Keyed(nn.Module):
    """A module whose random numbers a trial draws for it, keyed by seed, stream, path and step.

    `noise` holds uniform numbers in [0, 1), one minibatch's worth: `(batch, *shape)`, or `(1, *shape)` for
    a module that draws once a batch. It is empty outside a trial, and then the module uses torch's
    generator. A module whose `shape` is None needs none.
    """

    stream: ClassVar[str]
    noise: Tensor
    shape: tuple[int, ...] | None
    per_case: bool

    def __init__(self, shape: tuple[int, ...] | None = None, per_case: bool = True) -> None:
        super().__init__()
        self.shape, self.per_case = shape, per_case
        self.register_buffer("noise", torch.empty(0), persistent=False)

    @property
    def draw(self) -> Draw:
        """What its numbers depend on besides seed, path and step; for modules that need some."""
        assert self.shape is not None
        return self.stream, self.shape, self.per_case

    def noise_shape(self, cases: int) -> tuple[int, ...]:
        """Shape of the numbers for a minibatch of so many cases."""
        assert self.shape is not None
        return (cases if self.per_case else 1, *self.shape)
