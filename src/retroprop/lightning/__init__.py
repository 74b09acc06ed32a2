"""Fixes and ensembles under `lightning.Trainer`."""

from retroprop.lightning.ensemble import Ensemble
from retroprop.lightning.sparse_schedule import SparseSchedule

__all__ = ["Ensemble", "SparseSchedule"]
