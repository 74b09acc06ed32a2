"""Batch normalisation: every unit's input gets mean 0 and variance 1 over the minibatch."""

from dataclasses import dataclass
from typing import final

from torch import nn

from retroprop.errors import RetropropError
from retroprop.fix import ModelFix, Paper, Stage
from retroprop.surgery import Site, Surgeon


@final
@dataclass(frozen=True)
class BatchNorm(ModelFix):
    """Normalises between linear layer and activation, with a learned scale and shift.

    Args:
        eps: added to the variance.
        momentum: share of the newest batch in the running statistics that evaluation uses.

    Source: Ioffe & Szegedy 2015, algorithm 1 and section 3.2.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    name = "batch_norm"
    paper = Paper(
        2015,
        "Ioffe & Szegedy",
        "Batch normalization: accelerating deep network training by reducing internal covariate shift",
        "ICML 2015",
    )
    stage = Stage.NORM
    slot = "norm"
    edits = "between hidden linear layers and activations"

    def __post_init__(self) -> None:
        if not (self.eps > 0 and 0 < self.momentum <= 1):
            raise RetropropError(
                f"batch_norm was given eps={self.eps}, momentum={self.momentum}; expected eps > 0 and "
                "0 < momentum <= 1."
            )

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("norm", self._norm)
        return surgeon.network

    def _norm(self, site: Site) -> nn.Module | None:
        if len(site.shape) == 1:
            return nn.BatchNorm1d(site.features, eps=self.eps, momentum=self.momentum)
        # A linear layer of tokens or pixels has none: it would mix positions.
        kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
        kind = kinds.get(len(site.shape)) if site.channels_first else None
        return kind(site.features, eps=self.eps, momentum=self.momentum) if kind else None
