"""Small networks of other makes, on which the laws try a fix."""

import torch
from torch import Tensor, nn


def shared_activation() -> nn.Module:
    """One activation module at two hidden places."""
    act = nn.Sigmoid()
    return nn.Sequential(nn.Linear(16, 16), act, nn.Linear(16, 16), act, nn.Linear(16, 4))


def shared_with_output() -> nn.Module:
    """One activation module at two paths: behind a hidden layer, and behind the output."""
    act = nn.Sigmoid()
    return nn.Sequential(nn.Linear(16, 16), act, nn.Linear(16, 4), act)


def tied_layers() -> nn.Module:
    """One linear layer at two hidden places."""
    tied = nn.Linear(16, 16)
    return nn.Sequential(tied, nn.Sigmoid(), tied, nn.Sigmoid(), nn.Linear(16, 4))


class OneActivation(nn.Module):
    """One activation module at one path: behind a hidden layer, and behind the output."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 16)
        self.output = nn.Linear(16, 4)
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 16) -> (batch, 4)."""
        return self.act(self.output(self.act(self.hidden(x))))


class CalledAsFunctions(nn.Module):
    """Activations that surgery cannot see, in hidden layers and at the output."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 16)
        self.output = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 16) -> (batch, 4)."""
        return torch.sigmoid(self.output(torch.sigmoid(self.hidden(x))))


class ResidualConvNet(nn.Module):
    """A convolution and a residual block with one in-place ReLU, as torchvision writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 3, height, width) -> (batch, 4)."""
        x = self.stem(x)
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        y += x
        return self.head(self.pool(self.relu(y)).flatten(1))


class TokenMixer(nn.Module):
    """A transformer's block on tokens, with empty dropout slots, as timm writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norm1 = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(16)
        self.fc1 = nn.Linear(16, 16)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.0)
        self.fc2 = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 3, height, width) -> (batch, 4)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.fc2(self.drop(self.act(self.fc1(self.norm2(x)))))
        return self.head(x.mean(1))


def foreign_networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks that name no layers, each with a batch of four cases, the same at every call."""
    from torchvision.models import shufflenet_v2_x0_5

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        vectors, images = torch.randn(4, 16), torch.randn(4, 3, 12, 12)
        return {
            "Sequential": (shared_activation(), vectors),
            "CalledAsFunctions": (CalledAsFunctions(), vectors),
            "ResidualConvNet": (ResidualConvNet(), images),
            "TokenMixer": (TokenMixer(), images),
            "shufflenet_v2_x0_5": (shufflenet_v2_x0_5(num_classes=4), torch.randn(4, 3, 32, 32)),
        }
