"""Simulations that check the statistics, and the tables of docs/methods.md made from them.

`python -m retroprop.analysis.simulate` writes docs/methods.json and the tables between the markers
of docs/methods.md. Every simulated world has a known truth: how often is it covered, or denied?
"""

import argparse
import gc
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from retroprop.analysis.claims import HELPS, HURTS
from retroprop.analysis.contrasts import points
from retroprop.analysis.effects import contrast_effects, factorial_effects
from retroprop.analysis.images import image_interval
from retroprop.analysis.intervals import BOOTSTRAP_SEEDS, RESAMPLES, interval, student_interval
from retroprop.analysis.records import Effect, FloatArray
from retroprop.analysis.retuning import tuning_variances
from retroprop.analysis.worlds import (
    BASELINE_WORLDS,
    CHANCE,
    FACTORS,
    IMAGE_WORLDS,
    MULTIPLIERS,
    REPORTING_SEEDS,
    SHAPES,
    STUDY_WORLDS,
    SYMMETRIC,
    TEST_IMAGES,
    TUNING_SEEDS,
    BaselineWorld,
    ImageWorld,
    StudyWorld,
)
from retroprop.errors import RetropropError

SEED = 1986
BEGIN = "<!-- begin: made by python -m retroprop.analysis.simulate -->"
END = "<!-- end: made by python -m retroprop.analysis.simulate -->"
_BLOCK = 500


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
    covered = 0
    for start in range(0, studies, _BLOCK):  # contrasts of one block share their resamples
        contrasts = SHAPES[shape](generator, (seeds, min(_BLOCK, studies - start)))
        low, high = interval(contrasts, generator, resamples=resamples)
        covered += int(((low <= 0.0) & (high >= 0.0)).sum())
    return covered / studies


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
    world: StudyWorld | BaselineWorld, *, studies: int, generator: np.random.Generator, allow_for_tuning: bool
) -> tuple[float, float]:
    """Simulates whole studies: tuning, choice of rates, reporting seeds, effects, claims.

    Args:
        world: What is true.
        studies: How many studies are simulated.
        generator: Draws everything.
        allow_for_tuning: Whether claims must also stand against the luck of tuning.

    Returns:
        Two fractions of studies: with any false claim, and with the true claim (0 in an A/A).
    """
    false = true = 0
    right = {("main", FACTORS[0].name, HELPS)} if world.effect > 0.0 else set()
    with _cheap_collection():
        for _ in range(studies):
            validation, outcome = world.draw(generator)
            luck = np.zeros(len(validation))
            if allow_for_tuning:
                none = np.zeros(validation.shape, dtype=np.bool_)
                luck = tuning_variances(validation, none, MULTIPLIERS, chance=CHANCE, generator=generator)
            effects = _effects(outcome, luck, validation.shape[2], generator)
            claimed = {(row.kind, row.factor, row.claim) for row in effects if row.claim in {HELPS, HURTS}}
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
    packages = {name: version(name) for name in ("numpy", "scipy", "statsmodels")}
    return {
        "made": {
            "date": datetime.now(tz=UTC).date().isoformat(),
            "python": platform.python_version(),
            **packages,
        },
        "seed": SEED,
        "coverage": _coverage_rows(int(20_000 * scale), int(10_000 * scale), generator),
        "images": _image_rows(int(2_000 * scale), generator),
        "claims": _claim_rows(int(2_000 * scale), generator),
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
        (
            "what is true",
            "luck of tuning allowed for",
            "studies",
            "with any false claim",
            "with the true claim",
        ),
        [
            (
                row["name"],
                "yes" if row["allow_for_tuning"] else "no",
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
        f"**The same for a fixed test set: the truth is about new seeds and new images.**\n\n{images}\n\n"
        f"**How often a whole study claims.** 2^5 arms (one at a time: 1 + {len(FACTORS)}),"
        f" {len(MULTIPLIERS)} rates, {TUNING_SEEDS} tuning seeds, {REPORTING_SEEDS} reporting seeds."
        f"\n\n{claims}"
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
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes docs/methods.json and the tables of docs/methods.md.

    Args:
        arguments: Those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of methods.md")
    folder = parser.parse_args(arguments).docs
    path = folder / "methods.md"
    between_markers(path.read_text(encoding="utf-8"))  # fail before the minutes of simulation
    results = run()
    (folder / "methods.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = path.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{tail}", encoding="utf-8")


def _coverage_rows(by_t: int, by_bca: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Coverage of the interval over seeds, with the number of studies for each method."""
    rows = []
    for shape in SHAPES:
        for seeds in (10, 15, 30):
            bca = seeds >= BOOTSTRAP_SEEDS
            studies = by_bca if bca else by_t
            covered = coverage(shape, seeds, studies=studies, generator=generator)
            rows.append(
                {
                    "shape": shape,
                    "symmetric": shape in SYMMETRIC,
                    "seeds": seeds,
                    "method": "BCa" if bca else "t",
                    "studies": studies,
                    "covered": covered,
                }
            )
    return rows


def _image_rows(studies: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Coverage of the interval over seeds and images."""
    rows = []
    for world in IMAGE_WORLDS:
        for seeds, images in ((10, 300), (30, 1000)):
            both, alone = image_coverage(world, seeds, images, studies=studies, generator=generator)
            rows.append(
                {
                    "world": world.name,
                    "seeds": seeds,
                    "images": images,
                    "studies": studies,
                    "covered": both,
                    "covered_by_seeds_alone": alone,
                }
            )
    return rows


def _claim_rows(studies: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """How often whole studies claim, with the luck of tuning allowed for and not."""
    rows = []
    for world in (*STUDY_WORLDS, *BASELINE_WORLDS):
        for allow in (False, True):
            false, true = claim_rates(world, studies=studies, generator=generator, allow_for_tuning=allow)
            rows.append(
                asdict(world)
                | {
                    "allow_for_tuning": allow,
                    "studies": studies,
                    "any_false": false,
                    "true_claim": true,
                }
            )
    return rows


def _effects(
    outcome: FloatArray, luck: FloatArray, tuning_seeds: int, generator: np.random.Generator
) -> list[Effect]:
    """The effects of a factorial `(seeds, 2, ..., 2)`, or of a baseline and its arms `(seeds, arms)`."""
    if outcome.ndim > 2:
        return factorial_effects(
            outcome,
            FACTORS,
            images=TEST_IMAGES,
            generator=generator,
            tuning_variance=luck,
            tuning_seeds=tuning_seeds,
        )
    arms = {(factor.name, "on"): outcome[:, i] for i, factor in enumerate(FACTORS, start=1)}
    return contrast_effects(
        "one_at_a_time",
        outcome[:, 0],
        arms,
        images=TEST_IMAGES,
        generator=generator,
        tuning_variance=luck,
        tuning_seeds=tuning_seeds,
    )


@contextmanager
def _cheap_collection() -> Iterator[None]:
    """Keeps cheap the garbage collection that statsmodels does at each correction."""
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
