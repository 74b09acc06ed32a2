"""A group in training: epoch after epoch, with a state that can be written down and taken up again."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from retroprop.ensemble.minibatches import Minibatches
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.program import Carried, Program
from retroprop.optim.rule import Tensors
from retroprop.stacking.dispatch import member_tensors

Step = Callable[..., Any]
# Steps from a state: what follows them, and their losses (step, member).
Stepper = Callable[[Carried, Sequence[Tensors]], tuple[Carried, Tensor]]
TakeStep = Callable[[Carried, Tensors], tuple[Carried, Tensor]]


class Training:
    """One group on its way from start to end.

    Args:
        program: of the group.
        minibatches: what it is fed.
        prepare: gives `step` and `evaluate` of a program, or faster functions that do the same.
        recorder: gives, from `take_step`, what takes several steps at once; by default one after another.

    Attributes:
        epoch: epochs done.
        seconds: spent so far, also before an interruption.
    """

    def __init__(
        self,
        program: Program,
        minibatches: Minibatches,
        prepare: Callable[[Program], tuple[Step, Step]] | None = None,
        recorder: Callable[[TakeStep], Stepper] | None = None,
    ) -> None:
        self.program, self.minibatches = program, minibatches
        self.prepare, self.recorder = prepare or (lambda now: (now.step, now.evaluate)), recorder
        self._ways: dict[Program, tuple[Step, Step, Stepper]] = {}
        self._enter(program.at(0))
        self.carried = program.start()
        self.epoch = 0
        self.seconds = 0.0
        self.losses: list[Tensor] = []
        self.accuracies: list[Tensor] = []
        self.gradient_first: list[dict[str, float]] = []

    def _enter(self, now: Program) -> None:
        """Go on with the program of an epoch, which is another one where sparse layers follow a schedule."""
        if now not in self._ways:
            stepper = self.recorder(self.take_step) if self.recorder else self.one_after_another
            self._ways[now] = (*self.prepare(now), stepper)
        self.now, (self.step, self.evaluate, self.stepper) = now, self._ways[now]

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.minibatches.device

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.minibatches.schedule.epochs

    def one_after_another(self, carried: Carried, draws: Iterable[Tensors]) -> tuple[Carried, Tensor]:
        """Steps one by one."""
        losses = []
        for drawn in draws:
            carried, loss = self.take_step(carried, drawn)
            losses.append(loss)
        return carried, torch.stack(losses)

    def take_step(self, carried: Carried, drawn: Tensors) -> tuple[Carried, Tensor]:
        """One step, and the losses `(member,)` before it."""
        inputs = step_inputs(self.program, carried, *self.minibatches.assemble(drawn))
        parameters, buffers, state, alive, loss = self.step(*inputs)
        return Carried(parameters, buffers, state, alive, carried.steps + alive), loss

    def run_epoch(self) -> None:
        """Train for one more epoch, and look at the validation images."""
        if self.program.at(self.epoch) is not self.now:
            self._enter(self.program.at(self.epoch))
        started = time.perf_counter()
        draws = self.minibatches.draws(self.epoch)
        if self.epoch == 0:
            first = next(draws)
            batch = self.minibatches.assemble(first)
            self.gradient_first = self.now.gradient_norms(self.carried, *batch)
            draws = itertools.chain([first], draws)
        self.carried, losses = self.stepper(self.carried, draws)  # type: ignore[arg-type]
        self.losses.append(losses.mean(0))
        self.accuracies.append(self.correct("validation").double().mean(1))
        self.epoch += 1
        if self.carried.alive.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, as tensors and plain values of its own."""
        return _copied(
            {
                "carried": vars(self.carried),
                "epoch": self.epoch,
                "seconds": self.seconds,
                "losses": self.losses,
                "accuracies": self.accuracies,
                "gradient_first": self.gradient_first,
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        state = _copied(state)
        self.carried = Carried(**state["carried"])
        for name in ("epoch", "seconds", "losses", "accuracies", "gradient_first"):
            setattr(self, name, state[name])
        self._enter(self.program.at(max(self.epoch - 1, 0)))

    def finish(self, *, test: bool) -> list[Outcome]:
        """What every member has come to; the test images are looked at here, once, if at all."""
        started = time.perf_counter()
        program, carried = self.program, self.carried
        *_, last = self.minibatches.draws(self.epoch - 1)
        final = self.now.gradient_norms(carried, *self.minibatches.assemble(last))
        right = self.correct("test").cpu().numpy() if test else None
        train_accuracy = self.correct("train").double().mean(1).tolist()
        # The last update has no loss behind it that could tell.
        alive = (carried.alive & program.finite(carried)).tolist()
        losses, accuracies = (
            torch.stack(found).double().cpu().numpy() for found in (self.losses, self.accuracies)
        )
        steps = carried.steps.tolist()
        self.seconds += time.perf_counter() - started
        return [
            Outcome(
                train_loss=losses[:, k],
                validation_accuracy=accuracies[:, k],
                train_accuracy=train_accuracy[k],
                test_accuracy=None if right is None else float(right[k].mean()),
                test_correct=None if right is None else right[k],
                gradient_first=self.gradient_first[k],
                gradient_last=final[k],
                diverged=not alive[k],
                steps=steps[k],
                seconds=self.seconds / program.size,
                tensors=self.tensors(k),
            )
            for k in range(program.size)
        ]

    def tensors(self, member: int) -> Tensors:
        """Parameters, as evaluation uses them, and buffers of a member, by the names of its own network."""
        carried, program = self.carried, self.program
        held = {**program.rule.evaluated(carried.parameters, carried.state), **carried.buffers}
        return {name: t.clone() for name, t in member_tensors(held, program.owners, member).items()}

    def correct(self, part: str) -> Tensor:
        """Whether each case of a part is classified rightly, at evaluation: bool `(member, case)`."""
        carried, found = self.carried, []
        for x, t, new in self.minibatches.cases(part):
            said = self.evaluate(carried.parameters, carried.buffers, carried.state, x)
            found.append((said.argmax(1) == t)[:, -new:])
        return torch.cat(found, dim=1)


def _copied(value: Any) -> Any:
    """A nested state with tensors, dictionaries and lists of its own, as a compiled step overwrites them."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(held) for name, held in value.items()}
    return [_copied(held) for held in value] if isinstance(value, list) else value


def step_inputs(program: Program, carried: Carried, x: Tensor, t: Tensor, drawn: Tensors) -> tuple[Any, ...]:
    """The arguments of a program's step."""
    return (
        carried.parameters,
        carried.buffers,
        carried.state,
        carried.alive,
        x,
        t,
        drawn,
        program.hyper,
    )
