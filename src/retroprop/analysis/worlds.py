"""Worlds with a known truth, for simulations that check the statistics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from retroprop.analysis.contrasts import main_effects
from retroprop.analysis.records import BoolArray, Factor, FloatArray
from retroprop.study.tuning import choose_rate

Draw = Callable[[np.random.Generator, tuple[int, int]], FloatArray]
"""Draws per-seed contrasts `(seeds, studies)` whose true mean is 0."""

SYMMETRIC: dict[str, Draw] = {
    "normal": lambda generator, size: generator.standard_normal(size),
    "uniform": lambda generator, size: generator.uniform(-1.0, 1.0, size),
    "Laplace (heavy tails)": lambda generator, size: generator.laplace(size=size),
}
SKEWED: dict[str, Draw] = {
    "exponential (skewness 2)": lambda generator, size: generator.exponential(size=size) - 1.0,
    "log-normal, sigma 0.5 (skewness 1.75)": lambda generator, size: (
        generator.lognormal(sigma=0.5, size=size) - np.exp(0.125)
    ),
}
SHAPES = SYMMETRIC | SKEWED


@final
@dataclass(frozen=True)
class ImageWorld:
    """A population of seeds and images with a known effect.

    An image is right with chance p under the first level. Under the level that chance moves a
    share t of the way to another one, q. So the effect is mean(t) x (mean(q) - mean(p)).

    Attributes:
        first: Mean of p.
        level: Mean of q.
        alike: How alike the images are: p and q are beta(mean x alike, (1 - mean) x alike).
        share: The smallest and the largest t; each seed has its own, evenly spread.
    """

    name: str
    first: float
    level: float
    alike: float
    share: tuple[float, float]

    @property
    def effect(self) -> float:
        """The true effect, in points of accuracy."""
        return 100.0 * (sum(self.share) / 2.0) * (self.level - self.first)

    def draw(self, generator: np.random.Generator, seeds: int, images: int) -> tuple[BoolArray, BoolArray]:
        """Correctness of both arms, `(seeds, images)` each."""
        p = generator.beta(self.first * self.alike, (1.0 - self.first) * self.alike, images)
        q = generator.beta(self.level * self.alike, (1.0 - self.level) * self.alike, images)
        t = generator.uniform(*self.share, (seeds, 1))
        level = generator.random((seeds, images)) < p + t * (q - p)
        return level, generator.random((seeds, images)) < p


IMAGE_WORLDS = (
    ImageWorld("images differ, seeds do not", 0.90, 0.92, 1.0, (0.5, 0.5)),
    ImageWorld("images and seeds differ", 0.80, 0.95, 2.0, (0.2, 0.8)),
    ImageWorld("seeds differ, images hardly", 0.70, 0.95, 50.0, (0.0, 1.0)),
)

FACTORS = tuple(Factor(name, ("off", "on")) for name in ("a", "b", "c", "d", "e"))
MULTIPLIERS = (0.1, 0.3, 1.0, 3.0, 10.0)
CHANCE = 0.1
TRIAL_NOISE = 0.006
SEED_NOISE = 0.004
TUNING_SEEDS = 3
REPORTING_SEEDS = 12
TEST_IMAGES = 1000


@final
@dataclass(frozen=True)
class StudyWorld:
    """A 2^5 study whose arms are all alike, but for `effect`, from tuning to reporting seeds.

    Trials scatter with a standard deviation of 0.6 points; each seed has its own luck besides, of
    0.4 points, that all arms share. Accuracies are whole numbers of 1,000 images.

    Attributes:
        rates: The true accuracy at each learning rate of the grid, of every arm.
        effect: What the first factor truly adds, as a fraction; 0 makes it an A/A study.
    """

    name: str
    rates: tuple[float, ...]
    effect: float = 0.0

    def draw(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Tunes every arm, then trains its reporting seeds at the rate it chose.

        Args:
            generator: Draws everything.

        Returns:
            Validation accuracy `(arms, rates, tuning seeds)`, and test accuracy of the reporting
            seeds `(seeds, 2, 2, 2, 2, 2)`.
        """
        gain = self.effect * (main_effects(FACTORS)[0].weights.ravel() > 0.0)
        arms, rates = len(gain), np.array(self.rates)
        truth = rates[None, :, None] + gain[:, None, None]
        validation = _measured(truth, (arms, len(rates), TUNING_SEEDS), generator)
        none = np.zeros(validation.shape, dtype=np.bool_)
        chosen = choose_rate(validation, none, MULTIPLIERS, chance=CHANCE)
        tested = _measured((rates[chosen] + gain)[:, None], (arms, REPORTING_SEEDS), generator)
        return validation, tested.T.reshape(REPORTING_SEEDS, *(2 for _ in FACTORS))


