"""Sample networks for tests: the 1986 network, and what users bring."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from retroprop.networks.mlp import MLP


def mlp() -> nn.Module:
    return MLP("8-8-8-4")


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 4))


def shared_activation() -> nn.Module:
    """One activation module at two hidden places, the natural way to write the 1986 net."""
    act = nn.Sigmoid()
    return nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 4))


def shared_with_output() -> nn.Module:
    """One activation module, at two paths, behind a hidden layer and behind the output."""
    act = nn.Sigmoid()
    return nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 4), act)


class OneActivation(nn.Module):
    """One activation module, at one path, behind a hidden layer and behind the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 4)
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


def tied() -> nn.Module:
    """One linear layer at two paths."""
    linear = nn.Linear(8, 8)
    return nn.Sequential(linear, nn.Sigmoid(), linear, nn.Sigmoid(), nn.Linear(8, 4))


class Iterated(nn.Module):
    """One linear layer and one activation, each at one path, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.act = nn.Sigmoid()
        self.output = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.act(self.linear(x))
        return self.output(x)


class Functional(nn.Module):
    """Activations that are function calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.output = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(functional.relu(self.second(torch.sigmoid(self.first(x)))))


class FunctionalOutput(nn.Module):
    """A hidden activation that is a module, and a function call on the output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).sigmoid()


class TwoHeads(nn.Module):
    """A policy and a value; the value is computed first, the answer is a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(8, 1)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
        self.policy = nn.Linear(8, 4)
        self.squash = nn.Sigmoid()
        self.policy_squash = nn.Sigmoid()

    def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor]]:
        h = self.body(x)
        value = self.squash(self.value(h))
        return {"value": value, "policy": (self.policy_squash(self.policy(h)),)}


class ShortCut(nn.Module):
    """A linear short cut beside the hidden layer, called before it."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Linear(8, 4)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
        self.out = nn.Linear(8, 4)
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.short(x)
        return self.act(self.out(self.body(x)) + y)


class KeepsHidden(nn.Module):
    """Gives the sum of a hidden layer, and of what an output layer makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
        self.second = nn.Sequential(nn.Linear(8, 4), nn.Sigmoid())
        self.out = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x))
        return self.out(h) + h


class Aliased(nn.Module):
    """Modules that a plain list names a second time, and calls."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.act = nn.Sigmoid()
        self.b = nn.Linear(8, 4)
        self.steps = [self.a, self.act, self.b]

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class HalfAliased(Aliased):
    """The registered activation is called, and a second time the one in the list."""

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.steps[1](self.a(self.act(self.a(x)))))


class Tapped(nn.Module):
    """A block whose inner tensor is read outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.net[0](x)
        y = self.net[1](h)
        return self.out(torch.cat((h, y), 1))


class Gated(nn.Module):
    """A squeeze-and-excite block on units."""

    def __init__(self, gate: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.act = nn.Tanh()
        self.squeeze = nn.Linear(8, 8)
        self.gate = gate or nn.Sigmoid()
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.body(x))
        return self.out(h * self.gate(self.squeeze(h))[:, :, None].squeeze(-1).expand_as(h))


class ByHand(nn.Module):
    """x * sigmoid(x) written out, with a module."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.act = nn.Sigmoid()
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.out(h * self.act(h))


class Swish(nn.Module):
    """An activation that torch does not know, with a function call inside."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Halve(nn.Module):
    """Element by element and linear: no activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def own_activation() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), Halve(), Swish(), nn.Linear(8, 4))


class Block(nn.Module):
    """A residual block as in torchvision, with one in-place ReLU called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


def residual_convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        Block(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )


def convnet() -> nn.Module:
    """Nested blocks with pooling, in-place activations and a dropout, as in torchvision's VGG."""
    features = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    classifier = nn.Sequential(
        nn.Linear(4, 8), nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True), nn.Linear(8, 4)
    )
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


def lenet() -> nn.Module:
    """Pooling between a convolution and its activation."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 4), nn.Sigmoid(),
    )  # fmt: skip


VECTORS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "sequential": sequential,
    "shared_activation": shared_activation,
    "tied": tied,
    "iterated": Iterated,
    "own_activation": own_activation,
}
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "residual_convnet": residual_convnet,
    "convnet": convnet,
    "lenet": lenet,
}


def example(name: str) -> Tensor:
    """A batch of four cases for a network of VECTORS or IMAGES."""
    generator = torch.Generator().manual_seed(1)
    shape = (4, 8) if name in VECTORS else (4, 3, 8, 8)
    return torch.randn(shape, generator=generator)


def build(name: str) -> nn.Module:
    """A network of VECTORS or IMAGES, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return (VECTORS | IMAGES)[name]()
