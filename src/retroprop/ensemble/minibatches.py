"""What a group is fed: drawn on the host by counters, put together where the images are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from retroprop.ensemble.trial_data import (
    Schedule,
    SeedData,
    augmentation_noise,
    chunks,
    keyed_modules,
    minibatch,
    noise,
)
from retroprop.fix import Recipe
from retroprop.optim.rule import Tensors
from retroprop.randomness import Seed
from retroprop.stacking.dispatch import Members, laid_out
from retroprop.stacking.keyed import Draw


def by_member(values: Sequence[Tensor], place_of: Tensor) -> Tensor:
    """Values (case, ...) at places, as a stack takes them; member dimension 1 where all share one place.

    Args:
        values: by place.
        place_of: `(member,)`.
    """
    stacked = torch.stack([laid_out(value) for value in values])
    return (stacked if len(values) == 1 else stacked[place_of]).contiguous()


class Minibatches:
    """Minibatches and noise of all members of a group.

    What a step needs from outside is drawn first, as a few tensors: the places of its images and its random
    numbers. The minibatch itself is made from them by indexing alone, which a CUDA graph can hold.

    Args:
        recipes, seeds: one a member.
        data: of every seed, on one device.
        schedule: epochs and minibatches.
        noisy: path, draw and members of everything in the stack that takes noise, by name.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
        noisy: Mapping[str, tuple[str, Draw, Members]],
    ) -> None:
        self.schedule, self.noisy = schedule, noisy
        self.data = [data[seed] for seed in dict.fromkeys(seeds)]
        self.device = self.data[0].device
        place = {one.seed: i for i, one in enumerate(self.data)}
        self.seed_of = torch.tensor([place[seed] for seed in seeds], device=self.device)
        # Members of one seed share minibatches unless their augmentation differs.
        variants = [(place[seed], recipe.augment) for seed, recipe in zip(seeds, recipes, strict=True)]
        self.variants = list(dict.fromkeys(variants))
        found = [self.variants.index(variant) for variant in variants]
        self.variant_of = torch.tensor(found, device=self.device)
        self.places = {
            name: self.seed_of[torch.tensor(members, device=self.device)]
            for name, (_, _, members) in noisy.items()
        }
        self.keyed = {
            (path, module.draw): module
            for recipe in recipes
            for path, module in keyed_modules(recipe.network).items()
        }

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a compiled step is specialised on besides the program."""
        one = self.data[0]
        batch = len(one.train) if self.schedule.batch is None else self.schedule.batch
        shapes = one.images.shape[1:], one.targets.shape[1:], len(one.validation)
        return len(self.data) == 1, len(self.variants) == 1, batch, *shapes, one.dtype, one.device

    def draws(self, epoch: int) -> Iterator[Tensors]:
        """What every step of an epoch needs from outside, by name."""
        orders = [one.order(self.schedule, epoch) for one in self.data]
        order = torch.stack(orders, dim=1).to(self.device)
        changes = {
            f"augment {v} {j}": drawn
            for v, (seed, augment) in enumerate(self.variants)
            for j, drawn in enumerate(augmentation_noise(augment, self.data[seed], epoch, orders[seed]))
        }
        for first, last in chunks(orders[0]):
            drawn = {
                f"noise {path} {draw}": torch.stack(
                    [noise(module, path, one, epoch, (first, last), order.shape[2]) for one in self.data],
                    dim=1,
                )
                for (path, draw), module in self.keyed.items()
            }
            for i in range(first, last):
                yield {
                    "order": order[i],
                    **{name: values[i] for name, values in changes.items()},
                    **{name: values[i - first] for name, values in drawn.items()},
                }

    def assemble(self, drawn: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        """Inputs, targets and noise of one step, as the program takes them."""
        pairs = [
            minibatch(
                self.data[seed],
                drawn["order"][seed],
                augment,
                [drawn[f"augment {v} {j}"] for j in range(len(augment))],
            )
            for v, (seed, augment) in enumerate(self.variants)
        ]
        x, t = (by_member(values, self.variant_of) for values in zip(*pairs, strict=True))
        masks = {
            name: by_member(list(drawn[f"noise {path} {draw}"]), self.places[name])
            for name, (path, draw, _) in self.noisy.items()
        }
        return x, t, masks

    def cases(self, part: str) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Inputs and right classes of a part, train, validation or test, in portions of `SeedData`.

        The number of new cases, which stand last, comes with each.
        """
        indices = [getattr(one, part) for one in self.data]
        for some, new in self.data[0].portions(len(indices[0])):
            places = [(one, index[some]) for one, index in zip(self.data, indices, strict=True)]
            x = by_member([one.inputs(index) for one, index in places], self.seed_of)
            t = by_member([one.outputs(index) for one, index in places], self.seed_of)
            yield x, t.argmax(1), new