@final
@dataclass(frozen=True)
class BaselineWorld:
    """A one-at-a-time A/A study of five arms whose baseline alone is hard to tune.

    The arms are those of a `StudyWorld` with one clearly best rate. Every contrast has the baseline
    in it, so one poor choice there moves all five.

    Attributes:
        rates: The baseline's true accuracy at each learning rate of the grid.
        noise: How far the baseline's tuning trials scatter, as a standard deviation.
        tuning_seeds: How many there are.
        effect: None, this is an A/A study.
    """

    name: str
    rates: tuple[float, ...]
    noise: float
    tuning_seeds: int = TUNING_SEEDS
    effect: float = 0.0

    def draw(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Tunes the baseline and its arms, then trains their reporting seeds.

        Args:
            generator: Draws everything.

        Returns:
            Validation accuracy `(arms, rates, tuning seeds)`, and test accuracy of the reporting
            seeds `(seeds, arms)`; the baseline is the first arm.
        """
        truth = np.array([self.rates, *(_CLEAR for _ in FACTORS)])
        noise = np.array([self.noise, *(TRIAL_NOISE for _ in FACTORS)])
        shape = (*truth.shape, self.tuning_seeds)
        validation = _measured(truth[:, :, None], shape, generator, noise[:, None, None])
        none = np.zeros(shape, dtype=np.bool_)
        chosen = choose_rate(validation, none, MULTIPLIERS, chance=CHANCE)
        reached = truth[np.arange(len(truth)), chosen]
        tested = _measured(reached[:, None], (len(truth), REPORTING_SEEDS), generator)
        return validation, tested.T


_CLEAR = (0.80, 0.86, 0.90, 0.86, 0.70)
_CLOSE = (0.80, 0.89, 0.90, 0.89, 0.70)
STUDY_WORLDS = (
    StudyWorld("A/A, one rate is clearly best", _CLEAR),
    StudyWorld("A/A, three rates are equally good", (0.80, 0.90, 0.90, 0.90, 0.70)),
    StudyWorld("A/A, the best rate leads by 1 point", _CLOSE),
    StudyWorld("A/A, the best rate leads by 0.5 points", (0.80, 0.895, 0.90, 0.895, 0.70)),
    StudyWorld("one factor adds 0.4 points, one rate is clearly best", _CLEAR, 0.004),
    StudyWorld("one factor adds 0.4 points, the best rate leads by 1 point", _CLOSE, 0.004),
)
BASELINE_WORLDS = (
    BaselineWorld("A/A, one at a time, the baseline is harder to tune", _CLOSE, 0.012),
    BaselineWorld("A/A, one at a time, the same with 2 tuning seeds", _CLOSE, 0.012, 2),
)


def _measured(
    truth: FloatArray,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    noise: float | FloatArray = TRIAL_NOISE,
) -> FloatArray:
    """Accuracies of trials; the last axis is seeds, whose own luck all arms share."""
    luck = SEED_NOISE * generator.standard_normal(shape[-1])
    values = truth + luck + noise * generator.standard_normal(shape)
    return np.round(np.clip(values, 0.0, 1.0) * TEST_IMAGES) / TEST_IMAGES
