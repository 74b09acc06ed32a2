"""Trains a group of trials together; each member's result is that of training alone."""

import copy
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from retroprop.ensemble.checkpoint import Checkpoint, run
from retroprop.ensemble.compiling import Compiler
from retroprop.ensemble.memory import out_of_memory
from retroprop.ensemble.minibatches import Minibatches
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.precision import tf32
from retroprop.ensemble.program import Program
from retroprop.ensemble.replay import Replay
from retroprop.ensemble.training import Step, Stepper, TakeStep, Training
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import RetropropError
from retroprop.fix import Recipe
from retroprop.randomness import Seed


@dataclass
class GroupResult:
    """Outcomes by member, and how the group ran.

    compiled: whether the compiled step was used; `notes` say why not when it was asked for.
    compile_seconds: until the first compiled step was there; not part of any member's seconds.
    resumed: epochs that an interrupted run had done.
    halved: whether the group was split because memory ran out.
    """

    outcomes: list[Outcome]
    compiled: bool
    compile_seconds: float
    notes: list[str] = field(default_factory=list)
    resumed: int = 0
    halved: bool = False


class Engine:
    """Trains groups, one after another; groups of one make share a compiled step.

    Args:
        lock: see `Compiler`.
    """

    def __init__(self, lock: Path | None = None) -> None:
        self.compiler = Compiler(lock)

    def train(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
        *,
        test: bool,
        compiled: bool,
        checkpoint: Checkpoint | None = None,
    ) -> GroupResult:
        """Train a group from start to end.

        Where memory runs out the group is halved; results are then equal to those of the whole group to
        rounding only.

        Args:
            recipes: one a member; they are left as they are.
            seeds: one a member.
            data: of every seed.
            schedule: epochs and minibatches, the same for all.
            test: whether the test set may be looked at, once, after the last step.
            compiled: whether the step is to be compiled.
            checkpoint: where a long training leaves its state between epochs, and goes on from.

        Raises:
            NoTwin: when the networks cannot be stacked.
            RetropropError: when there is not enough memory for one member.
        """
        flushed = torch.set_flush_denormal(True)
        try:
            return self._train_whole(recipes, seeds, data, schedule, test, compiled, checkpoint)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(recipes) == 1:
                raise RetropropError(
                    "Memory ran out for a group of one member. Give a smaller network or batch, or a "
                    "machine with more memory."
                ) from None
        finally:
            if flushed:
                torch.set_flush_denormal(False)
        # Outside of the handler, whose traceback keeps the tensors of the failed attempt.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.train_halves(
            recipes, seeds, data, schedule, test=test, compiled=compiled, checkpoint=checkpoint
        )

    def _train_whole(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
        test: bool,
        compiled: bool,
        checkpoint: Checkpoint | None,
    ) -> GroupResult:
        with tf32(schedule.precision):
            training, result = self.start(recipes, seeds, data, schedule, compiled=compiled)
            result.resumed = run(training, checkpoint)
            result.outcomes = training.finish(test=test)
        return result

    def start(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
        *,
        compiled: bool,
    ) -> tuple[Training, GroupResult]:
        """A group before its first step, with the step that it is to take; see `train`."""
        one = data[seeds[0]]
        program = Program([_typed(recipe, one) for recipe in recipes], one.device, schedule.precision)
        minibatches = Minibatches(recipes, seeds, data, schedule, program.noisy)
        result = GroupResult([], compiled, 0.0)

        def prepare(now: Program) -> tuple[Step, Step]:
            found = self.compiler.find(now, minibatches)
            result.compiled = result.compiled and found.compiled
            result.compile_seconds += found.seconds
            result.notes += [note for note in found.notes if note not in result.notes]
            return found.step, found.evaluate

        def recorder(take_step: TakeStep) -> Stepper:
            return Replay(take_step, result.notes)

        training = Training(
            program,
            minibatches,
            prepare if compiled else None,
            recorder if one.device.type == "cuda" else None,
        )
        return training, result

    def train_halves(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[Seed],
        data: Mapping[Seed, SeedData],
        schedule: Schedule,
        *,
        test: bool,
        compiled: bool,
        checkpoint: Checkpoint | None = None,
    ) -> GroupResult:
        """Train both halves of a group of two or more, one after the other; see `train`."""
        half = len(recipes) // 2
        first, second = (
            self.train(
                recipes[part],
                seeds[part],
                data,
                schedule,
                test=test,
                compiled=compiled,
                checkpoint=checkpoint and checkpoint.part(name),
            )
            for name, part in (("first", slice(None, half)), ("second", slice(half, None)))
        )
        return GroupResult(
            first.outcomes + second.outcomes,
            first.compiled and second.compiled,
            first.compile_seconds + second.compile_seconds,
            [f"memory ran out, so a group of {len(recipes)} was halved", *first.notes, *second.notes],
            min(first.resumed, second.resumed),
            halved=True,
        )


def _typed(recipe: Recipe, data: SeedData) -> Recipe:
    """The recipe with a network of the data's type."""
    if next(recipe.network.parameters()).dtype == data.dtype:
        return recipe
    return replace(recipe, network=copy.deepcopy(recipe.network).to(data.dtype))
