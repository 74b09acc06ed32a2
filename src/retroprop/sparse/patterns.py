"""Layers by name, as one line of text says which."""

from fnmatch import fnmatchcase

from retroprop.errors import RetropropError


def listed(text: str) -> list[str]:
    """The parts of a text with commas between them.

    Raises:
        RetropropError: for anything but a text.
    """
    if not isinstance(text, str):
        raise RetropropError(f"{text!r} was given; expected names in one text, with commas between them.")
    return [part.strip() for part in text.split(",") if part.strip()]


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern, * for any letters, means a layer, or a module that holds it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def keeps(text: str) -> list[tuple[str, float]]:
    """Patterns, and what their layers keep, of a text such as "layer1 = 0.5, layer2 = 3".

    Raises:
        RetropropError: for a part that is not NAME = KEEP.
    """
    found = []
    for part in listed(text):
        pattern, _, keep = (one.strip() for one in part.partition("="))
        try:
            found.append((pattern, float(keep) if "." in keep else int(keep)))
        except ValueError:
            wrong = f"layers={part!r} was given; expected NAME = KEEP, such as layer1 = 0.5."
            raise RetropropError(wrong) from None
    return found
