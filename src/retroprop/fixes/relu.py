"""ReLU: a unit that does not saturate when it is on."""

from dataclasses import dataclass
from typing import final

from torch import nn

from retroprop.fix import ModelFix, Paper, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class ReLU(ModelFix):
    """Hidden units give max(0, x): the slope is 1 wherever the unit is on.

    Source: Glorot, Bordes & Bengio 2011; Nair & Hinton 2010 brought it to Boltzmann machines.
    """

    name = "relu"
    paper = Paper(
        2010,
        "Nair & Hinton",
        "Rectified linear units improve restricted Boltzmann machines",
        "ICML 2010",
    )
    stage = Stage.ACTIVATION
    slot = "activation"
    edits = "hidden activations -> ReLU"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: nn.ReLU())
        return surgeon.network
