"""`retroprop report [FOLDER]`: write the report of a study again, without training."""

from pathlib import Path

from rich.console import Console

from retroprop.cli.parsing import Parser
from retroprop.study.results import Results


def run(arguments: list[str]) -> int:
    """Run the command; 1 when a trial had failed."""
    parser = Parser(
        prog="retroprop report", description="Write the report of a study again, without training."
    )
    parser.add_argument(
        "folder", nargs="?", default="runs/digits", help="folder that `retroprop ablate` wrote"
    )
    folder = parser.parse_args(arguments).folder
    from retroprop.study.runner import load_results

    return report_on(load_results(Path(folder)), Console())


def report_on(results: Results, console: Console) -> int:
    """Write all tables and the page, print the summary; 1 when a trial failed."""
    from retroprop.report.console import print_summary
    from retroprop.report.summary import summarise
    from retroprop.report.write import write_summary

    summary = summarise(results)
    page = write_summary(summary)
    print_summary(summary, console)
    failed = sum(bool(trial.error) for trial in results.trials)
    if failed:
        console.print(f"{failed} trials failed; the same command tries them again.", style="red")
    console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False, markup=False)
    return 1 if failed else 0
