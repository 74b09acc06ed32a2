"""One trial, plain and slow: the reference that every fast path is held against."""

import copy
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.trial_data import Schedule, SeedData, augmented, keyed_modules, noise
from retroprop.fix import Recipe
from retroprop.optim.rule import Hyper, Tensors


class Loop:
    """Trains one recipe step by step with ordinary autograd.

    The recipe's network is trained in place. Its seed is that of the data.
    """

    def __init__(self, recipe: Recipe, data: SeedData, schedule: Schedule) -> None:
        self.recipe, self.data, self.schedule = recipe, data, schedule
        self.network = recipe.network.to(data.train_x.device, data.train_x.dtype)
        self.parameters: Tensors = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.state = recipe.rule.start({k: p.detach() for k, p in self.parameters.items()})
        self.hyper: Hyper = {
            field: {name: p.new_tensor(value) for name, p in self.parameters.items()}
            for field, value in recipe.rule.hyper().items()
        }
        self.steps = 0
        self.diverged = False

    def minibatches(self, epoch: int) -> list[tuple[Tensor, Tensor, Tensors]]:
        """Inputs, targets and noise by path of every step of an epoch."""
        order = self.data.order(self.schedule, epoch)
        drawn = {
            path: noise(module, path, self.data.seed, epoch, order).to(self.data.train_x)
            for path, module in keyed_modules(self.network).items()
        }
        pairs = augmented(self.recipe.augment, self.data, epoch, order)
        return [(x, t, {k: v[i] for k, v in drawn.items()}) for i, (x, t) in enumerate(pairs)]

    def loss(self, x: Tensor, t: Tensor, drawn: Tensors) -> Tensor:
        """The error of one minibatch, a scalar."""
        for path, module in keyed_modules(self.network).items():
            module.noise = drawn[path]
        values = self.recipe.loss(self.network(x), t, -1)
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

        before = {name: p.detach().clone() for name, p in self.parameters.items()}
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

    def _load(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def _buffers(self) -> Tensors:
        persistent = self.network.state_dict()
        return {name: b.clone() for name, b in self.network.named_buffers() if name in persistent}

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
        now = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.diverged = self.diverged or not all(bool(p.isfinite().all()) for p in now.values())
        self._load(self.recipe.rule.evaluated(now, self.state))
        for module in keyed_modules(self.network).values():
            module.noise = module.noise.new_empty(0)

    @torch.no_grad()
    def correct(self, x: Tensor, t: Tensor) -> np.ndarray:
        """Whether each case is classified rightly, at evaluation: bool `(case,)`."""
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._load(self.recipe.rule.evaluated(before, self.state))
        self.network.eval()
        right = self.network(x).argmax(1) == t.argmax(1)
        self.network.train()
        self._load(before)
        return right.cpu().numpy()


def train(recipe: Recipe, data: SeedData, schedule: Schedule, *, test: bool) -> Outcome:
    """Train one trial from start to end.

    Args:
        recipe: its network is trained in place.
        data: of the trial's seed.
        schedule: epochs and minibatches.
        test: whether the test set may be looked at, once, after the last step.
    """
    flushed = torch.set_flush_denormal(True)
    try:
        return _train(Loop(recipe, data, schedule), test)
    finally:
        if flushed:
            torch.set_flush_denormal(False)


def _train(loop: Loop, test: bool) -> Outcome:
    started = time.perf_counter()
    data, schedule = loop.data, loop.schedule
    loop.network.train()
    losses, accuracies = [], []
    first: dict[str, float] = {}
    last: tuple[Tensor, Tensor, Tensors] = (data.train_x, data.train_t, {})
    for epoch in range(schedule.epochs):
        batches = loop.minibatches(epoch)
        if epoch == 0:
            first = loop.gradient_norms(*batches[0])
        losses.append(float(np.mean([loop.step(*batch) for batch in batches])))
        accuracies.append(float(loop.correct(data.validation_x, data.validation_t).mean()))
        last = batches[-1]
    final = loop.gradient_norms(*last)
    right = loop.correct(data.test_x, data.test_t) if test else None
    train_accuracy = float(loop.correct(data.train_x, data.train_t).mean())
    loop.finish()
    return Outcome(
        train_loss=np.array(losses),
        validation_accuracy=np.array(accuracies),
        train_accuracy=train_accuracy,
        test_accuracy=None if right is None else float(right.mean()),
        test_correct=right,
        gradient_first=first,
        gradient_last=final,
        diverged=loop.diverged,
        steps=loop.steps,
        seconds=time.perf_counter() - started,
        tensors=export(loop.network),
    )


def own_copy(recipe: Recipe) -> Recipe:
    """The recipe with a network that may be trained."""
    return replace(recipe, network=copy.deepcopy(recipe.network))


def export(network: nn.Module) -> Tensors:
    """Parameters and persistent buffers of a network, detached."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
