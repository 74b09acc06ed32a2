"""Adam: every weight has a step size of its own."""

from dataclasses import dataclass, replace
from typing import final

from retroprop.errors import AlreadyApplied, RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.optim.adam import Adam as AdamRule
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Adam(Fix):
    """Adam instead of the 1986 rule, with a base rate of its own.

    Args:
        rate: base learning rate, which a study's grid multiplies.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        epsilon: added to the root.

    Source: Kingma & Ba 2015, algorithm 1.
    """

    rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    name = "adam"
    paper = Paper(2014, "Kingma & Ba", "Adam: a method for stochastic optimization", "ICLR 2015")
    stage = Stage.OPTIMIZER
    slot = "optimizer"
    edits = "1986 rule -> Adam"

    def __post_init__(self) -> None:
        if not (self.rate > 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.epsilon > 0):
            raise RetropropError(
                f"adam was given {self}; expected rate > 0, 0 <= beta1, beta2 < 1 and epsilon > 0."
            )

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        rule = AdamRule(self.rate, self.beta1, self.beta2, self.epsilon)
        if isinstance(recipe.rule, AdamRule):
            raise AlreadyApplied("The recipe's rule is Adam already: already there.")
        surgeon.note("optimizer", "optimizer", type(recipe.rule).__name__, "Adam")
        return replace(recipe, rule=rule)
