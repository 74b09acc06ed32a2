"""Steps of a group as a CUDA graph: launched as one, fed through tensors that stay where they are."""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from retroprop.ensemble.memory import out_of_memory
from retroprop.ensemble.program import Carried
from retroprop.ensemble.training import TakeStep
from retroprop.optim.rule import Tensors

# Steps of one launch. More gain little: a launch costs some microseconds, a step some hundred.
STEPS = 8


class Replay:
    """Takes steps by replaying a recorded graph of several, and of one for what is left over.

    Nothing waits for the device: indices and random numbers are copied into the graph's own tensors, and
    losses are read after the epoch.

    Args:
        take_step: one step; it must do the same work on tensors of the same shapes at every call.
        notes: hears why, where a step cannot be recorded and is taken without a graph.
        steps: of one launch.
    """

    def __init__(self, take_step: TakeStep, notes: list[str], steps: int = STEPS) -> None:
        self.take_step, self.notes, self.steps = take_step, notes, steps
        self._carried: Carried | None = None
        self._recorded: dict[int, _Recording | None] = {}

    def __call__(self, carried: Carried, draws: Iterable[Tensors]) -> tuple[Carried, Tensor]:
        """Take all steps; the state after them and their losses `(step, member)`."""
        if self._carried is None:
            self._carried = _copy(carried)
        elif carried is not self._carried:  # a restored state
            _copy_into(self._carried, carried)
        losses = []
        for some in _batches(draws, self.steps):
            portions = [some] if len(some) == self.steps else [[one] for one in some]
            for portion in portions:
                recording = self._recording(portion)
                replay = recording.replay if recording else self._plain
                losses.append(replay(portion))
        return self._carried, torch.cat(losses)

    def _recording(self, draws: list[Tensors]) -> "_Recording | None":
        """The graph of so many steps, recorded at first need; None where that is not possible."""
        assert self._carried is not None
        if len(draws) not in self._recorded:
            before = _copy(self._carried)
            try:
                self._recorded[len(draws)] = _Recording(self.take_step, self._carried, draws)
            except (RuntimeError, AssertionError) as error:
                if out_of_memory(error):
                    raise
                self._recorded[len(draws)] = None
                self.notes.append(f"without a CUDA graph, because {' '.join(str(error).split())[:200]}")
            _copy_into(self._carried, before)
        return self._recorded[len(draws)]

    def _plain(self, draws: list[Tensors]) -> Tensor:
        assert self._carried is not None
        return run_in_place(self.take_step, self._carried, draws)


def run_in_place(take_step: TakeStep, carried: Carried, draws: list[Tensors]) -> Tensor:
    """Take steps and leave the state where it was; the losses `(step, member)`."""
    now, losses = carried, []
    for drawn in draws:
        now, loss = take_step(now, drawn)
        losses.append(loss)
    _copy_into(carried, now)
    return torch.stack(losses)


class _Recording:
    """A graph of some steps, from the carried tensors to themselves."""

    def __init__(self, take_step: TakeStep, carried: Carried, draws: list[Tensors]) -> None:
        self.draws = [{name: value.clone() for name, value in drawn.items()} for drawn in draws]
        stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up outside of the record
            for _ in range(2):
                run_in_place(take_step, carried, self.draws)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = run_in_place(take_step, carried, self.draws)

    def replay(self, draws: list[Tensors]) -> Tensor:
        """Launch the graph on other draws; the losses `(step, member)`."""
        for kept, drawn in zip(self.draws, draws, strict=True):
            for name, value in drawn.items():
                kept[name].copy_(value, non_blocking=True)
        self.graph.replay()
        return self.losses.clone()


def _batches(draws: Iterable[Tensors], size: int) -> Iterator[list[Tensors]]:
    waiting = iter(draws)
    while some := list(itertools.islice(waiting, size)):
        yield some


def _tensors(carried: Carried) -> dict[tuple[str, str], Tensor]:
    slots = {f"slot {slot}": held for slot, held in carried.state.items()}
    kinds = {"parameter": carried.parameters, "buffer": carried.buffers, **slots}
    named = {(kind, name): tensor for kind, held in kinds.items() for name, tensor in held.items()}
    return {**named, ("alive", ""): carried.alive, ("steps", ""): carried.steps}


def _copy(carried: Carried) -> Carried:
    def copied(tensors: Tensors) -> Tensors:
        return {name: tensor.clone() for name, tensor in tensors.items()}

    return Carried(
        copied(carried.parameters),
        copied(carried.buffers),
        {slot: copied(tensors) for slot, tensors in carried.state.items()},
        carried.alive.clone(),
        carried.steps.clone(),
    )


def _copy_into(kept: Carried, new: Carried) -> None:
    tensors, values = _tensors(kept), _tensors(new)
    torch._foreach_copy_(list(tensors.values()), [values[name] for name in tensors])
