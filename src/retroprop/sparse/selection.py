"""Which output units a sparse backward pass keeps, and by how much it multiplies them.

Units are ranked and drawn along the last dimension; every row of what is given, be it a minibatch, a case
or a member of a stack, is on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor

from retroprop.errors import RetropropError, UnknownName

Per = Literal["batch", "example"]
Select = Literal["magnitude", "random", "importance", "variance"]
PER: tuple[str, ...] = get_args(Per)
SELECT: tuple[str, ...] = get_args(Select)


def kept_units(keep: float, units: int) -> int:
    """K of a layer: a float is the share of its units, an int is k itself, at least 1."""
    k = keep if isinstance(keep, int) else round(keep * units)
    return max(1, min(int(k), units))


@dataclass(frozen=True)
class Rule:
    """How a layer chooses the units that its backward pass keeps.

    keep: a float in (0, 1] is their share, an int their number, of which a layer of fewer keeps all. For
        "variance" it is a float, the share of the gradient's size that the number is chosen to hold.
    per: one set of units for the batch, or one for every case.
    select: "magnitude", the largest; "random", any, as they are; "importance", drawn in proportion to
        their size and divided by the probability of being drawn, which leaves the mean of the gradient
        as it is; "variance", the same with a number that follows the gradient.
    block: units are kept in blocks of so many neighbours, and their number is rounded to whole blocks.

    Raises:
        RetropropError: for a value out of its range.

    Source: Sun et al. 2017, eq. 3 and 4, for "magnitude" and "random", per example and per batch; Chen et
    al. 2024 (VCAS), section 4.2, for the number of "variance".
    """

    keep: float = 0.25
    per: Per = "batch"
    select: Select = "magnitude"
    block: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.keep, Integral) and not isinstance(self.keep, bool):  # also NumPy's
            object.__setattr__(self, "keep", int(self.keep))
        check_keep(self.keep)
        if self.per not in PER:
            raise UnknownName("value of per", self.per, PER)
        if self.select not in SELECT:
            raise UnknownName("selection", self.select, SELECT)
        if self.select == "variance" and not isinstance(self.keep, float):
            raise RetropropError(
                f"keep={self.keep} was given with select='variance'; expected a share 0 < keep <= 1 of the "
                "gradient's size, from which the number of units follows."
            )
        if isinstance(self.block, bool) or not isinstance(self.block, int) or self.block < 1:
            raise RetropropError(f"block={self.block!r} was given; expected a whole number of at least 1.")

    @property
    def draws(self) -> bool:
        """Whether the choice is random."""
        return self.select != "magnitude"

    @property
    def weighed(self) -> bool:
        """Whether units are drawn by size, and what is kept is divided by its probability."""
        return self.select in ("importance", "variance")

    @property
    def fixed(self) -> bool:
        """Whether every row keeps the same number of units, known beforehand."""
        return self.select != "variance"

    def k(self, units: int) -> int:
        """Units kept of so many; the most that can be where the number follows the gradient.

        Raises:
            RetropropError: when they do not divide into blocks.
        """
        if units % self.block:
            raise RetropropError(
                f"block={self.block} was given for a layer of {units} units; expected a divisor of {units}."
            )
        if self.select == "variance":
            return units
        return kept_units(self.keep, units) if self.block == 1 else self.blocks(units) * self.block

    def blocks(self, units: int) -> int:
        """Blocks kept of a layer of so many units."""
        count = units // self.block
        if self.select == "variance":
            return count
        if isinstance(self.keep, int):
            return max(1, min(round(self.keep / self.block), count))
        return kept_units(self.keep, count)

    def dense(self, units: int) -> bool:
        """Whether all units are kept as they are: ordinary back-propagation."""
        return self.keep >= units if isinstance(self.keep, int) else self.keep == 1.0 or self._all(units)

    def check_units(self, units: int) -> None:
        """Refuse a number of units that a layer does not have; a fix, which is for many layers, does not.

        Raises:
            RetropropError: when more units are to be kept than there are.
        """
        if isinstance(self.keep, int) and self.keep > units:
            raise RetropropError(
                f"keep={self.keep} was given for a layer of {units} units; expected at most {units}, or "
                "keep=1.0, which keeps all."
            )

    def blocked(self, size: Tensor) -> Tensor:
        """Sizes `(..., block)`, from those of units."""
        if self.block == 1:
            return size
        parts = size.view(*size.shape[:-1], -1, self.block)
        return parts.square().sum(-1).sqrt() if self.weighed else parts.sum(-1)

    def _all(self, units: int) -> bool:
        return self.fixed and self.k(units) == units

    def size(self, gradient: Tensor, over: list[int]) -> Tensor:
        """What units are ranked or drawn by, summed over dimensions; the others keep their order.

        The sum of magnitudes, or where units are drawn, the norm.
        """
        # Half precision would tie units that are not alike, and overflow where they are squared.
        half = gradient.dtype in (torch.float16, torch.bfloat16)
        dtype = torch.float32 if half else gradient.dtype
        if not over:
            return gradient.abs().to(dtype)
        if self.weighed:
            return _summed(lambda part: part.to(dtype).square().sum(over), gradient, over).sqrt()
        return _summed(lambda part: part.abs().sum(over, dtype=dtype), gradient, over)


# Numbers whose magnitudes are summed at once on a CPU, so that they stay in its cache.
_AT_ONCE = 2**19


def _summed(sums: Callable[[Tensor], Tensor], gradient: Tensor, over: list[int]) -> Tensor:
    """Sums over dimensions, of a large gradient on a CPU part by part along the first of them."""
    if gradient.is_cuda or over[0] != 0 or gradient.numel() < 4 * _AT_ONCE:
        return sums(gradient)
    rows = max(1, _AT_ONCE * len(gradient) // gradient.numel())
    first, *rest = torch.split(gradient, rows)
    total = sums(first)
    for part in rest:
        total += sums(part)
    return total


def check_keep(keep: object) -> None:
    """Refuse what is neither a share nor a number of units."""
    share = isinstance(keep, float) and 0 < keep <= 1
    count = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 1
    if not (share or count):
        raise RetropropError(
            f"keep={keep!r} was given; expected a share 0 < keep <= 1, or a whole number of units of at "
            "least 1 (`1` keeps one unit, `1.0` keeps all)."
        )


def multipliers(size: Tensor, rule: Rule, noise: Tensor | None) -> Tensor:
    """What every unit's gradient is multiplied by; 0 for those that are not kept.

    Args:
        size: of units, `(..., unit)`; see `Rule.size`.
        rule: that chooses.
        noise: uniform numbers in [0, 1) of the same shape, or one row for all; None for "magnitude".
    """
    blocks = rule.blocked(size)
    if rule.fixed:
        chosen, factor = _chosen(blocks, rule, noise)
        values = torch.ones_like(chosen, dtype=size.dtype) if factor is None else factor
        found = torch.zeros_like(blocks).scatter(-1, chosen, values)
    else:
        _, found = _sampled(blocks, probabilities(blocks, vcas_units(blocks, rule.keep)), noise)
    return found if rule.block == 1 else found.repeat_interleave(rule.block, dim=-1)


def kept_indices(size: Tensor, rule: Rule, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Indices of the units kept, in no order, and what they are multiplied by, if not by 1.

    For rules that keep a fixed number alone. See `multipliers`.
    """
    chosen, factor = _chosen(rule.blocked(size), rule, noise)
    if rule.block == 1:
        return chosen, factor
    within = torch.arange(rule.block, device=size.device)
    units = (chosen.unsqueeze(-1) * rule.block + within).flatten(-2)
    return units, None if factor is None else factor.repeat_interleave(rule.block, dim=-1)


