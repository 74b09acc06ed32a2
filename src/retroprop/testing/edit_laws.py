"""Laws of what a fix edits, and of what it leaves alone."""

import copy
import pickle
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from retroprop import fixes as registry
from retroprop.errors import AlreadyApplied, Conflict, NothingMatched, RetropropError
from retroprop.fix import Fix, Recipe, Stage, apply
from retroprop.networks.mlp import MLP
from retroprop.testing.law import (
    LawBroken,
    baseline,
    company,
    edits_of,
    equal_tensors,
    gradients_of,
    law,
    minibatch,
    put_on,
    require,
    without,
)
from retroprop.testing.networks import (
    OneActivation,
    foreign_networks,
    shared_activation,
    shared_with_output,
    tied_layers,
)
from retroprop.tracing import traced_layers

_PARTNERS = 6


@law(3, "it edits the 1986 network, or says what it needs")
def edits_something(fix: Fix) -> None:
    """At least one edit is on the receipt, and something is different."""
    before = baseline()
    try:
        after = put_on(fix, before)
    except (NothingMatched, Conflict) as error:
        require(fix.name in str(error), f"it was refused without its name: {error}")
        return
    require(bool(edits_of(fix, after)), "its receipt is empty")
    alone = without(fix, before)
    unchanged = str(alone.network) == str(after.network) and equal_tensors(
        alone.network.state_dict(), after.network.state_dict()
    )
    rest = replace(after.recipe, network=alone.network) == alone
    require(not (unchanged and rest), "its receipt lists edits, but nothing is different")


@law(4, "the input is unchanged")
def input_unchanged(fix: Fix) -> None:
    """The recipe and network that were given stay as they were, and share no tensor with the result."""
    recipe = baseline()
    network = recipe.network
    shown, state = str(network), copy.deepcopy(network.state_dict())
    modules = [id(module) for module in network.modules()]
    fixed = put_on(fix, recipe).network
    require(str(network) == shown, "the network that was given has other modules now")
    require(modules == [id(m) for m in network.modules()], "its modules were exchanged")
    require(equal_tensors(state, network.state_dict()), "its parameters have other values now")
    own = {tensor.data_ptr() for tensor in network.state_dict().values()}
    shared = [n for n, t in fixed.state_dict().items() if t.numel() and t.data_ptr() in own]
    require(not shared, f"the result shares {shared} with the network that was given")


@law(5, "global random state is unchanged")
def random_state_unchanged(fix: Fix) -> None:
    """Applying a fix draws nothing from the generators of torch, NumPy and Python."""
    recipe = baseline()
    before = _global_states()
    put_on(fix, recipe)
    for name, state in _global_states().items():
        require(before[name] == state, f"the generator of {name} moved")


def _global_states() -> dict[str, bytes]:
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - what foreign code may have drawn from
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": pickle.dumps(legacy),
        "Python": pickle.dumps(random.getstate()),
    }


@law(6, "what the receipt does not name is kept, parameters to the bit")
def kept_parameters(fix: Fix) -> None:
    """Arms of one seed start alike, except where an INIT fix says on its receipt that they do not.

    Modules that differ are on the receipt too, and those of the output layer differ for fixes of the
    loss, the start and the kernel alone.
    """
    applied = put_on(fix, baseline())
    edited = {edit.site for edit in edits_of(fix, applied)}
    after = dict(applied.network.named_parameters())
    for name, parameter in without(fix, baseline()).network.named_parameters():
        if name not in after:
            named = any(name.startswith(f"{site}.") for site in edited)
            require(named, f"{name} is gone, and no edit on the receipt names its place")
        elif not torch.equal(parameter, after[name]):
            require(fix.stage == Stage.INIT, f"{name} has another start, and this is no INIT fix")
            require(name in edited, f"{name} has another start, which the receipt does not say")
    _kept_modules(fix, without(fix, baseline()).network, applied.network, edited)


def _kept_modules(fix: Fix, before: nn.Module, after: nn.Module, edited: set[str]) -> None:
    output = MLP("16-4").layer_paths()[1]
    was, now = _modules(before), _modules(after)
    for path in sorted(path for path in was.keys() | now.keys() if was.get(path) != now.get(path)):
        change = f"the module {path!r} was {was.get(path)} and is {now.get(path)}"
        named = any(path == site or path.startswith(f"{site}.") for site in edited)
        require(named, f"{change}, and no edit on the receipt names its place")
        if fix.stage not in (Stage.LOSS, Stage.INIT, Stage.KERNEL):
            inside = path == output or path.startswith(f"{output}.")
            require(not inside, f"{change}, which only fixes of loss, start and kernel may change")


def _modules(network: nn.Module) -> dict[str, str]:
    """Type and settings of every module below a network by its path."""
    found = {}
    for path, module in network.named_modules(remove_duplicate=False):
        if path:
            found[path] = f"{type(module).__module__}.{type(module).__name__}({module.extra_repr()})"
    return found


