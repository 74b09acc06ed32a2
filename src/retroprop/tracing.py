"""What an example batch shows of a network that does not name its layers.

A copy is run once in evaluation mode. Hooks record every call of a module and the tensors that went
in and out; which parameter layer a norm, activation or dropout belongs to is read from those. What
reaches the output, and what only multiplies something else, is read from autograd's graph.
"""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from retroprop.anatomy import (
    ROLES,
    Anatomy,
    Flow,
    Layer,
    Role,
    SkipBlock,
    guesses,
    join,
    kind_of,
    nodes_of,
    passes,
    slots_of,
)
from retroprop.errors import RetropropError
from retroprop.networks.layer import ConvLayer, HiddenLayer

# A tensor at one moment: its identity and how often it was changed in place.
Key = tuple[int, int]
Shape = tuple[int, ...]

_FUNCTIONS = {
    "celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "hardshrink", "log_sigmoid", "logsigmoid", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid",
    "silu", "softplus", "softshrink", "softsign", "special_expit", "special_ndtr", "tanh", "tanhshrink",
    "threshold",
}  # fmt: skip
_OUTPUT_FUNCTIONS = {"softmax", "softmin", "special_softmax"}


@dataclass
class _Call:
    """One finished call of a module, or of an activation function where `function` names it.

    inside: the modules whose forward method it happened in, outermost first, and what they took.
    node: of autograd's graph, what gave the result.
    """

    module: nn.Module
    source: Key
    result: Key
    in_shape: Shape
    shape: Shape
    inside: tuple[tuple[nn.Module, Key], ...]
    node: Any
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
        node = next(iter(nodes_of(output)), None)
        self.calls.append(_Call(module, source, result, in_shape, shape, inside, node, function))