def _chosen(blocks: Tensor, rule: Rule, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The blocks kept, in no order, and their factors."""
    k = rule.blocks(blocks.shape[-1] * rule.block)
    if rule.select == "magnitude":
        return blocks.topk(k, sorted=False).indices, None
    assert noise is not None
    if rule.select == "random":
        return noise[..., : blocks.shape[-1]].expand_as(blocks).topk(k, sorted=False).indices, None
    taken, factor = _sampled(blocks, probabilities(blocks, k), noise)
    # Where fewer than k units have any gradient at all, others fill up, with factor 0.
    chosen = taken.topk(k, sorted=False).indices
    return chosen, factor.gather(-1, chosen)


def _sampled(size: Tensor, probability: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """1 for the units drawn, else 0; and what they are multiplied by."""
    assert noise is not None
    taken = _drawn(probability, noise, probability.sum(-1, keepdim=True).round())
    # An overflow has to be seen, not left undrawn: what scales a loss in half precision looks for it.
    overflow = size.sum(-1, keepdim=True) * 0
    return taken, taken / _safe(probability) + overflow


def probabilities(size: Tensor, k: int | Tensor) -> Tensor:
    """Probability of keeping each unit: in proportion to its size, at most 1, k of them in the mean.

    Args:
        size: `(..., unit)`, at least 0.
        k: units kept; a tensor `(..., 1)` gives each row its own number.
    """
    # Shares of the largest, so that the sums neither overflow nor vanish.
    size = size / _safe(size.amax(-1, keepdim=True))
    ordered = size.sort(-1, descending=True).values
    rest = ordered.flip(-1).cumsum(-1).flip(-1)
    # With m units certain, the others share k - m: p = c size with c = (k - m) / rest. For every m that is
    # at most the right c, and for the right m it is that.
    certain = torch.arange(size.shape[-1], device=size.device, dtype=size.dtype)
    tiny = torch.finfo(size.dtype).tiny
    c = ((k - certain) / rest.clamp(min=tiny)).amax(-1, keepdim=True)
    return torch.where(size > 0, (c * size).clamp(max=1), 0)


def vcas_units(size: Tensor, share: float) -> Tensor:
    """The smallest number of units that hold a share of the gradient's size: `(..., 1)`.

    Source: Chen et al. 2024 (VCAS), eq. 4.
    """
    held = size.sort(-1, descending=True).values.cumsum(-1)
    short = held < share * held[..., -1:]
    return (short.sum(-1, keepdim=True) + 1).clamp(max=size.shape[-1])


def _drawn(probability: Tensor, noise: Tensor, count: Tensor) -> Tensor:
    """1 for the units drawn, 0 for the others: `count` of a row, each with its own probability.

    Systematic sampling: equally spaced marks with one random offset, laid on the probabilities in a row.
    """
    ends = probability.cumsum(-1)
    ends = torch.minimum(ends * (count / _safe(ends[..., -1:])), count)
    starts = torch.cat((torch.zeros_like(ends[..., :1]), ends[..., :-1]), -1)
    offset = noise[..., :1].to(ends.dtype)
    marked = (ends - offset).floor() > (starts - offset).floor()
    return marked.to(probability.dtype)


def _safe(value: Tensor) -> Tensor:
    """Without zeros, to divide by."""
    return torch.where(value > 0, value, 1)
