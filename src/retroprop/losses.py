"""Losses: one value per case.

`output` and `target` hold class distributions along `dim`: `(batch, classes)` with dim=-1, or with
members and the batch last, `(member, classes, batch)` with dim=1. The mean over cases is the caller's.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, int], Tensor]


def name_of(loss: Loss) -> str:
    """A name that two losses share only if they are one; partial functions and closures have their own."""
    name = getattr(loss, "__qualname__", "")
    return name if name and "<" not in name else f"{name or type(loss).__name__} {id(loss)}"


def squared_error(output: Tensor, target: Tensor, dim: int = -1) -> Tensor:
    """Half the squared distance to the target, one value per case.

    Its sum over the cases is the error of the paper.

    Source: Rumelhart, Hinton & Williams 1986, eq. 3.
    """
    return 0.5 * (output - target).square().sum(dim)


def cross_entropy(output: Tensor, target: Tensor, dim: int = -1) -> Tensor:
    """Negative log-likelihood of the target under softmax(output), one value per case."""
    return -(target * functional.log_softmax(output, dim)).sum(dim)
