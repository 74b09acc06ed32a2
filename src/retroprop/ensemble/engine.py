"""Trains a group of trials together; each member's result is that of training alone."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.program import Carried, Program
from retroprop.ensemble.trial_data import Schedule, SeedData, augmented, keyed_modules, noise
from retroprop.fix import Recipe
from retroprop.optim.rule import Tensors
from retroprop.randomness import Seed
from retroprop.stacking.dispatch import member_tensors

_EVALUATED_AT_ONCE = 2048


@dataclass
class GroupResult:
    """Outcomes by member, and how the group ran.

    compiled: whether the compiled step was used; `notes` say why not when it was asked for.
    compile_seconds: until the first compiled step was there; not part of any member's seconds.
    """

    outcomes: list[Outcome]
    compiled: bool
    compile_seconds: float
    notes: list[str] = field(default_factory=list)


class Engine:
    """Trains groups, one after another; groups of one make share a compiled step."""

    def __init__(self) -> None:
        self._compiled_before: list[tuple[Program, tuple[Any, ...], Callable[..., Any]]] = []

    def train(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
        *,
        test: bool,
        compiled: bool,
    ) -> GroupResult:
        """Train a group from start to end.

        Args:
            recipes: one a member; they are left as they are.
            seeds: one a member.
            data: of every seed.
            schedule: epochs and minibatches, the same for all.
            test: whether the test set may be looked at, once, after the last step.
            compiled: whether the step is to be compiled.

        Raises:
            NoTwin: when the networks cannot be stacked.
        """
        flushed = torch.set_flush_denormal(True)
        try:
            group = _Group(recipes, seeds, data, schedule)
            result = GroupResult([], False, 0.0)
            step: Callable[..., Any] = group.program.step
            if compiled:
                step = self._compiled(group, result)
            result.outcomes = group.run(step, test=test)
        finally:
            if flushed:
                torch.set_flush_denormal(False)
        return result

    def _compiled(self, group: "_Group", result: GroupResult) -> Callable[..., Any]:
        """The compiled step, checked against the eager one; the eager one where they disagree."""
        for program, shape, step in self._compiled_before:
            if shape == group.shape and program.same_make(group.program):
                result.compiled = True
                return step
        started = time.perf_counter()
        eager = group.program.step
        # Without guards, which cost a tenth of a step: whoever comes here has the same make and shape.
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        step = torch.compile(_own_code(eager), fullgraph=True, dynamic=False, options=options)
        x, t, drawn = next(iter(group.minibatches(0)))
        start = group.program.start()
        inputs = group.step_inputs(start, x, t, drawn)
        try:
            fast = step(*inputs)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            result.notes.append(f"eager, because the compiler failed: {reason}")
            return eager
        result.compile_seconds = time.perf_counter() - started
        worst = disagreement(group.program, start, fast, eager(*inputs))
        if worst > tolerance(x.dtype):
            result.notes.append(f"eager, because the compiled step disagreed by {worst:.1e}")
            return eager
        result.compiled = True
        self._compiled_before.append((group.program, group.shape, step))
        return step


def _own_code(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with a code object of its own.

    torch.compile keeps what it made by code object, so without guards the second program of a process
    would run the first one's step.
    """
    plain = method.__func__  # type: ignore[attr-defined]
    own = FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__)
    return MethodType(own, method.__self__)  # type: ignore[attr-defined]


def tolerance(dtype: torch.dtype) -> float:
    """Largest `disagreement` that rounding may cause; a wrong sign or a lost term is near 1."""
    return 1e-7 if dtype == torch.float64 else 1e-2


def disagreement(program: Program, before: Carried, a: tuple[Any, ...], b: tuple[Any, ...]) -> float:
    """Largest difference between two ways to take one step, by member and tensor.

    Changes of parameters and buffers are compared with the size of each member's own change of that
    tensor, or with a ten-thousandth of its largest change where that is more: what should be zero is
    rounding. Losses are compared with themselves.

    Args:
        program: of the group.
        before: what the step started from.
        a, b: what `Program.step` gave.
    """
    old = {**before.parameters, **before.buffers}
    new_a, new_b = ({**one[0], **one[1]} for one in (a, b))
    gaps, sizes = {}, {}
    largest = torch.zeros(program.size, dtype=torch.float64)
    for name, tensor in old.items():
        change_a, change_b = (
            (new[name] - tensor).double().reshape(len(tensor), -1).norm(dim=1).cpu() for new in (new_a, new_b)
        )
        gaps[name] = (new_a[name] - new_b[name]).double().reshape(len(tensor), -1).norm(dim=1).cpu()
        sizes[name] = torch.maximum(change_a, change_b)
        members = list(program.owners[name])
        if name in before.parameters:
            largest[members] = torch.maximum(largest[members], sizes[name])
    worst = ((a[4] - b[4]).abs() / b[4].abs().clamp(min=1e-30)).double().cpu().tolist()
    for name, gap in gaps.items():
        floor = 1e-4 * largest[list(program.owners[name])]
        worst += (gap / torch.maximum(sizes[name], floor).clamp(min=1e-30)).tolist()
    return max(float("inf") if math.isnan(value) else value for value in worst)


def by_member(values: Sequence[Tensor], place_of: Tensor) -> Tensor:
    """Values (case, ...) at places -> (member, ..., case); member dimension 1 where all share one place.

    Args:
        values: by place.
        place_of: `(member,)`.
    """
    stacked = torch.stack([value.movedim(0, -1) for value in values])
    return (stacked if len(values) == 1 else stacked[place_of]).contiguous()


