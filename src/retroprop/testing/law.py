"""What a law is, and the small network and batch that most of them use."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from retroprop import fixes as registry
from retroprop.fix import Applied, Fix, Recipe, apply
from retroprop.networks.mlp import MLP
from retroprop.optim.rule import Tensors
from retroprop.surgery import Edit

Law = Callable[[Fix], None]
FOUND: dict[str, tuple[int, Law]] = {}


class LawBroken(AssertionError):
    """A fix breaks a law; the message says which one and how."""


def law(number: int, title: str) -> Callable[[Law], Law]:
    """Make a function a law: whatever it raises becomes a `LawBroken` that names law and fix."""

    def add(function: Law) -> Law:
        @wraps(function)
        def checked(fix: Fix) -> None:
            broken = f"Law {number} ({title}) is broken by {type(fix).__name__}: "
            try:
                function(fix)
            except LawBroken as error:
                raise LawBroken(broken + str(error)) from None
            except Exception as error:
                raise LawBroken(f"{broken}{type(error).__name__}: {error}") from error

        FOUND[function.__name__] = (number, checked)
        return checked

    return add


def require(holds: bool, otherwise: str) -> None:
    """Break the law with a message unless something holds."""
    if not holds:
        raise LawBroken(otherwise)


def company(fix: Fix) -> list[Fix]:
    """A fix with those it requires."""
    return [*(registry.get(name)() for name in fix.requires), fix]


def baseline(seed: int = 0) -> Recipe:
    """The 1986 recipe for a small network, 16 inputs to 4 classes."""
    return Recipe(MLP("16-16-16-4", seed=seed))


def minibatch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Inputs (8, 16) and one-hot targets (8, 4), the same at every call."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((8, 16), generator=generator, dtype=dtype)
    return x, torch.eye(4, dtype=dtype)[torch.arange(8) % 4]


def put_on(fix: Fix, recipe: Recipe | None = None, *, seed: int = 0) -> Applied:
    """A fix, with those it requires, on a recipe; on the baseline by default."""
    recipe = recipe or baseline()
    dtype = next(recipe.network.parameters()).dtype
    return apply(recipe, company(fix), seed=seed, example=minibatch(dtype)[0])


def edits_of(fix: Fix, applied: Applied) -> tuple[Edit, ...]:
    """The edits on a fix's own receipt."""
    return next(receipt.edits for receipt in applied.receipts if receipt.fix.name == fix.name)


def without(fix: Fix, recipe: Recipe) -> Recipe:
    """A recipe with the fixes that a fix requires, and not itself."""
    return apply(recipe, company(fix)[:-1], example=minibatch()[0]).recipe


def gradients_of(recipe: Recipe, x: Tensor, t: Tensor) -> tuple[Tensor, Tensors]:
    """Outputs and gradients of one minibatch, with torch's generator at a fixed state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = recipe.network(x)
    parameters = {n: p for n, p in recipe.network.named_parameters() if p.requires_grad}
    loss = recipe.loss(output, t, -1).mean()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, found, strict=True):
        require(gradient is not None, f"{name} gets no gradient")
    return output, dict(zip(parameters, found, strict=True))


def equal_tensors(a: Tensors, b: Tensors) -> bool:
    """Whether two collections hold the same names and the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
