"""The command line: one file a command, imported when it is called."""

import importlib
import sqlite3
import sys
from collections.abc import Sequence

from retroprop.errors import RetropropError, UnknownName

COMMANDS = {
    "ablate": "train an ablation study and write its report",
    "report": "write the report of a study again",
    "fixes": "list the fixes: year, paper, stage, what each edits",
    "doctor": "versions, device, compiler, data, and what is slower and why",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with 0, with 1 when a trial failed, or with 2 for what the user can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
    except RetropropError as error:
        sys.stderr.write(f"retroprop: {error}\n")
        code = 2
    except sqlite3.Error as error:
        sys.stderr.write(
            f"retroprop: The study's store could not be read or written ({error}). Groups that had "
            "finished are kept; see that the disk has room, or give another folder with --out.\n"
        )
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("\nretroprop: Stopped.\n")
        code = 130
    except BrokenPipeError:
        code = 0
    sys.exit(code)


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if given[0] in ("-V", "--version"):
        import retroprop

        sys.stdout.write(f"retroprop {retroprop.__version__}\n")
        return 0
    if given[0] not in COMMANDS:
        raise UnknownName("command", given[0], COMMANDS)
    return importlib.import_module(f"retroprop.cli.{given[0]}").run(given[1:])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return (
        "The 1986 back-propagation network, every fix found since, and what each fix is worth.\n\n"
        "usage: retroprop COMMAND [OPTIONS]\n\n" + "\n".join(lines) + "\n\n"
        "`retroprop COMMAND --help` tells more. `retroprop ablate` alone runs the default study.\n"
    )
