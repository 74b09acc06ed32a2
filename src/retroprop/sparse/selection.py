"""Which output units a sparse backward pass keeps."""

from typing import Any, Literal

import torch
from torch import Tensor

Per = Literal["batch", "example"]


def kept_units(keep: float, out_features: int) -> int:
    """K of a layer: a float is the share of its units, an int is k itself, at least 1."""
    k = keep if isinstance(keep, int) else round(keep * out_features)
    return max(1, min(int(k), out_features))


def kept_mask(gradient: Tensor, k: int, per: Per, unit_dim: int, batch_dim: int) -> Tensor:
    """True where the gradient is among the k largest by magnitude.

    Args:
        gradient: of the layer's output.
        k: units kept.
        per: "example" ranks the units of every case for itself; "batch" ranks them once, by the sum
            of magnitudes over the batch.
        unit_dim: dimension of the units.
        batch_dim: dimension of the cases.

    Source: Sun et al. 2017 (meProp), eq. 3 and 4; "batch" is their unified top-k.
    """
    kept = kept_indices(gradient, k, per, unit_dim, batch_dim)
    size = gradient if per == "example" else gradient.select(batch_dim, 0).unsqueeze(batch_dim)
    return torch.zeros_like(size, dtype=torch.bool).scatter(unit_dim, kept, True)


def kept_indices(gradient: Tensor, k: int, per: Per, unit_dim: int, batch_dim: int) -> Tensor:
    """Indices of the k largest units, in no order; of size 1 along the batch for "batch". See `kept_mask`."""
    size = gradient.abs()
    if per == "batch":
        size = size.sum(batch_dim, keepdim=True)
    return size.topk(k, dim=unit_dim, sorted=False).indices


class KeepLargest(torch.autograd.Function):
    """Identity forward; backward, only the k largest entries of the gradient pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, k: int, per: Per, unit_dim: int, batch_dim: int) -> Tensor:
        del k, per, unit_dim, batch_dim
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        _, ctx.k, ctx.per, ctx.unit_dim, ctx.batch_dim = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        mask = kept_mask(gradient, ctx.k, ctx.per, ctx.unit_dim, ctx.batch_dim)
        return torch.where(mask, gradient, torch.zeros_like(gradient)), None, None, None, None


def keep_largest(x: Tensor, k: int, per: Per, *, unit_dim: int = -1, batch_dim: int = 0) -> Tensor:
    """X as it is; its gradient with only the k largest units kept."""
    if k >= x.shape[unit_dim]:
        return x
    return KeepLargest.apply(x, k, per, unit_dim, batch_dim)
