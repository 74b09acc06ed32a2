"""Modules without a twin run through vmap and are what they are alone; what vmap cannot run says so."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from retroprop.errors import NoTwin
from retroprop.fixes.dropout import KeyedDropout
from retroprop.sparse import linear
from retroprop.stacking.dispatch import Choice, stack
from retroprop.stacking.vmapped import Vmapped, vmapped_types
from tests.stacking.test_images import check

Make = Callable[[], nn.Module]


class Doubled(nn.Linear):
    """A subclass of what has a twin, and not the same."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


class Softer(nn.Sigmoid):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input / 2)


class Scaled(nn.Module):
    """A parameter and a buffer of its own beside what is inside, which nobody registered as a container."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.register_buffer("shift", torch.zeros(6))
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale + self.shift


class Sparse(nn.Module):
    """A registered operator inside, behind a custom autograd function."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.linear.weight, self.linear.bias, keep=2)


class Attention(nn.Module):
    """Tokens that look at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)) + x)


MODULES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "gated linear unit": (nn.GLU, (6,)),
    "prelu": (nn.PReLU, (6,)),
    "softmax": (lambda: nn.Softmax(-1), (6,)),
    "subclass with parameters": (lambda: Doubled(6, 5), (6,)),
    "subclass without": (Softer, (6,)),
    "container with tensors": (Scaled, (6,)),
    "sparse operator": (Sparse, (6,)),
    "attention on tokens": (Attention, (3, 4)),
    "convolutional block": (ConvBlock, (3, 5, 5)),
    "beside a twin": (lambda: nn.Sequential(nn.Linear(6, 6), nn.GLU(), nn.Linear(3, 2)), (6,)),
}


@pytest.mark.parametrize("shared", [False, True], ids=["own inputs", "one input"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_vmapped(name: str, train: bool, shared: bool):
    make, shape = MODULES[name]
    if not train and "attention" in name:
        pytest.skip("torch's own evaluation of attention has no gradient")
    for size in (1, 3):
        assert vmapped_types(check([make] * size, shape, train=train, shared=shared)), "it has a twin"


def test_modules_of_one_type_that_differ_inside_are_a_choice():
    def other() -> nn.Module:
        made = Scaled()
        made.inner[2] = nn.Sigmoid()
        return made

    stacked = check([Scaled, other, Scaled], (6,))
    assert isinstance(stacked, Choice)
    assert all(isinstance(branch, Vmapped) for branch in stacked.children())


def test_a_nan_in_one_member_changes_no_bit_of_another():
    modules = [Scaled().double() for _ in range(3)]
    x = torch.randn(3, 6, 7, dtype=torch.float64)
    before = stack(modules)(x)
    with torch.no_grad():
        modules[1].scale[0] = torch.nan
    after = stack(modules)(x)
    assert after[1].isnan().any()
    for k in (0, 2):
        assert torch.equal(before[k], after[k]), f"member {k}"


def test_a_step_leaves_the_buffers_it_was_given():
    stacked = stack([Scaled(), Scaled()]).train()
    buffer = stacked.get_submodule("inner.1").running_mean
    kept = buffer.clone()
    stacked(torch.randn(2, 6, 7))
    assert torch.equal(buffer, kept)
    assert not torch.equal(stacked.get_submodule("inner.1").running_mean, kept)


class Peeking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else 2 * x


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Holding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = KeyedDropout(0.5, (6,))

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Peeking, "Peeking has no stacked twin, and vmap refuses"),
        (Random, "Random has no stacked twin, and vmap refuses"),
        (Holding, "cannot hand the noise to its KeyedDropout"),
        (lambda: nn.LSTM(6, 6), "LSTM has no stacked twin, and vmap refuses"),
        (lambda: nn.Dropout(0.3), "dropout fix instead"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: nn.Sequential(nn.Tanh(), m)])
def test_what_vmap_cannot_run_says_so(make: Make, words: str, wrap: Callable[[nn.Module], nn.Module]):
    with pytest.raises(NoTwin, match=words):
        stack([wrap(make()), wrap(make())])(torch.randn(2, 6, 7))


def test_hooks_are_refused():
    modules = [Scaled(), Scaled()]
    modules[0].inner[0].register_forward_hook(lambda *_: None)
    with pytest.raises(NoTwin, match="Linear has a hook"):
        stack(modules)


def test_torchs_own_dropout_without_effect_is_nothing():
    x = torch.randn(2, 6, 7)
    assert torch.equal(stack([nn.Dropout(0.0), nn.Dropout(0.0)])(x), x)
