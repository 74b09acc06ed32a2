"""`retroprop fixes`: the catalogue."""

from rich.console import Console
from rich.table import Table

from retroprop.cli.parsing import Parser


def run(arguments: list[str]) -> int:
    """Print all registered fixes by year."""
    parser = Parser(prog="retroprop fixes", description="List the fixes by the year of their paper.")
    parser.parse_args(arguments)
    from retroprop import fixes

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("year", "fix", "stage", "edits", "paper"):
        table.add_column(title, no_wrap=title in ("year", "fix", "stage"))
    for kind in sorted((fixes.get(name) for name in fixes.names()), key=lambda k: (k.paper.year, k.name)):
        paper = kind.paper
        table.add_row(
            str(paper.year),
            kind.name,
            kind.stage.name.lower(),
            kind.edits,
            f"{paper.authors}: {paper.title}. {paper.where}",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
    return 0
