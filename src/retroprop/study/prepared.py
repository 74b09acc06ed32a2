"""What is known of a study before its first step: costs, device, memory, and how its trials train."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from retroprop.data.dataset import Dataset
from retroprop.ensemble.coverage import Together, activations, together
from retroprop.ensemble.planner import COPIES, EAGER_WEIGHTS, Group, Item, has_compiler, plan
from retroprop.errors import RetropropError
from retroprop.networks.mlp import parse_sizes
from retroprop.networks.named import is_sizes
from retroprop.study.checks import arm_costs, checked_data, chosen_device, cores, free_memory
from retroprop.study.study import Study
from retroprop.study.trial import Trial, make_trial, program_of, recipe_of, standing


@dataclass(frozen=True)
class Manner:
    """How trials of one arm train, and what they need.

    program: what they must share with others to train together.
    standing: see `Item`; a group's compiled step depends on it.
    """

    program: str
    standing: tuple[str, ...]
    weights: int
    activations: int
    spatial: bool
    together: Together


@dataclass
class Prepared:
    """What is known before the first step.

    memory: bytes that all workers together may use in training.
    manners: by arm.
    """

    device: str
    workers: int
    memory: int
    steps: int
    costs: list[dict[str, Any]]
    fingerprint: str
    manners: list[Manner] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def item(self, trial: Trial) -> Item:
        """A trial as the planner sees it."""
        manner = self.manners[trial.arm]
        return Item(
            key=trial.key,
            program=manner.program,
            seed=f"{trial.role}/{trial.seed}",
            replica=trial.multiplier,
            standing=manner.standing,
            weights=manner.weights,
            activations=manner.activations,
            steps=self.steps,
            spatial=manner.spatial,
            alone=bool(manner.together.alone),
            compilable=not manner.together.vmapped,
        )

    def plan(self, trials: Sequence[Trial]) -> list[Group]:
        """Groups for trials."""
        items = [self.item(trial) for trial in trials]
        memory = self.memory / self.workers
        return plan(items, memory=memory, compiler=has_compiler(), device=self.device)

    @property
    def notes(self) -> list[str]:
        """Which arms do not train in the usual way, and why."""
        found: dict[str, list[str]] = {}
        for label, manner in zip(self.labels, self.manners, strict=True):
            how = ""
            if manner.together.alone:
                how = f"one by one: {manner.together.alone}"
            elif self.device == "cpu" and manner.spatial:
                how = "one by one: convolutions gain nothing from company on a CPU"
            elif manner.together.vmapped:
                how = f"through vmap, not compiled: {', '.join(manner.together.vmapped)} has no stacked twin"
            elif self.device == "cpu" and manner.weights > EAGER_WEIGHTS:
                how = (
                    "together where compiling pays, else one by one: a network of so many weights is slower "
                    "in company that is not compiled"
                )
            if how:
                found.setdefault(how, []).append(label)
        return [
            f"{len(labels)} arms train {text} ({', '.join(labels[:3])}{', ...' if labels[3:] else ''})"
            for text, labels in found.items()
        ]


def prepare(study: Study) -> Prepared:
    """Check everything that can be wrong before training.

    Raises:
        RetropropError: naming what is wrong and what to do.
    """
    data = checked_data(study)
    device = chosen_device(study.device)
    if study.precision == "tf32" and device != "cuda":
        raise RetropropError(
            "precision=tf32 was given, and only CUDA devices have it; expected float32 or bf16 on a CPU."
        )
    workers = 1 if device == "cuda" else cores()
    memory = _memory(study, device)
    for arm in study.arms:
        _check_memory(memory, 4 * COPIES * _least_weights(arm.network))
    costs = arm_costs(study, data)
    steps = study.epochs * (data.sizes[0] // study.batch if study.batch else 1)
    labels = [arm.label for arm in study.arms]
    manners = _manners(study, data)
    prepared = Prepared(device, workers, memory, steps, costs, data.fingerprint(), manners, labels)
    _check_memory(memory, max(prepared.item(trial).bytes for trial in _one_of_each(study)))
    return prepared


def _check_memory(memory: int, needed: int) -> None:
    if memory < needed:
        raise RetropropError(
            f"{memory / 2**20:.2f} MiB of memory are free or were given; one trial needs about "
            f"{needed / 2**20:.2f} MiB. Give more with --memory, or a smaller network or batch."
        )


def _least_weights(network: str) -> int:
    """Weights of a network of sizes, before it is built; 0 for one with a name, which is never that large."""
    if not is_sizes(network):
        return 0
    return sum((a + 1) * b for a, b in pairwise(parse_sizes(network)))


def _memory(study: Study, device: str) -> int:
    if device == "cuda" and study.memory is None:
        free, _ = torch.cuda.mem_get_info()
        return free * 3 // 4
    return free_memory(study.memory)


def _one_of_each(study: Study) -> list[Trial]:
    return [make_trial(study, arm, "tuning", 0, study.rates[0]) for arm in range(len(study.arms))]


def _manners(study: Study, data: Dataset) -> list[Manner]:
    trials = _one_of_each(study)
    recipes = [recipe_of(trial.settings) for trial in trials]
    programs: dict[str, list[int]] = {}
    for trial in trials:
        programs.setdefault(program_of(trial), []).append(trial.arm)
    cases = study.batch or data.sizes[0]
    found: dict[int, Manner] = {}
    for program, arms in programs.items():
        for i, part in enumerate(together([recipes[arm] for arm in arms], data.shape, data.classes)):
            for arm in (arms[place] for place in part.places):
                network = recipes[arm].network
                found[arm] = Manner(
                    f"{program} {i}",
                    standing(trials[arm]),
                    sum(p.numel() for p in network.parameters()),
                    cases * activations(network, data.shape),
                    any(isinstance(module, torch.nn.Conv2d) for module in network.modules()),
                    part,
                )
    return [found[arm] for arm in range(len(trials))]
