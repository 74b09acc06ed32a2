"""Simulations that check the statistics, and the tables of docs/methods.md made from them.

`python -m retroprop.analysis.simulate` writes docs/methods.json and the tables between the markers
of docs/methods.md. Every simulated world has a known truth: how often is it covered, or denied?
"""

import argparse
import gc
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import numpy as np

from retroprop.analysis.claims import HELPS, HURTS
from retroprop.analysis.contrasts import main_effects, points
from retroprop.analysis.effects import factorial_effects
from retroprop.analysis.images import image_interval
from retroprop.analysis.intervals import (
    BOOTSTRAP_SEEDS,
    RESAMPLES,
    bca_interval,
    interval,
    student_interval,
)
from retroprop.analysis.records import BoolArray, Factor, FloatArray
from retroprop.analysis.tuning import choose_rate
from retroprop.errors import RetropropError

SEED = 1986
BEGIN = "<!-- begin: made by python -m retroprop.analysis.simulate -->"
END = "<!-- end: made by python -m retroprop.analysis.simulate -->"

Draw = Callable[[np.random.Generator, tuple[int, int]], FloatArray]

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

    def draw(
        self, generator: np.random.Generator, seeds: int, images: int
    ) -> tuple[BoolArray, BoolArray]:
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


@final
@dataclass(frozen=True)
class StudyWorld:
    """A 2^5 study of arms that are all alike, but for `effect`, from tuning to claims.

    Attributes:
        rates: The true accuracy at each learning rate of the grid, of every arm.
        effect: What the first factor truly adds, as a fraction; 0 makes it an A/A study.
    """

    name: str
    rates: tuple[float, ...]
    effect: float = 0.0


MULTIPLIERS = (0.1, 0.3, 1.0, 3.0, 10.0)
STUDY_WORLDS = (
    StudyWorld("A/A, one rate is clearly best", (0.80, 0.86, 0.90, 0.86, 0.70)),
    StudyWorld("A/A, three rates are equally good", (0.80, 0.90, 0.90, 0.90, 0.70)),
    StudyWorld("A/A, rates 1 point apart", (0.80, 0.89, 0.90, 0.89, 0.70)),
    StudyWorld("one factor adds 0.4 points", (0.80, 0.86, 0.90, 0.86, 0.70), 0.004),
)
FACTORS = tuple(Factor(name, ("off", "on")) for name in ("a", "b", "c", "d", "e"))
TRIAL_NOISE = 0.006
SEED_NOISE = 0.004
TUNING_SEEDS = 3
REPORTING_SEEDS = 12
TEST_IMAGES = 1000


