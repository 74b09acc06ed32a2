"""What docs/adding_a_fix.md says of fixes that this package does not hold: in so few lines they work."""

import copy
import itertools
from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop import fixes
from retroprop.data.sources import load
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.loop import Loop
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import Conflict, RetropropError
from retroprop.fix import Fix, ModelFix, Paper, Recipe, Stage, apply
from retroprop.networks.layer import Add
from retroprop.networks.mlp import MLP
from retroprop.optim.rule import Gradient, Hyper, Rule, State, Tensors
from retroprop.stacking.dispatch import Twin, twin
from retroprop.stacking.keyed import Keyed
from retroprop.stacking.twins import StackedLinear
from retroprop.surgery import Site, Surgeon
from retroprop.testing import LAWS
from retroprop.testing.training_laws import fused_float32, fused_float64

PAPER = Paper(2012, "A. Nonymous", "A fix", "A journal")


# max_norm: a projection after the update


@final
@dataclass(frozen=True)
class MaxNormRule(Rule):
    inner: Rule
    limit: float

    def hyper(self) -> dict[str, float]:
        return {**self.inner.hyper(), "rate": self.rate, "limit": self.limit}

    def start(self, parameters: Tensors) -> State:
        return self.inner.start(parameters)

    def step(
        self, parameters: Tensors, gradient: Gradient, state: State, hyper: Hyper
    ) -> tuple[Tensors, State]:
        changed, state = self.inner.step(parameters, gradient, state, hyper)
        return {name: _limited(p, hyper["limit"][name]) for name, p in changed.items()}, state


def _limited(parameter: Tensor, limit: Tensor) -> Tensor:
    """limit: () alone, (member, 1, ...) in a group, which tells a weight from stacked biases."""
    alone = limit.ndim == 0
    if parameter.ndim - (not alone) < 2:
        return parameter
    norm = parameter.flatten(1 if alone else 2).norm(dim=-1)
    norm = norm.view(*norm.shape, *[1] * (parameter.ndim - norm.ndim))
    return parameter * (limit / norm.clamp(min=1e-12)).clamp(max=1)


@final
@dataclass(frozen=True)
class MaxNorm(Fix):
    """No unit's incoming weights are longer than the limit."""

    limit: float = 3.0

    name = "max_norm"
    paper = PAPER
    stage = Stage.OPTIMIZER
    edits = "a projection after every update"

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("optimizer", "optimizer", "update", f"update, then length <= {self.limit}")
        return replace(recipe, rule=MaxNormRule(recipe.rule.rate, recipe.rule, self.limit))


# sam: two gradients a step


@final
@dataclass(frozen=True)
class SamRule(Rule):
    inner: Rule
    radius: float

    def hyper(self) -> dict[str, float]:
        return {**self.inner.hyper(), "rate": self.rate, "radius": self.radius}

    def start(self, parameters: Tensors) -> State:
        return self.inner.start(parameters)

    def step(
        self, parameters: Tensors, gradient: Gradient, state: State, hyper: Hyper
    ) -> tuple[Tensors, State]:
        radius = hyper["radius"]
        slope = gradient(parameters)
        total: Tensor | float = 0.0
        for name, g in slope.items():
            members = 0 if radius[name].ndim == 0 else 1
            total = total + g.flatten(members).square().sum(-1)
        length = torch.as_tensor(total).sqrt() + 1e-12
        uphill = {
            name: parameters[name]
            + radius[name] * g / length.view(*length.shape, *[1] * (g.ndim - length.ndim))
            for name, g in slope.items()
        }
        slope = gradient(uphill)
        return self.inner.step(parameters, lambda _: slope, state, hyper)


@final
@dataclass(frozen=True)
class Sam(Fix):
    """The gradient comes from the steepest point near the weights."""

    radius: float = 0.05

    name = "sam"
    paper = PAPER
    stage = Stage.OPTIMIZER
    edits = "gradient at the weights -> gradient uphill of them"

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("optimizer", "optimizer", "gradient", f"gradient {self.radius} uphill")
        return replace(recipe, rule=SamRule(recipe.rule.rate, recipe.rule, self.radius))


# ema: other weights at evaluation


@final
@dataclass(frozen=True)
class EmaRule(Rule):
    inner: Rule
    decay: float

    def hyper(self) -> dict[str, float]:
        return {**self.inner.hyper(), "rate": self.rate, "decay": self.decay}

    def start(self, parameters: Tensors) -> State:
        average = {name: p.clone() for name, p in parameters.items()}
        return {**self.inner.start(parameters), "average": average}

    def step(
        self, parameters: Tensors, gradient: Gradient, state: State, hyper: Hyper
    ) -> tuple[Tensors, State]:
        own = {slot: tensors for slot, tensors in state.items() if slot != "average"}
        changed, own = self.inner.step(parameters, gradient, own, hyper)
        decay, average = hyper["decay"], state["average"]
        mixed = {n: decay[n] * average[n] + (1 - decay[n]) * p for n, p in changed.items()}
        return changed, {**own, "average": mixed}

    def evaluated(self, parameters: Tensors, state: State) -> Tensors:
        return state["average"]


