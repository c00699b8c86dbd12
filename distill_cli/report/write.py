"""A report's files into their places: a run's page, a sweep's leaderboard and page; what is in them is made beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill_cli.base import files
from distill_cli.report import records
from distill_cli.report.leaderboard import Entry, csv_text, leaderboard

PAGE, TABLE = "report.html", "leaderboard.csv"


def of_run(folder: Path) -> Path:
    """Write report.html into a finished run's folder; returns where it is.

    Raises:
        CheckpointError: the run is not finished, or damaged. StorageError, OSError: the page cannot be written.
    """
    from distill_cli.report.run_page import run_page  # matplotlib takes its time to import

    files.write(folder / PAGE, run_page(records.read(folder)))
    return folder / PAGE


def of_sweep(paths: Sequence[Path], home: Path) -> list[Entry]:
    """Write leaderboard.csv and report.html about all finished runs in and below `paths` into `home`, which is made
    where it is missing; returns the leaderboard.

    Raises:
        CheckpointError: there is no finished run. StorageError, OSError: the files cannot be written.
    """
    from distill_cli.report.sweep_page import sweep_page

    entries = leaderboard(records.finished(paths))
    home.mkdir(parents=True, exist_ok=True)
    files.write(home / TABLE, csv_text(entries))
    files.write(home / PAGE, sweep_page(entries, home, records.unfinished(paths)))
    return entries