def coverage(
    shape: str,
    seeds: int,
    *,
    studies: int,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> float:
    """How often the interval of `intervals.interval` holds the true mean.

    Args:
        shape: A name in `SHAPES`: how the per-seed contrasts are distributed, about 0.
        seeds: How many seeds a study has.
        studies: How many studies are simulated.
        generator: Draws everything.
        resamples: How many bootstrap resamples, where the interval is a bootstrap.

    Returns:
        A fraction.
    """
    contrasts = SHAPES[shape](generator, (seeds, studies))
    low, high = interval(contrasts, generator, resamples=resamples)
    return float(((low <= 0.0) & (high >= 0.0)).mean())


def image_coverage(
    world: ImageWorld, seeds: int, images: int, *, studies: int, generator: np.random.Generator
) -> tuple[float, float]:
    """How often the two intervals of a fixed test set hold the effect on new seeds and images.

    Args:
        world: Where seeds and images are drawn from.
        seeds: How many seeds a study has.
        images: How many test images a study has.
        studies: How many studies are simulated.
        generator: Draws everything.

    Returns:
        Two fractions: of the interval over seeds and images, and of the one over seeds alone.
    """
    both = alone = 0
    for _ in range(studies):
        level, first = world.draw(generator, seeds, images)
        _, low, high = image_interval(level, first)
        both += low <= world.effect <= high
        by_seed = points(level.mean(axis=1) - first.mean(axis=1))
        lows, highs = student_interval(by_seed[:, None])
        alone += bool(lows[0] <= world.effect <= highs[0])
    return both / studies, alone / studies


def claim_rates(
    world: StudyWorld, *, studies: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Simulates whole studies: tuning, choice of rates, reporting seeds, effects, claims.

    Args:
        world: What is true.
        studies: How many studies are simulated.
        generator: Draws everything.

    Returns:
        Two fractions of studies: with any false claim, and with the true claim (0 in an A/A).
    """
    false = true = 0
    first = FACTORS[0].name
    with _cheap_collection():
        for _ in range(studies):
            outcome = _simulated_outcome(world, generator)
            effects = factorial_effects(outcome, FACTORS, images=TEST_IMAGES, generator=generator)
            claimed = {
                (row.kind, row.factor, row.claim) for row in effects if row.claim in {HELPS, HURTS}
            }
            right = {("main", first, HELPS)} if world.effect > 0.0 else set()
            true += bool(claimed & right)
            false += bool(claimed - right)
    return false / studies, true / studies


def run(scale: float = 1.0) -> dict[str, Any]:
    """Runs every simulation of docs/methods.md.

    Args:
        scale: A share of the full number of studies, for a quick look.

    Returns:
        What docs/methods.json holds.
    """
    generator = np.random.default_rng(SEED)
    many, some = int(20_000 * scale), int(4_000 * scale)
    intervals = [
        {
            "shape": shape,
            "symmetric": shape in SYMMETRIC,
            "seeds": seeds,
            "method": "BCa" if seeds >= BOOTSTRAP_SEEDS else "t",
            "studies": (studies := some if seeds >= BOOTSTRAP_SEEDS else many),
            "covered": coverage(shape, seeds, studies=studies, generator=generator),
        }
        for shape in SHAPES
        for seeds in (10, 15, 30)
    ]
    images = []
    for world in IMAGE_WORLDS:
        for seeds, count in ((10, 300), (30, 1000)):
            both, alone = image_coverage(
                world, seeds, count, studies=some // 2, generator=generator
            )
            images.append(
                {
                    "world": world.name,
                    "seeds": seeds,
                    "images": count,
                    "studies": some // 2,
                    "covered": both,
                    "covered_by_seeds_alone": alone,
                }
            )
    claims = []
    for study in STUDY_WORLDS:
        false, true = claim_rates(study, studies=some, generator=generator)
        claims.append(asdict(study) | {"studies": some, "any_false": false, "true_claim": true})
    packages = {name: version(name) for name in ("numpy", "scipy", "statsmodels")}
    return {
        "made": {
            "date": datetime.now(tz=UTC).date().isoformat(),
            "python": platform.python_version(),
            **packages,
        },
        "seed": SEED,
        "coverage": intervals,
        "images": images,
        "claims": claims,
    }


def tables(results: Mapping[str, Any]) -> str:
    """The Markdown tables of docs/methods.md.

    Args:
        results: What `run` returned, or docs/methods.json as read.

    Returns:
        Markdown, without the markers around it.
    """
    made = results["made"]
    packages = ", ".join(f"{name} {made[name]}" for name in ("numpy", "scipy", "statsmodels"))
    coverages = _table(
        ("contrasts", "seeds", "interval", "studies", "covered"),
        [
            (row["shape"], row["seeds"], row["method"], row["studies"], _percent(row["covered"]))
            for row in results["coverage"]
        ],
    )
    images = _table(
        ("what varies", "seeds", "images", "studies", "seeds and images", "seeds alone"),
        [
            (
                row["world"],
                row["seeds"],
                row["images"],
                row["studies"],
                _percent(row["covered"]),
                _percent(row["covered_by_seeds_alone"]),
            )
            for row in results["images"]
        ],
    )
    claims = _table(
        ("what is true", "studies", "with any false claim", "with the true claim"),
        [
            (
                row["name"],
                row["studies"],
                _percent(row["any_false"]),
                _percent(row["true_claim"]) if row["effect"] else "none to make",
            )
            for row in results["claims"]
        ],
    )
    return (
        f"Simulated on {made['date']} with Python {made['python']}, {packages};"
        f" seed {results['seed']}.\n\n"
        f"**How often a 95 % interval holds the truth.**\n\n{coverages}\n\n"
        f"**The same for a fixed test set: the truth is about new seeds and new images.**\n\n"
        f"{images}\n\n"
        f"**How often a whole study claims.** 2^5 arms, {len(MULTIPLIERS)} rates,"
        f" {TUNING_SEEDS} tuning seeds, {REPORTING_SEEDS} reporting seeds.\n\n{claims}"
    )


def between_markers(page: str) -> str:
    """The generated part of docs/methods.md.

    Args:
        page: The whole page.

    Returns:
        What stands between the markers.

    Raises:
        RetropropError: The markers are not there, once each.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RetropropError(
            f"The page has {page.count(BEGIN)} begin and {page.count(END)} end markers; expected"
            f" one each: {BEGIN} and {END}. Put them around the tables."
        )
    return page.split(BEGIN)[1].split(END)[0].strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes docs/methods.json and the tables of docs/methods.md.

    Args:
        arguments: Those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of methods.md")
    folder = parser.parse_args(arguments).docs
    page = (folder / "methods.md").read_text(encoding="utf-8")
    old = between_markers(page)  # a page without markers fails before the minutes of simulation
    results = run()
    (folder / "methods.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    (folder / "methods.md").write_text(
        f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{tail}", encoding="utf-8"
    )


def _simulated_outcome(world: StudyWorld, generator: np.random.Generator) -> FloatArray:
    """Tunes every arm and trains its reporting seeds: `(seeds, 2, 2, 2, 2, 2)`."""
    gain = world.effect * (main_effects(FACTORS)[0].weights.ravel() > 0.0)
    arms, rates = len(gain), np.array(world.rates)
    truth = rates[None, :, None] + gain[:, None, None]
    validation = _measured(truth, (arms, len(rates), TUNING_SEEDS), generator)
    none = np.zeros(validation.shape, dtype=np.bool_)
    chosen = choose_rate(validation, none, MULTIPLIERS, chance=0.1)
    tested = _measured((rates[chosen] + gain)[:, None], (arms, REPORTING_SEEDS), generator)
    return tested.T.reshape(REPORTING_SEEDS, *(2 for _ in FACTORS))


def _measured(
    truth: FloatArray, shape: tuple[int, ...], generator: np.random.Generator
) -> FloatArray:
    """Accuracies of trials; the last axis is seeds, whose common luck all arms share."""
    luck = SEED_NOISE * generator.standard_normal(shape[-1])
    values = truth + luck + TRIAL_NOISE * generator.standard_normal(shape)
    return np.round(np.clip(values, 0.0, 1.0) * TEST_IMAGES) / TEST_IMAGES


@contextmanager
def _cheap_collection() -> Iterator[None]:
    """statsmodels collects all garbage at each correction, which is most of a simulation's time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _percent(share: float) -> str:
    """A fraction as the tables print it."""
    return f"{100.0 * share:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()
