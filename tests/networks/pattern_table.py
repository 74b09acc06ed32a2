"""Trains a stacked group of networks on a fixed table of patterns, as the experiments of 1986 did."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retroprop.ensemble.planner import has_compiler
from retroprop.ensemble.program import Carried, Program
from retroprop.fix import Recipe
from retroprop.stacking.dispatch import member_tensors


@dataclass
class TableRun:
    """What a group did on a table.

    solved_at: int64 `(member,)`, the first checked sweep after which every output was on the right side
        of 0.5; -1 where none was.
    most_right: int64 `(member,)`, the most cases that were right at a check.
    error: `(member,)`, the error before the last sweep.
    tensors: final parameters and buffers by name, one dictionary a member.
    """

    solved_at: Tensor
    most_right: Tensor
    error: Tensor
    tensors: list[dict[str, Tensor]]

    @property
    def solved(self) -> Tensor:
        """Bool `(member,)`."""
        return self.solved_at >= 0

    def summary(self) -> str:
        """Members solved, and the sweeps that they took, in one line."""
        took = self.solved_at[self.solved].sort().values.tolist()
        if not took:
            return f"0 of {len(self.solved_at)} solved"
        return (
            f"{len(took)} of {len(self.solved_at)} solved, median {took[len(took) // 2]} sweeps "
            f"[{took[0]} to {took[-1]}]"
        )


def train_on_table(
    recipes: Sequence[Recipe],
    x: Tensor,
    t: Tensor,
    sweeps: int,
    *,
    check_every: int = 1,
    stop_when_solved: bool = False,
    compiled: bool = False,
) -> TableRun:
    """Whole-set updates of all recipes as one group.

    Args:
        recipes: one a member, all of the dtype of x; they are left as they are.
        x: patterns (case, in).
        t: targets (case, out).
        sweeps: updates.
        check_every: sweeps between two looks at the outputs.
        stop_when_solved: stop once every member has been seen solved.
        compiled: compile the step, if there is a compiler; that takes about ten seconds.
    """
    program = Program(recipes)
    step = program.step
    if compiled and has_compiler():
        step = torch.compile(step, fullgraph=True, dynamic=False)
    x, t = x.T.unsqueeze(0).contiguous(), t.T.unsqueeze(0).contiguous()
    carried = program.start()
    solved_at, most_right = torch.full((program.size,), -1), torch.zeros(program.size, dtype=torch.int64)
    error = torch.zeros(program.size)
    for sweep in range(1, sweeps + 1):
        parameters, buffers, state, alive, error = step(
            carried.parameters, carried.buffers, carried.state, carried.alive, x, t, {}, program.hyper
        )
        carried = Carried(parameters, buffers, state, alive, carried.steps)
        if sweep % check_every == 0:
            right = ((program.evaluate(parameters, buffers, state, x) > 0.5) == (t > 0.5)).all(1).sum(1)
            most_right = most_right.maximum(right)
            solved_at[(solved_at < 0) & (right == x.shape[-1])] = sweep
            if stop_when_solved and bool((solved_at >= 0).all()):
                break
    final = {**carried.parameters, **carried.buffers}
    members = [member_tensors(final, program.owners, k) for k in range(program.size)]
    return TableRun(solved_at, most_right, error, members)
