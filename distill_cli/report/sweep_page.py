"""The report of a sweep: its leaderboard, whether distillation helps, and what each setting does, on one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from distill_cli.report import charts, landscape
from distill_cli.report.leaderboard import Entry, remarks
from distill_cli.report.records import Record
from distill_cli.report.render import page
from distill_cli.report.run_page import verdict

OPEN = 20  # rows of the leaderboard that are not folded
DRAWN = 30  # intervals in one picture
TALLY = {"helps": "helps in", "hurts": "hurts in", "no difference shown": "shows no difference in"}


def sweep_page(entries: Sequence[Entry], home: Path, failures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page of a sweep.

    Args:
        entries: the leaderboard, best first. home: the folder the page will lie in, which its links start from.
        failures: the runs without final numbers, and how each stands.
    """
    best, records = entries[0], [record for entry in entries for record in entry.records]

    def named(key: str, many: str) -> str:
        names = {record.names[key] for record in records}
        return names.pop() if len(names) == 1 else f"{len(names)} {many}"

    compared = [(rank, entry, entry.difference) for rank, entry in enumerate(entries, 1) if entry.difference]
    rows = [charts.Interval(f"{rank}  {entry.label}", d.mean, d.low, d.high, d.shown) for rank, entry, d in compared]
    tally = _tally(entries)
    return page(
        "sweep.html",
        teacher=named("teacher", "teachers"),
        student=named("model", "students"),
        data=named("dataset", "data sets"),
        entries=entries,
        best=best,
        teacher_accuracy=fmean(record.summary["test"]["teacher"]["accuracy"] for record in best.records),
        teacher_size=best.records[0].summary["params"]["teacher"],
        num_runs=len(records),
        num_seeds=len({record.seed for record in records}),
        failures=failures,
        interval=verdict(best.difference),
        tally=tally,
        open=OPEN,
        noted=len({entry.note for entry in entries}) > 1,  # what holds for all is among the remarks
        links={record.folder: _link(record, home) for record in records},
        remarks=remarks(entries),
        compared=compared,
        num_drawn=DRAWN,
        against=charts.intervals("Test accuracy against labels only, by setting", tally, rows[:DRAWN])
        if rows[1:]
        else None,
        **landscape.content(entries),
    )


def _tally(entries: Sequence[Entry]) -> str:
    """Return in how many settings distilling helps, "" where there is one."""
    verdicts = [entry.verdict for entry in entries if entry.verdict]
    if len(verdicts) == 1:
        return ""
    counts = [f"{says} {verdicts.count(verdict)}" for verdict, says in TALLY.items() if verdict in verdicts]
    return f"Of {len(verdicts)} settings, distillation {', '.join(counts)}."


def _link(record: Record, home: Path) -> str | None:
    """Return the address of a run's report, if it has one."""
    report = record.folder / "report.html"
    return quote(os.path.relpath(report, home)) if report.exists() else None
