"""Made-up studies with known effects: no network is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from retroprop.fixes import get
from retroprop.study.design import Arm, Factor, build_arms, build_factor
from retroprop.study.results import Results, TrialResult
from retroprop.study.tuning import choose_rate

CHANCE = 0.1017
GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
LAYERS = [f"hidden.{i}.linear.weight" for i in range(5)] + ["output.linear.weight"]
GAINS = {"relu": 1.1, "batch_norm": 1.2, "residual": 1.0, "dropout": -0.5, "sparse_backprop": -0.35}
FIVE = ("relu", "batch_norm", "residual", "dropout", "sparse_backprop")


def study(
    folder: Path,
    specs: Sequence[object] = FIVE,
    *,
    design: str = "full_factorial",
    seeds: int = 12,
    official: bool = False,
    references: bool = True,
    gains: dict[str, float] | None = None,
) -> Results:
    """A finished study; the chosen rate is the third of five but for a flag or two."""
    factors = tuple(build_factor(spec) for spec in specs)
    arms = build_arms(factors, [get("he_init")()], design, "64-64-64-64-64-64-10")
    if references:
        adam, entropy = get("adam")(), get("cross_entropy")()
        arms += [
            Arm("tanh net of 1998", (), (get("tanh")(),), "64-64-64-10", reference=True),
            Arm("adam + cross_entropy", (), (adam, entropy), "64-64-10", reference=True),
        ]
    gains = GAINS if gains is None else gains
    rng = np.random.default_rng(7)
    trials: list[TrialResult] = []
    validation = np.full((len(arms), len(GRID), 3), np.nan)
    starts = rng.normal(0, 0.12, size=seeds + 3)
    for a, arm in enumerate(arms):
        level = _level(factors, arm, gains)
        for r, multiplier in enumerate(GRID):
            for s in range(3):
                odds = level - 0.5 * abs(r - 2) + starts[seeds + s] + rng.normal(0, 0.05)
                trial = _trial(factors, arm, a, "tuning", s, multiplier, odds, rng)
                validation[a, r, s] = trial.validation_accuracy
                trials.append(trial)
        for s in range(seeds):
            odds = level + starts[s] + rng.normal(0, 0.06)
            role = "reference" if arm.reference else "reporting"
            trials.append(_trial(factors, arm, a, role, s, 1.0, odds, rng, official=official))
    lost = np.zeros(validation.shape, dtype=bool)
    chosen = choose_rate(validation, lost, GRID, chance=CHANCE)
    _save_weights(folder, arms, trials)
    return Results(
        name="what each fix is worth",
        settings={"network": "64-64-64-64-64-64-10", "factors": list(specs), "epochs": 20},
        factors=factors,
        design=design,
        held=("he_init",),
        arms=tuple(arms),
        multipliers=GRID,
        chosen=tuple(int(i) for i in chosen),
        validation=validation,
        diverged=lost,
        trials=tuple(trials),
        chance=CHANCE,
        images=360,
        official_test=official,
        data_about="1,797 handwritten digits of 8 x 8 pixels; each seed draws its own test images",
        folder=folder,
        record={"versions": {"torch": "2.13.0"}, "device": "cpu", "seconds": np.float64(81.5)},
    )


def with_trials(results: Results, change: dict[int, dict[str, object]]) -> Results:
    """The study with some trials changed, by their place."""
    trials = list(results.trials)
    for place, values in change.items():
        trials[place] = replace(trials[place], **values)  # type: ignore[arg-type]
    return replace(results, trials=tuple(trials))


def places(results: Results, arm: int, *, role: str = "reporting") -> list[int]:
    """Where an arm's trials stand."""
    return [i for i, t in enumerate(results.trials) if t.arm == arm and t.role == role]


def failed(error: str = "out of memory") -> dict[str, object]:
    """What a failed trial holds."""
    nan, none = float("nan"), np.empty(0)
    return {
        "error": error,
        "train_accuracy": nan,
        "validation_accuracy": nan,
        "test_accuracy": nan,
        "seconds": nan,
        "train_loss": none,
        "validation_curve": none,
        "gradient_first": {},
        "gradient_last": {},
        "test_correct": None,
        "weights": "",
    }


def diverged() -> dict[str, object]:
    """What a diverged trial holds."""
    return {"diverged": True, "validation_accuracy": CHANCE, "test_accuracy": CHANCE}


def _level(factors: Sequence[Factor], arm: Arm, gains: dict[str, float]) -> float:
    """Log-odds of an arm: gains that overlap, and harm that vanishes in a net that learns."""
    if arm.reference:
        return 2.4 + 0.4 * len(arm.fixes)
    good, bad = 0.0, 0.0
    for factor, index in zip(factors, arm.levels, strict=True):
        gain = gains.get(factor.name, 0.3) * index / (len(factor.levels) - 1)
        good, bad = good + max(gain, 0.0), bad + min(gain, 0.0)
    return 1.2 + 2.6 * np.tanh(good / 1.6) + bad * (1.6 if good == 0 else 0.35)


def _trial(
    factors: Sequence[Factor],
    arm: Arm,
    index: int,
    role: str,
    seed: int,
    multiplier: float,
    odds: float,
    rng: np.random.Generator,
    *,
    official: bool = False,
) -> TrialResult:
    def accuracy(shift: float, images: int) -> float:
        share = 1 / (1 + np.exp(-(odds + shift)))
        return round(share * images) / images

    correct = rng.random(360) < accuracy(0.0, 360) if official and role != "tuning" else None
    test = accuracy(rng.normal(0, 0.05), 360) if correct is None else float(correct.mean())
    names = {factor.name for factor, level in zip(factors, arm.levels, strict=bool(arm.levels)) if level}
    fade = 0.32 if not names & {"relu", "batch_norm", "residual"} else 0.9
    final = accuracy(0.1, 240)
    epochs = np.arange(1, 21)
    norms = 2.0 * fade ** np.arange(5, -1, -1) * np.exp(rng.normal(0, 0.1, 6))
    key = f"{role}-{index}-{seed}-{multiplier}"
    return TrialResult(
        key=key,
        arm=index,
        role=role,
        seed=seed,
        multiplier=multiplier,
        rate=0.05 * multiplier,
        steps=1000,
        seconds=0.21,
        train_accuracy=accuracy(0.9, 1000),
        validation_accuracy=final,
        test_accuracy=None if role == "tuning" else test,
        diverged=False,
        train_loss=np.exp(-epochs / 5.0),
        validation_curve=final - (final - 0.1) * np.exp(-epochs / (2.0 if fade > 0.5 else 5.0)),
        gradient_first=dict(zip(LAYERS, norms.tolist(), strict=True)),
        gradient_last=dict(zip(LAYERS, (norms / 3).tolist(), strict=True)),
        test_correct=correct,
        parameters=21_450 + (640 if "batch_norm" in names else 0),
        flops=4_100_000,
        weights="" if role == "tuning" else "0" * 16,
    )


def _save_weights(folder: Path, arms: Sequence[Arm], trials: Sequence[TrialResult]) -> None:
    rng = np.random.default_rng(3)
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    for trial in trials:
        if trial.role == "reporting" and trial.seed == 0:
            weights = rng.normal(0, 0.1, size=(64, 64)).astype(np.float32)
            tensors = {"hidden.0.linear.weight": weights, "output.linear.weight": weights[:10]}
            save_file(tensors, folder / "weights" / f"{trial.key}.safetensors")
