"""`retroprop ablate [STUDY.yaml]`: train a study and write its report."""

import sys
from pathlib import Path
from typing import Any

from retroprop.cli.parsing import Parser, with_underscores
from retroprop.errors import RetropropError
from retroprop.study.study import Study


def run(arguments: list[str]) -> int:
    """Run the command; 1 when a trial failed."""
    study, dry, energy = _parse(arguments)
    if dry:
        from retroprop.cli.dry_run import show_plan

        return show_plan(study)
    from rich.console import Console

    console = Console()
    with console.status("Checking the study ..."):
        from retroprop.cli.watching import ProgressWatcher
        from retroprop.study import runner
    watcher = ProgressWatcher(console)
    try:
        with watcher:
            results = runner.run(study, watcher, energy=energy)
        from retroprop.cli.report import report_on

        return report_on(results, console)
    except KeyboardInterrupt:
        saved = (study.folder / "study.db").exists()
        where = f"What has finished is saved in {study.folder}; the same command goes on from there."
        console.print(f"\nStopped. {where if saved else ''}", soft_wrap=True, markup=False)
        return 130


def _parse(arguments: list[str]) -> tuple[Study, bool, bool]:
    given = with_underscores(arguments)
    printed = "--print_config" in given
    given = [argument for argument in given if argument != "--print_config"]
    file = next((a for a in given[:1] if not a.startswith("-")), None)
    base = Study.load(file) if file else Study()
    parser = Parser(
        prog="retroprop ablate",
        allow_abbrev=False,
        usage="retroprop ablate [STUDY.yaml] [--KEY VALUE ...] [--dry-run] [--energy] [--print_config]",
        description="Train an ablation study and write its report. Without STUDY.yaml it is the default "
        "study: five fixes to the 1986 network, on built-in digits. Each key of a study file is a flag too; "
        "lists are written [relu, batch_norm]. --print_config prints the study as YAML and stops.",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the plan and stop")
    parser.add_argument("--energy", action="store_true", help="measure joules, where the device counts them")
    parser.add_class_arguments(Study, None)
    parser.set_defaults(base.settings())
    values: dict[str, Any] = parser.parse_args(given[1:] if file else given).as_dict()
    dry, energy = values.pop("dry_run"), values.pop("energy")
    study = Study.from_mapping(values)
    if printed:
        import yaml

        sys.stdout.write(yaml.safe_dump(study.settings(), sort_keys=False))
        sys.exit(0)
    if file is not None and Path(file).is_dir():
        raise RetropropError(f"{file!r} is a folder; expected a study file.")
    return study, dry, energy
