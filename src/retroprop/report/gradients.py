"""How much of the error signal reaches each layer, from the gradient norms of the first step."""

import re
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.analysis.records import FloatArray
from retroprop.report.choices import baseline_arm, shown_arms
from retroprop.study.results import Results

VANISHED = 0.1
"""A first layer with less than this share of the output layer's gradient hardly learns."""


@final
@dataclass(frozen=True, eq=False)
class GradientFlow:
    """The gradient norm of each weight matrix at the first step, relative to the output layer's.

    Attributes:
        layers: Names of the weight matrices from input to output, as the trials first name them.
        arms: Indices into `Results.arms`.
        ratio: `(arms, layers)`, geometric mean over the reporting seeds; nan where an arm has no
            such matrix or the norm is 0.
    """

    layers: tuple[str, ...]
    arms: tuple[int, ...]
    ratio: FloatArray

    def first(self, arm: int | None) -> float:
        """The first layer's share of the output layer's gradient; nan where not measured."""
        if arm not in self.arms or not self.layers:
            return float("nan")
        return float(self.ratio[self.arms.index(arm), 0])


def gradient_flow(results: Results) -> GradientFlow:
    """Measures the gradient flow of the arms that the pictures show.

    Args:
        results: The study.

    Returns:
        The flow; without layers where no trial kept gradients.
    """
    arms = [arm for arm in shown_arms(results) if not results.arms[arm].reference]
    names: dict[str, None] = {}
    for arm in arms:
        for trial in results.reporting(arm):
            names.update(dict.fromkeys(trial.gradient_first))
    outputs = [name for name in names if name.startswith("output")]
    output = outputs[-1] if outputs else next(reversed(names), "")
    layers = [name for name in _in_order(list(names)) if name != output] + [output] * bool(names)
    ratio = np.full((len(arms), len(layers)), np.nan)
    for row, arm in enumerate(arms):
        for column, layer in enumerate(layers):
            ratio[row, column] = _mean_ratio(results, arm, layer, output)
    return GradientFlow(tuple(layers), tuple(arms), ratio)


def vanishing(results: Results, flow: GradientFlow) -> float:
    """The baseline's first-layer share where the gradient has vanished there, else nan."""
    share = flow.first(baseline_arm(results))
    return share if share < VANISHED else float("nan")


def _in_order(names: list[str]) -> list[str]:
    """Names as they first appear, but those that differ in a number only by that number.

    A store may hold them sorted as text, with hidden.10 before hidden.2.
    """
    patterns = list(dict.fromkeys(re.sub(r"\d+", "#", name) for name in names))
    return sorted(
        names,
        key=lambda name: (
            patterns.index(re.sub(r"\d+", "#", name)),
            [int(number) for number in re.findall(r"\d+", name)],
        ),
    )


def _mean_ratio(results: Results, arm: int, layer: str, output: str) -> float:
    """The geometric mean over seeds of one layer's norm over the output layer's."""
    logs = []
    for trial in results.reporting(arm):
        own, top = trial.gradient_first.get(layer, 0.0), trial.gradient_first.get(output, 0.0)
        if np.isfinite(own) and np.isfinite(top) and own > 0 and top > 0:
            logs.append(np.log(own / top))
    return float(np.exp(np.mean(logs))) if logs else float("nan")
