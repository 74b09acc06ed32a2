"""Sparse backward passes unit by unit, in plain Python: slow, and made of nothing that they are made of."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from retroprop.sparse import Rule


def factors(size: list[float], rule: Rule, noise: list[float] | None) -> list[float]:
    """What each unit's gradient is multiplied by.

    Args:
        size: of every unit.
        rule: that chooses.
        noise: uniform numbers, one a unit.
    """
    if rule.block > 1:
        parts = [size[i : i + rule.block] for i in range(0, len(size), rule.block)]
        joined = [
            math.hypot(*part) if rule.select in ("importance", "variance") else sum(part) for part in parts
        ]
        keep = max(1, round(rule.keep / rule.block)) if isinstance(rule.keep, int) else rule.keep
        own = factors(joined, Rule(keep, rule.per, rule.select), noise)
        return [factor for factor in own for _ in range(rule.block)]
    units = len(size)
    k = rule.keep if isinstance(rule.keep, int) else max(1, round(rule.keep * units))
    if rule.select in ("magnitude", "random"):
        rank = size if rule.select == "magnitude" else noise
        assert rank is not None
        kept = sorted(range(units), key=lambda j: -rank[j])[:k]
        return [float(j in kept) for j in range(units)]
    if rule.select == "variance":
        ordered, total = sorted(size, reverse=True), sum(size)
        k = next(n for n in range(1, units + 1) if sum(ordered[:n]) >= rule.keep * total - 1e-12)
    assert noise is not None
    chance = chances(size, k)
    found, end = [0.0] * units, 0.0
    for j in range(units):
        start, end = end, end + chance[j]
        if any(start < mark <= end for mark in (noise[0] + m for m in range(units + 1))):
            found[j] = 1 / chance[j]
    return found


def chances(size: list[float], k: int) -> list[float]:
    """Probabilities in proportion to size, none above 1, that add up to k: units at 1 are set aside."""
    certain: set[int] = set()
    while True:
        rest = sum(s for j, s in enumerate(size) if j not in certain)
        chance = [
            1.0 if j in certain else (k - len(certain)) * s / rest if rest else 0.0
            for j, s in enumerate(size)
        ]
        over = {j for j, p in enumerate(chance) if p > 1}
        if not over:
            return chance
        certain |= over


def kept(gradient: Tensor, rule: Rule, noise: Tensor | None) -> Tensor:
    """The gradient `(case, unit, pixel)` of the kept units, multiplied as the rule says."""
    norm = rule.select in ("importance", "variance")
    out = torch.zeros_like(gradient)
    rows = [range(len(gradient))] if rule.per == "batch" else [[i] for i in range(len(gradient))]
    for r, cases in enumerate(rows):
        part = gradient[list(cases)]
        size = part.square().sum((0, 2)).sqrt() if norm else part.abs().sum((0, 2))
        own = factors(size.tolist(), rule, None if noise is None else noise[r].tolist())
        out[list(cases)] = part * torch.tensor(own, dtype=gradient.dtype)[:, None]
    return out


def linear(
    x: Tensor, weight: Tensor, gradient: Tensor, rule: Rule, noise: Tensor | None
) -> tuple[Tensor, ...]:
    """Gradients of input, weight and bias; x: (case, in), gradient: (case, out)."""
    g = kept(gradient.unsqueeze(2), rule, noise).squeeze(2)
    return g @ weight, g.T @ x, g.sum(0)


def conv2d(
    x: Tensor, weight: Tensor, gradient: Tensor, rule: Rule, noise: Tensor | None, **geometry: int
) -> tuple[Tensor, ...]:
    """Gradients of input, weight and bias, by torch's dense autograd of the kept channels."""
    g = kept(gradient.flatten(2), rule, noise).view_as(gradient)
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    bias = torch.zeros(len(weight), dtype=x.dtype, requires_grad=True)
    return torch.autograd.grad(functional.conv2d(x, weight, bias, **geometry), (x, weight, bias), g)
