"""Tanh: a sigmoid whose output is centred on zero."""

from dataclasses import dataclass
from typing import final

from torch import nn

from retroprop.fix import ModelFix, Paper, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Tanh(ModelFix):
    """Hidden units give tanh(x): centred on zero, with a slope of 1 at the origin instead of 1/4.

    The paper recommends 1.7159 tanh(2x/3), whose value at 1 is 1; here it is plain tanh, as most later
    networks have it.

    Source: LeCun, Bottou, Orr & Mueller 1998, section 4.4.
    """

    name = "tanh"
    paper = Paper(
        1998, "LeCun, Bottou, Orr & Müller", "Efficient BackProp", "Neural Networks: Tricks of the Trade"
    )
    stage = Stage.ACTIVATION
    slot = "activation"
    edits = "hidden activations -> tanh"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: nn.Tanh())
        return surgeon.network
