"""What a user can get wrong: each error says what was given, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class RetropropError(ValueError):
    """Base of every error that a user can mend; the command line prints it and exits with 2."""


class UnknownName(RetropropError):
    """A name that nothing carries."""

    def __init__(self, kind: str, given: object, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(str(given), names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"Unknown {kind} {given!r}.{hint} Known: {', '.join(names)}.")


class NothingMatched(RetropropError):
    """A fix looked for sites and found none."""


class AlreadyApplied(RetropropError):
    """A fix is on this network already."""


class Conflict(RetropropError):
    """Two fixes cannot be on one network together."""


class NoTwin(RetropropError):
    """A module has no stacked twin, so its trials run one by one."""


class DataMissing(RetropropError):
    """A data set is not on this machine."""


class StoreError(RetropropError):
    """A study's store cannot be used as it is."""
