"""The registry of fixes: every file here, and what others register as `retroprop.fixes` entry points.

A class resolves by its own name (`retroprop.fixes.ReLU`), a fix by its file's (`get("relu")`); nothing is
imported before it is asked for.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from retroprop.errors import RetropropError, UnknownName

if TYPE_CHECKING:
    from retroprop.fix import Fix

_GROUP = "retroprop.fixes"


@cache
def _own() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}


def names() -> tuple[str, ...]:
    """Names of all registered fixes."""
    return tuple(sorted({*_own(), *_foreign()}))


def get(name: str) -> "type[Fix]":
    """The class of a fix.

    Raises:
        UnknownName: when no fix has this name.
        RetropropError: when what is registered under it is not one Fix.
    """
    if name in _own():
        return _the_fix_in(f"{__name__}.{name}")
    if name not in _foreign():
        raise UnknownName("fix", name, names())
    from retroprop.fix import Fix

    found = _foreign()[name].load()
    if not (isinstance(found, type) and issubclass(found, Fix) and found.name == name):
        raise RetropropError(
            f"The entry point {name!r} of group {_GROUP!r} is {found!r}; expected a Fix class whose name "
            f"is {name!r}. Mend the package that registers it."
        )
    return found


@cache
def _the_fix_in(module_name: str) -> "type[Fix]":
    from retroprop.fix import Fix

    module = importlib.import_module(module_name)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Fix) and value.__module__ == module_name
    ]
    if len(own) != 1:
        raise RetropropError(f"{module_name} holds {len(own)} fixes; expected exactly one a file.")
    return own[0]


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for candidate in names():
            if candidate.replace("_", "") == name.lower() and name != candidate:
                found = get(candidate)
                if found.__name__ == name:
                    return found
                raise AttributeError(
                    f"module {__name__!r} has no attribute {name!r}. Did you mean {found.__name__!r}?"
                )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; see retroprop.fixes.names().")
