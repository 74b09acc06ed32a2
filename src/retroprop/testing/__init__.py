"""The laws that every fix must obey, for this package and for third parties.

    from retroprop.testing import check_fix
    check_fix(MyFix())

Each law is a function of one fix, in `LAWS` by name; it needs no test runner. Most look at the 1986
network, 14 trains it on the digits, 15 and 16 bring networks of other makes.
"""

from retroprop.fix import Fix
from retroprop.testing import edit_laws, training_laws, value_laws
from retroprop.testing.edit_laws import check_pair
from retroprop.testing.law import FOUND, Law, LawBroken

LAWS: dict[str, Law] = {name: law for name, (_, law) in sorted(FOUND.items(), key=lambda item: item[1][0])}


def check_fix(fix: Fix) -> None:
    """Check a fix, with the settings it has, against every law.

    Raises:
        LawBroken: at the first law that it breaks.
    """
    for law in LAWS.values():
        law(fix)


__all__ = [
    "LAWS",
    "Law",
    "LawBroken",
    "check_fix",
    "check_pair",
    "edit_laws",
    "training_laws",
    "value_laws",
]
