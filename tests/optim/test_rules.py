"""Update rules: against torch's optimizers, and equal with and without a member dimension."""

import pytest
import torch
from torch import Tensor

from retroprop.optim.adam import Adam
from retroprop.optim.adamw import AdamW
from retroprop.optim.rule import Hyper, Rule, State, Tensors
from retroprop.optim.rule_1986 import Rule1986
from retroprop.optim.sgd import SGD

SHAPES = {"weight": (3, 4), "bias": (3,), "scale": (1,), "share": ()}
RULES: list[list[Rule]] = [
    [Rule1986(0.1, 0.9), Rule1986(0.03, 0.0), Rule1986(0.5, 0.5)],
    [Adam(0.01), Adam(0.1, 0.5, 0.9, 1e-4), Adam(0.003, 0.0, 0.99, 1e-8)],
    [SGD(0.1, 0.9), SGD(0.03, 0.5, 0.1), SGD(0.2, 0.0, 0.01)],
    [SGD(0.1, 0.9, nesterov=True), SGD(0.03, 0.5, 0.1, True), SGD(0.05, 0.2, 0.01, True)],
    [AdamW(0.01), AdamW(0.1, 0.5, 0.9, 1e-4, 0.3), AdamW(0.003, 0.0, 0.99, 1e-8, 0.0)],
]


def torch_sgd(rule: SGD, p: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        p, lr=rule.rate, momentum=rule.momentum, weight_decay=rule.weight_decay, nesterov=rule.nesterov
    )


def torch_adamw(rule: AdamW, p: list[Tensor]) -> torch.optim.Optimizer:
    betas, decay = (rule.beta1, rule.beta2), rule.weight_decay
    return torch.optim.AdamW(p, lr=rule.rate, betas=betas, eps=rule.epsilon, weight_decay=decay)


TORCHS = [
    lambda rule, p: torch.optim.SGD(p, lr=rule.rate, momentum=rule.momentum),
    lambda rule, p: torch.optim.Adam(p, lr=rule.rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon),
    torch_sgd,
    torch_sgd,
    torch_adamw,
]
KINDS = pytest.mark.parametrize("kind", range(5), ids=["1986", "adam", "sgd", "nesterov", "adamw"])


def drawn(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()
    }


def slope(parameters: Tensors) -> Tensors:
    """Of a bowl that is not round, and the same for every element."""
    return {name: p + 0.3 * (3 * p).sin() for name, p in parameters.items()}


def alone(rule: Rule, parameters: Tensors, steps: int = 25) -> tuple[Tensors, State]:
    hyper = {
        field: {name: p.new_tensor(value) for name, p in parameters.items()}
        for field, value in rule.hyper().items()
    }
    return descended(rule, parameters, hyper, steps)


def descended(rule: Rule, parameters: Tensors, hyper: Hyper, steps: int) -> tuple[Tensors, State]:
    state = rule.start(parameters)
    for _ in range(steps):
        parameters, state = rule.step(parameters, slope, state, hyper)
    return parameters, state


def with_members(rules: list[Rule], starts: list[Tensors]) -> tuple[Tensors, Hyper]:
    parameters = {name: torch.stack([start[name] for start in starts]) for name in SHAPES}
    hyper: Hyper = {field: {} for field in rules[0].hyper()}
    for name, p in parameters.items():
        for field in hyper:
            values = [rule.hyper()[field] for rule in rules]
            hyper[field][name] = p.new_tensor(values).view(-1, *[1] * (p.ndim - 1))
    return parameters, hyper


@KINDS
@pytest.mark.parametrize("place", [0, 1, 2])
def test_rule_is_torchs_optimizer(kind: int, place: int):
    rule, start = RULES[kind][place], drawn(place)
    theirs = {name: p.clone().requires_grad_() for name, p in start.items()}
    optimizer = TORCHS[kind](rule, list(theirs.values()))
    for _ in range(25):
        for name, gradient in slope({n: p.detach() for n, p in theirs.items()}).items():
            theirs[name].grad = gradient
        optimizer.step()
    ours, _ = alone(rule, start)
    for name, p in ours.items():
        torch.testing.assert_close(p, theirs[name].detach(), rtol=0, atol=1e-12, msg=name)


@KINDS
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_members_with_their_own_hyper_parameters_equal_each_alone(kind: int, seed: int):
    rules = RULES[kind]
    starts = [drawn(10 * seed + k) for k in range(len(rules))]
    parameters, hyper = with_members(rules, starts)
    together, state = descended(rules[0], parameters, hyper, 25)
    for k, (rule, start) in enumerate(zip(rules, starts, strict=True)):
        one, one_state = alone(rule, start)
        for name, shape in SHAPES.items():
            torch.testing.assert_close(
                together[name][k], one[name], rtol=0, atol=1e-14, msg=f"member {k}, {name}"
            )
            for slot in state:
                torch.testing.assert_close(
                    state[slot][name][k].expand(shape),
                    one_state[slot][name].expand(shape),
                    rtol=0,
                    atol=1e-14,
                    msg=f"member {k}, {name}, {slot}",
                )


@KINDS
def test_nothing_is_changed_in_place(kind: int):
    rule, start = RULES[kind][0], drawn(0)
    hyper = {
        field: {name: p.new_tensor(value) for name, p in start.items()}
        for field, value in rule.hyper().items()
    }
    state = rule.start(start)
    kept = [t.clone() for t in (*start.values(), *(t for s in state.values() for t in s.values()))]
    rule.step(start, slope, state, hyper)
    after = (*start.values(), *(t for s in state.values() for t in s.values()))
    assert all(torch.equal(a, b) for a, b in zip(kept, after, strict=True))


@KINDS
def test_evaluation_uses_the_trained_parameters(kind: int):
    rule, start = RULES[kind][0], drawn(0)
    assert rule.evaluated(start, rule.start(start)) is start


def test_hyper_parameters_are_the_float_fields():
    assert Rule1986(0.2, 0.8).hyper() == {"rate": 0.2, "momentum": 0.8}
    assert SGD(0.2, nesterov=True).hyper() == {"rate": 0.2, "momentum": 0.9, "weight_decay": 0.0}
    assert Adam(0.2).hyper() == {"rate": 0.2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


def test_eq_9_by_hand():
    """Two sweeps from w = 1 at slope 2: change -0.2, then 0.9 * -0.2 - 0.1 * 2 = -0.38."""
    rule, w = Rule1986(0.1, 0.9), {"w": torch.tensor([1.0], dtype=torch.float64)}
    hyper = {"rate": {"w": torch.tensor(0.1)}, "momentum": {"w": torch.tensor(0.9)}}

    def twice(at: Tensors) -> dict[str, Tensor]:
        return {"w": torch.full_like(at["w"], 2.0)}

    w, state = rule.step(w, twice, rule.start(w), hyper)
    assert float(w["w"]) == pytest.approx(0.8)
    w, state = rule.step(w, twice, state, hyper)
    assert float(state["change"]["w"]) == pytest.approx(-0.38)
    assert float(w["w"]) == pytest.approx(0.42)
