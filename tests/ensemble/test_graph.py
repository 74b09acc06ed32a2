"""Compiled functions of nested dictionaries: the same values, held tensors, overwritten inputs."""

import pytest
import torch
from torch import Tensor

from retroprop.ensemble.graph import compiled
from retroprop.ensemble.planner import has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
TABLE = torch.tensor([2.0, -1.0, 0.5])


class Halved(torch.autograd.Function):
    """Identity, whose gradient is halved."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None: ...

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient / 2


def step(state, alive: Tensor, x: Tensor):
    """One descent of two parameters, and the loss before it."""

    def loss(parameters):
        return (Halved.apply(parameters["b"]) * TABLE * x + parameters["a"] ** 2).sum()

    value = loss(state["parameters"])
    slopes = torch.func.grad(loss)(state["parameters"])
    changed = {name: p - 0.1 * slopes[name] for name, p in state["parameters"].items()}
    return {"parameters": changed, "count": state["count"] + 1}, alive & value.isfinite(), value


def given():
    generator = torch.Generator().manual_seed(0)
    parameters = {name: torch.randn(3, generator=generator) for name in ("b", "a")}
    return (
        {"parameters": parameters, "count": torch.zeros((), dtype=torch.int64)},
        torch.ones((), dtype=torch.bool),
        torch.randn(3, generator=generator),
    )


def tensors(state) -> list[Tensor]:
    return [*state["parameters"].values(), state["count"]]


def test_a_graph_gives_what_the_function_gives_and_leaves_its_inputs():
    inputs, kept = given(), given()
    found = compiled(step, inputs)(*inputs)
    expected = step(*inputs)
    for one, other in zip(tensors(found[0]), tensors(expected[0]), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(found[2], expected[2])
    for one, other in zip(tensors(inputs[0]), tensors(kept[0]), strict=True):
        assert torch.equal(one, other)


def test_overwritten_inputs_are_given_back_and_hold_what_follows():
    inputs, plain = given(), given()
    run = compiled(step, given(), overwritten=2)
    state, alive, x = inputs
    held = [tensor.data_ptr() for tensor in tensors(state)]
    for _ in range(3):
        state, alive, value = run(state, alive, x)
        expected = step(*plain)
        plain = (expected[0], expected[1], plain[2])
        torch.testing.assert_close(value, expected[2])
    assert [tensor.data_ptr() for tensor in tensors(state)] == held
    for one, other in zip(tensors(state), tensors(plain[0]), strict=True):
        torch.testing.assert_close(one, other)


def test_a_backward_pass_of_ones_own_is_kept():
    """torch.compile 2.14 drops it where the function is the first to take a tensor that grad was given."""
    state, alive, x = given()
    (after, *_) = compiled(step, given())(state, alive, x)
    moved = state["parameters"]["b"] - after["parameters"]["b"]
    torch.testing.assert_close(moved, 0.1 * TABLE * x / 2)


def test_a_function_of_one_tensor():
    x = torch.arange(3.0)
    run = compiled(lambda held: held["x"] * TABLE, ({"x": x},))
    assert torch.equal(run({"x": x}), x * TABLE)


def test_inputs_are_taken_by_name():
    """A rule may give its state back in another order; two of one shape must not change places."""
    run = compiled(lambda held: held["a"] - 2 * held["b"], ({"a": torch.ones(3), "b": torch.ones(3)},))
    found = run({"b": torch.full((3,), 4.0), "a": torch.full((3,), 9.0)})
    assert torch.equal(found, torch.ones(3))
