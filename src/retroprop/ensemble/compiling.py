"""The compiled step of a group, checked against the eager one before it is used."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from retroprop.ensemble.graph import compiled
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
                return replace(known, seconds=0.0)
        started = time.perf_counter()
        eager = Found(program.step, program.evaluate, False)
        try:
            found = self._compiled(program, minibatches, eager)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            return replace(eager, notes=[f"eager, because the compiler failed: {reason}"])
        found.seconds = time.perf_counter() - started
        if found.compiled:
            self._before.append((program, minibatches.shape, found))
        return found

    def _compiled(self, program: Program, minibatches: Minibatches, eager: Found) -> Found:
        batch = minibatches.assemble(next(minibatches.draws(0)))
        start = program.start()
        inputs = step_inputs(program, start, *batch)
        # A CUDA graph has tensors of its own, which it overwrites itself.
        overwritten = _CARRIED if program.device.type == "cpu" else 0
        step = compiled(program.step, inputs, overwritten=overwritten, lock=self.lock)
        taken = step_inputs(program, program.start(), *batch)
        worst = disagreement(program, start, step(*taken), program.step(*inputs))
        if worst > tolerance(batch[0].dtype, program.precision):
            return replace(eager, notes=[f"eager, because the compiled step disagreed by {worst:.1e}"])
        x, *_ = next(minibatches.cases("validation"))
        state = start.parameters, start.buffers, start.state, x
        evaluate = compiled(program.evaluate, state, lock=self.lock)
        said, expected = evaluate(*state), program.evaluate(*state)
        worst = float(((said - expected).norm() / expected.norm()).nan_to_num(nan=torch.inf))
        if worst > tolerance(batch[0].dtype, program.precision):
            note = f"eager evaluation, because the compiled one disagreed by {worst:.1e}"
            return Found(step, program.evaluate, True, notes=[note])
        return Found(step, _of_shape(x.shape, evaluate, program.evaluate), True)


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
