"""The callback turns layers sparse and dense by the epoch, and counts what is saved."""

import csv
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from retroprop.errors import NothingMatched, RetropropError
from retroprop.lightning import SparseSchedule
from retroprop.lightning.sparse_schedule import realised_density
from retroprop.sparse import SparseConv2d, SparseLinear

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]
CASES, BATCH = 24, 8


class Script(lightning.LightningModule):
    """A user's script: a conv and a linear layer, sparse."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.conv = SparseConv2d(1, 8, 3, padding=1, keep=0.25)
        self.linear = SparseLinear(8 * 16, 8, keep=0.5, **how)
        self.head = nn.Linear(8, 2)
        self.rows: list[int] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, t = batch
        return nn.functional.cross_entropy(self.head(self.linear(self.conv(x).flatten(1).relu())), t)

    def on_after_backward(self) -> None:
        self.rows.append(int(self.conv.weight.grad.flatten(1).abs().sum(1).gt(0).sum()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(
    script: lightning.LightningModule, callback: SparseSchedule, folder: Path, epochs: int = 4
) -> list[dict[str, str]]:
    data = TensorDataset(torch.randn(CASES, 1, 4, 4), torch.arange(CASES) % 2)
    logger = CSVLogger(folder, name="", version="")
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=logger, callbacks=[callback], log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(script, DataLoader(data, BATCH))
    with (folder / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("sparse/density")]


def backward_flops(cases: int) -> tuple[int, int]:
    """Of the conv, whose input needs no gradient, and of the linear layer."""
    return 2 * cases * 8 * 16 * 9, 4 * cases * 8 * 128


def test_epochs_alternate_and_savings_add_up(tmp_path: Path):
    script = Script()
    rows = fit(script, SparseSchedule("alternate"), tmp_path)
    per_epoch = CASES // BATCH
    assert script.rows == [8] * per_epoch + [2] * per_epoch + [8] * per_epoch + [2] * per_epoch
    conv, linear = backward_flops(CASES)
    density = (conv * 0.25 + linear * 0.5) / (conv + linear)
    assert [float(row["sparse/density"]) for row in rows] == pytest.approx([1, density, 1, density])
    saved = conv * 0.75 + linear * 0.5
    assert [float(row["sparse/saved_flops"]) for row in rows] == pytest.approx([0, saved, saved, 2 * saved])


def test_layers_keep_their_own_schedule_by_default(tmp_path: Path):
    script = Script()
    rows = fit(script, SparseSchedule(), tmp_path, epochs=2)
    assert script.rows == [2] * 6
    assert len({row["sparse/density"] for row in rows}) == 1


def test_what_variance_keeps_is_measured(tmp_path: Path):
    script = Script(select="variance")
    rows = fit(script, SparseSchedule(), tmp_path, epochs=1)
    conv, linear = backward_flops(CASES)
    found = float(rows[0]["sparse/density"])
    assert (conv * 0.25 + linear / 8) / (conv + linear) <= found < (conv * 0.25 + linear) / (conv + linear)


def test_hooks_are_gone_after_the_fit(tmp_path: Path):
    script = Script()
    fit(script, SparseSchedule(), tmp_path, epochs=1)
    assert not script.conv._forward_hooks


def test_a_fit_that_fails_leaves_nothing_behind(tmp_path: Path):
    class Failing(Script):
        fails = True

        def on_after_backward(self) -> None:
            if self.fails:
                raise ArithmeticError("as it happens")

    script, callback = Failing(), SparseSchedule()
    with pytest.raises(ArithmeticError):
        fit(script, callback, tmp_path / "first", epochs=1)
    assert not script.conv._forward_hooks
    script.fails = False
    rows = fit(script, callback, tmp_path / "second", epochs=1)
    conv, linear = backward_flops(CASES)
    assert float(rows[0]["sparse/saved_flops"]) == pytest.approx(conv * 0.75 + linear * 0.5)


def test_blocks_are_counted_as_they_are_kept():
    layer = SparseLinear(6, 8, select="variance", keep=0.5, block=4)
    gradient = torch.tensor([[1.0, 0, 0, 0, 0.1, 0, 0, 0]]).repeat(3, 1)
    assert float(realised_density(layer, gradient)) == 0.5


def test_a_module_without_sparse_layers_is_refused(tmp_path: Path):
    class Dense(Script):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(128, 8)

    with pytest.raises(NothingMatched, match="found no sparse layer"):
        fit(Dense(), SparseSchedule(), tmp_path)
    with pytest.raises(RetropropError, match="Did you mean 'alternate'"):
        SparseSchedule("alternat")  # type: ignore[arg-type]
