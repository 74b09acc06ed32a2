"""Steps of a group as a CUDA graph: launched as one, fed through tensors that stay where they are."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from retroprop.ensemble.program import Carried
from retroprop.optim.rule import Tensors

TakeStep = Callable[[Carried, Tensors], tuple[Carried, Tensor]]
# Steps of one launch. More gain little: a launch costs some microseconds, a step some hundred.
STEPS = 8


class Replay:
    """Takes steps by replaying a recorded graph of several, and of one for what is left over.

    Nothing waits for the device: indices and random numbers are copied into the graph's own tensors, and
    losses are read after the epoch.

    Args:
        take_step: one step; it must do the same work on tensors of the same shapes at every call.
        steps: of one launch.
    """

    def __init__(self, take_step: TakeStep, steps: int = STEPS) -> None:
        self.take_step, self.steps = take_step, steps
        self._carried: Carried | None = None
        self._recorded: dict[int, _Recording] = {}

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
                if len(portion) not in self._recorded:
                    self._recorded[len(portion)] = _Recording(self.take_step, self._carried, portion)
                losses.append(self._recorded[len(portion)].replay(portion))
        return self._carried, torch.cat(losses)


class _Recording:
    """A graph of some steps, from the carried tensors to themselves."""

    def __init__(self, take_step: TakeStep, carried: Carried, draws: list[Tensors]) -> None:
        self.draws = [{name: value.clone() for name, value in drawn.items()} for drawn in draws]
        before = _copy(carried)
        stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up outside of the record
            for _ in range(2):
                self._run(take_step, carried)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = self._run(take_step, carried)
        _copy_into(carried, before)

    def _run(self, take_step: TakeStep, carried: Carried) -> Tensor:
        now, losses = carried, []
        for drawn in self.draws:
            now, loss = take_step(now, drawn)
            losses.append(loss)
        _copy_into(carried, now)
        return torch.stack(losses)

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
    kinds = {"parameter": carried.parameters, "buffer": carried.buffers, **carried.state}
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
