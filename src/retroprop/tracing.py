"""What an example batch shows of a network that does not name its layers.

A copy is run once in evaluation mode. Hooks record every call of a module and the tensors that went
in and out; which parameter layer a norm, activation or dropout belongs to is read from those.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from retroprop.anatomy import ROLES, Anatomy, Layer, Role, SkipBlock, join, kind_of, passes, slots_of
from retroprop.errors import RetropropError
from retroprop.networks.layer import HiddenLayer

# A tensor at one moment: its identity and how often it was changed in place.
Key = tuple[int, int]
Shape = tuple[int, ...]

_FUNCTIONS = {
    "celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "logsigmoid", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus",
    "softsign", "tanh", "threshold",
}  # fmt: skip
_OUTPUT_FUNCTIONS = {"softmax", "softmin"}
_GUESSED_SIZES = (64, 224, 32, 28)


@dataclass
class _Call:
    """One finished call of a module, or of an activation function where `function` names it.

    inside: the modules whose forward method it happened in, outermost first, and what they took.
    """

    module: nn.Module
    source: Key
    result: Key
    in_shape: Shape
    shape: Shape
    inside: tuple[tuple[nn.Module, Key], ...]
    function: str = ""


class _Recorder(TorchFunctionMode):
    """Records calls in the order they finish; keeps tensors, so that no identity is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._active: list[tuple[nn.Module, Key, Shape]] = []
        self._kept: list[Tensor] = []

    def watch(self, network: nn.Module) -> None:
        """Hook every module of the network."""
        for module in network.modules():
            module.register_forward_pre_hook(self._enter, with_kwargs=True)
            module.register_forward_hook(self._leave, with_kwargs=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name = getattr(func, "__name__", "").rstrip("_")
        if name not in _FUNCTIONS | _OUTPUT_FUNCTIONS or not self._active:
            return func(*args, **(kwargs or {}))
        source, in_shape = self._seen((*args, *(kwargs or {}).values()))
        result = func(*args, **(kwargs or {}))
        self._record(self._active[-1][0], source, in_shape, result, name)
        return result

    def _seen(self, values: Any) -> tuple[Key, Shape]:
        """The first tensor among some values."""
        for value in values:
            if isinstance(value, Tensor):
                self._kept.append(value)
                return (id(value), value._version), tuple(value.shape[1:])
        return (0, 0), ()

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._active.append((module, *self._seen((*args, *kwargs.values()))))

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        del args, kwargs
        _, source, in_shape = self._active.pop()
        self._record(module, source, in_shape, output)

    def _record(
        self, module: nn.Module, source: Key, in_shape: Shape, output: Any, function: str = ""
    ) -> None:
        result, shape = self._seen((output,))
        inside = tuple((outer, key) for outer, key, _ in self._active)
        self.calls.append(_Call(module, source, result, in_shape, shape, inside, function))


def traced_layers(network: nn.Module, example: Tensor | None) -> Anatomy:
    """The layers of any network, in the order in which a batch meets them.

    The network is left as it is, and so are torch's global generators.

    Args:
        network: every `nn.Linear` and convolution that its forward method calls begins a layer; the
            last one called is the output layer.
        example: a batch `(batch, ...)` that it accepts; guessed from its first parameter layer if
            None.

    Raises:
        RetropropError: when the network cannot run on the batch, or calls no parameter layer.
    """
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
            raise RetropropError(
                f"The module at {path!r} is a {type(module).__name__}, which surgery cannot open; "
                "expected plain modules. Apply the fixes first, then compile or script the result."
            )
    batches = _guesses(network) if example is None else iter([example])
    failure = "it has no nn.Linear or convolution to guess a batch from"
    for batch in batches:
        recorder = _Recorder()
        runner = copy.deepcopy(network).eval()
        recorder.watch(runner)
        cuda = [batch.get_device()] if batch.is_cuda else []
        try:
            with torch.random.fork_rng(devices=cuda), torch.no_grad(), recorder:
                runner(batch)
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            failure = f"on a batch {tuple(batch.shape)} it raised {type(error).__name__}: {reason}"
            continue
        return _Reader(runner, recorder.calls).anatomy()
    what = "a guessed batch" if example is None else "the example batch"
    raise RetropropError(
        f"{type(network).__name__} was run on {what} to see which layer feeds which, and failed: "
        f"{failure}. Pass example=..., a batch (batch, ...) that the network accepts."
    )


def _guesses(network: nn.Module) -> Iterator[Tensor]:
    """Batches of two cases that the first parameter layer would take."""
    for module in network.modules():
        if not isinstance(module, (nn.Linear, _ConvNd)):
            continue
        generator = torch.Generator().manual_seed(0)
        if isinstance(module, nn.Linear):
            shapes: list[Shape] = [(2, module.in_features)]
        else:
            sides = _GUESSED_SIZES if module.weight.ndim < 5 else (16,)
            shapes = [(2, module.in_channels, *[side] * (module.weight.ndim - 2)) for side in sides]
        for shape in shapes:
            yield torch.randn(shape, generator=generator).to(module.weight)
        return


class _Reader:
    """Reads layers from finished calls."""

    def __init__(self, network: nn.Module, calls: list[_Call]) -> None:
        self.network = network
        self.slots = slots_of(network)
        self.kinds = {id(call.module): kind_of(call.module, call.in_shape, call.shape) for call in calls}
        whole = {key for key, kind in self.kinds.items() if kind in ("linear", "activation")}
        self.calls = [call for call in calls if not any(id(outer) in whole for outer, _ in call.inside)]
        modules = [call for call in self.calls if not call.function]
        self.times = Counter(id(call.module) for call in modules)
        self.so_far: Counter[int] = Counter()
        self.outputs_from = sum(self.kinds[id(call.module)] == "linear" for call in modules)
        self.begun = 0
        self.last = -1
        self.found = Anatomy([])
        self.origin: dict[Key, int] = {}

    def anatomy(self) -> Anatomy:
        """All layers.

        Raises:
            RetropropError: when no parameter layer was called.
        """
        if not self.outputs_from:
            raise RetropropError(
                f"{type(self.network).__name__} calls no nn.Linear and no convolution; expected a "
                "network of such layers. Parameters used by functions alone are out of reach."
            )
        for call in self.calls:
            if call.function:
                self._function(call)
            else:
                self._module(call)
        for layer in self.found.layers:
            self._named_slots(layer)
        for layer in self.found.layers:
            layer.span = self._span(layer)
        self._drop_shared_spans()
        return self.found

    def _home(self, call: _Call) -> tuple[int, bool]:
        """The layer that a call works for, and whether that is only the last one called."""
        if call.source in self.origin:
            return self.origin[call.source], False
        for outer, key in reversed(call.inside):
            # A norm that brings its own activation feeds it from inside its forward method.
            if self.kinds.get(id(outer)) == "norm" and key in self.origin:
                return self.origin[key], False
        return self.last, True

    def _function(self, call: _Call) -> None:
        if self.kinds[id(call.module)] in ("activation", "distribution", "dropout"):
            return
        home, _ = self._home(call)
        text = f"{call.function} in the forward method of {type(call.module).__name__}"
        if self._at_output(home):
            self.found.functional_output.append(text)
        elif call.function in _FUNCTIONS:
            self.found.functional.append(text)
        if call.source in self.origin:
            self.origin[call.result] = self.origin[call.source]

    def _module(self, call: _Call) -> None:
        kind = self.kinds[id(call.module)]
        home, loose = self._home(call)
        if kind == "distribution":
            kind = "activation" if self._at_output(home) else ""
        if kind == "linear":
            self._begin(call)
        elif kind == "activation":
            self._activation(call, home, loose)
        elif kind in ("norm", "dropout") and not loose:
            layer = self.found.layers[home]
            if kind not in layer.paths:
                layer.paths[kind] = self._paths(call)  # type: ignore[index]
                layer.shapes[kind] = call.shape  # type: ignore[index]
            self.origin[call.result] = home
        elif kind == "" and not loose and passes(call.module):
            self.origin[call.result] = home

    def _begin(self, call: _Call) -> None:
        paths = self._paths(call)
        self.begun += 1
        self.last = len(self.found.layers)
        layer = Layer(paths[0], {"linear": paths}, call.in_shape, call.shape)
        layer.output = self._at_output(self.last)
        layer.channels_first = isinstance(call.module, _ConvNd)
        self.found.layers.append(layer)
        self.origin[call.result] = self.last

    def _activation(self, call: _Call, home: int, loose: bool) -> None:
        paths = self._paths(call)
        if home < 0 or "activation" in self.found.layers[home].paths:
            # No layer to belong to, or that layer has one: it stands for itself.
            own = Layer(paths[0], {}, call.in_shape, call.shape)
            own.output = home >= 0 and self._at_output(home)
            own.channels_first = home >= 0 and self.found.layers[home].channels_first
            home, loose = len(self.found.layers), True
            self.found.layers.append(own)
        layer = self.found.layers[home]
        layer.paths["activation"] = paths
        layer.shapes["activation"] = call.shape
        layer.loose_activation = loose
        self.origin[call.result] = home

    def _at_output(self, home: int) -> bool:
        own = home >= self.last or self.found.layers[home].output
        return home >= 0 and self.begun == self.outputs_from and own

    def _paths(self, call: _Call) -> tuple[str, ...]:
        """Where this call's module stands: the k-th place for the k-th call, if as many."""
        key = id(call.module)
        slots = self.slots[key]
        k = self.so_far[key]
        self.so_far[key] += 1
        return (slots[k],) if len(slots) == self.times[key] else tuple(slots)

    def _named_slots(self, layer: Layer) -> None:
        """A layer of ours inside a foreign network has slots that the trace does not show."""
        for path in layer.paths.get("linear", ())[:1]:
            outer = path.rpartition(".")[0]
            block = outer.removesuffix("inner").rstrip(".")
            if isinstance(self.network.get_submodule(outer), HiddenLayer) and not layer.output:
                layer.name = outer or path
                layer.paths = {role: (join(outer, role),) for role in ROLES}
            elif isinstance(self.network.get_submodule(block), SkipBlock):
                layer.paths["skip"] = (join(block, "skip"),)

    def _span(self, layer: Layer) -> tuple[str, ...]:
        """Neighbours in one `nn.Sequential` that make up the layer, if it stands in one."""
        roles: tuple[Role, ...] = ("linear", "norm", "activation", "dropout")
        paths = [layer.paths[role] for role in roles if role in layer.paths]
        whole = "linear" in layer.paths and "activation" in layer.paths and "skip" not in layer.paths
        if not whole or layer.loose_activation or any(len(places) > 1 for places in paths):
            return ()
        outer = {path.rpartition(".")[0] for (path,) in paths}
        parent = self.network.get_submodule(next(iter(outer)))
        if len(outer) > 1 or not isinstance(parent, nn.Sequential):
            return ()
        if type(parent).forward is not nn.Sequential.forward:
            return ()
        keys = list(parent._modules)
        own = {keys.index(path.rpartition(".")[2]) for (path,) in paths}
        between = set(range(min(own), max(own) + 1)) - own
        if keys.index(layer.paths["linear"][0].rpartition(".")[2]) != min(own):
            return ()
        if any(type(parent.get_submodule(keys[i])) is not nn.Identity for i in between):
            return ()
        prefix = next(iter(outer))
        return tuple(join(prefix, keys[i]) for i in range(min(own), max(own) + 1))

    def _drop_shared_spans(self) -> None:
        """A module that another layer uses too cannot move into this layer's block."""
        layers = self.found.layers
        for layer in layers:
            for other in layers:
                used = {path for paths in other.paths.values() for path in paths}
                if other.span != layer.span and used & set(layer.span):
                    layer.span = ()


__all__ = ["traced_layers"]
