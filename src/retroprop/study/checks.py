"""What must be right before the first step: data, shapes, sites, device, folder."""

import os
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from retroprop.data.dataset import Dataset
from retroprop.data.sources import load
from retroprop.errors import RetropropError
from retroprop.fix import Recipe
from retroprop.networks import named
from retroprop.sparse.savings import savings
from retroprop.sparse.schedule import begin_epoch, phase
from retroprop.study.study import Study
from retroprop.study.trial import make_trial, recipe_of


def checked_data(study: Study) -> Dataset:
    """The study's data, when every arm's network fits it.

    Raises:
        UnknownName: when no network has the name given.
        RetropropError: when a network has other inputs or outputs than the data.
        DataMissing: when the data are not there.
    """
    data = load(study.data, study.data_root)
    for network in dict.fromkeys(arm.network for arm in study.arms):
        named.check(network, data.shape, data.classes)
    if study.batch is not None and study.batch > data.sizes[0]:
        raise RetropropError(
            f"batch={study.batch} was given; expected at most {data.sizes[0]}, the training images of "
            f"{data.name}."
        )
    return data


def chosen_device(wanted: str) -> str:
    """Cpu or cuda.

    Raises:
        RetropropError: when cuda is asked for and not there.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise RetropropError(
            "device=cuda was given, but torch finds no CUDA device. Give --device cpu, or see "
            "`retroprop doctor`."
        )
    return "cuda" if there and wanted != "cpu" else "cpu"


def arm_costs(study: Study, data: Dataset) -> list[dict[str, Any]]:
    """Parameters and FLOPs of one step of every arm; building them proves that all fixes fit.

    Raises:
        RetropropError: when an arm's fix finds no site, or its fixes do not go together.
    """
    costs = []
    for i in range(len(study.arms)):
        recipe = recipe_of(make_trial(study, i, "tuning", 0, 1.0).settings)
        batch = study.batch or data.sizes[0]
        costs.append(
            {
                "parameters": sum(p.numel() for p in recipe.network.parameters()),
                "flops": step_flops(recipe, batch, data.shape, study.epochs),
                "on paper": _saved_on_paper(recipe, batch, data.shape),
            }
        )
    return costs


def _saved_on_paper(recipe: Recipe, batch: int, shape: tuple[int, ...]) -> list[str]:
    """Sparse layers too small to be faster for it, by name and size."""
    cases = min(batch, 2)
    found = savings(recipe.network, torch.zeros(cases, *shape))
    return [f"{one.name} ({one.units} units)" for one in found if not one.gains(batch / cases)]


def step_flops(recipe: Recipe, batch: int, shape: tuple[int, ...], epochs: int = 1) -> int:
    """Counted floating-point operations of one step, forward and backward, by torch's counter.

    Args:
        recipe: of the trial.
        batch: images a step.
        shape: channels, height and width of an image.
        epochs: over which steps are averaged, where sparse layers follow a schedule.

    Raises:
        RetropropError: when the network cannot be trained on minibatches of that size.
    """
    from retroprop.ensemble.loop import own_copy

    network = own_copy(recipe).network.train()
    cases = min(batch, 2)
    phases = Counter(phase(network, epoch) for epoch in range(epochs))
    first = {phase(network, epoch): epoch for epoch in reversed(range(epochs))}
    total = 0
    for now, times in phases.items():
        begin_epoch(network, first[now])
        try:
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros(cases, *shape)).sum().backward()
        except ValueError as error:  # batch norm cannot take one case
            raise RetropropError(
                f"batch={batch} was given, and a network cannot be trained on it ({error}). Give a larger "
                "batch."
            ) from None
        total += times * int(counter.get_total_flops())
    return total * batch // (cases * epochs)


def free_memory(limit: float | None) -> int:
    """Bytes that training may use: the limit in GiB, or what is free less a quarter."""
    if limit is not None:
        return int(limit * 2**30)
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        kilobytes = next(int(li.split()[1]) for li in text.split("\n") if li.startswith("MemAvailable"))
        return kilobytes * 1024 * 3 // 4
    except (OSError, StopIteration):
        return 2 * 2**30


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str]:
    """Versions and machine, for the record."""
    import numpy as np
    import scipy

    import retroprop

    return {
        "retroprop": retroprop.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {cores()} cores",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