class _Group:
    """One group's data and program."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
    ) -> None:
        self.schedule = schedule
        self.data = [data[seed] for seed in dict.fromkeys(seeds)]
        place = {one.seed: i for i, one in enumerate(self.data)}
        self.seed_of = torch.tensor([place[seed] for seed in seeds])
        # Members of one seed share minibatches unless their augmentation differs.
        variants = [(place[seed], recipe.augment) for seed, recipe in zip(seeds, recipes, strict=True)]
        self.variants = list(dict.fromkeys(variants))
        self.variant_of = torch.tensor([self.variants.index(variant) for variant in variants])
        first = self.data[0].train_x
        self.recipes = [
            recipe
            if next(recipe.network.parameters()).dtype == first.dtype
            else replace(recipe, network=copy.deepcopy(recipe.network).to(first))
            for recipe in recipes
        ]
        self.program = Program(self.recipes)
        self.program.network.to(first.device)
        self.keyed = {
            path: module for recipe in recipes for path, module in keyed_modules(recipe.network).items()
        }

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a compiled step is specialised on besides the program."""
        first = self.data[0].train_x
        batch = len(first) if self.schedule.batch is None else self.schedule.batch
        return len(self.data) == 1, len(self.variants) == 1, batch, first.dtype, first.device

    def minibatches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensors]]:
        """Inputs, targets and noise of every step of an epoch."""
        orders = [one.order(self.schedule, epoch) for one in self.data]
        first = self.data[0].train_x
        drawn = {
            path: [
                noise(module, path, one.seed, epoch, order).to(first)
                for one, order in zip(self.data, orders, strict=True)
            ]
            for path, module in self.keyed.items()
        }
        batches = [
            augmented(augment, self.data[seed], epoch, orders[seed]) for seed, augment in self.variants
        ]
        for i, pairs in enumerate(zip(*batches, strict=True)):
            masks = {
                name: by_member([value[i] for value in drawn[path]], self.seed_of[list(members)])
                for name, (path, members) in self.program.noisy.items()
            }
            x, t = (by_member(values, self.variant_of) for values in zip(*pairs, strict=True))
            yield x, t, masks

    def step_inputs(self, carried: Carried, x: Tensor, t: Tensor, drawn: Tensors) -> tuple[Any, ...]:
        """The arguments of the program's step."""
        return (
            carried.parameters,
            carried.buffers,
            carried.state,
            carried.alive,
            x,
            t,
            drawn,
            self.program.hyper,
        )

    def run(self, step: Callable[..., Any], *, test: bool) -> list[Outcome]:
        """Train all members from start to end."""
        started = time.perf_counter()
        program, carried = self.program, self.program.start()
        losses, accuracies = [], []
        first: list[dict[str, float]] = []
        last: tuple[Tensor, Tensor, Tensors] | None = None
        for epoch in range(self.schedule.epochs):
            epoch_losses = []
            for x, t, drawn in self.minibatches(epoch):
                last = (x, t, drawn)
                first = first or program.gradient_norms(carried, *last)
                parameters, buffers, state, alive, loss = step(*self.step_inputs(carried, x, t, drawn))
                carried = Carried(parameters, buffers, state, alive, carried.steps + alive)
                epoch_losses.append(loss)
            losses.append(torch.stack(epoch_losses).mean(0).cpu().numpy())
            accuracies.append(self.correct(carried, "validation").mean(1))
        final = program.gradient_norms(carried, *last) if last else first
        right = self.correct(carried, "test") if test else None
        train_accuracy = self.correct(carried, "train").mean(1)
        seconds = (time.perf_counter() - started) / program.size
        tensors = {**program.rule.evaluated(carried.parameters, carried.state), **carried.buffers}
        # The last update has no loss behind it that could tell.
        alive_now = (carried.alive & program.finite(carried)).tolist()
        steps = carried.steps.tolist()
        return [
            Outcome(
                train_loss=np.array([loss[k] for loss in losses]),
                validation_accuracy=np.array([accuracy[k] for accuracy in accuracies]),
                train_accuracy=float(train_accuracy[k]),
                test_accuracy=None if right is None else float(right[k].mean()),
                test_correct=None if right is None else right[k],
                gradient_first=first[k],
                gradient_last=final[k],
                diverged=not alive_now[k],
                steps=steps[k],
                seconds=seconds,
                tensors={
                    name: tensor.clone()
                    for name, tensor in member_tensors(tensors, program.owners, k).items()
                },
            )
            for k in range(program.size)
        ]

    def correct(self, carried: Carried, part: str) -> np.ndarray:
        """Whether each case is classified rightly, at evaluation: bool `(member, case)`."""
        xs = [getattr(one, f"{part}_x") for one in self.data]
        ts = [getattr(one, f"{part}_t") for one in self.data]
        found = []
        for i in range(0, len(xs[0]), _EVALUATED_AT_ONCE):
            some = slice(i, i + _EVALUATED_AT_ONCE)
            said = self.program.outputs(carried, by_member([x[some] for x in xs], self.seed_of)).argmax(1)
            found.append((said == by_member([t[some] for t in ts], self.seed_of).argmax(1)).cpu())
        return torch.cat(found, dim=1).numpy()
