"""Cross-entropy: the error signal of a wrong, saturated output does not vanish."""

from dataclasses import dataclass, replace
from typing import final

from retroprop.errors import AlreadyApplied
from retroprop.fix import Fix, Paper, Recipe, Stage
from retroprop.losses import cross_entropy
from retroprop.surgery import Surgeon


@final
@dataclass(frozen=True)
class CrossEntropy(Fix):
    """Softmax cross-entropy instead of squared error; logistic outputs become logits.

    Source: Bridle 1990, section 3.
    """

    name = "cross_entropy"
    paper = Paper(
        1990,
        "Bridle",
        "Probabilistic interpretation of feedforward classification network outputs, with relationships "
        "to statistical pattern recognition",
        "Neurocomputing, NATO ASI F 68",
    )
    stage = Stage.LOSS
    slot = "loss"
    edits = "squared error -> cross-entropy, outputs -> logits"

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        if recipe.loss is cross_entropy:
            raise AlreadyApplied("The recipe's loss is cross_entropy already: already there.")
        surgeon.note("loss", "loss", recipe.loss.__name__, "cross_entropy")
        surgeon.strip_output()
        return replace(recipe, loss=cross_entropy, network=surgeon.network)
