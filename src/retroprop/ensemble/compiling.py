"""The compiled step of a group, checked against the eager one before it is used."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from retroprop.ensemble.graph import compiled
from retroprop.ensemble.memory import out_of_memory
from retroprop.ensemble.minibatches import Minibatches
from retroprop.ensemble.precision import Precision
from retroprop.ensemble.program import Carried, Program
from retroprop.ensemble.training import step_inputs
from retroprop.optim.rule import State, Tensors

Step = Callable[..., Any]
# Parameters, buffers, state and alive: the first arguments of a step and the first that it gives.
_CARRIED = 4


@dataclass
class Found:
    """The functions that a group is to use.

    compiled: whether the step is compiled; `notes` say why not.
    seconds: until they were there.
    """

    step: Step
    evaluate: Step
    compiled: bool
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def of(self, program: Program) -> "Found":
        """The same for another program of the make; what is eager is its own."""
        if not self.compiled:
            return Found(program.step, program.evaluate, False, notes=self.notes)
        return replace(self, seconds=0.0)


class Compiler:
    """Compiled steps by make and shape: groups that agree in both share one.

    Args:
        lock: a file that keeps several processes from compiling the same step at once; whoever comes
            second finds it in the compiler's cache.
    """

    def __init__(self, lock: Path | None = None) -> None:
        self.lock = lock
        self._before: list[tuple[Program, tuple[Any, ...], Found]] = []

    def find(self, program: Program, minibatches: Minibatches) -> Found:
        """Compiled functions of a group; eager ones where they disagree or the compiler fails."""
        for other, shape, known in self._before:
            if shape == minibatches.shape and other.same_make(program):
                return known.of(program)
        started = time.perf_counter()
        eager = Found(program.step, program.evaluate, False)
        try:
            found = self._compiled(program, minibatches, eager)
        except Exception as error:
            if out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            found = replace(eager, notes=[f"eager, because the compiler failed: {reason}"])
        found.seconds = time.perf_counter() - started
        self._before.append((program, minibatches.shape, found))
        return found

    def _compiled(self, program: Program, minibatches: Minibatches, eager: Found) -> Found:
        batch = minibatches.assemble(next(minibatches.draws(0)))
        start = program.start()
        inputs = step_inputs(program, start, *batch)
        limit = tolerance(batch[0].dtype, program.precision)
        # A CUDA graph has tensors of its own, which it overwrites itself. On a CPU torch 2.11 compiles some
        # steps that overwrite their state wrongly, and the same ones rightly where they leave it.
        for overwritten in (_CARRIED, 0) if program.device.type == "cpu" else (0,):
            step = compiled(program.step, inputs, overwritten=overwritten, lock=self.lock)
            worst, after = _two_steps(program, step, batch)
            if worst <= limit:
                break
        else:
            return replace(eager, notes=[f"eager, because the compiled step disagreed by {worst:.1e}"])
        x, *_ = next(minibatches.cases("validation"))
        state = after.parameters, after.buffers, after.state, x
        evaluate = compiled(program.evaluate, state, lock=self.lock)
        said, right = (out.double().flatten(1) for out in (evaluate(*state), program.evaluate(*state)))
        worst = float((_gap(said, right) / right.nan_to_num().norm(dim=1).clamp(min=1e-30)).max())
        if worst > limit:
            note = f"eager evaluation, because the compiled one disagreed by {worst:.1e}"
            return Found(step, program.evaluate, True, notes=[note])
        return Found(step, _of_shape(x.shape, evaluate, program.evaluate), True)


def _two_steps(program: Program, step: Step, batch: tuple[Any, ...]) -> tuple[float, Carried]:
    """Largest disagreement with the eager step in two steps, and the state after them.

    Two, as the first one finds a state that is all zeros.
    """
    ours, theirs, worst = program.start(), program.start(), 0.0
    for _ in range(2):
        found = step(*step_inputs(program, ours, *batch))
        expected = program.step(*step_inputs(program, theirs, *batch))
        worst = max(worst, disagreement(program, theirs, found, expected))
        ours, theirs = _after(found), _after(expected)
    return worst, theirs


def _after(stepped: tuple[Any, ...]) -> Carried:
    """What the next step starts from; nobody counts these ones."""
    parameters, buffers, state, alive, _ = stepped
    return Carried(parameters, buffers, state, alive, torch.zeros_like(alive, dtype=torch.int64))


def _of_shape(shape: torch.Size, compiled: Step, eager: Step) -> Step:
    """Evaluation that is compiled for inputs of one shape and eager for others."""

    def evaluate(parameters: Tensors, buffers: Tensors, state: State, x: torch.Tensor) -> torch.Tensor:
        chosen = compiled if x.shape == shape else eager
        return chosen(parameters, buffers, state, x)

    return evaluate


def tolerance(dtype: torch.dtype, precision: Precision = "float32") -> float:
    """Largest `disagreement` that rounding may cause; a wrong sign or a lost term is near 1."""
    if precision == "bf16":
        return 0.2
    return 1e-7 if dtype == torch.float64 else 1e-2


def disagreement(program: Program, before: Carried, a: tuple[Any, ...], b: tuple[Any, ...]) -> float:
    """Largest difference between two ways to take one step, by member and tensor.

    Changes of parameters, buffers and state are compared with the size of each member's own change of that
    tensor, or with a ten-thousandth of its largest change where that is more: what should be zero is
    rounding. Losses are compared with themselves. What is not finite in both is no difference.

    Args:
        program: of the group.
        before: what the step started from.
        a, b: what `Program.step` gave.
    """
    if not torch.equal(a[3], b[3]):
        return float("inf")
    old = _named(before.parameters, before.buffers, before.state)
    new_a, new_b = (_named(*one[:3]) for one in (a, b))
    gaps, sizes = {}, {}
    largest = torch.zeros(program.size, dtype=torch.float64)
    for key, tensor in old.items():
        rows = [new[key].double().reshape(len(tensor), -1) for new in (new_a, new_b)]
        start = tensor.double().reshape(len(tensor), -1)
        gaps[key] = _gap(*rows).cpu()
        sizes[key] = torch.maximum(*((row - start).nan_to_num().norm(dim=1).cpu() for row in rows))
        members = list(program.owners[key[1]])
        if key[0] == "parameter":
            largest[members] = torch.maximum(largest[members], sizes[key])
    losses = [one[4].double().unsqueeze(1) for one in (a, b)]
    worst = (_gap(*losses) / losses[1].nan_to_num().abs().squeeze(1).clamp(min=1e-30)).cpu().tolist()
    for (kind, name), gap in gaps.items():
        # A slot of the state may be of another order of magnitude than the parameter.
        floor = 1e-4 * (largest[list(program.owners[name])] if kind in ("parameter", "buffer") else 1.0)
        scale = torch.maximum(sizes[kind, name], torch.as_tensor(floor, dtype=torch.float64))
        worst += (gap / scale.clamp(min=1e-30)).tolist()
    return max(float("inf") if math.isnan(value) else value for value in worst)


def _named(parameters: Tensors, buffers: Tensors, state: State) -> dict[tuple[str, str], torch.Tensor]:
    """All tensors by kind or slot, and name."""
    kinds = {
        "parameter": parameters,
        "buffer": buffers,
        **{f"slot {slot}": held for slot, held in state.items()},
    }
    return {(kind, name): tensor for kind, held in kinds.items() for name, tensor in held.items()}


def _gap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Norm of the difference of rows `(member, value)`; equal infinities and NaN on both sides are none."""
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, a - b).norm(dim=1)
