"""One trial, plain and slow: the reference that every fast path is held against."""

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retroprop.ensemble.checkpoint import Checkpoint, run
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.precision import products_in, tf32
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
from retroprop.optim.rule import Hyper, Tensors
from retroprop.sparse.schedule import begin_epoch


class Loop:
    """Trains one recipe step by step with ordinary autograd.

    The recipe's network is trained in place. Its seed is that of the data.
    """

    def __init__(self, recipe: Recipe, data: SeedData, schedule: Schedule) -> None:
        self.recipe, self.data, self.schedule = recipe, data, schedule
        self.network = recipe.network.to(data.device, data.dtype)
        self.parameters: Tensors = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.state = recipe.rule.start({k: p.detach() for k, p in self.parameters.items()})
        self.hyper: Hyper = {
            field: {name: p.new_tensor(value) for name, p in self.parameters.items()}
            for field, value in recipe.rule.hyper().items()
        }
        self.keyed = keyed_modules(self.network)
        persistent = self.network.state_dict()
        self._tracked = [name for name, _ in self.network.named_buffers() if name in persistent]
        self.steps = 0
        self.diverged = False

    def minibatches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensors]]:
        """Inputs, targets and noise by path of every step of an epoch, which begins for sparse layers too."""
        begin_epoch(self.network, epoch)
        order = self.data.order(self.schedule, epoch)
        changes = augmentation_noise(self.recipe.augment, self.data, epoch, order)
        for steps in chunks(order):
            drawn = {
                path: noise(module, path, self.data, epoch, steps, order.shape[1])
                for path, module in self.keyed.items()
            }
            for i in range(*steps):
                index = order[i].to(self.data.device)
                x, t = minibatch(self.data, index, self.recipe.augment, [change[i] for change in changes])
                yield x, t, {path: values[i - steps[0]] for path, values in drawn.items()}

    def loss(self, x: Tensor, t: Tensor, drawn: Tensors) -> Tensor:
        """The error of one minibatch, a scalar."""
        for path, module in self.keyed.items():
            module.noise = drawn[path]
        with products_in(self.schedule.precision, x.device):
            out = self.network(x)
        values = self.recipe.loss(out.to(t.dtype), t, -1)
        return values.sum() if self.recipe.reduction == "sum" else values.mean()

    def step(self, x: Tensor, t: Tensor, drawn: Tensors) -> float:
        """One update; the loss before it. A loss that is not finite freezes the trial."""
        losses: list[Tensor] = []

        def gradient(parameters: Tensors) -> Tensors:
            self._load(parameters)
            tracked = self._buffers()
            value = self.loss(x, t, drawn)
            losses.append(value)
            found = torch.autograd.grad(value, list(self.parameters.values()))
            if len(losses) > 1:
                self._restore(tracked)  # statistics follow the first look at a minibatch only
            return dict(zip(self.parameters, found, strict=True))

        before = self._now()
        tracked_before = self._buffers()
        changed, state = self.recipe.rule.step(before, gradient, self.state, self.hyper)
        value = float(losses[0].detach())
        self.diverged = self.diverged or not np.isfinite(value)
        self._load(before if self.diverged else changed)
        if self.diverged:
            self._restore(tracked_before)
        else:
            self.state = state
            self.steps += 1
        return value

    def _now(self) -> Tensors:
        return {name: p.detach() for name, p in self.parameters.items()}

    def _load(self, tensors: Tensors) -> None:
        # Rules never change a tensor in place, so none has to be copied.
        for name, parameter in self.parameters.items():
            parameter.data = tensors[name]

    def _buffers(self) -> Tensors:
        return {name: self.network.get_buffer(name).clone() for name in self._tracked}

    def _restore(self, buffers: Tensors) -> None:
        for name, buffer in buffers.items():
            self.network.get_buffer(name).copy_(buffer)

    def gradient_norms(self, x: Tensor, t: Tensor, drawn: Tensors) -> dict[str, float]:
        """Norm of the gradient of every weight matrix, without an update."""
        tracked = self._buffers()
        found = torch.autograd.grad(self.loss(x, t, drawn), list(self.parameters.values()))
        self._restore(tracked)
        norms = dict(zip(self.parameters, found, strict=True))
        return {name: float(g.norm()) for name, g in norms.items() if g.ndim > 1}

    def finish(self) -> None:
        """Leave the network as evaluation uses it; the last update has no loss behind it that could tell."""
        now = self._now()
        self.diverged = self.diverged or not all(bool(p.isfinite().all()) for p in now.values())
        self._load(self.recipe.rule.evaluated(now, self.state))
        for module in self.keyed.values():
            module.noise = module.noise.new_empty(0)

    @torch.no_grad()
    def correct(self, images: Tensor) -> np.ndarray:
        """Whether each of the images, `(case,)` indices, is classified rightly at evaluation: `(case,)`."""
        before = self._now()
        self._load(self.recipe.rule.evaluated(before, self.state))
        self.network.eval()
        with products_in(self.schedule.precision, self.data.device):
            right = []
            for portion, new in self.data.portions(len(images)):
                some = images[portion]
                said = self.network(self.data.inputs(some)).argmax(1)
                right.append((said == self.data.outputs(some).argmax(1))[-new:])
        self.network.train()
        self._load(before)
        return torch.cat(right).cpu().numpy()


