"""What a fix is, what a training needs before it starts, and how one is put on the other."""

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, ClassVar, Literal, final

from torch import Tensor, nn

from retroprop.augment import Augment
from retroprop.errors import AlreadyApplied, Conflict, RetropropError
from retroprop.losses import Loss, squared_error
from retroprop.optim.rule import Rule
from retroprop.optim.rule_1986 import Rule1986
from retroprop.randomness import Seed
from retroprop.surgery import Edit, Surgeon


@dataclass(frozen=True)
class Paper:
    """The publication that brought a fix to neural networks."""

    year: int
    authors: str
    title: str
    where: str


class Stage(IntEnum):
    """The order in which fixes are applied, whatever order they are given in."""

    KERNEL = 0
    ACTIVATION = 1
    NORM = 2
    DROP = 3
    SKIP = 4
    INIT = 5
    LOSS = 6
    OPTIMIZER = 7
    DATA = 8


@dataclass(frozen=True)
class Recipe:
    """All that one training needs before it starts.

    The defaults are the 1986 recipe: squared error and steepest descent with momentum. `reduction` is how
    the error of a minibatch comes from its cases: the mean, or the literal sum of eq. 3; `augment` changes
    minibatches, one after another.
    """

    network: nn.Module
    loss: Loss = squared_error
    rule: Rule = Rule1986()  # noqa: RUF009 - frozen
    reduction: Literal["mean", "sum"] = "mean"
    augment: tuple[Augment, ...] = ()


@dataclass(frozen=True)
class Fix(ABC):
    """One improvement to the 1986 network: its fields are its hyper-parameters.

    Class variables:
        name: of the fix and of its file.
        paper: that brought it to neural networks.
        stage: when it is applied.
        slot: what it fills; two fixes that fill the same one conflict. Empty: shares with all.
        requires: names of fixes that must be on the network too.
        edits: what it changes, in a few words for the catalogue.
        neutral: field values at which the fix is the identity, where there are such values.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    stage: ClassVar[Stage]
    edits: ClassVar[str]
    slot: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()
    neutral: ClassVar[dict[str, Any] | None] = None

    @abstractmethod
    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        """The recipe with this fix; `surgeon` edits `recipe.network` and keeps the receipt."""

    def config(self) -> str | dict[str, dict[str, Any]]:
        """The fix as a study file writes it: its name, with the fields that are not the default."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {self.name: changed} if changed else self.name

    def resolved(self) -> dict[str, dict[str, Any]]:
        """The fix with every field, for hashes and records."""
        return {self.name: {f.name: getattr(self, f.name) for f in fields(self)}}


class ModelFix(Fix):
    """A fix that changes the network alone, so it works on a bare `nn.Module` too."""

    @final
    def amend(self, recipe: Recipe, surgeon: Surgeon) -> Recipe:
        return replace(recipe, network=self.rewrite(recipe.network, surgeon))

    @abstractmethod
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        """The network with this fix: fill sites through `surgeon`, then give `surgeon.network`."""


@dataclass(frozen=True)
class Receipt:
    """Every edit that one fix made."""

    fix: Fix
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Applied:
    """A fixed copy, and the receipt of every edit."""

    recipe: Recipe
    receipts: tuple[Receipt, ...]

    @property
    def network(self) -> nn.Module:
        """The fixed network."""
        return self.recipe.network


def receipts_of(network: nn.Module) -> tuple[Receipt, ...]:
    """The receipts of all fixes that `apply` has put on a network."""
    return network.__dict__.get("_retroprop_receipts", ())


def in_order(fixes: Sequence[Fix]) -> list[Fix]:
    """Fixes by stage, then name.

    Raises:
        RetropropError: for anything that is not a Fix instance.
        AlreadyApplied: for a fix given twice.
    """
    for fix in fixes:
        if not isinstance(fix, Fix):
            shown = f"{fix.__name__}()" if isinstance(fix, type) else "retroprop.fixes.ReLU()"
            raise RetropropError(f"{fix!r} was given; expected a fix instance, such as {shown}.")
    ordered = sorted(fixes, key=lambda fix: (fix.stage, fix.name))
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise AlreadyApplied(f"The fix {one.name!r} was given twice; give it once.")
    return ordered