@final
@dataclass(frozen=True)
class Ema(Fix):
    """Evaluation uses a running average of the weights."""

    decay: float = 0.9

    name = "ema"
    paper = PAPER
    stage = Stage.OPTIMIZER
    edits = "weights at evaluation -> their running average"

    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        surgeon.note("optimizer", "optimizer", "last weights", f"average with decay {self.decay}")
        return replace(recipe, rule=EmaRule(recipe.rule.rate, recipe.rule, self.decay))


# lsuv: an example batch


@final
@dataclass(frozen=True)
class Lsuv(ModelFix):
    """Weights are scaled layer by layer until outputs have variance 1 on an example batch."""

    tries: int = 5

    name = "lsuv"
    paper = PAPER
    stage = Stage.INIT
    edits = "start of all linear layers"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        if surgeon.example is None:
            raise RetropropError("lsuv scales layers by what a batch does; pass example=...")
        for site in surgeon.sites("linear", output=True):
            for _ in range(self.tries):
                with torch.no_grad():
                    size = _output(network, site.module, surgeon.example).std()
                    site.module.get_parameter("weight").div_(size)
            surgeon.note(f"{site.name}.weight", "linear", "started", "scaled to variance 1")
        return network


def _output(network: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda *call: seen.append(call[-1]))
    mode = network.training
    network.eval()(x)
    network.train(mode)
    hook.remove()
    return seen[0]


# weight_norm: a linear layer of its own, with a twin


