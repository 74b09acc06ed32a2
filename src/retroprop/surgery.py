"""Finds sites by role, fills them, and keeps a receipt of every edit.

A layer is what one parameter layer begins: linear, norm, activation, dropout, and the skip around all
four. Networks of ours name their layers; of any other network a traced example batch shows them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from retroprop.errors import NothingMatched, RetropropError, UnknownName
from retroprop.networks.layer import HiddenLayer, Layered, NoSkip
from retroprop.randomness import Seed, derived_seed

Role = Literal["linear", "norm", "activation", "dropout", "skip"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass
class Layer:
    """Where one layer's roles are now. An absent role has no module yet.

    `shape` is the layer's output without the batch dimension; `in_shape` likewise its input.
    """

    name: str
    paths: dict[Role, tuple[str, ...]]
    in_shape: tuple[int, ...]
    shape: tuple[int, ...]
    output: bool = False
    loose_activation: bool = False


@dataclass
class Anatomy:
    """All layers of a network in the order data flows, and what surgery cannot see."""

    layers: list[Layer]
    functional: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Site:
    """One place that a fix may fill.

    name: the path before any fix, so that arms of one study name the same place alike.
    shape, in_shape: of the layer's output and input, without the batch dimension.
    module: what is there now; None when the place has to be made.
    """

    name: str
    role: Role
    in_shape: tuple[int, ...]
    shape: tuple[int, ...]
    module: nn.Module | None

    @property
    def features(self) -> int:
        """Units of a linear layer, channels of a convolution."""
        return self.shape[0] if len(self.shape) > 2 else self.shape[-1]


@dataclass(frozen=True)
class Edit:
    """One line of a receipt."""

    site: str
    role: str
    before: str
    after: str


def named_layers(network: Layered) -> Anatomy:
    """The anatomy of a network that names its own layers."""
    hidden, output = network.layer_paths()
    layers = []
    for path in (*hidden, output):
        module = network.get_submodule(path)  # type: ignore[attr-defined]
        linear = module.linear
        roles = [role for role in ROLES if role in dict(module.named_children())]
        layers.append(
            Layer(
                name=path,
                paths={role: (f"{path}.{role}",) for role in roles},
                in_shape=(linear.in_features,),
                shape=(linear.out_features,),
                output=path == output,
            )
        )
    return Anatomy(layers)


def _empty(module: nn.Module | None) -> bool:
    return module is None or type(module) in (nn.Identity, NoSkip)


def _describe(module: nn.Module | None) -> str:
    return "nothing" if module is None or _empty(module) else str(module).split("\n")[0].rstrip("(")


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

    @property
    def anatomy(self) -> Anatomy:
        """Layers by their names before any fix; found once, so that later fixes see those names."""
        if self._anatomy is None:
            if isinstance(self.network, Layered):
                self._anatomy = named_layers(self.network)
            else:
                from retroprop.tracing import traced_layers

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
        """Sites of a role in the order data flows; those of the output layer only when asked for."""
        if role not in ROLES:
            raise UnknownName("role", role, ROLES)
        return [
            self._site(layer, role)
            for layer in self.anatomy.layers
            if (output or not layer.output) and self._reachable(layer, role)
        ]

    def fill(self, role: Role, factory: Callable[[Site], nn.Module | None]) -> None:
        """Put what `factory` makes at every site of a role in the hidden layers.

        Activations and linear layers are replaced; norm, dropout and skip slots are filled where they
        are empty. A factory gives None for a site that it leaves alone.

        Raises:
            NothingMatched: when no site was changed.
            RetropropError: when a module is shared between a hidden layer and the output.
        """
        if role == "activation":
            self._refuse_functional()
        made: dict[int, nn.Module] = {}
        start = len(self.edits)
        for layer in self.anatomy.layers:
            if layer.output or not self._reachable(layer, role):
                continue
            site = self._site(layer, role)
            replaces = role in ("activation", "linear")
            if any(site.module is module for module in made.values()):
                continue
            if not replaces and not _empty(site.module):
                continue
            self._refuse_shared_with_output(layer, role)
            known = made.get(id(site.module)) if replaces else None
            new = known or self._build(site, factory)
            if new is None or (replaces and str(new) == str(site.module)):
                continue
            if replaces:
                made[id(site.module)] = new
            before = _describe(site.module)
            self._place(layer, role, new)
            self.note(site.name, role, before, _describe(new))
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
        for site in self.sites(role, output=True):
            if site.module is None:
                continue
            generator = torch.Generator().manual_seed(derived_seed(self.seed, self._fix, site.name))
            with torch.no_grad():
                initialise(site.module, generator)
            for name, _ in site.module.named_parameters():
                self.note(f"{site.name}.{name}", role, "started", f"restarted by {self._fix}")
        if not self.edits:
            raise NothingMatched(self._nothing(role))

    def strip_output(self) -> bool:
        """Take the activation off the output layer, so that it gives logits; False if it has none."""
        for layer in self.anatomy.layers:
            paths = layer.paths.get("activation", ()) if layer.output else ()
            if paths and not _empty(self.network.get_submodule(paths[0])):
                self._refuse_shared_with_output(layer, "activation")
                before = self.network.get_submodule(paths[0])
                self._set(paths[0], nn.Identity())
                self.note(f"{layer.name}.activation", "output", _describe(before), "logits")
                return True
        return False

    def _site(self, layer: Layer, role: Role) -> Site:
        paths = layer.paths.get(role, ())
        module = self.network.get_submodule(paths[0]) if paths else None
        return Site(f"{layer.name}.{role}", role, layer.in_shape, layer.shape, module)

    def _reachable(self, layer: Layer, role: Role) -> bool:
        """Whether the role has a module, or one can be wrapped around what the layer has."""
        if layer.paths.get(role):
            return True
        if role == "dropout":
            return bool(layer.paths.get("activation")) and not layer.loose_activation
        return role == "norm" and bool(layer.paths.get("linear"))

    def _build(self, site: Site, factory: Callable[[Site], nn.Module | None]) -> nn.Module | None:
        """A new module from its own seed, on the CPU first, then moved to where the network is."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(derived_seed(self.seed, self._fix, site.name))
            new = factory(site)
        if new is None:
            return None
        reference = next(self.network.parameters(), None)
        if reference is not None:
            new = new.to(device=reference.device, dtype=reference.dtype)
        return new.train(self.network.training)

    def _place(self, layer: Layer, role: Role, new: nn.Module) -> None:
        paths = layer.paths.get(role, ())
        if paths:
            for path in paths:
                self._set(path, new)
            return
        inner: Role = "linear" if role == "norm" else "activation"
        moved = []
        for path in layer.paths[inner]:
            old = self.network.get_submodule(path)
            pair = nn.Sequential()
            pair.add_module(inner, old)
            pair.add_module(role, new)
            self._set(path, pair.train(self.network.training))
            moved.append(f"{path}.{inner}" if path else inner)
        before = layer.paths[inner]
        layer.paths[inner] = tuple(moved)
        layer.paths[role] = tuple(path.removesuffix(inner) + role for path in moved)
        self._rename(before, tuple(moved), layer, inner)

    def _rename(
        self, before: tuple[str, ...], after: tuple[str, ...], moved: Layer, inner: Role
    ) -> None:
        """Other layers that share the wrapped module now find it where it went."""
        for layer in self.anatomy.layers:
            if layer is not moved and layer.paths.get(inner) == before:
                layer.paths[inner] = after

    def _set(self, path: str, module: nn.Module) -> None:
        if not path:
            self.network = module
            return
        parent, _, name = path.rpartition(".")
        setattr(self.network.get_submodule(parent), name, module)

    def _refuse_shared_with_output(self, layer: Layer, role: Role) -> None:
        own = set(layer.paths.get(role, ()))
        for other in self.anatomy.layers:
            shared = own & set(other.paths.get(role, ()))
            if shared and other.output != layer.output:
                raise RetropropError(
                    f"The module at {sorted(shared)[0]!r} is the {role} of layer {layer.name!r} and of "
                    f"layer {other.name!r}, one of which is the output; a fix may change only one of "
                    "them. Give each its own module."
                )

    def _refuse_functional(self) -> None:
        if self.anatomy.functional:
            calls = ", ".join(sorted(set(self.anatomy.functional)))
            raise NothingMatched(
                f"{self._fix or 'This fix'} replaces activation modules, but this network calls {calls} "
                "inside a forward method, which surgery cannot see. Make each call a module, such as "
                "torch.nn.Sigmoid()."
            )

    def _nothing(self, role: Role) -> str:
        places = [
            f"{layer.name}: {_describe(self._site(layer, role).module)}"
            for layer in self.anatomy.layers
            if not layer.output and self._reachable(layer, role)
        ]
        found = "; ".join(places) if places else "none"
        return (
            f"{self._fix or 'This fix'} looked for a {role} site to change in the hidden layers of "
            f"{type(self.network).__name__} and changed none. Sites of that role: {found}."
        )


__all__ = ["ROLES", "Anatomy", "Edit", "HiddenLayer", "Layer", "Role", "Site", "Surgeon"]