class Alone:
    """One trial on its way from start to end, epoch after epoch; see `Training`."""

    def __init__(self, recipe: Recipe, data: SeedData, schedule: Schedule) -> None:
        self.loop = Loop(recipe, data, schedule)
        self.loop.network.train()
        self.epoch = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.gradient_first: dict[str, float] = {}

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.loop.data.device

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.loop.schedule.epochs

    def run_epoch(self) -> None:
        """Train for one more epoch, and look at the validation images."""
        started = time.perf_counter()
        losses = []
        for batch in self.loop.minibatches(self.epoch):
            self.gradient_first = self.gradient_first or self.loop.gradient_norms(*batch)
            losses.append(self.loop.step(*batch))
        self.losses.append(float(np.mean(losses)))
        self.accuracies.append(float(self.loop.correct(self.loop.data.validation).mean()))
        self.epoch += 1
        self.seconds += time.perf_counter() - started

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, as tensors and plain values."""
        plain = {name: value for name, value in vars(self).items() if name != "loop"}
        loop = self.loop
        held = {"network": export(loop.network), "rule": loop.state, "steps": loop.steps}
        return {**plain, "held": {**held, "diverged": loop.diverged}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        held = state["held"]
        self.loop.network.load_state_dict(held["network"])
        self.loop.state, self.loop.steps, self.loop.diverged = held["rule"], held["steps"], held["diverged"]
        vars(self).update({name: value for name, value in state.items() if name != "held"})

    def finish(self, *, test: bool) -> Outcome:
        """What the trial has come to; the test images are looked at here, once, if at all."""
        started = time.perf_counter()
        loop, data = self.loop, self.loop.data
        *_, last = loop.minibatches(self.epoch - 1)
        final = loop.gradient_norms(*last)
        right = loop.correct(data.test) if test else None
        train_accuracy = float(loop.correct(data.train).mean())
        loop.finish()
        self.seconds += time.perf_counter() - started
        return Outcome(
            train_loss=np.array(self.losses),
            validation_accuracy=np.array(self.accuracies),
            train_accuracy=train_accuracy,
            test_accuracy=None if right is None else float(right.mean()),
            test_correct=right,
            gradient_first=self.gradient_first,
            gradient_last=final,
            diverged=loop.diverged,
            steps=loop.steps,
            seconds=self.seconds,
            tensors=export(loop.network),
        )


def train(
    recipe: Recipe,
    data: SeedData,
    schedule: Schedule,
    *,
    test: bool,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train one trial from start to end.

    Args:
        recipe: its network is trained in place.
        data: of the trial's seed.
        schedule: epochs and minibatches.
        test: whether the test set may be looked at, once, after the last step.
        checkpoint: where a long training leaves its state between epochs, and goes on from.
    """
    flushed = torch.set_flush_denormal(True)
    try:
        with tf32(schedule.precision):
            training = Alone(recipe, data, schedule)
            resumed = run(training, checkpoint)
            return replace(training.finish(test=test), resumed=resumed)
    finally:
        if flushed:
            torch.set_flush_denormal(False)


def own_copy(recipe: Recipe) -> Recipe:
    """The recipe with a network that may be trained."""
    return replace(recipe, network=copy.deepcopy(recipe.network))


def export(network: nn.Module) -> Tensors:
    """Parameters and persistent buffers of a network, detached."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