@law(7, "dtype, device and mode are kept")
def kind_kept(fix: Fix) -> None:
    """What is new has the dtype, device and train or evaluation mode of the network."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for training in (True, False):
            network = MLP("16-16-16-4").to(device, torch.float64).train(training)
            x = minibatch(torch.float64)[0].to(device)
            fixed = apply(Recipe(network), company(fix), example=x).network
            for name, tensor in fixed.state_dict().items():
                if tensor.is_floating_point():
                    require(tensor.dtype == torch.float64, f"{name} is {tensor.dtype} in float64")
                require(tensor.device.type == device, f"{name} is not on {device}")
            modes = {module.training for module in fixed.modules()}
            require(modes == {training}, f"training={training} was not kept everywhere")


@law(9, "nothing matched is an error that names what was looked for")
def nothing_matched(fix: Fix) -> None:
    """On a network without hidden layers a fix edits something, or says what it did not find."""
    for network in (MLP("16-4"), nn.Linear(16, 4)):
        try:
            applied = put_on(fix, Recipe(network))
        except (NothingMatched, Conflict) as error:
            said = any(one.name in str(error) for one in company(fix)) and "looked for" in str(error)
            require(said, f"the error does not say who looked for what: {error}")
        else:
            require(bool(edits_of(fix, applied)), "it changed nothing and said nothing")


@law(10, "twice is an error")
def twice(fix: Fix) -> None:
    """The same fix cannot be given twice, nor put on a network that has it."""
    once = put_on(fix).recipe
    for recipe, given in ((baseline(), [*company(fix), fix]), (once, [fix])):
        try:
            apply(recipe, given, example=minibatch()[0])
        except AlreadyApplied:
            continue
        raise LawBroken("it was applied a second time")


@law(13, "it composes with every other fix, or they conflict")
def composes(fix: Fix) -> None:
    """Checked against the registered fixes, a sample of them where there are many."""
    names = [name for name in registry.names() if name != fix.name]
    chosen = random.Random(fix.name).sample(names, min(_PARTNERS, len(names)))
    for name in chosen:
        check_pair(fix, registry.get(name)())


def check_pair(one: Fix, other: Fix) -> None:
    """Check that two fixes compose, with one result whatever the order given, or conflict.

    Raises:
        LawBroken: when they do neither.
    """
    together = {fix.name: fix for fix in (*company(one), *company(other))}
    orders: Sequence[list[Fix]] = (list(together.values()), list(together.values())[::-1])
    results: list[Recipe | None] = []
    for order in orders:
        try:
            results.append(apply(baseline(), order, example=minibatch()[0]).recipe)
        except Conflict:
            results.append(None)
        except RetropropError as error:
            raise LawBroken(f"{one.name!r} with {other.name!r} gave {error}") from error
    first, second = results
    if first is None or second is None:
        require(first is second, f"{one.name!r} conflicts with {other.name!r} in one order only")
        return
    same = (
        str(first.network) == str(second.network)
        and equal_tensors(first.network.state_dict(), second.network.state_dict())
        and replace(first, network=second.network) == second
    )
    require(same, f"{one.name!r} with {other.name!r} depends on the order they are given in")
    _, gradients = gradients_of(first, *minibatch())
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())
    require(finite, f"{one.name!r} with {other.name!r} gives a gradient that is not finite")


@law(15, "shared modules are replaced together, or split, or the error names both places")
def shared_modules(fix: Fix) -> None:
    """Modules at two hidden places stay one; hidden and output places come apart."""
    for build, role in ((shared_activation, "activation"), (tied_layers, "linear")):
        network = _tried(fix, build())
        if network is not None:
            layers = [one for one in traced_layers(network, None).layers if not one.output]
            found = [network.get_submodule(layer.paths[role][0]) for layer in layers]  # type: ignore[index]
            one = len({id(module) for module in found}) == 1
            require(one, f"one {role} module at two hidden places became {len(found)}")
    network = _tried(fix, shared_with_output())
    if network is not None:
        output = traced_layers(network, None).layers[-1].paths.get("activation", ())
        kept = bool(output) and type(network.get_submodule(output[0])) is nn.Sigmoid
        taken = fix.stage == Stage.LOSS and not output
        require(kept or taken, "it changed the output's activation, which loss fixes alone may")
    network = _tried(fix, OneActivation(), names=("hidden", "output"))
    kept = network is None or type(network.get_submodule("act")) is nn.Sigmoid
    require(kept, "it changed a module that is a hidden layer's and the output's")


def _tried(fix: Fix, network: nn.Module, names: tuple[str, ...] = ()) -> nn.Module | None:
    """The network with the fix, or None where the fix says why not."""
    try:
        return put_on(fix, Recipe(network)).network
    except (NothingMatched, Conflict):
        return None
    except RetropropError as error:
        said = bool(names) and all(repr(name) in str(error) for name in names)
        require(said, f"it was refused without both places named: {error}")
        return None


@law(16, "it works on a foreign network, or says why not")
def foreign(fix: Fix) -> None:
    """Networks of torchvision's and timm's make still train, or the error names the fix."""
    for name, (network, x) in foreign_networks().items():
        before = network(x).shape
        try:
            fixed = apply(Recipe(network), company(fix), example=x).recipe
        except RetropropError as error:
            said = any(one.name in str(error) for one in company(fix))
            require(said, f"on {name} it was refused without its name: {error}")
            continue
        output = fixed.network(x)
        require(output.shape == before, f"on {name} the output is {tuple(output.shape)} now")
        torch.autograd.backward(fixed.loss(output, torch.eye(4), -1).mean())
        for path, parameter in fixed.network.named_parameters():
            finite = parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
            require(finite, f"on {name} {path} gets no finite gradient")
