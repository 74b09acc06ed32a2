"""Writes all files of a report into the folder of its study."""

import os
import tempfile
from pathlib import Path

from retroprop.errors import RetropropError
from retroprop.report.page import render
from retroprop.report.summary import Summary, summarise
from retroprop.report.tables import effects_csv, effects_latex, effects_markdown, trials_csv
from retroprop.study.results import Results


def write_report(results: Results) -> Path:
    """Writes report.html, effects.csv, trials.csv, effects.md and effects.tex.

    Each file is written beside its place and then moved there, so that a reader never sees half of
    one. Files of an earlier report are replaced.

    Args:
        results: The study; the files go into `results.folder`.

    Returns:
        The path of report.html.

    Raises:
        RetropropError: The folder cannot be written, or the arms are no design to analyse.
    """
    return write_summary(summarise(results))


def write_summary(summary: Summary) -> Path:
    """Writes the files of a summary; see `write_report`.

    Args:
        summary: What `retroprop.report.summary.summarise` made of a study.

    Returns:
        The path of report.html.

    Raises:
        RetropropError: The folder cannot be written.
    """
    texts = {
        "effects.csv": effects_csv(summary),
        "trials.csv": trials_csv(summary),
        "effects.md": effects_markdown(summary),
        "effects.tex": effects_latex(summary),
        "report.html": render(summary),
    }
    folder = summary.results.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _replace(folder / name, text)
    except OSError as error:
        raise RetropropError(
            f"The report was to be written into {str(folder)!r}, but that failed: "
            f"{error.strerror}. Make the folder writable or free some space, then report again."
        ) from error
    return folder / "report.html"


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
