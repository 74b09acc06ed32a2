"""Modules without a twin: K of them through `torch.func.vmap`."""

import copy
import warnings
from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call, vmap

from retroprop.errors import NoTwin
from retroprop.stacking.dispatch import Twin, hooked, stacked_tensors


class _Part(Twin):
    """The stacked tensors of one module inside."""


class Vmapped(Twin):
    """K modules of one make, run by the forward method of the first on the stacked tensors of all.

    Raises:
        NoTwin: for modules with hooks, or ones that draw keyed noise.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        first = modules[0]
        # In a list, so that it is not a submodule whose tensors would count.
        self._template = [copy.deepcopy(first)]
        for path, inner in first.named_modules():
            if hooked(inner):
                raise NoTwin(f"{type(inner).__name__} has a hook, which a stack would not call.")
            if "noise" in inner._buffers:
                raise NoTwin(
                    f"{self.kind} has no stacked twin, and vmap cannot hand the noise to its "
                    f"{type(inner).__name__}; register {self.kind} with register_container or twin."
                )
            part = self if not path else _Part()
            if path:
                self.get_submodule(path.rpartition(".")[0]).add_module(path.rpartition(".")[2], part)
            stacked_tensors([module.get_submodule(path) for module in modules], into=part)

    @property
    def kind(self) -> str:
        """The type's name."""
        return type(self._template[0]).__name__

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: as they lie in a stack -> the same.

        Raises:
            NoTwin: when vmap refuses.
        """
        template = self._template[0].train(self.training)
        held, carried = dict(self.named_buffers()), self.state_dict().keys()
        # The module may change its buffers in place; the stack's own must stay what they are.
        tensors = {**dict(self.named_parameters()), **{name: one.clone() for name, one in held.items()}}
        size = len(self.members) if tensors else max(len(x) for x in inputs)

        def one_member(own: dict[str, Tensor], *cases: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            given = dict(own)
            out = functional_call(template, given, cases)
            return out, {name: given[name] for name in held}

        cases = [cases_second(x).expand(size, *cases_second(x).shape[1:]) for x in inputs]
        try:
            with warnings.catch_warnings():
                # Of parts that vmap runs one after another; the plan of a study says that vmap is used.
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                out, changed = vmap(one_member, randomness="error")(tensors, *cases)
        except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
            if "memory" in str(error):
                raise
            reason = str(error).strip().split("\n")[0][:160]
            raise NoTwin(f"{self.kind} has no stacked twin, and vmap refuses it: {reason}") from None
        if not isinstance(out, Tensor):
            raise NoTwin(f"{self.kind} has no stacked twin, and gives {type(out).__name__}, not a tensor.")
        for name, value in changed.items():
            if name not in carried:
                continue  # it begins each pass as it was made
            path, _, own = name.rpartition(".")
            setattr(self.get_submodule(path), own, value)
        return out.mT if out.ndim == 3 else out


def cases_second(x: Tensor) -> Tensor:
    """A stack's values with the cases second: (member or 1, case, ...)."""
    return x.mT if x.ndim == 3 else x


def vmapped_types(stacked: nn.Module) -> list[str]:
    """Names of the types that run through vmap in a stack."""
    return sorted({module.kind for module in stacked.modules() if isinstance(module, Vmapped)})