def traced_layers(network: nn.Module, example: Tensor | None) -> Anatomy:
    """The layers of any network, in the order in which a batch meets them.

    The network is left as it is, and so are torch's global generators.

    Args:
        network: every `nn.Linear` and convolution that its forward method calls begins a layer; those
            that reach a returned tensor with no other between are output layers.
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
    batches = guesses(network) if example is None else iter([example])
    failure = "it has no nn.Linear or convolution to guess a batch from"
    for batch in batches:
        recorder = _Recorder()
        runner = copy.deepcopy(network).eval()
        recorder.watch(runner)
        try:
            with recorder:
                returned = _run(runner, batch)
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            failure = f"on a batch {tuple(batch.shape)} it raised {type(error).__name__}: {reason}"
            continue
        found = _Reader(runner, recorder.calls, nodes_of(returned)).anatomy()
        found.example = batch
        return found
    what = "a guessed batch" if example is None else "the example batch"
    raise RetropropError(
        f"{type(network).__name__} was run on {what} to see which layer feeds which, and failed: "
        f"{failure}. Pass example=..., a batch (batch, ...) that the network accepts."
    )


def _run(network: nn.Module, batch: Tensor) -> Any:
    """What a throw-away network gives, with all that autograd can record."""
    for parameter in network.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.requires_grad_()
    cuda = [batch.get_device()] if batch.is_cuda else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        if batch.is_floating_point():
            batch = batch.detach().clone().requires_grad_().clone()
        return network(batch)


def times_called(network: nn.Module, modules: list[nn.Module], batch: Tensor) -> list[int]:
    """How often a run of the network calls each of some modules, whether it registers them or not."""
    runner, watched = copy.deepcopy((network, modules))
    calls: Counter[int] = Counter()
    for i, module in enumerate(watched):
        module.register_forward_pre_hook(lambda *_, i=i: calls.update([i]))
    _run(runner.eval(), batch)
    return [calls[i] for i in range(len(modules))]


class _Reader:
    """Reads layers from finished calls."""

    def __init__(self, network: nn.Module, calls: list[_Call], returned: list[Any]) -> None:
        self.network = network
        self.slots = slots_of(network)
        self.kinds = {id(call.module): kind_of(call.module, call.in_shape, call.shape) for call in calls}
        whole = {key for key, kind in self.kinds.items() if kind in ("linear", "activation")}
        self.calls = [call for call in calls if not any(id(outer) in whole for outer, _ in call.inside)]
        modules = [call for call in self.calls if not call.function]
        self.times = Counter(id(call.module) for call in modules)
        self.so_far: Counter[int] = Counter()
        self.callers: dict[int, set[int]] = {}
        for call in modules:
            outer = [id(module) for module, _ in call.inside[-1:]]
            self.callers.setdefault(id(call.module), set()).update(outer)
        self.linears = [call for call in modules if self.kinds[id(call.module)] == "linear"]
        self.flow = self._flow(returned)
        self.last = -1
        self.found = Anatomy([])
        self.origin: dict[Key, int] = {}

    def anatomy(self) -> Anatomy:
        """All layers.

        Raises:
            RetropropError: when no parameter layer was called.
        """
        if not self.linears:
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

    def _flow(self, returned: list[Any]) -> Flow:
        """Where tensors go; without a graph to the output, the last parameter layer called gives it."""
        nodes = [call.node for call in self.linears if call.node is not None]
        flow = Flow(returned, nodes)
        if flow.at_output.isdisjoint(nodes) and self.linears:
            tail = self.calls[self.calls.index(self.linears[-1]) :]
            flow = Flow([call.node for call in tail if call.node is not None], nodes)
        return flow

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
        if self._is_gate(call):
            return
        text = f"{call.function} in the forward method of {type(call.module).__name__}"
        if self._at_output(call, home):
            if call.node not in self.flow.inner:
                self.found.functional_output.append(text)
        elif call.function in _FUNCTIONS:
            self.found.functional.append(text)
        if call.source in self.origin:
            self.origin[call.result] = self.origin[call.source]

    def _is_gate(self, call: _Call) -> bool:
        """Whether a call only gives shares of something else, as in a squeeze-and-excite block."""
        name = (call.function or type(call.module).__name__).lower()
        if call.node is None or "log" in name or not ("sigmoid" in name or "expit" in name):
            return False
        factors = self.flow.factors(call.node)
        own = {call.node, *(deeper for deeper, _ in call.node.next_functions)}
        if call.function or not own & set(factors):
            return bool(factors) and not own & set(factors)
        # x * sigmoid(x) is an activation of which the module is a part.
        outer = type(call.inside[-1][0]).__name__
        self.found.functional.append(f"x * {type(call.module).__name__}(x) in the forward method of {outer}")
        return True

    def _module(self, call: _Call) -> None:
        kind = self.kinds[id(call.module)]
        home, loose = self._home(call)
        if kind == "distribution":
            kind = "activation" if self._at_output(call, home) else ""
        if kind == "activation" and self._is_gate(call):
            return
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
        self.last = len(self.found.layers)
        layer = Layer(paths[0], {"linear": paths}, call.in_shape, call.shape)
        layer.output = self._at_output(call, -1)
        layer.channels_first = isinstance(call.module, _ConvNd)
        self.found.layers.append(layer)
        self.origin[call.result] = self.last

    def _activation(self, call: _Call, home: int, loose: bool) -> None:
        paths = self._paths(call)
        output = self._at_output(call, home)
        if output and call.node in self.flow.inner:
            return  # hidden and output at once: no fix may change it
        taken = home < 0 or "activation" in self.found.layers[home].paths
        if taken or self.found.layers[home].output != output:
            # No layer to belong to, or that layer has one, or another end: it stands for itself.
            own = Layer(paths[0], {}, call.in_shape, call.shape)
            own.output = output
            own.channels_first = home >= 0 and self.found.layers[home].channels_first
            home, loose = len(self.found.layers), True
            self.found.layers.append(own)
        layer = self.found.layers[home]
        layer.paths["activation"] = paths
        layer.shapes["activation"] = call.shape
        layer.loose_activation = loose
        self.origin[call.result] = home

    def _at_output(self, call: _Call, home: int) -> bool:
        """Whether what a call gives is returned with no parameter layer between."""
        if call.node is not None:
            return call.node in self.flow.at_output
        if home >= 0:
            return self.found.layers[home].output
        return call is self.linears[-1] and self.flow.at_output.isdisjoint(one.node for one in self.linears)

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
            own = self.network.get_submodule(outer)
            if isinstance(own, (HiddenLayer, ConvLayer)) and not layer.output:
                layer.name = outer or path
                layer.paths = {role: (join(outer, role),) for role in ROLES if role in own._modules}
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
        if any(type(parent.get_submodule(keys[i])) is not nn.Identity for i in between) or any(
            # What is called from elsewhere is read outside the block too.
            self.callers.get(id(parent.get_submodule(keys[i]))) != {id(parent)}
            for i in own | between
        ):
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


__all__ = ["times_called", "traced_layers"]
