"""Sparse back-propagation: only the k strongest error signals of a layer go back."""

from dataclasses import dataclass
from typing import final

from torch import nn

from retroprop.errors import RetropropError
from retroprop.fix import ModelFix, Paper, Stage
from retroprop.sparse.linear import SparseLinear
from retroprop.sparse.selection import Per
from retroprop.surgery import Site, Surgeon


@final
@dataclass(frozen=True)
class SparseBackprop(ModelFix):
    """The backward pass of every hidden linear layer keeps k output units; the output layer is dense.

    Args:
        keep: share of a layer's units that is kept, in (0, 1]; an int is their number, so `1` keeps one
            unit and `1.0` keeps all.
        per: "batch" keeps one set of units for the minibatch, "example" one for every case.

    Source: Sun, Ren, Ma & Wang 2017, section 2.
    """

    keep: float = 0.25
    per: Per = "batch"

    name = "sparse_backprop"
    paper = Paper(
        2017,
        "Sun, Ren, Ma & Wang",
        "meProp: sparsified back propagation for accelerated deep learning with reduced overfitting",
        "ICML 2017",
    )
    stage = Stage.KERNEL
    slot = "backward"
    edits = "hidden linear layers -> SparseLinear"
    neutral = {"keep": 1.0}  # noqa: RUF012 - typed in Fix

    def __post_init__(self) -> None:
        share = isinstance(self.keep, float) and 0 < self.keep <= 1
        count = isinstance(self.keep, int) and self.keep >= 1
        if not (share or count):
            raise RetropropError(
                f"sparse_backprop was given keep={self.keep}; expected a share 0 < keep <= 1, or a whole "
                "number of units of at least 1."
            )
        if self.per not in ("batch", "example"):
            raise RetropropError(
                f"sparse_backprop was given per={self.per!r}; expected 'batch' or 'example'."
            )

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("linear", self._sparse)
        return surgeon.network

    def _sparse(self, site: Site) -> nn.Module | None:
        if type(site.module) is not nn.Linear:
            return None
        return SparseLinear.like(site.module, keep=self.keep, per=self.per)
