"""Residual connections: a layer learns what to add to its input."""

from dataclasses import dataclass
from typing import final

from torch import nn

from retroprop.fix import ModelFix, Paper, Stage
from retroprop.networks.layer import Add
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Residual(ModelFix):
    """An identity path around every hidden layer whose input and output have one shape.

    The skip goes around linear layer, norm, activation and dropout, so nothing stands on the identity
    path; the paper's block has two layers and an activation behind the sum. A network that names blocks of
    layers, such as `plain20`, says where the skip goes.

    Source: He, Zhang, Ren & Sun 2015, eq. 1; the free identity path is He et al. 2016, section 3.
    """

    name = "residual"
    paper = Paper(
        2015,
        "He, Zhang, Ren & Sun",
        "Deep residual learning for image recognition",
        "CVPR 2016, arXiv:1512.03385",
    )
    stage = Stage.SKIP
    slot = "skip"
    edits = "around hidden layers that keep their shape"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("skip", lambda site: Add() if site.in_shape == site.shape else None)
        return surgeon.network
