"""Finds sites by role, fills them, and keeps a receipt of every edit.

Networks of ours name their layers; of any other network a traced example batch shows them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from retroprop.anatomy import ROLES, Anatomy, Layer, Role, SkipBlock, join, named_layers, slots_of
from retroprop.errors import NothingMatched, RetropropError, UnknownName
from retroprop.networks.layer import Layered, NoSkip
from retroprop.randomness import Seed, derived_seed
from retroprop.tracing import times_called, traced_layers


@dataclass(frozen=True)
class Site:
    """One place that a fix may fill.

    name: the path before any fix, so that arms of one study name the same place alike.
    shape: at this place, without the batch dimension; in_shape: of the layer's input.
    module: what is there now; None when the place has to be made.
    channels_first: the layer's units are the first dimension of `shape`, as a convolution's.
    """

    name: str
    role: Role
    in_shape: tuple[int, ...]
    shape: tuple[int, ...]
    module: nn.Module | None
    channels_first: bool = False

    @property
    def features(self) -> int:
        """Units of a linear layer, channels of a convolution."""
        return self.shape[0 if self.channels_first else -1]


@dataclass(frozen=True)
class Edit:
    """One line of a receipt."""

    site: str
    role: str
    before: str
    after: str


def _empty(module: nn.Module | None) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p == 0  # the empty slot of timm's networks
    return module is None or type(module) in (nn.Identity, NoSkip)


def _describe(module: nn.Module | None) -> str:
    return "nothing" if module is None or _empty(module) else str(module).split("\n")[0].rstrip("(")


def _alike(new: nn.Module, old: nn.Module | None) -> bool:
    """Whether a replacement computes what is there already."""
    plain = [re.sub(r",? ?inplace=\w+", "", str(module)) for module in (new, old)]
    return type(new) is type(old) and plain[0] == plain[1]


_FOLLOWED: dict[Role, Role] = {"norm": "linear", "dropout": "activation"}


class Surgeon:
    """Edits a copy of a network on behalf of one fix at a time.

    Args:
        network: the copy; it is edited in place, and `network` may name another module afterwards.
        seed: with a fix's name and a site's name it gives each new module its start.
        example: a batch `(batch, ...)` for networks that do not name their layers.
    """

    def __init__(self, network: nn.Module, *, seed: Seed = 0, example: Tensor | None = None) -> None:
        self.network = network
        self.seed = seed
        self.example = example
        self.edits: list[Edit] = []
        self._fix = ""
        self._anatomy: Anatomy | None = None
        # Path, new module, the one that it replaced, the one that it was put beside.
        self._placed: list[tuple[str, nn.Module, nn.Module | None, nn.Module | None]] = []

    @property
    def anatomy(self) -> Anatomy:
        """Layers by their names before any fix; found once, so that later fixes see those names."""
        if self._anatomy is None:
            if isinstance(self.network, Layered):
                self._anatomy = named_layers(self.network)
            else:
                self._anatomy = traced_layers(self.network, self.example)
        return self._anatomy

    def begin(self, fix: str) -> None:
        """Start a new receipt for the named fix."""
        self._fix = fix
        self.edits = []

    def note(self, site: str, role: str, before: str, after: str) -> None:
        """Add a line to the receipt for an edit that no method of the surgeon made."""
        self.edits.append(Edit(site, role, before, after))

    def sites(self, role: Role, *, output: bool = False) -> list[Site]:
        """Sites of a role in the order data flows; the output layer's only when asked for."""
        if role not in ROLES:
            raise UnknownName("role", role, ROLES)
        return [
            self._site(layer, role)
            for layer in self.anatomy.layers
            if (output or not layer.output) and self._reachable(layer, role)
        ]

    def fill(
        self,
        role: Role,
        factory: Callable[[Site], nn.Module | None],
        *,
        replace: bool | None = None,
    ) -> None:
        """Put what `factory` makes at every site of a role in the hidden layers.

        Args:
            role: of the sites.
            factory: gives the module for a site, or None for a site that it leaves alone.
            replace: whether filled sites are replaced too; by default activations and linear layers are,
                while norm, dropout and skip slots are filled where they are empty.

        Raises:
            NothingMatched: when no site was changed, or activations are out of surgery's reach.
            RetropropError: when a module is shared between a hidden layer and the output.
        """
        if role == "activation":
            self._refuse_functional()
        replaces = role in ("activation", "linear") if replace is None else replace
        made: list[tuple[nn.Module | None, nn.Module]] = []
        start = len(self.edits)
        for layer in self.anatomy.layers:
            if layer.output or not self._reachable(layer, role):
                continue
            site = self._site(layer, role)
            if any(site.module is new for _, new in made) or not (replaces or _empty(site.module)):
                continue
            # A module that stands at several places is replaced by one module at all of them.
            shared = (new for old, new in made if replaces and old is site.module)
            built = next(shared, None) or self._build(site, factory)
            if built is None or (replaces and _alike(built, site.module)):
                continue
            self._refuse_shared_with_output(layer, role)
            made.append((site.module, built))
            self._place(layer, role, built)
            self.note(site.name, role, _describe(site.module), _describe(built))
        if len(self.edits) == start:
            raise NothingMatched(self._nothing(role))

    def restart(self, role: Role, initialise: Callable[[nn.Module, torch.Generator], None]) -> None:
        """Start the parameters at every site of a role anew, the output layer's too.

        Args:
            role: of the sites.
            initialise: fills the parameters of a module in place from the generator.

        Raises:
            NothingMatched: when there is no such site.
        """
        done: set[int] = set()
        for site in self.sites(role, output=True):
            if site.module is None or id(site.module) in done:
                continue
            done.add(id(site.module))
            generator = torch.Generator().manual_seed(derived_seed(self.seed, self._fix, site.name))
            with torch.no_grad():
                initialise(site.module, generator)
            for name, _ in site.module.named_parameters():
                self.note(f"{site.name}.{name}", role, "started", f"restarted by {self._fix}")
        if not done:
            raise NothingMatched(self._nothing(role))

    def strip_output(self) -> bool:
        """Take the activation off every output layer, so that it gives logits; False if none has one.

        Raises:
            RetropropError: when the activation is a function called in a forward method, or its
                module is a hidden layer's too.
        """
        if self.anatomy.functional_output:
            raise RetropropError(
                f"{self._fix or 'This fix'} needs the output before its activation, but the "
                f"network calls {', '.join(self.anatomy.functional_output)} on it, which surgery "
                "cannot take off. Make it a module, such as torch.nn.Sigmoid(), or give logits."
            )
        stripped = False
        for layer in self.anatomy.layers:
            paths = layer.paths.get("activation", ()) if layer.output else ()
            if paths and not _empty(self.network.get_submodule(paths[0])):
                self._refuse_shared_with_output(layer, "activation")
                before, new = self.network.get_submodule(paths[0]), nn.Identity()
                for path in paths:
                    self._set(path, new.train(self.network.training))
                self._placed.append((paths[0], new, before, None))
                self.note(f"{layer.name}.activation", "output", _describe(before), "logits")
                stripped = True
        return stripped

    def verify(self) -> None:
        """Check on the example batch that a foreign network calls what fixes put into it.

        Raises:
            RetropropError: when it still calls a module that was replaced, does not call a new one, or
                cannot run.
        """
        batch = self._anatomy.example if self._anatomy else None
        if batch is None or not self._placed:
            return
        now = slots_of(self.network)
        unused = nn.Identity()
        modules = [one or unused for _, *three in self._placed for one in three]
        try:
            times = times_called(self.network, modules, batch)
        except Exception as error:
            names = ", ".join(dict.fromkeys(path for path, *_ in self._placed))
            raise RetropropError(
                f"{type(self.network).__name__} ran on a batch {tuple(batch.shape)}, but with new modules "
                f"at {names} it raised {type(error).__name__}: {error}"
            ) from error
        for i, (path, new, old, beside) in enumerate(self._placed):
            called, old_called, beside_called = times[3 * i : 3 * i + 3]
            # What stands elsewhere too is called there without the new one.
            past = called < beside_called and len(now.get(id(beside), "")) == 1
            missed = id(new) in now and (called == 0 or past)
            if missed or (old is not None and id(old) not in now and old_called):
                raise RetropropError(
                    f"The module at {path!r} was replaced or wrapped, but the network does not call the "
                    "new one: it keeps another reference to the old module, such as a plain list or a "
                    "closure. Call the module through its registered name, or keep the list as a "
                    "torch.nn.ModuleList."
                )

    def _site(self, layer: Layer, role: Role) -> Site:
        paths = layer.paths.get(role, ())
        module = self.network.get_submodule(paths[0]) if paths else None
        name, shape = f"{layer.name}.{role}", layer.shape_at(role)
        return Site(name, role, layer.in_shape, shape, module, layer.channels_first)

    def _reachable(self, layer: Layer, role: Role) -> bool:
        """Whether the role has a module, or one can be wrapped around what the layer has."""
        if layer.paths.get(role):
            return True
        if role == "dropout":
            return bool(layer.paths.get("activation")) and not layer.loose_activation
        if role == "skip":
            return bool(layer.span)
        return role == "norm" and bool(layer.paths.get("linear"))

    def _build(self, site: Site, factory: Callable[[Site], nn.Module | None]) -> nn.Module | None:
        """A new module from its own seed, on the CPU first, then moved to where the network is."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # torch.manual_seed would seed every device too, which costs more than all the rest here.
            torch.default_generator.manual_seed(derived_seed(self.seed, self._fix, site.name))
            new = factory(site)
        if new is None:
            return None
        for reference in self.network.parameters():
            if reference.is_floating_point():
                new = new.to(device=reference.device, dtype=reference.dtype)
                break
        return new.train(self.network.training)

    def _place(self, layer: Layer, role: Role, new: nn.Module) -> None:
        paths = layer.paths.get(role, ())
        if paths:
            self._placed.append((paths[0], new, self.network.get_submodule(paths[0]), None))
        for path in paths:
            self._set(path, new)
        if not paths and role == "skip":
            self._wrap_span(layer, new)
        elif not paths:
            self._wrap(layer, _FOLLOWED[role], role, new)
        self._out_of_place(layer)

    def _wrap(self, layer: Layer, inner: Role, role: Role, new: nn.Module) -> None:
        """Put a module behind another, at all its places, as a pair."""
        before = layer.paths[inner]
        sharing = [other for other in self.anatomy.layers if other.paths.get(inner) == before]
        self._placed.append((before[0], new, None, self.network.get_submodule(before[0])))
        pair = nn.Sequential()
        pair.add_module(inner, self.network.get_submodule(before[0]))
        pair.add_module(role, new)
        pair.training = self.network.training
        for path in before:
            self._set(path, pair)
        self._move({path: join(path, inner) for path in before})
        for other in sharing:
            other.paths[role] = tuple(join(path, role) for path in before)

    def _wrap_span(self, layer: Layer, skip: nn.Module) -> None:
        """Put a block in the first place of a layer's neighbours; later keys stay."""
        block_path = layer.span[0]
        sharing = [other for other in self.anatomy.layers if other.span == layer.span]
        self._placed.append((block_path, skip, None, self.network.get_submodule(block_path)))
        block = SkipBlock(nn.Sequential(), skip)
        moved = {}
        for path in layer.span:
            key = path.rpartition(".")[2]
            block.inner.add_module(key, self.network.get_submodule(path))
            self._set(path, nn.Identity().train(self.network.training))
            moved[path] = join(block_path, f"inner.{key}")
        self._set(block_path, block)
        for one in (block, block.inner):
            one.training = self.network.training
        self._move(moved)
        for other in sharing:
            other.paths["skip"] = (join(block_path, "skip"),)

    def _move(self, moved: dict[str, str]) -> None:
        """All layers now find modules at, and below, their new paths."""
        for layer in self.anatomy.layers:
            for role, paths in layer.paths.items():
                layer.paths[role] = tuple(_moved(path, moved) for path in paths)

    def _out_of_place(self, layer: Layer) -> None:
        """Modules next to an edit must not overwrite what its backward pass keeps."""
        for paths in layer.paths.values():
            for path in paths:
                module = self.network.get_submodule(path)
                if vars(module).get("inplace"):
                    vars(module)["inplace"] = False

    def _set(self, path: str, module: nn.Module) -> None:
        if not path:
            self.network = module
            return
        parent, _, name = path.rpartition(".")
        setattr(self.network.get_submodule(parent), name, module)

    def _refuse_shared_with_output(self, layer: Layer, role: Role) -> None:
        # A new norm or dropout is wrapped around the module that it follows.
        if not layer.paths.get(role):
            role = _FOLLOWED.get(role, role)
        own = set(layer.paths.get(role, ()))
        for other in self.anatomy.layers:
            shared = own & set(other.paths.get(role, ()))
            if shared and other.output != layer.output:
                raise RetropropError(
                    f"The module at {min(shared)!r} is the {role} of layer {layer.name!r} and "
                    f"of layer {other.name!r}, one of which is the output; a fix may change only "
                    "one of them. Give each its own module."
                )

    def _refuse_functional(self) -> None:
        if self.anatomy.functional:
            raise NothingMatched(
                f"{self._fix or 'This fix'} replaces activation modules, but this network calls "
                f"{self._calls()}, which surgery cannot see. Make each call a module, such as "
                "torch.nn.Sigmoid()."
            )

    def _calls(self) -> str:
        return ", ".join(sorted(set(self.anatomy.functional)))

    def _nothing(self, role: Role) -> str:
        places = [
            f"{layer.name}: {_describe(self._site(layer, role).module)}"
            for layer in self.anatomy.layers
            if not layer.output and self._reachable(layer, role)
        ]
        more = f"; and {len(places) - 4} more" if len(places) > 4 else ""
        found = "; ".join(places[:4]) + more if places else "none"
        hint = ""
        if not places and role == "skip":
            hint = " A skip needs a layer's modules, with its activation, as neighbours in one nn.Sequential."
        elif not places and self.anatomy.functional:
            hint = f" Activations called as functions are out of reach: {self._calls()}."
        return (
            f"{self._fix or 'This fix'} looked for {role} sites to change in the hidden layers of "
            f"{type(self.network).__name__} and changed none. Sites of that role: {found}.{hint}"
        )


def _moved(path: str, moved: dict[str, str]) -> str:
    """Where a path leads after moves; the root's path is empty."""
    for before, after in moved.items():
        if path == before:
            return after
        if not before or path.startswith(f"{before}."):
            return join(after, path.removeprefix(f"{before}." if before else ""))
    return path


__all__ = ["ROLES", "Edit", "Role", "Site", "Surgeon"]
