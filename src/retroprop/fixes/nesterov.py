"""Nesterov's momentum: the gradient corrects the place that momentum leads to."""

from dataclasses import dataclass, replace
from typing import final

from retroprop.errors import AlreadyApplied, RetropropError
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.optim.sgd import SGD
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class Nesterov(Fix):
    """Nesterov's accelerated gradient instead of the 1986 rule.

    Args:
        rate: base learning rate, which a study's grid multiplies.
        momentum: share of the velocity that is kept.

    Source: Sutskever, Martens, Dahl & Hinton 2013, eq. 3 and 4.
    """

    rate: float = 0.1
    momentum: float = 0.9

    name = "nesterov"
    paper = Paper(
        2013,
        "Sutskever, Martens, Dahl & Hinton",
        "On the importance of initialization and momentum in deep learning",
        "ICML 2013",
    )
    stage = Stage.OPTIMIZER
    slot = "optimizer"
    edits = "1986 rule -> Nesterov's momentum"

    def __post_init__(self) -> None:
        if not (self.rate > 0 and 0 < self.momentum < 1):
            raise RetropropError(
                f"nesterov was given rate={self.rate}, momentum={self.momentum}; expected rate > 0 and "
                "0 < momentum < 1."
            )

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        if isinstance(recipe.rule, SGD) and recipe.rule.nesterov:
            raise AlreadyApplied("The recipe's rule is Nesterov's momentum already: already there.")
        surgeon.note("optimizer", "optimizer", type(recipe.rule).__name__, "SGD, nesterov")
        return replace(recipe, rule=SGD(self.rate, self.momentum, nesterov=True))
