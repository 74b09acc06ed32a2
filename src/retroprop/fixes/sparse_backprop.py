"""Sparse back-propagation: only the k strongest error signals of a layer go back."""

from dataclasses import dataclass
from typing import final

from torch import nn

from retroprop.errors import NothingMatched, RetropropError
from retroprop.fix import ModelFix, Paper, Stage
from retroprop.sparse.layers import SparseConv2d, SparseLayer, SparseLinear
from retroprop.sparse.patterns import fits, keeps, listed
from retroprop.sparse.schedule import Kind, Schedule
from retroprop.sparse.selection import Per, Rule, Select
from retroprop.surgery import Site, Surgeon

_KINDS: dict[type, type[SparseLayer]] = {nn.Linear: SparseLinear, nn.Conv2d: SparseConv2d}


@final
@dataclass(frozen=True)
class SparseBackprop(ModelFix):
    """The backward pass of hidden linear layers and convolutions keeps k output units or channels.

    Args:
        keep: share of a layer's units that is kept, in (0, 1]; an int is their number, so `1` keeps one
            unit and `1.0` keeps all.
        per: "batch" keeps one set of units for the minibatch, "example" one for every case.
        select: "magnitude", "random", "importance" or "variance"; see `retroprop.sparse.Rule`.
        schedule: "constant"; "warm_up", dense for the first `dense_epochs`; "alternate", so many dense
            epochs, then as many sparse ones.
        dense_epochs: see `schedule`.
        block: units are kept in blocks of so many neighbours.
        dense_bias: whether biases get the gradient of all units.
        skip: layers that stay dense, by name or by what holds them, * for any letters: "layer4, *.conv1".
        layers: another keep for some layers: "layer1 = 0.5, layer2 = 0.1"; the first that fits counts.

    Source: Sun, Ren, Ma & Wang 2017, section 2; for convolutions Zhong, Huang & Shi 2024.
    """

    keep: float = 0.25
    per: Per = "batch"
    select: Select = "magnitude"
    schedule: Kind = "constant"
    dense_epochs: int = 1
    block: int = 1
    dense_bias: bool = False
    skip: str = ""
    layers: str = ""

    name = "sparse_backprop"
    paper = Paper(
        2017,
        "Sun, Ren, Ma & Wang",
        "meProp: sparsified back propagation for accelerated deep learning with reduced overfitting",
        "ICML 2017",
    )
    stage = Stage.KERNEL
    slot = "backward"
    edits = "hidden linear layers and convolutions -> sparse ones"
    neutral = {"keep": 1.0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        try:
            self._rule(self.keep)
            Schedule(self.schedule, self.dense_epochs)
            listed(self.skip)
            for _, keep in keeps(self.layers):
                self._rule(keep)
        except RetropropError as error:
            error.args = (f"sparse_backprop: {error}",)
            raise

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        kinds = {site.name: type(site.module) for site in surgeon.sites("linear")}
        wanted = [pattern for pattern, _ in keeps(self.layers)]
        for pattern in ["*", *listed(self.skip), *wanted]:
            found = {name: kind for name, kind in kinds.items() if fits(name, pattern)}
            if kinds and not found:
                raise NothingMatched(
                    f"sparse_backprop was given the layer name {pattern!r}, which no hidden layer has. "
                    f"They are: {', '.join(kinds)}."
                )
            if found and pattern in ("*", *wanted) and not _KINDS.keys() & set(found.values()):
                held = ", ".join(sorted({kind.__name__ for kind in found.values()}))
                raise NothingMatched(
                    f"sparse_backprop swaps Linear and Conv2d; at {pattern!r} it found {held} alone."
                )
        surgeon.fill("linear", self._sparse)
        return surgeon.network

    def _rule(self, keep: float) -> Rule:
        return Rule(keep, self.per, self.select, self.block)

    def _sparse(self, site: Site) -> nn.Module | None:
        kind = _KINDS.get(type(site.module))
        if site.module is None or kind is None or any(fits(site.name, one) for one in listed(self.skip)):
            return None
        keep = next((keep for pattern, keep in keeps(self.layers) if fits(site.name, pattern)), self.keep)
        return kind.like(
            site.module,
            self._rule(keep),
            dense_bias=self.dense_bias,
            schedule=Schedule(self.schedule, self.dense_epochs),
            tokens=() if site.channels_first else site.shape[:-1],
        )
