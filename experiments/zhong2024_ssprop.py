"""Zhong, Huang & Shi 2024 (ssProp): `python -m experiments.zhong2024_ssprop`.

Every other epoch keeps 20 % of the channels in the backward pass of convolutions. The bookkeeping, 40 % of
the convolutions' backward operations, is counted on ResNet-18 at 32x32; accuracy is compared on a small
convolutional network on CIFAR-10 (JPEG q90) in a short schedule. Needs RETROPROP_DATA.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.paired import Claim, run
from retroprop.data.sources import load
from retroprop.ensemble.loop import train as train_alone
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.fix import Recipe, apply
from retroprop.fixes.adam import Adam
from retroprop.fixes.sparse_backprop import SparseBackprop
from retroprop.losses import cross_entropy
from retroprop.randomness import derived_seed
from retroprop.sparse import begin_epoch

ARMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "ssProp, 20 % every other epoch": {"keep": 0.2, "schedule": "alternate"},
}
SETTINGS = {
    "arms": ARMS,
    "seeds": list(range(10)),
    "epochs": 6,
    "batch": 128,
    "rate": 0.001,
    "network": "conv 32, conv 64, conv 64, linear; 3x3, stride 2, batch norm, ReLU",
    "data": "cifar10_jpeg_q90",
}
CLAIMS = (
    Claim(
        "alternating dense and sparse epochs stays within half a point of dense",
        "ssProp, 20 % every other epoch", "dense", -0.5, True,
        "accuracy at least that of dense (B: headline only; tables not found)",
    ),
)  # fmt: skip
DEVIATIONS = (
    "A network of three convolutions, six epochs and Adam at 0.001 instead of ResNet-50, 300 epochs, 0.0002.",
    "CIFAR-10 (JPEG q90) instead of CIFAR-100.",
)


def network() -> nn.Module:
    """Three convolutions and a linear layer."""
    parts: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        parts += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(64 * 16, 10))


def recipe(arm: str, seed: int) -> Recipe:
    """One arm's network at its start, with its training recipe."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, "ssprop"))
        bare = Recipe(network(), loss=cross_entropy)
    sparse = [SparseBackprop(**ARMS[arm])] if ARMS[arm] else []
    return apply(bare, [Adam(SETTINGS["rate"]), *sparse], seed=seed, example=torch.zeros(2, 3, 32, 32)).recipe


def train(arm: str, seed: int) -> dict[str, float]:
    """One trial."""
    data = SeedData.of(load(SETTINGS["data"]), seed, torch.float32, torch.device("cpu"))
    schedule = Schedule(SETTINGS["epochs"], SETTINGS["batch"])
    outcome = train_alone(recipe(arm, seed), data, schedule, test=True)
    return {
        "test": outcome.test_accuracy or 0.0,
        "validation": float(outcome.validation_accuracy[-1]),
        "train": outcome.train_accuracy,
        "seconds": round(outcome.seconds, 1),
    }


def backward_operations(network: nn.Module) -> int:
    """Counted operations of the backward passes of all convolutions."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, 32, 32)).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for op, count in counts.items() if "conv" in str(op) and "backward" in str(op))


def bookkeeping() -> dict[str, float]:
    """Share of the convolutions' backward operations that ssProp leaves out of ResNet-18."""
    import torchvision

    dense = torchvision.models.resnet18(num_classes=100)
    sparse = apply(
        dense, SparseBackprop(0.2, schedule="alternate"), example=torch.zeros(2, 3, 32, 32)
    ).network
    counts = []
    for epoch in (0, 1):
        begin_epoch(sparse.train(), epoch)
        counts.append(backward_operations(sparse))
    whole = backward_operations(dense.train())
    return {
        "saved, %": round(100 * (1 - sum(counts) / (2 * whole)), 2),
        "dense epochs, share of dense": counts[0] / whole,
        "sparse epochs, share of dense": round(counts[1] / whole, 4),
    }


def main() -> None:
    """Run the landmark."""
    saved = bookkeeping()
    right = abs(saved["saved, %"] - 40) <= 2
    about = {
        "paper": "Zhong, Huang & Shi 2024, ssProp; arXiv 2408.12561",
        "deviations": DEVIATIONS,
        "bookkeeping, ResNet-18": {
            **saved,
            "says": "40 % of the backward operations of convolutions are saved, +-2 (A)",
            "verdict": "reproduced" if right else "not reproduced",
        },
    }
    run(__file__, SETTINGS, CLAIMS, train, about)


if __name__ == "__main__":
    main()
