"""One optimizer step of a whole group as one pure function: forward, backward, update, freeze."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from retroprop.ensemble.precision import Precision, products_in
from retroprop.ensemble.trial_data import keyed_modules
from retroprop.errors import NoTwin, RetropropError
from retroprop.fix import Recipe
from retroprop.optim.rule import Hyper, State, Tensors
from retroprop.sparse.schedule import begin_epoch, phase
from retroprop.stacking.dispatch import Members, members_of, original_name, same_make, stack
from retroprop.stacking.keyed import Draw

# The path of a module that takes noise, what it draws, and its members.
Noisy = tuple[str, Draw, Members]


@dataclass
class Carried:
    """What one step hands to the next.

    parameters, buffers, state: with a leading member dimension, by stacked name; parameters that are
        not trained are among the buffers.
    alive: bool `(member,)`; a member whose loss was not finite is False and changes no more.
    steps: int64 `(member,)`, updates made.
    """

    parameters: Tensors
    buffers: Tensors
    state: State
    alive: Tensor
    steps: Tensor


class Program:
    """K recipes that differ in fixes, hyper-parameters and starts, as one function.

    Args:
        recipes: one a member; networks of one skeleton, one loss, one kind of rule.
        device: where to run; where the networks are by default.
        precision: see `Schedule`.

    Raises:
        NoTwin: when the networks cannot be stacked.
        RetropropError: when losses or kinds of rule differ.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        device: torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        first = recipes[0]
        for other in recipes:
            if (other.loss, other.reduction, other.rule.make()) != (
                first.loss,
                first.reduction,
                first.rule.make(),
            ):
                raise RetropropError(
                    "A group needs one loss and one kind of rule; several were given. Plan them apart."
                )
        self.size = len(recipes)
        self.precision = precision
        self.loss, self.rule, self.reduction = (
            recipes[0].loss,
            recipes[0].rule,
            recipes[0].reduction,
        )
        self.network = stack([recipe.network for recipe in recipes]).to(device).train()
        self.evaluator = copy.deepcopy(self.network).eval()
        carried = set(self.network.state_dict())
        self.owners = {name: members for name, members in members_of(self.network).items() if name in carried}
        self.noisy = _noisy(self.network, recipes)
        self._phases: dict[tuple[bool, ...], Program] = {}
        self.hyper = self._hyper(recipes)
        some = {members for members in self.owners.values() if len(members) < self.size}
        self._places = {members: torch.tensor(members, device=self.device) for members in some}

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device

    def at(self, epoch: int) -> "Program":
        """The program of an epoch: itself, unless its sparse layers follow a schedule."""
        now = phase(self.network, epoch)
        if not now:
            return self
        if now not in self._phases:
            other = copy.copy(self)
            other.network = copy.deepcopy(self.network)
            begin_epoch(other.network, epoch)
            self._phases[now] = other
        return self._phases[now]

    def _hyper(self, recipes: Sequence[Recipe]) -> Hyper:
        hyper: Hyper = {field: {} for field in self.rule.hyper()}
        for name, parameter in self.network.named_parameters():
            for field, tensors in hyper.items():
                values = [recipes[k].rule.hyper()[field] for k in self.owners[name]]
                tensors[name] = parameter.new_tensor(values).view(-1, *[1] * (parameter.ndim - 1))
        return hyper

    def same_make(self, other: "Program") -> bool:
        """Whether one compiled step serves both: they differ in tensors and hyper-parameters alone."""
        return (
            (self.loss, self.reduction, self.precision) == (other.loss, other.reduction, other.precision)
            and self.owners == other.owners
            and self._same_tables(other)
            and self.rule.make() == other.rule.make()
            and same_make(self.network, other.network)
        )

    def _same_tables(self, other: "Program") -> bool:
        """Whether modules hold the same tensors besides the carried ones, as a compiled step keeps them."""
        own, others = dict(self.network.named_buffers()), dict(other.network.named_buffers())
        tables = own.keys() - self.network.state_dict().keys()
        return own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in tables)

    def start(self) -> Carried:
        """Everything before the first step."""
        tensors = {name: p.detach().clone() for name, p in self.network.state_dict().items()}
        trained = [name for name, p in self.network.named_parameters() if p.requires_grad]
        parameters = {name: tensors.pop(name) for name in trained}
        device = self.device
        # Copies: a rule may begin with the parameters themselves, or with one tensor for two slots.
        state = {
            slot: {name: tensor.clone() for name, tensor in held.items()}
            for slot, held in self.rule.start(parameters).items()
        }
        return Carried(
            parameters,
            tensors,
            state,
            torch.ones(self.size, dtype=torch.bool, device=device),
            torch.zeros(self.size, dtype=torch.int64, device=device),
        )

    def step(
        self,
        parameters: Tensors,
        buffers: Tensors,
        state: State,
        alive: Tensor,
        x: Tensor,
        t: Tensor,
        noise: Tensors,
        hyper: Hyper,
    ) -> tuple[Tensors, Tensors, State, Tensor, Tensor]:
        """One update of every living member.

        Args:
            parameters, buffers, state, alive: as in `Carried`.
            x: inputs (member or 1, unit, batch).
            t: targets (member or 1, class, batch).
            noise: by stacked name, (member or 1, unit, batch).
            hyper: by field and parameter.

        Returns:
            parameters, buffers, state, alive, and the loss `(member,)` before the update.
        """
        seen: list[tuple[Tensor, Tensors]] = []

        def gradient(at: Tensors) -> Tensors:
            gradients, aux = grad(self._objective, has_aux=True)(at, buffers, x, t, noise)
            seen.append(aux)
            return gradients

        changed, new = self.rule.step(parameters, gradient, state, hyper)
        losses, tracked = seen[0]
        alive = alive & torch.isfinite(losses)
        return (
            self._where_alive(alive, changed, parameters),
            self._where_alive(alive, tracked, buffers),
            {slot: self._where_alive(alive, new[slot], state[slot]) for slot in state},
            alive,
            losses,
        )

    def _objective(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, t: Tensor, noise: Tensors
    ) -> tuple[Tensor, tuple[Tensor, Tensors]]:
        """The sum over members, whose gradient is each member's own."""
        tensors = {**parameters, **buffers, **noise}
        with products_in(self.precision, x.device):
            out = functional_call(self.network, tensors, (x,))
        values = self.loss(out.to(t.dtype), t, 1)
        losses = values.sum(-1) if self.reduction == "sum" else values.mean(-1)
        # functional_call has left in `tensors` what modules assigned to their buffers.
        return losses.sum(), (losses, {name: tensors[name] for name in buffers})

    def _where_alive(self, alive: Tensor, new: Tensors, old: Tensors) -> Tensors:
        kept = {}
        for name, tensor in old.items():  # in its order and layout, which a compiled step expects
            members = self.owners[name]
            own = alive if len(members) == self.size else alive[self._places[members]]
            chosen = torch.where(own.view(-1, *[1] * (tensor.ndim - 1)), new[name], tensor)
            kept[name] = chosen.contiguous()
        return kept

    def gradient_norms(
        self, carried: Carried, x: Tensor, t: Tensor, noise: Tensors
    ) -> list[dict[str, float]]:
        """Norm of the gradient of every weight matrix, by member and original name."""
        gradients, _ = grad(self._objective, has_aux=True)(carried.parameters, carried.buffers, x, t, noise)
        norms: list[dict[str, float]] = [{} for _ in range(self.size)]
        for name, gradient in gradients.items():
            if gradient.ndim > 2:
                sizes = gradient.flatten(1).norm(dim=1).tolist()
                for k, size in zip(self.owners[name], sizes, strict=True):
                    norms[k][original_name(name)] = size
        return norms

    def finite(self, carried: Carried) -> Tensor:
        """Whether all parameters of each member are finite: bool `(member,)`."""
        found = torch.ones_like(carried.alive)
        for name, tensor in carried.parameters.items():
            members = torch.tensor(self.owners[name], device=self.device)
            found[members] &= torch.isfinite(tensor.flatten(1)).all(1)
        return found

    def evaluate(self, parameters: Tensors, buffers: Tensors, state: State, x: Tensor) -> Tensor:
        """What the networks say at evaluation: x as a stack takes it -> (member, class, batch)."""
        used = self.rule.evaluated(parameters, state)
        with torch.no_grad(), products_in(self.precision, x.device):
            return functional_call(self.evaluator, {**used, **buffers}, (x,))


def _noisy(network: nn.Module, recipes: Sequence[Recipe]) -> dict[str, Noisy]:
    """Everything in a stack that takes noise, by the name of what holds it.

    Raises:
        NoTwin: when members of one module need different noise.
    """
    keyed = [keyed_modules(recipe.network) for recipe in recipes]
    found: dict[str, Noisy] = {}
    for name, module in network.named_modules():
        if "noise" not in module._buffers or "members" not in vars(module):
            continue
        path, members = original_name(name), module.members
        draws = {keyed[k][path].draw for k in members if path in keyed[k]}
        if len(draws) > 1:
            raise NoTwin(f"Networks whose random numbers at {path!r} differ in stream or shape.")
        if draws:
            found[f"{name}.noise"] = (path, draws.pop(), members)
    return found
