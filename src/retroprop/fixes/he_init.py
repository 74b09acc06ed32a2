"""He initialisation: weights start at the size that keeps a ReLU network's signal alive."""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from retroprop.fix import ModelFix, Paper, Stage
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class HeInit(ModelFix):
    """Weights from a normal distribution with variance 2 / fan-in; biases 0.

    Source: He, Zhang, Ren & Sun 2015 (rectifiers), eq. 10.
    """

    name = "he_init"
    paper = Paper(
        2015,
        "He, Zhang, Ren & Sun",
        "Delving deep into rectifiers: surpassing human-level performance on ImageNet classification",
        "ICCV 2015, arXiv:1502.01852",
    )
    stage = Stage.INIT
    slot = "init"
    edits = "start of all linear layers"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.restart("linear", _start)
        return surgeon.network


def _start(module: nn.Module, generator: torch.Generator) -> None:
    weight = module.get_parameter("weight")
    # Drawn in float32 on the CPU, so that a start does not depend on dtype or device.
    draw = torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5
    weight.copy_(draw)
    bias = dict(module.named_parameters()).get("bias")
    if bias is not None:
        bias.zero_()
