"""Laws of how a network trains once a fix is on it."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from retroprop import fixes as registry
from retroprop.errors import Conflict, NoTwin, RetropropError
from retroprop.fix import Fix, ModelFix, Recipe, Stage, apply, check_together
from retroprop.networks.mlp import MLP
from retroprop.optim.rule import Tensors
from retroprop.optim.rule_1986 import Rule1986
from retroprop.randomness import Seed
from retroprop.stacking.dispatch import laid_out
from retroprop.testing.law import (
    baseline,
    company,
    equal_tensors,
    gradients_of,
    law,
    minibatch,
    put_on,
    require,
    without,
)

if TYPE_CHECKING:
    from retroprop.ensemble.loop import Loop
    from retroprop.ensemble.program import Carried, Program
    from retroprop.ensemble.trial_data import SeedData


@law(8, "a finite gradient to every trainable parameter")
def finite_gradients(fix: Fix) -> None:
    """A step trains every parameter, and its update is finite and keeps shapes."""
    recipe = put_on(fix).recipe
    x, t = minibatch()
    _, gradients = gradients_of(recipe, x, t)
    for name, gradient in gradients.items():
        require(bool(torch.isfinite(gradient).all()), f"the gradient of {name} is not finite")
    start = {n: p.detach().clone() for n, p in recipe.network.named_parameters()}
    start = {n: p for n, p in start.items() if n in gradients}
    hyper = {
        field: {n: p.new_tensor(value) for n, p in start.items()}
        for field, value in recipe.rule.hyper().items()
    }
    changed, _ = recipe.rule.step(start, lambda _: gradients, recipe.rule.start(start), hyper)
    for name, parameter in start.items():
        fits = changed[name].shape == parameter.shape and changed[name].dtype == parameter.dtype
        require(fits, f"the rule gives {name} another shape or dtype")
        require(bool(torch.isfinite(changed[name]).all()), f"the rule gives {name} no finite value")


@law(11, "rebuild, then load_state_dict: equal outputs")
def state_is_whole(fix: Fix) -> None:
    """All that training changes is in the state dict of the network."""
    recipe = put_on(fix).recipe
    x, t = minibatch()
    _, gradients = gradients_of(recipe, x, t)
    with torch.no_grad():
        for name, gradient in gradients.items():
            recipe.network.get_parameter(name).sub_(gradient)
    rebuilt = put_on(fix, baseline(seed=1), seed=1).network
    rebuilt.load_state_dict(recipe.network.state_dict())
    one, other = recipe.network.eval()(x), rebuilt.eval()(x)
    require(torch.equal(one, other), "the rebuilt network gives other outputs")


@law(12, "a neutral setting is the identity")
def neutral(fix: Fix) -> None:
    """At its declared neutral setting a fix changes no bit of outputs, gradients and updates."""
    if fix.neutral is None:
        return
    x, t = minibatch()
    plain = without(fix, baseline())
    output, gradients = gradients_of(plain, x, t)
    fixed = put_on(replace(fix, **fix.neutral)).recipe
    same_output, same_gradients = gradients_of(fixed, x, t)
    require(torch.equal(output, same_output), f"outputs differ at {fix.neutral}")
    require(equal_tensors(gradients, same_gradients), f"gradients differ at {fix.neutral}")
    require(fixed.rule == plain.rule, f"the update rule differs at {fix.neutral}")


@law(14, "fused equals alone")
def fused(fix: Fix) -> None:
    """Trained in a group or alone, a trial gives the same numbers.

    Arms with and without the fix, and with half of its numbers, at two rates and two seeds, on the digits:
    50 steps in float64, then float32 step by step from equal states. Last, arms of as many registered
    fixes as go together, in float64. A fix whose modules have no twin is trained alone anyway.
    """
    for check in (fused_float64, fused_float32, fused_with_others):
        try:
            check(fix)
        except NoTwin:
            continue


@dataclass
class _Member:
    recipe: Recipe
    seed: Seed


def _groups(fix: Fix, dtype: torch.dtype) -> list[list[_Member]]:
    """Members by what a group shares; each has a recipe of its own."""
    halved = _halved(fix)
    arms = [[], company(fix), *([company(halved)] if halved else [])]
    return _members(arms, (0.5, 1.0), dtype)


def _halved(fix: Fix) -> Fix | None:
    """The fix with half of every number that is no whole one, or of the first that may be halved."""
    numbers = {field.name: getattr(fix, field.name) for field in fields(fix)}
    halves = {name: value / 2 for name, value in numbers.items() if isinstance(value, float) and value}
    for change in (halves, *({name: half} for name, half in halves.items())):
        try:
            if change:
                return replace(fix, **change)
        except RetropropError:
            continue
    return None


def _members(arms: Sequence[list[Fix]], shares: Sequence[float], dtype: torch.dtype) -> list[list[_Member]]:
    data = _data(dtype)
    groups: dict[tuple[object, ...], list[_Member]] = {}
    for fixes in arms:
        for seed in (0, 1):
            for share in shares:
                network = MLP("64-16-16-10", seed=seed).to(dtype)
                plain = Recipe(network, rule=Rule1986(0.05))
                example = data[seed].inputs(data[seed].train[:64])
                recipe = apply(plain, fixes, seed=seed, example=example).recipe
                rule = replace(recipe.rule, rate=recipe.rule.rate * share)
                kind = (recipe.loss, type(rule), recipe.reduction)
                groups.setdefault(kind, []).append(_Member(replace(recipe, rule=rule), seed))
    return list(groups.values())


def _crowds(fix: Fix) -> list[list[Fix]]:
    """As many registered fixes as go with a fix, the same with the others of their slots, and a few.

    Update rules are left out but for the fix's own: see `fused_with_others`.
    """
    kinds = [registry.get(name) for name in registry.names()]
    known = [company(kind()) for kind in kinds if kind.stage != Stage.OPTIMIZER]
    one = _together([company(fix), *known])
    others = [given for given in known if given[-1].name not in {member.name for member in one}]
    rule = [company(fix)] if fix.stage == Stage.OPTIMIZER else []
    other = _together([*rule, *others, *known])
    few = [member for member in one if not isinstance(member, ModelFix)]
    return [one, other, few]


def _together(offered: Sequence[list[Fix]]) -> list[Fix]:
    """Those of the offered fixes, first come first served, that do not conflict."""
    chosen: dict[str, Fix] = {}
    for given in offered:
        more = {one.name: one for one in given if one.name not in chosen}
        try:
            check_together([*chosen.values(), *more.values()])
        except Conflict:
            continue
        chosen.update(more)
    return list(chosen.values())


def _data(dtype: torch.dtype) -> "dict[Seed, SeedData]":
    from retroprop.data.sources import load
    from retroprop.ensemble.trial_data import SeedData

    return {seed: SeedData.of(load("digits"), seed, dtype, torch.device("cpu")) for seed in (0, 1)}


def fused_float64(fix: Fix) -> None:
    """Final tensors after 50 steps agree to 1e-10.

    Raises:
        LawBroken: when they do not.
        NoTwin: when the network cannot be stacked.
    """
    _agree_after_training(_groups(fix, torch.float64))


def fused_with_others(fix: Fix) -> None:
    """The same for arms of many fixes in one group; that they compose at all is law 13.

    Raises:
        LawBroken: when they do not agree.
        NoTwin: when the network cannot be stacked.
    """
    try:
        groups = _members(_crowds(fix), (1.0,), torch.float64)
    except RetropropError:
        return
    # A bias in front of a norm has no gradient but rounding errors, which rules such as Adam amplify.
    _agree_after_training(groups, 1e-5 if fix.stage == Stage.OPTIMIZER else 1e-10)


def _agree_after_training(groups: list[list[_Member]], tolerance: float = 1e-10) -> None:
    from retroprop.ensemble.engine import Engine
    from retroprop.ensemble.loop import train
    from retroprop.ensemble.trial_data import Schedule

    data, schedule = _data(torch.float64), Schedule(epochs=1, batch=23)
    for members in groups:
        alone = [train(copy.deepcopy(one.recipe), data[one.seed], schedule, test=False) for one in members]
        together = Engine().train(
            [one.recipe for one in members],
            [one.seed for one in members],
            data,
            schedule,
            test=False,
            compiled=False,
        )
        for one, other in zip(alone, together.outcomes, strict=True):
            require(one.steps == other.steps == 50, f"{one.steps} and {other.steps} steps of 50")
            _agree(other.tensors, one.tensors, tolerance, "after 50 steps in float64")


def _agree(fused: Tensors, alone: Tensors, tolerance: float, when: str) -> None:
    require(fused.keys() == alone.keys(), f"{when} the names of tensors differ")
    for name, tensor in alone.items():
        gap = (fused[name] - tensor).abs().max().double()
        worst = float(gap / tensor.abs().max().double().clamp(min=1e-3))
        require(worst <= tolerance, f"{when} {name} differs by {worst:.1e}, relative to its size")


def fused_float32(fix: Fix, steps: int = 8) -> None:
    """Every step from equal states agrees to 1e-5, relative to each tensor's size.

    Raises:
        LawBroken: when one does not.
        NoTwin: when the network cannot be stacked.
    """
    from retroprop.ensemble.loop import Loop
    from retroprop.ensemble.program import Carried, Program
    from retroprop.ensemble.trial_data import Schedule
    from retroprop.stacking.dispatch import member_tensors

    data, schedule = _data(torch.float32), Schedule(epochs=1, batch=32)
    for members in _groups(fix, torch.float32):
        loops = [Loop(copy.deepcopy(m.recipe), data[m.seed], schedule) for m in members]
        program = Program([one.recipe for one in members])
        carried = program.start()
        orders = [list(itertools.islice(loop.minibatches(0), steps)) for loop in loops]
        for i in range(steps):
            x, t, noise = _stacked(program, [order[i] for order in orders])
            parameters, buffers, state, alive, _ = program.step(
                carried.parameters, carried.buffers, carried.state, carried.alive, x, t, noise, program.hyper
            )
            carried = Carried(parameters, buffers, state, alive, carried.steps + alive)
            for k, loop in enumerate(loops):
                loop.step(*orders[k][i])
                fused = member_tensors({**parameters, **buffers}, program.owners, k)
                alone = {name: tensor.detach() for name, tensor in loop.network.state_dict().items()}
                _agree(fused, alone, 1e-5, f"after step {i + 1} in float32")
                _take_over(loop, fused, carried, program, k)


def _stacked(
    program: "Program", batches: Sequence[tuple[Tensor, Tensor, Tensors]]
) -> tuple[Tensor, Tensor, Tensors]:
    """One minibatch of every member as the program takes it, the batch last."""
    x, t = (torch.stack([laid_out(batch[i]) for batch in batches]) for i in (0, 1))  # type: ignore[arg-type]
    noise = {}
    for name, (path, _, members) in program.noisy.items():
        # A member without this module takes no part in what its lane computes there.
        spare = next(drawn[path] for _, _, drawn in batches if path in drawn)
        own = [batches[k][2].get(path, spare) for k in members]
        noise[name] = torch.stack([laid_out(one) for one in own])
    return x, t, noise


def _take_over(loop: "Loop", tensors: Tensors, carried: "Carried", program: "Program", k: int) -> None:
    """Give a loop the state that the program has for member k."""
    from retroprop.stacking.dispatch import member_tensors

    loop.network.load_state_dict(tensors)
    loop.state = {
        slot: {name: one.clone() for name, one in member_tensors(held, program.owners, k).items()}
        for slot, held in carried.state.items()
    }
