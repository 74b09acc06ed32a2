"""A Lightning callback that drives the schedule of sparse layers, and logs what they save."""

from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from retroprop.errors import NothingMatched
from retroprop.sparse.layers import SparseLayer
from retroprop.sparse.savings import backward_flops, sparse_layers
from retroprop.sparse.schedule import Kind, Schedule, begin_epoch
from retroprop.sparse.selection import vcas_units


class SparseSchedule(lightning.Callback):
    """Makes the sparse layers of a LightningModule sparse or dense, epoch by epoch.

    Logs after every epoch `sparse/density`, the share of the sparse layers' backward products that was done,
    and `sparse/saved_flops`, the operations that were left out, in all epochs so far.

    Args:
        kind: "constant", "warm_up" or "alternate", for all sparse layers; None leaves each its own.
        dense_epochs: see `retroprop.sparse.Schedule`.

    Raises:
        RetropropError: for an unknown kind.
        NothingMatched: at the start of a fit, when the module has no sparse layer.
    """

    def __init__(self, kind: Kind | None = None, dense_epochs: int = 1) -> None:
        super().__init__()
        self.schedule = None if kind is None else Schedule(kind, dense_epochs)
        self.saved_flops = 0.0
        self._hooks: list[Any] = []
        self._kept: dict[str, list[Tensor]] = {}
        self._flops: dict[str, int] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the sparse layers."""
        layers = sparse_layers(pl_module)
        if not layers:
            raise NothingMatched(
                "SparseSchedule found no sparse layer in the LightningModule. Put them there first: "
                "retroprop.apply(network, retroprop.fixes.SparseBackprop()).network."
            )
        self._take_off()  # of a fit that was cut short
        for name, layer in layers.items():
            if self.schedule is not None:
                layer.schedule = self.schedule
            self._hooks.append(layer.register_forward_hook(self._counting(name)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make every layer sparse or dense."""
        begin_epoch(pl_module, trainer.current_epoch)
        self._kept, self._flops = {}, {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the epoch has saved."""
        whole = sum(self._flops.values())
        done = 0.0
        for name, layer in sparse_layers(pl_module).items():
            kept = self._kept.get(name)
            density = float(torch.stack(kept).mean()) if kept else layer.density()
            done += density * self._flops.get(name, 0)
        self.saved_flops += whole - done
        logged: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
        pl_module.log("sparse/density", done / whole if whole else 1.0, **logged)
        # Every device has left out its own.
        pl_module.log("sparse/saved_flops", self.saved_flops, reduce_fx="sum", **logged)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off."""
        self._take_off()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off."""
        self._take_off()

    def _take_off(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"saved_flops": self.saved_flops}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self.saved_flops = state_dict["saved_flops"]

    def _counting(self, name: str) -> Any:
        def count(layer: SparseLayer, given: Any, out: Tensor) -> None:
            if layer.training and out.requires_grad:
                weight = layer.weight
                assert isinstance(weight, Tensor)
                products = int(given[0].requires_grad) + int(weight.requires_grad)
                out.register_hook(partial(self._measure, name, layer, products))  # type: ignore[no-untyped-call]

        return count

    def _measure(self, name: str, layer: SparseLayer, products: int, gradient: Tensor) -> None:
        """Count a backward pass, of one product or both, and what a changing number of units comes to."""
        flops = backward_flops(layer, gradient.numel()) * products // 2
        self._flops[name] = self._flops.get(name, 0) + flops
        if layer.active and not layer.rule.fixed:
            self._kept.setdefault(name, []).append(realised_density(layer, gradient.detach()))


def realised_density(layer: SparseLayer, gradient: Tensor) -> Tensor:
    """Share of the units that a layer keeps of the gradient of its output, a scalar."""
    if isinstance(layer, nn.Conv2d):
        rows = gradient.transpose(0, 1).flatten(2) if gradient.ndim == 4 else gradient.flatten(1)
        over = [1, 2] if layer.rule.per == "batch" else [2]
        size = layer.rule.size(rows, over)
        size = size if layer.rule.per == "batch" else size.T
    else:
        size = layer.rule.size(gradient.flatten(0, -2), [0] if layer.rule.per == "batch" else [])
    blocks = layer.rule.blocked(size)
    return vcas_units(blocks, layer.rule.keep).float().mean() * layer.rule.block / layer.units