def check_together(fixes: Sequence[Fix]) -> list[Fix]:
    """Fixes in the order they are applied in, if they go together.

    Raises:
        AlreadyApplied: for a fix given twice.
        Conflict: for two fixes of one slot, or a fix without one that it requires.
    """
    ordered = in_order(fixes)
    _refuse_clashes(ordered)
    return ordered


def _refuse_clashes(present: Sequence[Fix]) -> None:
    slots: dict[str, Fix] = {}
    for fix in present:
        if fix.slot and fix.slot in slots:
            raise Conflict(
                f"{slots[fix.slot].name!r} and {fix.name!r} both fill the slot {fix.slot!r}; keep one "
                "of them, or make them levels of one factor."
            )
        slots[fix.slot] = fix
    names = {fix.name for fix in present}
    for fix in present:
        missing = [name for name in fix.requires if name not in names]
        if missing:
            raise Conflict(f"{fix.name!r} requires {missing[0]!r}; give that fix too.")


def _refuse_wrapped(network: nn.Module) -> None:
    kind = type(network).__name__
    if "_orig_mod" in network._modules:  # torch._dynamo's wrapper, without importing the compiler
        advice = "Apply the fixes first, then call torch.compile on the result."
    elif isinstance(network, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        advice = "Apply the fixes to the network inside (`.module`), then wrap the result."
    else:
        return
    raise RetropropError(f"A network wrapped in {kind} was given; expected the bare network. {advice}")


def apply(
    target: Recipe | nn.Module,
    fixes: Fix | Sequence[Fix],
    *,
    seed: Seed = 0,
    example: Tensor | None = None,
) -> Applied:
    """Put fixes on a copy of a network or recipe; the original stays as it is.

    Args:
        target: a recipe, or a bare network, which takes model fixes only.
        fixes: in any order; they are applied by stage, then name.
        seed: new modules start from it, hashed with the fix's and the site's name; torch's global
            generators are left alone.
        example: a batch `(batch, ...)` that a foreign network accepts, to see which layer feeds which.

    Raises:
        RetropropError: for a compiled or wrapped network, or something that is not a network.
        AlreadyApplied: when a fix is given twice or is on the network already.
        Conflict: when two fixes fill one slot, or a required one is missing.
        NothingMatched: when a fix finds no site.
    """
    bare = isinstance(target, nn.Module)
    recipe = Recipe(target) if isinstance(target, nn.Module) else target
    if not isinstance(recipe, Recipe):
        raise RetropropError(
            f"{type(target).__name__} was given; expected a torch.nn.Module or a retroprop Recipe."
        )
    _refuse_wrapped(recipe.network)
    ordered = in_order([fixes] if isinstance(fixes, (Fix, type)) else list(fixes))
    before = receipts_of(recipe.network)
    for fix in ordered:
        if any(receipt.fix.name == fix.name for receipt in before):
            raise AlreadyApplied(f"{fix.name!r} is on this network already.")
        if bare and not isinstance(fix, ModelFix):
            raise RetropropError(
                f"{fix.name!r} changes the training recipe, not the network alone. Give "
                "retroprop.Recipe(network) instead of the bare network."
            )
    _refuse_clashes([receipt.fix for receipt in before] + ordered)
    surgeon = Surgeon(copy.deepcopy(recipe.network), seed=seed, example=example)
    recipe = replace(recipe, network=surgeon.network)
    receipts = []
    for fix in ordered:
        surgeon.begin(fix.name)
        recipe = fix.amend(recipe, surgeon)
        receipts.append(Receipt(fix, tuple(surgeon.edits)))
    surgeon.verify()
    # Kept outside state_dict and parameters: a plain attribute that copies and pickles with the module.
    recipe.network.__dict__["_retroprop_receipts"] = (*before, *receipts)
    return Applied(recipe, tuple(receipts))
