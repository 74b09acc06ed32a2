"""AdamW: Adam with weight decay that its step sizes leave alone."""

from dataclasses import dataclass, replace
from typing import final

from retroprop.errors import AlreadyApplied, RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.optim.adamw import AdamW as AdamWRule
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class AdamW(Fix):
    """AdamW instead of the 1986 rule, with a base rate of its own.

    Args:
        rate: base learning rate, which a study's grid multiplies.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: added to the root.
        weight_decay: share of each weight, times the rate, that a step takes away.

    Source: Loshchilov & Hutter 2019, algorithm 2.
    """

    rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    name = "adamw"
    paper = Paper(2017, "Loshchilov & Hutter", "Decoupled weight decay regularization", "ICLR 2019")
    stage = Stage.OPTIMIZER
    slot = "optimizer"
    edits = "1986 rule -> AdamW"

    def __post_init__(self) -> None:
        decays = 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1
        if not (self.rate > 0 and decays and self.epsilon > 0 and self.weight_decay >= 0):
            raise RetropropError(
                f"adamw was given {self}; expected rate > 0, 0 <= beta1, beta2 < 1, epsilon > 0 and "
                "weight_decay >= 0."
            )

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        rule = AdamWRule(self.rate, self.beta1, self.beta2, self.epsilon, self.weight_decay)
        if isinstance(recipe.rule, AdamWRule):
            raise AlreadyApplied("The recipe's rule is AdamW already: already there.")
        surgeon.note("optimizer", "optimizer", type(recipe.rule).__name__, "AdamW")
        return replace(recipe, rule=rule)
