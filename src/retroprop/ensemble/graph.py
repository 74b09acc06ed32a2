"""A pure function of nested dictionaries of tensors as one compiled graph.

The function is traced by `make_fx` rather than by torch.compile: what it calls runs once on fake tensors, a
tenth of the time that reading its bytecode takes, and autograd.Functions inside of `torch.func.grad` keep
their backward passes, which torch.compile 2.14 drops where it takes their inputs for constants.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


def compiled(
    function: Function, inputs: Sequence[Any], *, overwritten: int = 0, lock: Path | None = None
) -> Function:
    """The function, compiled for inputs like these: of their shapes and types, with their names in order.

    Args:
        function: pure; takes tensors and nested dictionaries of tensors, and gives a tensor or a tuple.
        inputs: an example, which is left as it is.
        overwritten: so many of the inputs, the first ones, take up as many outputs and are given back
            themselves: at the next call they are still in the processor's cache.
        lock: a file that keeps several processes from compiling the same graph at once; whoever comes
            second finds it in the compiler's cache.
    """
    # Names alone: the tensors of the example are not kept.
    leaves, names = _leaves(inputs), _names(inputs)
    said: list[Any] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        given = _nested(names, iter(tensors))
        found = function(*given)
        if overwritten:
            _overwrite(given[:overwritten], found[:overwritten])
            found = found[overwritten:]
        said.append(_names(found))
        return _leaves(found)

    graph, held = _traced(flat, leaves)
    with _one_at_a_time(lock), torch.no_grad():
        run = torch._inductor.standalone_compile(
            graph, [*leaves, *held], dynamic_shapes="from_example_inputs"
        )

    def call(*given: Any) -> Any:
        with torch.no_grad():
            out = _nested(said[-1], iter(run(*_leaves(given, names), *held)))
        return (*given[:overwritten], *out) if overwritten else out

    return call


def _traced(function: Function, inputs: list[Tensor]) -> tuple[torch.fx.GraphModule, list[Tensor]]:
    """The graph of a function, and the tensors that it takes after its inputs.

    Those are masks and tables that modules hold; as a part of the graph they would keep the compiler's
    cache from knowing it again.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    module = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    graph = module.graph
    reads = [node for node in graph.nodes if node.op == "get_attr"]
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    held: dict[str, torch.fx.Node] = {}
    for node in reads:
        name = str(node.target)
        if name not in held:
            with graph.inserting_after(last):
                last = held[name] = graph.placeholder(f"held_{len(held)}")
        node.replace_all_uses_with(held[name])
        graph.erase_node(node)
    tensors = [getattr(module, name) for name in held]
    module.recompile()
    return module, tensors


def _overwrite(old: Any, new: Any) -> None:
    """Copy every tensor of a structure into that of the same name."""
    if isinstance(old, Tensor):
        assert (old.shape, old.dtype) == (new.shape, new.dtype), "a step gives back what it was given"
        old.copy_(new)
    elif isinstance(old, dict):
        for name, value in old.items():
            _overwrite(value, new[name])
    else:
        for one, other in zip(old, new, strict=True):
            _overwrite(one, other)


def _names(tree: Any) -> Any:
    """The same structure with None for every tensor."""
    if isinstance(tree, Tensor):
        return None
    if isinstance(tree, dict):
        return {name: _names(value) for name, value in tree.items()}
    return tuple(_names(value) for value in tree)


def _leaves(tree: Any, names: Any = None) -> list[Tensor]:
    """All tensors of a nested structure, in its order, or by name in the order of another one."""
    if isinstance(tree, Tensor):
        return [tree]
    names = _names(tree) if names is None else names
    if isinstance(tree, dict):
        pairs = [(tree[name], inner) for name, inner in names.items()]
    else:
        pairs = list(zip(tree, names, strict=True))
    found = []
    for value, inner in pairs:
        if inner is None:
            found.append(value)
        else:
            found += _leaves(value, inner)
    return found


def _nested(names: Any, leaves: Iterator[Tensor]) -> Any:
    """A structure with tensors at its places."""
    if names is None:
        return next(leaves)
    if isinstance(names, dict):
        return {name: _nested(inner, leaves) for name, inner in names.items()}
    return tuple(_nested(inner, leaves) for inner in names)


@contextlib.contextmanager
def _one_at_a_time(lock: Path | None) -> Iterator[None]:
    """Hold a lock file, where there is one and the system has such locks."""
    if lock is None:
        yield
        return
    try:
        import fcntl
    except ImportError:  # Windows: they compile side by side
        yield
        return
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
