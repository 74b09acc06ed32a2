"""Fixes from what a study file says of them."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from retroprop.errors import RetropropError, UnknownName

if TYPE_CHECKING:
    from retroprop.fix import Fix


class _NoSettings(UnknownName):
    """A setting of a fix that has none."""

    def __init__(self, fix: str, given: str) -> None:
        RetropropError.__init__(
            self, f"The fix {fix} has no settings; {given!r} was given. Write it as {fix}."
        )


def build_fix(spec: Any) -> "Fix":
    """A fix from what a study file says: `relu`, or `{dropout: {p: 0.1}}`; a Fix passes.

    Raises:
        UnknownName: for an unknown fix or hyper-parameter.
        RetropropError: for a wrong type or value.
    """
    from retroprop import fixes
    from retroprop.fix import Fix

    if isinstance(spec, Fix):
        return spec
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, settings),) = spec.items()
        given = {} if settings is None else settings
    elif isinstance(spec, str):
        name, given = spec, {}
    else:
        raise RetropropError(
            f"The fix {spec!r} was given; expected a name such as relu, or a name with its settings "
            "such as {dropout: {p: 0.1}}."
        )
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise RetropropError(
            f"The fix {spec!r} was given; expected its settings as a mapping, such as "
            "{dropout: {p: 0.1}}."
        )
    return configure(fixes.get(name), given)


def configure(kind: "type[Fix]", settings: Mapping[Any, Any]) -> "Fix":
    """A fix of one kind, registered or not, from its settings by name.

    Raises:
        UnknownName: for an unknown hyper-parameter.
        RetropropError: for a wrong type or value.
    """
    known = {field.name: field for field in fields(kind)}
    for key, value in settings.items():
        if not known:
            raise _NoSettings(kind.name, str(key))
        if key not in known:
            raise UnknownName(f"setting of {kind.name}", str(key), known)
        default = known[key].default
        if default is MISSING or default is None:
            continue
        numeric = isinstance(default, (int, float)) and not isinstance(default, bool)
        fits = isinstance(value, (int, float)) if numeric else isinstance(value, type(default))
        if not fits or (isinstance(value, bool) and not isinstance(default, bool)):
            raise RetropropError(
                f"{kind.name}.{key}={value!r} was given; expected "
                f"{'a number' if numeric else type(default).__name__}, such as {default!r}."
            )
    return kind(**settings)
