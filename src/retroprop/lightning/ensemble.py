"""An ensemble of trainings as one LightningModule: one `training_step` is an epoch of optimizer steps."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from retroprop.data.dataset import Dataset
from retroprop.ensemble.engine import Engine
from retroprop.ensemble.outcome import Outcome
from retroprop.ensemble.precision import Precision, tf32
from retroprop.ensemble.training import Training
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import RetropropError
from retroprop.fix import Recipe
from retroprop.randomness import Seed

_STATE = "retroprop_training"
_PRECISIONS: dict[str, Precision] = {"32-true": "float32", "bf16-mixed": "bf16"}


class Ensemble(lightning.LightningModule):
    """Many trainings of one skeleton as one program, under a Trainer with its loggers and checkpoints.

    Each member's result is that of training it alone. After `trainer.fit(ensemble)` take `outcomes()`, or
    `network(k)` as an ordinary module. The Trainer decides epochs, device and precision (32-true or
    bf16-mixed); the update rules are the recipes', so there is no `configure_optimizers` to write.

    Args:
        recipes: one a member; they are left as they are.
        data: images and labels.
        seeds: one a member: splits, minibatches and masks; 0, 1, 2 ... by default.
        batch: images a step; None takes the whole set.
        compiled: whether the step is compiled.
        names: of members whose own curves are logged too.

    Logs `train_loss`, `val_accuracy` (means over the members that have not diverged), `val_accuracy_best`,
    `diverged` (a count), and for names `train_loss/NAME` and `val_accuracy/NAME`, after every epoch.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        data: Dataset,
        *,
        seeds: Sequence[Seed] | None = None,
        batch: int | None = 64,
        compiled: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.seeds = list(range(len(recipes)) if seeds is None else seeds)
        for given, what in ((self.seeds, "seeds"), (names or recipes, "names")):
            if len(given) != len(recipes):
                raise RetropropError(
                    f"{len(given)} {what} were given for {len(recipes)} recipes; expected one a member."
                )
        if not recipes:
            raise RetropropError("No recipes were given; expected one a member.")
        # Plain attributes: the stacked parameters are the engine's, not the Trainer's to optimise.
        self._recipes, self._data = list(recipes), data
        self.batch, self.compiled, self.names = batch, compiled, list(names)
        self._engine = Engine()
        self._training: Training | None = None
        self._restored: Mapping[str, Any] | None = None
        self._precision: Precision = "float32"
        self._notes: list[str] = []
        self._said = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One that has nothing to update, as the recipes' rules do; a Trainer counts its steps: epochs."""
        return torch.optim.SGD([torch.empty(0, requires_grad=True)])

    def train_dataloader(self) -> DataLoader[int]:
        """One item an epoch; the engine holds the images."""
        return DataLoader([0])  # type: ignore[arg-type]

    def on_fit_start(self) -> None:
        """Stack the members where the Trainer has put this module."""
        if self.trainer.world_size > 1:
            raise RetropropError(
                f"{self.trainer.world_size} devices were given; an ensemble trains on one. Give devices=1."
            )
        if self.trainer.precision not in _PRECISIONS:
            raise RetropropError(
                f"precision={self.trainer.precision!r} was given; an ensemble knows "
                f"{' and '.join(_PRECISIONS)}."
            )
        self._precision = _PRECISIONS[str(self.trainer.precision)]
        training = self._start(max(self.trainer.max_epochs or 1, 1))
        if self._restored is not None:
            training.restore(_on(self.device, self._restored))
            self._restored = None
        elif self._training is not None:  # fit again goes on
            training.restore(self._training.state())
        self._training = training

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One epoch of every member."""
        training = self._running()
        with tf32(self._precision):
            training.run_epoch()
        self._say_notes()
        self.optimizers().step()  # type: ignore[union-attr]
        loss, accuracy = training.losses[-1], training.accuracies[-1]
        alive = training.carried.alive
        living = alive if bool(alive.any()) else torch.ones_like(alive)
        values = {
            "train_loss": loss[living].mean(),
            "val_accuracy": accuracy[living].mean(),
            "val_accuracy_best": accuracy[living].max(),
            "diverged": (~alive).sum().float(),
        }
        for k, name in enumerate(self.names):
            values |= {f"train_loss/{name}": loss[k], f"val_accuracy/{name}": accuracy[k]}
        self.log_dict(
            {name: value.float() for name, value in values.items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of all members."""
        if self._training is not None:
            checkpoint[_STATE] = self._training.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state for the start of the fit."""
        if _STATE not in checkpoint:
            raise RetropropError(
                "The checkpoint holds no ensemble; give one that a Trainer saved of a retroprop Ensemble."
            )
        self._restored = checkpoint[_STATE]

    def outcomes(self, *, test: bool = False) -> list[Outcome]:
        """What every member has come to; `test` looks at the test images.

        Raises:
            RetropropError: before the first epoch.
        """
        return self._trained().finish(test=test)

    def network(self, member: int) -> nn.Module:
        """A member's trained network as an ordinary module, in evaluation mode.

        Raises:
            RetropropError: before the first epoch, or for a member that is not there.
        """
        if not 0 <= member < len(self._recipes):
            raise RetropropError(f"member {member} was asked for; expected 0 to {len(self._recipes) - 1}.")
        network = copy.deepcopy(self._recipes[member].network)
        network.load_state_dict(self._trained().tensors(member))
        return network.eval()

    def _running(self) -> Training:
        if self._training is None:
            raise RetropropError("The ensemble has not been started; call trainer.fit(ensemble).")
        return self._training

    def _trained(self) -> Training:
        training = self._running()
        if not training.epoch:
            raise RetropropError("The ensemble has not trained an epoch yet; call trainer.fit(ensemble).")
        return training

    def _start(self, epochs: int) -> Training:
        dtype = next(self._recipes[0].network.parameters()).dtype
        data = {seed: SeedData.of(self._data, seed, dtype, self.device) for seed in set(self.seeds)}
        schedule = Schedule(epochs, self.batch, self._precision)
        training, result = self._engine.start(
            self._recipes, self.seeds, data, schedule, compiled=self.compiled
        )
        self._notes, self._said = result.notes, 0
        self._say_notes()
        return training

    def _say_notes(self) -> None:
        """Warn of what has turned out slower since the last time."""
        for note in self._notes[self._said :]:
            lightning.pytorch.utilities.rank_zero_warn(note)
        self._said = len(self._notes)


def _on(device: torch.device, value: Any) -> Any:
    """Tensors of a nested state on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _on(device, held) for name, held in value.items()}
    return [_on(device, held) for held in value] if isinstance(value, list) else value
