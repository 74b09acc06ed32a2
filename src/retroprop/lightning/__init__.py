"""Fixes and ensembles under `lightning.Trainer`."""

from retroprop.lightning.ensemble import Ensemble

__all__ = ["Ensemble"]
