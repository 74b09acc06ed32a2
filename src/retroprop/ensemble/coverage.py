"""Which recipes can train as one program, found by taking one step with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from retroprop.ensemble.minibatches import Minibatches
from retroprop.ensemble.program import Program
from retroprop.ensemble.training import step_inputs
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import NoTwin
from retroprop.fix import Recipe
from retroprop.stacking.vmapped import vmapped_types

_CASES = 4


@dataclass(frozen=True)
class Together:
    """Recipes that share a program, by place.

    places: of the recipes.
    vmapped: names of module types that run through vmap, because they have no twin.
    alone: why its trials run one by one; empty where they run together.
    """

    places: tuple[int, ...]
    vmapped: tuple[str, ...] = field(default=())
    alone: str = ""


def together(recipes: Sequence[Recipe], shape: tuple[int, ...], classes: int) -> list[Together]:
    """Sort recipes of one loss and one kind of rule into those that can share a program.

    Args:
        recipes: they are left as they are.
        shape: of one image.
        classes: of the data.
    """
    everyone = tuple(range(len(recipes)))
    reason, vmapped = _tried([recipes[i] for i in everyone], shape, classes)
    if not reason:
        return [Together(everyone, vmapped)]
    found, fine = [], []
    for i in everyone:
        reason, vmapped = _tried([recipes[i]], shape, classes)
        if reason:
            found.append(Together((i,), alone=reason))
        else:
            fine.append(Together((i,), vmapped))
    if len(fine) > 1 and found:
        places = tuple(one.places[0] for one in fine)
        reason, vmapped = _tried([recipes[i] for i in places], shape, classes)
        if not reason:
            fine = [Together(places, vmapped)]
    return [*fine, *found]


def _tried(recipes: Sequence[Recipe], shape: tuple[int, ...], classes: int) -> tuple[str, tuple[str, ...]]:
    """Why these recipes cannot train together, empty if they can; and what runs through vmap."""
    images = torch.linspace(0, 1, _CASES * torch.Size(shape).numel()).reshape(_CASES, *shape)
    every = torch.arange(_CASES)
    targets = torch.eye(classes)[every % classes]
    dtype = next(recipes[0].network.parameters()).dtype
    data = SeedData(0, images, targets, every, every, every, dtype=dtype)
    seeds = [0] * len(recipes)
    try:
        program = Program(recipes)
        feed = Minibatches(recipes, seeds, {0: data}, Schedule(1, _CASES), program.noisy)
        program.step(*step_inputs(program, program.start(), *feed.assemble(next(feed.draws(0)))))
    except NoTwin as error:
        return str(error), ()
    return "", tuple(vmapped_types(program.network))


def activations(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Numbers that all modules together make of one image on its way through the network."""
    made: list[int] = []

    def count(module: nn.Module, given: object, out: object) -> None:
        if isinstance(out, torch.Tensor):
            made.append(out.numel())

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, dtype=next(network.parameters()).dtype))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return sum(made)
