"""The 1986 back-propagation network, every fix found since as a plug-in, and what each fix is worth."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retroprop import fixes
    from retroprop.fix import Applied, Fix, Recipe, apply
    from retroprop.networks.mlp import MLP
    from retroprop.study.study import Study

_LAZY = {
    "MLP": "retroprop.networks.mlp",
    "Applied": "retroprop.fix",
    "Fix": "retroprop.fix",
    "Recipe": "retroprop.fix",
    "apply": "retroprop.fix",
    "Study": "retroprop.study.study",
}

__all__ = ["MLP", "Applied", "Fix", "Recipe", "Study", "apply", "fixes"]


def __getattr__(name: str) -> Any:
    if name == "fixes":
        return importlib.import_module("retroprop.fixes")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'retroprop' has no attribute {name!r}")
