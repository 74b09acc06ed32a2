"""In which epochs the backward pass is sparse."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from retroprop.errors import RetropropError, UnknownName

Kind = Literal["constant", "warm_up", "alternate"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Schedule:
    """Which epochs are sparse: all, all but the first, or every other.

    kind: "constant"; "warm_up", dense for the first `dense_epochs`; "alternate", so many dense epochs, then
        as many sparse ones, and so on.
    dense_epochs: at least 1; not used by "constant".

    Source: Zhong, Huang & Shi 2024 (ssProp), the schedule that alternates by epoch.
    """

    kind: Kind = "constant"
    dense_epochs: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("schedule", self.kind, KINDS)
        if (
            isinstance(self.dense_epochs, bool)
            or not isinstance(self.dense_epochs, int)
            or self.dense_epochs < 1
        ):
            raise RetropropError(f"dense_epochs={self.dense_epochs!r} was given; expected at least 1.")

    def sparse(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is sparse."""
        if self.kind == "warm_up":
            return epoch >= self.dense_epochs
        return self.kind == "constant" or epoch // self.dense_epochs % 2 == 1


CONSTANT = Schedule()


class Scheduled(nn.Module):
    """A layer that is sparse in some epochs and dense in the others."""

    schedule: Schedule = CONSTANT
    sparse_now: bool = True


def begin_epoch(network: nn.Module, epoch: int) -> None:
    """Make every sparse layer of a network sparse or dense, as its schedule says of an epoch from 0 on."""
    for module in network.modules():
        if isinstance(module, Scheduled):
            module.sparse_now = module.schedule.sparse(epoch)


def phase(network: nn.Module, epoch: int) -> tuple[bool, ...]:
    """What `begin_epoch` would make of the layers whose schedule is not constant, in order."""
    return tuple(
        module.schedule.sparse(epoch)
        for module in network.modules()
        if isinstance(module, Scheduled) and module.schedule.kind != "constant"
    )