class WeightNormLinear(nn.Linear):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.length = nn.Parameter(linear.weight.detach().norm(dim=-1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, _rescaled(self.weight, self.length), self.bias)


def _rescaled(weight: Tensor, length: Tensor) -> Tensor:
    return weight * (length / weight.norm(dim=-1, keepdim=True))


class StackedWeightNorm(StackedLinear):
    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(self.weight.shape[0], *x.shape[1:])
        return torch.baddbmm(self.bias.unsqueeze(-1), _rescaled(self.weight, self.length), x)


@twin.register(WeightNormLinear)
def _(first: WeightNormLinear, modules: list[WeightNormLinear]) -> nn.Module:
    return StackedWeightNorm(modules)


@final
@dataclass(frozen=True)
class WeightNorm(ModelFix):
    """Length and direction of a unit's weights are separate parameters."""

    name = "weight_norm"
    paper = PAPER
    stage = Stage.KERNEL
    slot = "backward"  # shared with sparse_backprop, which replaces the same module
    edits = "hidden linear layers -> WeightNormLinear"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("linear", self._normed)
        return surgeon.network

    def _normed(self, site: Site) -> nn.Module | None:
        return WeightNormLinear(site.module) if type(site.module) is nn.Linear else None


# stochastic_depth: on the skip of another fix, with keyed noise and a twin


class StochasticAdd(Keyed):
    stream = "stochastic_depth"

    def __init__(self, p: float) -> None:
        super().__init__((1,))
        self.p = p

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.training:
            return x + y
        noise = self.noise if self.noise.numel() else torch.rand(len(y), 1, device=y.device)
        # Alone (batch, 1) beside (batch, unit); stacked (member, 1, batch) beside (member, unit, batch).
        return x + y * (noise.view(*noise.shape, *[1] * (y.ndim - noise.ndim)) >= self.p) / (1 - self.p)


class StackedStochasticAdd(Twin):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("noise", torch.empty(0), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y * (self.noise >= self.p) / (1 - self.p) if self.training else x + y


@twin.register(StochasticAdd)
def _(first: StochasticAdd, modules: list[StochasticAdd]) -> nn.Module:
    return StackedStochasticAdd(first.p)


@final
@dataclass(frozen=True)
class StochasticDepth(ModelFix):
    """A residual layer is left out with probability p while training."""

    p: float = 0.2

    name = "stochastic_depth"
    paper = PAPER
    stage = Stage.SKIP
    slot = "depth"
    requires = ("residual",)
    edits = "sums of residual layers"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill(
            "skip", lambda site: StochasticAdd(self.p) if isinstance(site.module, Add) else None, replace=True
        )
        return surgeon.network


SKETCHES = [MaxNorm(0.8), Sam(), Ema(), Lsuv(), WeightNorm(), StochasticDepth()]
# All but what a file of six toy fixes cannot have (1), and what is shown one by one below.
COMMON = [name for name in LAWS if name not in ("metadata", "fused")]


@pytest.mark.parametrize("fix", SKETCHES, ids=lambda fix: fix.name)
@pytest.mark.parametrize("law", COMMON)
def test_a_sketch_obeys_the_laws(law: str, fix: Fix):
    LAWS[law](fix)


@pytest.mark.parametrize(
    "fix", [MaxNorm(0.8), Sam(), Lsuv(), WeightNorm(), StochasticDepth()], ids=lambda f: f.name
)
def test_a_sketch_trains_in_a_group_as_alone(fix: Fix):
    fused_float64(fix)
    fused_float32(fix)


def digits(seed: int = 0) -> SeedData:
    return SeedData.of(load("digits"), seed, torch.float64, torch.device("cpu"))


def loop(*given: Fix, rate: float = 0.1, steps: int = 12) -> Loop:
    base = Recipe(MLP("64-16-16-10"))
    base = replace(base, rule=replace(base.rule, rate=rate))
    x = digits().inputs(torch.arange(64)).float()
    made = Loop(apply(base, list(given), example=x).recipe, digits(), Schedule(1, 64))
    made.network.train()
    for batch in itertools.islice(made.minibatches(0), steps):
        made.step(*batch)
    return made


def test_max_norm_keeps_weights_short():
    def longest(one: Loop) -> float:
        weights = [p.detach() for p in one.parameters.values() if p.ndim == 2]
        return max(float(weight.norm(dim=1).max()) for weight in weights)

    assert longest(loop()) > 1.2
    assert longest(loop(MaxNorm(0.8))) == pytest.approx(0.8)


def test_sam_takes_the_gradient_uphill():
    flat, sam = loop(steps=0), loop(Sam(0.05), steps=0)
    batch = next(flat.minibatches(0))
    names = list(flat.parameters)
    first = torch.autograd.grad(flat.loss(*batch), list(flat.parameters.values()))
    size = torch.cat([g.flatten() for g in first]).norm()
    uphill = copy.deepcopy(flat)
    with torch.no_grad():
        for parameter, g in zip(uphill.parameters.values(), first, strict=True):
            parameter.add_(0.05 * g / size)
    second = torch.autograd.grad(uphill.loss(*batch), list(uphill.parameters.values()))
    before = {name: p.detach().clone() for name, p in sam.parameters.items()}
    sam.step(*batch)
    for name, g in zip(names, second, strict=True):
        assert torch.allclose(sam.parameters[name], before[name] - 0.1 * g, atol=1e-12)


def test_ema_evaluates_the_average_and_trains_on():
    plain, average = loop(), loop(Ema(0.5))
    for name, parameter in plain.parameters.items():
        assert torch.equal(parameter, average.parameters[name])
    found = average.recipe.rule.evaluated(dict(average.parameters), average.state)
    assert any(not torch.equal(found[name], p) for name, p in plain.parameters.items())
    fused_float32(Ema(0.5))


def test_ema_in_a_group_evaluates_as_alone():
    schedule, data = Schedule(2, 64), digits()
    recipe = apply(Recipe(MLP("64-16-10").double()), Ema(0.99)).recipe
    group = Engine().train([recipe], [0], {0: data}, schedule, test=False, compiled=False)
    alone = Loop(copy.deepcopy(recipe), data, schedule)
    alone.network.train()
    for epoch in range(2):
        for batch in alone.minibatches(epoch):
            alone.step(*batch)
    accuracy = alone.correct(data.validation).mean()
    assert group.outcomes[0].validation_accuracy[-1] == pytest.approx(accuracy)


def test_lsuv_gives_outputs_of_variance_one_and_needs_a_batch():
    x = digits().inputs(torch.arange(256)).float()
    fixed = apply(MLP("64-16-16-10"), [Lsuv(), fixes.get("relu")()], example=x).network
    for layer in (*fixed.hidden, fixed.output):
        assert float(_output(fixed, layer.linear, x).detach().std()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(RetropropError, match="pass example="):
        apply(MLP("64-16-10"), Lsuv())


def test_weight_norm_starts_as_the_same_function():
    network, x = MLP("8-8-8-4"), torch.randn(5, 8)
    assert torch.allclose(network(x), apply(network, WeightNorm()).network(x))


def test_stochastic_depth_requires_residual_and_leaves_layers_out():
    with pytest.raises(Conflict, match="'stochastic_depth' requires 'residual'"):
        apply(MLP("8-8-8-4"), StochasticDepth())
    fixed = apply(MLP("8-8-8-4"), [StochasticDepth(0.5), fixes.get("residual")()]).network
    x = torch.randn(400, 8)
    left_out = (fixed.hidden[0](x) == x).all(1).double().mean()
    assert 0.4 < float(left_out) < 0.6
