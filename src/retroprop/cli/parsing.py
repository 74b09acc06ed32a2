"""One way to read a command's arguments, and to say what is wrong with them."""

import re
from typing import NoReturn

from jsonargparse import ArgumentParser

from retroprop.errors import RetropropError, UnknownName


class Parser(ArgumentParser):
    """jsonargparse's parser; its errors are ours, with the close match for a misspelt flag."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what is wrong.

        Raises:
            UnknownName: for an unknown flag.
            RetropropError: for anything else.
        """
        del ex
        unknown = re.search(r"[Uu]nrecognized arguments?: (\S+)", message)
        if unknown:
            flags = {flag for action in self._actions for flag in action.option_strings}
            given = unknown.group(1).split("=")[0].replace("_", "-")
            if given.startswith("-"):
                known = {flag.replace("_", "-") for flag in flags if re.fullmatch(r"--\w+", flag)}
                raise UnknownName("flag", given, known - {"--print-shtab"})
            raise RetropropError(f"The argument {given!r} was not expected. See `{self.prog} --help`.")
        raise RetropropError(f"{' '.join(message.split())} See `{self.prog} --help`.")


def with_underscores(arguments: list[str]) -> list[str]:
    """`--tuning-seeds 3` as well as `--tuning_seeds 3`."""
    return [
        re.sub(r"^--[a-z-]+", lambda flag: "--" + flag.group()[2:].replace("-", "_"), argument)
        for argument in arguments
    ]
