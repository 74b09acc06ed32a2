"""How K modules of one skeleton become one: twins by type, choices where types differ."""

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import singledispatch
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn

from retroprop.errors import NoTwin

Members = tuple[int, ...]
_BRANCH = re.compile(r"(^|\.)branch\d+(?=\.|$)")


class Twin(nn.Module):
    """A module that computes what `len(members)` modules of one kind would, each for its member.

    Its parameters and buffers carry the names of the original's, with a leading member dimension.
    `bounded` says that its slope is finite at every finite input, so that a member which does not take it
    may still pass through it.
    """

    members: Members
    bounded: bool = False


class AffineTwin(Twin, ABC):
    """A twin that gives (x - centre) * slope + offset; every member has coefficients of its own."""

    @abstractmethod
    def coefficients(self, pieces: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
        """Centre, slope and offset of each member, that broadcast over its part of x; None for x itself.

        Args:
            pieces: x `(some members, ...)`, which together hold all of this twin's members, in order.
        """


@singledispatch
def twin(first: nn.Module, modules: Sequence[nn.Module]) -> nn.Module:
    """The stacked twin of modules that differ in parameters and buffers alone.

    Register one with `@twin.register(MyModule)`; a container whose forward pass only composes its
    children is registered with `register_container(MyContainer)`. What nobody registered runs through
    `torch.func.vmap`.

    Raises:
        NoTwin: for a module that vmap cannot run.
    """
    from retroprop.stacking.vmapped import Vmapped

    return Vmapped(modules)


_containers: set[type[nn.Module]] = {nn.Sequential, nn.ModuleList, nn.ModuleDict}


def register_container(kind: type[nn.Module]) -> type[nn.Module]:
    """Declare that a module's forward pass works in the stacked layout once its children do."""
    _containers.add(kind)
    return kind


def stacked_tensors(modules: Sequence[nn.Module], into: nn.Module) -> None:
    """Give `into` all parameters and buffers of the modules, stacked along a new first dimension."""
    for name, parameter in modules[0].named_parameters(recurse=False):
        tensors = [module.get_parameter(name).detach() for module in modules]
        into.register_parameter(name, nn.Parameter(torch.stack(tensors), parameter.requires_grad))
    persistent = modules[0]._non_persistent_buffers_set
    for name, _ in modules[0].named_buffers(recurse=False):
        stacked = torch.stack([module.get_buffer(name) for module in modules])
        into.register_buffer(name, stacked, persistent=name not in persistent)


# What every module holds and no computation reads, and the receipts of `apply`.
_TORCHS_OWN = {name for name in vars(nn.Module()) if name.startswith("_")} | {"_retroprop_receipts"}


def _same_kind(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules differ in the values of parameters and buffers alone."""
    if type(a) is not type(b) or list(a._modules) != list(b._modules):
        return False
    shapes = [
        [
            (name, tensor.shape, tensor.dtype, tensor.requires_grad)
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None
        ]
        for module in (a, b)
    ]
    plain = [{n: v for n, v in vars(module).items() if n not in _TORCHS_OWN} for module in (a, b)]
    return (
        shapes[0] == shapes[1]
        and plain[0].keys() == plain[1].keys()
        and all(_equal(value, plain[1][name]) for name, value in plain[0].items())
    )


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    try:
        return bool(a == b)
    except (RuntimeError, ValueError):  # arrays and their like: unsure is different
        return False


def same_make(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules compute the same function of their parameters, buffers and inputs."""
    return _same_kind(a, b) and all(
        same_make(a.get_submodule(name), b.get_submodule(name)) for name in a._modules
    )


def stack(modules: Sequence[nn.Module], members: Members | None = None) -> nn.Module:
    """One module that runs all of them.

    Args:
        modules: one a member, aligned by path.
        members: which members of the group they are; all by default.

    Raises:
        NoTwin: when a module at some path has no twin and vmap cannot run it, lists differ in length, a
            tensor is used twice, or a module has a hook.
    """
    if members is None:
        _refuse_shared(modules)
        members = tuple(range(len(modules)))
    kinds: list[list[int]] = []
    for i, module in enumerate(modules):
        alike = _same_kind if type(module) in _containers | twin.registry.keys() else same_make
        for kind in kinds:
            if alike(modules[kind[0]], module):
                kind.append(i)
                break
        else:
            kinds.append([i])
    if len(kinds) == 1:
        return _stack_kind(modules, members)
    if isinstance(modules[0], (nn.ModuleList, nn.ModuleDict)):
        raise NoTwin(f"Networks with different numbers of modules in a {type(modules[0]).__name__}.")
    places = sorted(kinds)
    branches = [_stack_kind([modules[i] for i in kind], tuple(members[i] for i in kind)) for kind in places]
    choice = Choice(branches, places)
    if choice.by_mask:
        # Each branch runs all members, so its parts must be of that size, whoever fills the places.
        filled = [[m if i in kind else modules[kind[0]] for i, m in enumerate(modules)] for kind in places]
        choice = Choice([_stack_kind(kind, members) for kind in filled], places)
    return choice


def _refuse_shared(modules: Sequence[nn.Module]) -> None:
    for module in modules:
        named = (module.named_parameters, module.named_buffers)
        tensors = [t for walk in named for _, t in walk(remove_duplicate=False)]
        if len({id(tensor) for tensor in tensors}) < len(tensors):
            raise NoTwin(f"{type(module).__name__} uses a tensor twice; stacked, its copies would part.")


def _stack_kind(modules: Sequence[nn.Module], members: Members) -> nn.Module:
    first = modules[0]
    if any(hooked(module) for module in modules):
        raise NoTwin(f"{type(first).__name__} has a hook, which a stack would not call.")
    if type(first) not in _containers:
        # Exactly this type: a subclass may compute something else than the twin of its parent.
        exact = type(first) if type(first) in twin.registry else object
        stacked = twin.dispatch(exact)(first, modules)
        for part in stacked.modules():
            if isinstance(part, Twin):
                part.members = members
        return stacked.train(first.training)
    shell = copy.copy(first)
    shell._modules = {}
    for name in first._modules:
        children = [module.get_submodule(name) for module in modules]
        shell._modules[name] = stack(children, members)
    own = dict(first.named_parameters(recurse=False)) | dict(first.named_buffers(recurse=False))
    if own:
        raise NoTwin(f"{type(first).__name__} holds tensors of its own; register a twin for it.")
    return shell


def hooked(module: nn.Module) -> bool:
    """Whether something is called before or after a module."""
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


class Choice(nn.Module):
    """Different modules for different members at one place.

    Where no branch holds tensors, all are computed and each member takes its own: fused into one kernel
    that is cheaper than moving members about. Where all are affine, such as norms and the identity, one
    affine map with each member's coefficients does for all. Else each branch computes its members only, in
    the runs in which they stand; a plan that orders members well has few runs. Either way no value of one
    member reaches another.
    """

    def __init__(self, branches: Sequence[nn.Module], places: Sequence[Sequence[int]]) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.size = sum(len(place) for place in places)
        branch_of = {k: i for i, place in enumerate(places) for k in place}
        self.runs = [(i, len(list(run))) for i, run in groupby(branch_of[k] for k in range(self.size))]
        self.by_mask = not any(True for branch in branches for _ in branch.state_dict())
        self.affine = all(isinstance(branch, AffineTwin) for branch in branches)
        for i, place in enumerate(places if self.by_mask else ()):
            mask = torch.zeros(self.size, dtype=torch.bool)
            mask[list(place)] = True
            self.register_buffer(f"mask{i}", mask, persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: (member or 1, ...) each -> (member, ...)."""
        count = len(self._modules)
        branches = [self.get_submodule(f"branch{i}") for i in range(count)]
        if self.by_mask:
            out = None
            for i in range(count):
                mask = self.get_buffer(f"mask{i}").view(-1, *[1] * (inputs[0].ndim - 1))
                branch = branches[i]
                # Elsewhere others see zeros: a slope of theirs that overflows would come back as 0 * inf.
                safe = isinstance(branch, Twin) and branch.bounded
                own = branch(*(inputs if safe else [torch.where(mask, x, 0) for x in inputs]))
                at = mask if own.ndim == inputs[0].ndim else mask.view(-1, *[1] * (own.ndim - 1))
                out = own if out is None else torch.where(at, own, out)
            assert out is not None
            return out
        if self.affine:
            return self._mapped(inputs[0], branches)
        pieces = [self._pieces(x) for x in inputs]
        done: list[Tensor | None] = [None] * len(self.runs)
        for i, branch in enumerate(branches):
            own = [r for r, (chosen, _) in enumerate(self.runs) if chosen == i]
            out = branch(*(joined([piece[r] for r in own]) for piece in pieces))
            lengths = [self.runs[r][1] for r in own]
            for r, part in zip(own, torch.split(out, lengths) if len(own) > 1 else (out,), strict=True):
                done[r] = part
        return torch.cat([part for part in done if part is not None])

    def _mapped(self, x: Tensor, branches: Sequence[nn.Module]) -> Tensor:
        """What affine branches give: (x - centre) * slope + offset, with each member's coefficients."""
        x = x.expand(self.size, *x.shape[1:])
        ends = accumulate(length for _, length in self.runs)
        # Slices, as the gradient of a split would join all pieces anew, also those that nobody takes.
        pieces = [x[end - length : end] for end, (_, length) in zip(ends, self.runs, strict=True)]
        rows: list[tuple[Tensor, ...] | None] = [None] * len(self.runs)
        for i, branch in enumerate(branches):
            own = [r for r, (chosen, _) in enumerate(self.runs) if chosen == i]
            found = branch.coefficients([pieces[r] for r in own])  # type: ignore[operator]
            if found is not None:
                lengths = [self.runs[r][1] for r in own]
                for r, *parts in zip(own, *(torch.split(values, lengths) for values in found), strict=True):
                    rows[r] = tuple(parts)
        like = next(row[0] for row in rows if row is not None)
        as_it_is = (0.0, 1.0, 0.0)
        centre, slope, offset = (
            torch.cat(
                [
                    like.new_full((length, *like.shape[1:]), as_it_is[j]) if row is None else row[j]
                    for row, (_, length) in zip(rows, self.runs, strict=True)
                ]
            )
            for j in range(3)
        )
        return ((x - centre) * slope + offset).to(x.dtype)

    def _pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[0] == 1:
            return tuple(x.expand(length, *x.shape[1:]) for _, length in self.runs)
        return torch.split(x, [length for _, length in self.runs])


def joined(parts: list[Tensor]) -> Tensor:
    """Parts `(some members, ...)` as one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def laid_out(value: Tensor) -> Tensor:
    """A member's cases `(case, ...)` as they lie in a stack: vectors with the cases last."""
    return value.mT if value.ndim == 2 else value


def original_name(name: str) -> str:
    """The name of a tensor or module in each member, from its name in the stack."""
    return _BRANCH.sub("", name).lstrip(".")


def members_of(stacked: nn.Module) -> dict[str, Members]:
    """Which members hold each parameter and persistent buffer of a stack, by stacked name."""
    owners: dict[str, Members] = {}
    for path, module in stacked.named_modules():
        if "members" in vars(module):
            for name in (*module._parameters, *module._buffers):
                owners[f"{path}.{name}" if path else name] = module.members
    return owners


def member_tensors(tensors: dict[str, Tensor], owners: dict[str, Members], k: int) -> dict[str, Tensor]:
    """What member k holds of stacked tensors, by original name."""
    return {
        original_name(name): tensor[owners[name].index(k)]
        for name, tensor in tensors.items()
        if k in owners.get(name, ())
    }
