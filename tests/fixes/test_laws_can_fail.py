"""Each law fails, by its number, on a fix that breaks it."""

import copy
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import retroprop.fix
from retroprop import fixes
from retroprop.errors import NothingMatched
from retroprop.fix import Fix, ModelFix, Paper, Stage
from retroprop.networks.layer import NoSkip
from retroprop.stacking.dispatch import twin
from retroprop.stacking.twins import share_elementwise
from retroprop.surgery import Surgeon
from retroprop.testing import LAWS, LawBroken, check_fix

PAPER = Paper(2020, "A. Nonymous", "A fix", "A journal")


@dataclass(frozen=True)
class Toy(ModelFix):
    """A lawful fix but for what each class below changes."""

    name = "toy"
    paper = PAPER
    stage = Stage.ACTIVATION
    edits = "hidden activations -> SiLU"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: nn.SiLU())
        return surgeon.network


class NotFrozen(Toy):
    pass


@dataclass(frozen=True)
class NotFinal(Toy):
    pass


@final
@dataclass(frozen=True)
class NoYaml(Toy):
    widths: tuple[int, ...] = (1, 2)


@final
@dataclass(frozen=True)
class SilentNoOp(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        return network


@final
@dataclass(frozen=True)
class FalseReceipt(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.note("hidden.0", "activation", "Sigmoid", "SiLU")
        return network


@final
@dataclass(frozen=True)
class Draws(Toy):
    source: str = "torch"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        {"torch": lambda: torch.rand(1), "NumPy": np.random.rand, "Python": random.random}[self.source]()
        return super().rewrite(network, surgeon)


@final
@dataclass(frozen=True)
class Restarts(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        with torch.no_grad():
            network.output.linear.bias.zero_()
        return super().rewrite(network, surgeon)


@final
@dataclass(frozen=True)
class RestartsUnsaid(Toy):
    stage = Stage.INIT

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        with torch.no_grad():
            network.output.linear.bias.zero_()
        return super().rewrite(network, surgeon)


@final
@dataclass(frozen=True)
class NewLayersUnsaid(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        super().rewrite(network, surgeon)
        network.output.linear = nn.Sequential(network.output.linear)
        return network


@final
@dataclass(frozen=True)
class OnlyFloat32(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        for layer in network.hidden:
            layer.norm = nn.LayerNorm(16)
        surgeon.note("hidden.0", "norm", "nothing", "LayerNorm")
        return network


class Unused(nn.Sigmoid):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(3))


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs().sub(10).sqrt()


@final
@dataclass(frozen=True)
class UnusedParameter(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: Unused())
        return surgeon.network


@final
@dataclass(frozen=True)
class NotFinite(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: Breaks())
        return surgeon.network


@final
@dataclass(frozen=True)
class SilentWithoutSites(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        return super().rewrite(network, surgeon) if surgeon.sites("activation") else network


class Changing:
    numbers = itertools.count()

    def __get__(self, instance: Any, owner: Any) -> str:
        return f"changing_{next(self.numbers)}"


@final
@dataclass(frozen=True)
class Renamed(Toy):
    name = Changing()

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.note("hidden.0", "activation", "Sigmoid", "SiLU")
        return network


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(())

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * self.scale


@final
@dataclass(frozen=True)
class HiddenState(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: Scaled())
        return surgeon.network


@final
@dataclass(frozen=True)
class NotNeutral(Toy):
    p: float = 0.5
    neutral = {"p": 0.0}  # noqa: RUF012 - typed in Fix


@final
@dataclass(frozen=True)
class WantsSigmoid(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        if not isinstance(surgeon.sites("activation")[0].module, nn.Sigmoid):
            raise NothingMatched("toy looked for a sigmoid")
        return super().rewrite(network, surgeon)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)


share_elementwise(Centre)  # wrong: in the stacked layout the last dimension is the batch


@final
@dataclass(frozen=True)
class WrongTwin(Toy):
    stage = Stage.NORM

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("norm", lambda site: Centre())
        return surgeon.network


@dataclass(frozen=True)
class Slope:
    value: float = field(compare=False)


class Leak(nn.Module):
    def __init__(self, slope: Slope) -> None:
        super().__init__()
        self.slope = slope  # two of them look equal

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.slope.value)


@twin.register(Leak)
def _(first: Leak, modules: Sequence[Leak]) -> nn.Module:
    return Leak(first.slope)


@final
@dataclass(frozen=True)
class FirstSettingOnly(Toy):
    slope: float = 0.5

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("activation", lambda site: Leak(Slope(self.slope)))
        return surgeon.network


class Lifts(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y + 0.1 * (y == 0)


@twin.register(Lifts)
def _(first: Lifts, modules: Sequence[Lifts]) -> nn.Module:
    return NoSkip()  # wrong where units are 0, as behind dropout and ReLU


@final
@dataclass(frozen=True)
class WrongInACrowd(Toy):
    stage = Stage.SKIP
    slot = "skip"

    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.fill("skip", lambda site: Lifts())
        return surgeon.network


@final
@dataclass(frozen=True)
class FirstPlaceOnly(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        for path, module in list(network.named_modules()):
            if isinstance(module, nn.Sigmoid) and not path.startswith("output"):
                parent, _, name = path.rpartition(".")
                setattr(network.get_submodule(parent), name, nn.SiLU())
                surgeon.note(path, "activation", "Sigmoid", "SiLU")
        return network


@final
@dataclass(frozen=True)
class OutputToo(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.strip_output()
        return super().rewrite(network, surgeon)


@final
@dataclass(frozen=True)
class OnlyOurs(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        surgeon.note("hidden.0", "activation", "Sigmoid", "SiLU")
        for layer in network.hidden:
            layer.activation = nn.SiLU()
        return network


@final
@dataclass(frozen=True)
class OutputUnsaid(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        network.output.activation = nn.Tanh()
        return super().rewrite(network, surgeon)


@final
@dataclass(frozen=True)
class OutputSaid(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        network.output.activation = nn.Tanh()
        surgeon.note("output.activation", "activation", "Sigmoid", "Tanh")
        return super().rewrite(network, surgeon)


@final
@dataclass(frozen=True)
class DropsUnsaid(Toy):
    def rewrite(self, network: nn.Module, surgeon: Surgeon) -> nn.Module:
        network.hidden[1].dropout = nn.Dropout(0.1)
        return super().rewrite(network, surgeon)


BROKEN = [
    (1, "metadata", NotFinal(), "its file holds"),
    (2, "value_object", NotFrozen(), "not marked @final"),
    (2, "value_object", NotFinal(), "not marked @final"),
    (2, "value_object", NoYaml((3,)), "expected tuple"),
    (3, "edits_something", SilentNoOp(), "its receipt is empty"),
    (3, "edits_something", FalseReceipt(), "nothing is different"),
    (5, "random_state_unchanged", Draws(), "generator of torch moved"),
    (5, "random_state_unchanged", Draws("NumPy"), "generator of NumPy moved"),
    (5, "random_state_unchanged", Draws("Python"), "generator of Python moved"),
    (6, "kept_parameters", Restarts(), "output.linear.bias has another start, and this is no INIT"),
    (6, "kept_parameters", RestartsUnsaid(), "which the receipt does not say"),
    (6, "kept_parameters", NewLayersUnsaid(), "output.linear.weight is gone"),
    (
        6,
        "kept_parameters",
        OutputUnsaid(),
        "'output.activation' was torch.nn.modules.activation.Sigmoid() and",
    ),
    (6, "kept_parameters", OutputSaid(), "which only fixes of loss, start and kernel may change"),
    (6, "kept_parameters", DropsUnsaid(), "no edit on the receipt names its place"),
    (7, "kind_kept", OnlyFloat32(), "is torch.float32 in float64"),
    (8, "finite_gradients", UnusedParameter(), "hidden.0.activation.extra gets no gradient"),
    (8, "finite_gradients", NotFinite(), "is not finite"),
    (9, "nothing_matched", SilentWithoutSites(), "changed nothing and said nothing"),
    (10, "twice", Renamed(), "applied a second time"),
    (11, "state_is_whole", HiddenState(), "gives other outputs"),
    (12, "neutral", NotNeutral(), "outputs differ at {'p': 0.0}"),
    (13, "composes", WantsSigmoid(), "looked for a sigmoid"),
    (14, "fused", WrongTwin(), "differs by"),
    (14, "fused", FirstSettingOnly(), "differs by"),
    (14, "fused", WrongInACrowd(), "differs by"),
    (15, "shared_modules", FirstPlaceOnly(), "at two hidden places became 2"),
    (15, "shared_modules", OutputToo(), "the output's activation"),
    (16, "foreign", OnlyOurs(), "has no attribute 'hidden'"),
]


@pytest.mark.parametrize(("number", "law", "fix", "said"), BROKEN, ids=lambda value: str(value)[:30])
def test_a_law_catches_what_breaks_it(number: int, law: str, fix: Fix, said: str):
    with pytest.raises(LawBroken) as caught:
        LAWS[law](fix)
    assert str(caught.value).startswith(f"Law {number} (")
    assert type(fix).__name__ in str(caught.value)
    assert said in str(caught.value)


def test_law_4_catches_an_apply_that_does_not_copy(monkeypatch: pytest.MonkeyPatch):
    class NoCopy:
        deepcopy = staticmethod(lambda network: network)

    monkeypatch.setattr(retroprop.fix, "copy", NoCopy)
    with pytest.raises(LawBroken, match=r"Law 4 .*has other modules now"):
        LAWS["input_unchanged"](fixes.get("relu")())
    monkeypatch.setattr(NoCopy, "deepcopy", staticmethod(copy.copy))
    with pytest.raises(LawBroken, match="Law 4 "):
        LAWS["input_unchanged"](fixes.get("relu")())


FILE = '''
from dataclasses import dataclass
from typing import final
from torch import nn
from retroprop.fix import ModelFix, Paper, Stage

@final
@dataclass(frozen=True)
class Silu(ModelFix):
    """Hidden units give x * sigmoid(x)."""
    name = "silu"
    paper = Paper(2017, "Ramachandran, Zoph & Le", "Searching for activation functions", "arXiv:1710.05941")
    stage = Stage.ACTIVATION
    slot = "activation"
    edits = "hidden activations -> SiLU"

    def rewrite(self, network, surgeon):
        surgeon.fill("activation", lambda site: nn.SiLU())
        return surgeon.network
'''


def from_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "silu") -> Fix:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = __import__(name)
    return module.Silu()


def test_a_lawful_fix_of_a_third_party_passes_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_fix(from_file(tmp_path, monkeypatch, FILE))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("2017", "1985"), "its paper is of 1985"),
        (('"arXiv:1710.05941"', '""'), "is empty"),
        (('name = "silu"', 'name = "swish"'), "its file is named 'silu'; expected 'swish'"),
        (('slot = "activation"', 'slot = "a"\n    neutral = {"q": 1}'), "neutral names ['q']"),
    ],
)
def test_law_1_reads_all_metadata(
    change: tuple[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fix = from_file(tmp_path, monkeypatch, FILE.replace(*change))
    with pytest.raises(LawBroken) as caught:
        LAWS["metadata"](fix)
    assert said in str(caught.value)
