"""An ensemble under a Trainer is the ensemble: curves, weights, checkpoints."""

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from retroprop.ensemble.loop import train
from retroprop.ensemble.trial_data import Schedule, SeedData
from retroprop.errors import RetropropError
from retroprop.lightning import Ensemble
from tests.ensemble.test_engine import ARMS, assert_equal, assert_identical, recipe, stripes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*"),
]


def ensemble(**settings: Any) -> Ensemble:
    recipes = [recipe(arm, k) for k, arm in enumerate(ARMS)]
    return Ensemble(recipes, stripes(), **{"batch": 10, "names": list(ARMS), **settings})


def trainer(folder: Path, epochs: int = 4, **settings: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": "callbacks" in settings}
    return Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, **{**quiet, **settings})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    made = ensemble()
    trainer(tmp_path_factory.mktemp("fit")).fit(made)
    return made


def test_every_member_is_what_it_is_alone(fitted: Ensemble):
    data = stripes()
    for k, (arm, outcome) in enumerate(zip(ARMS, fitted.outcomes(test=True), strict=True)):
        own = SeedData.of(data, k, torch.float64, torch.device("cpu"))
        expected = train(recipe(arm, k), own, Schedule(4, 10), test=True)
        assert_equal(outcome, expected, 1e-10, arm)
        network = fitted.network(k)
        assert not network.training
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, expected.tensors[name], rtol=0, atol=1e-10)


def test_a_checkpoint_is_taken_up_bit_for_bit(tmp_path: Path, fitted: Ensemble):
    saved = ModelCheckpoint(tmp_path, save_last=True)
    trainer(tmp_path, epochs=2, callbacks=[saved]).fit(ensemble())
    resumed = ensemble()
    trainer(tmp_path).fit(resumed, ckpt_path=saved.last_model_path)
    for k, (one, other) in enumerate(
        zip(resumed.outcomes(test=True), fitted.outcomes(test=True), strict=True)
    ):
        assert_identical(one, other, k)


def test_loggers_and_callbacks_see_every_epoch(tmp_path: Path):
    logger = CSVLogger(tmp_path)
    made = ensemble()
    best = ModelCheckpoint(tmp_path / "best", monitor="val_accuracy", mode="max")
    trainer(tmp_path, logger=logger, callbacks=[best]).fit(made)
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for arm, outcome in zip(ARMS, made.outcomes(), strict=True):
        logged = [float(row[f"val_accuracy/{arm}"]) for row in rows]
        assert logged == pytest.approx(outcome.validation_accuracy, abs=1e-6), arm
    assert best.best_model_score == pytest.approx(
        max(sum(o.validation_accuracy[e] for o in made.outcomes()) / len(ARMS) for e in range(4)), abs=1e-6
    )


def test_early_stopping_stops_all(tmp_path: Path):
    made = ensemble()
    stop = EarlyStopping("val_accuracy", patience=0, mode="min")
    trainer(tmp_path, epochs=50, callbacks=[stop]).fit(made)
    assert len(made.outcomes()[0].validation_accuracy) < 50


def test_recipes_stay_as_they_are(tmp_path: Path):
    recipes = [recipe("all", seed) for seed in (0, 1)]
    before = copy.deepcopy([one.network.state_dict() for one in recipes])
    trainer(tmp_path, epochs=1).fit(Ensemble(recipes, stripes(), batch=10))
    for one, state in zip(recipes, before, strict=True):
        for name, tensor in one.network.state_dict().items():
            assert torch.equal(tensor, state[name]), name


def test_what_an_ensemble_cannot_do_is_said(tmp_path: Path):
    with pytest.raises(RetropropError, match="1 seeds were given for 2 recipes"):
        Ensemble([recipe("tanh", 0)] * 2, stripes(), seeds=[0])
    with pytest.raises(RetropropError, match="No recipes"):
        Ensemble([], stripes())
    with pytest.raises(RetropropError, match="call trainer"):
        ensemble().outcomes()
    with pytest.raises(RetropropError, match="precision='16-true'"):
        trainer(tmp_path, precision="16-true").fit(ensemble())
    with pytest.raises(RetropropError, match="member 99"):
        ensemble().network(99)
