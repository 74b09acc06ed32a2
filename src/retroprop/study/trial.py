"""A trial: arm x hyper-parameters x seed, known by the hash of its resolved settings."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from retroprop.data.sources import load
from retroprop.fix import Recipe, Stage, apply
from retroprop.fix_config import build_fix
from retroprop.losses import name_of
from retroprop.networks.named import build
from retroprop.optim.rule_1986 import Rule1986
from retroprop.study.design import Arm
from retroprop.study.study import Study

Role = Literal["tuning", "reporting"]
# Kernels and norms hold tensors of their own, so members that agree in them should stand together.
_ORDER = sorted(Stage, key=lambda stage: (stage not in (Stage.KERNEL, Stage.NORM), stage))


@dataclass(frozen=True)
class Trial:
    """One training run.

    key: hash of all that decides its numbers; trials of one key are one trial.
    text: those settings as canonical JSON.
    """

    key: str
    text: str
    arm: int
    role: Role
    seed: int
    multiplier: float

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return json.loads(self.text)


def make_trial(study: Study, arm: int, role: Role, seed: int, multiplier: float) -> Trial:
    """A trial of a study. A factor at its `off` level leaves no trace, so wider studies find it again."""
    chosen: Arm = study.arms[arm]
    data = load(study.data, study.data_root)
    recipe = {"rate": 0.1, "momentum": 0.9, **study.recipe}
    settings = {
        "data": study.data,
        "input": list(data.shape),
        "classes": data.classes,
        "network": chosen.network,
        "recipe": {name: float(value) for name, value in recipe.items()},
        "fixes": sorted((fix.resolved() for fix in chosen.fixes), key=lambda fix: next(iter(fix))),
        "multiplier": float(multiplier),
        "seed": f"{role}/{seed}",
        "epochs": study.epochs,
        "batch": study.batch,
        "dtype": "float32",
        "precision": study.precision,
    }
    text = json.dumps(settings, sort_keys=True)
    key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return Trial(key, text, arm, role, seed, float(multiplier))


def recipe_of(settings: dict[str, Any]) -> Recipe:
    """The recipe that a trial trains, with its own learning rate."""
    recipe = _base_recipe(
        settings["network"],
        tuple(settings["input"]),
        settings["classes"],
        json.dumps(settings["recipe"]),
        json.dumps(settings["fixes"]),
        settings["seed"],
    )
    return replace(recipe, rule=replace(recipe.rule, rate=recipe.rule.rate * settings["multiplier"]))


@lru_cache(maxsize=256)
def _base_recipe(
    network: str, shape: tuple[int, ...], classes: int, rule: str, fixes: str, seed: str
) -> Recipe:
    """Rates of one arm and seed share a start; whoever trains it must copy it."""
    bare = Recipe(build(network, shape, classes, seed), rule=Rule1986(**json.loads(rule)))
    return apply(bare, [build_fix(spec) for spec in json.loads(fixes)], seed=seed).recipe


def standing(trial: Trial) -> tuple[str, ...]:
    """Sort key that puts members with like modules next to each other."""
    fixes = [build_fix(spec) for spec in trial.settings["fixes"]]
    return tuple(json.dumps([fix.resolved() for fix in fixes if fix.stage == stage]) for stage in _ORDER)


def program_of(trial: Trial) -> str:
    """What trials must share to run as one program: skeleton, loss and kind of rule."""
    recipe = recipe_of({**trial.settings, "seed": "tuning/0"})  # whatever the seed: one recipe an arm
    return f"{trial.settings['network']} {name_of(recipe.loss)} {recipe.rule.make()}"
