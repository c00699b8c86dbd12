"""The report of a sweep: its leaderboard, whether distillation helps, and what each setting does, on one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from urllib.parse import quote

from distill_cli.report import charts
from distill_cli.report.drawing import Line, Picture
from distill_cli.report.leaderboard import Entry, remarks
from distill_cli.report.records import Record
from distill_cli.report.render import page
from distill_cli.report.run_page import verdict
from distill_cli.report.settings import text
from distill_cli.report.words import capital

Axes = dict[str, list[Any]]  # the settings that vary, and their values
Effect = tuple[str, list[tuple[str, float, float]], Picture]  # a setting; value, mean and spread; the picture

COLUMNS = 20  # values of T up to which the map of T and alpha can be read
DRAWN = 30  # intervals in one picture
TALLY = {"helps": "helps in", "hurts": "hurts in", "no difference shown": "shows no difference in"}


def sweep_page(entries: Sequence[Entry], home: Path, failures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page of a sweep.

    Args:
        entries: the leaderboard, best first. home: the folder the page will lie in, which its links start from.
        failures: the runs without final numbers, and how each stands.
    """
    best, records = entries[0], [record for entry in entries for record in entry.records]
    metric, alike = best.judged, [entry for entry in entries if entry.judged == best.judged]  # one picture, one metric
    compared = [(rank, entry, entry.difference) for rank, entry in enumerate(alike, 1) if entry.difference]
    rows = [(f"{rank}  {entry.label}", difference) for rank, entry, difference in compared[:DRAWN]]
    tally, title = _tally(entries), f"Test {metric.head} against labels only, by setting"
    axes = _axes(alike)
    tradeoffs = [_fidelity(alike)] if len(alike) > 1 and all(entry.kl for entry in alike) else []
    tradeoffs += [_size(alike)] if len({entry.params for entry in alike}) > 1 else []
    return page(
        "sweep.html",
        entries=entries,
        best=best,
        metric=metric,
        records=records,
        failures=failures,
        teacher=fmean(_teachers(record) for record in best.records),
        interval=verdict(best.difference),
        tally=tally,
        links={record.folder: _link(record, home) for record in records},
        remarks=remarks(entries),
        compared=compared,
        num_drawn=DRAWN,
        against=charts.intervals(title, tally, rows) if len(rows) > 1 else None,
        grid=_grid(alike, axes),
        effects=[_effect(alike, name, axes) for name in axes],
        tradeoffs=tradeoffs,
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


def _axes(entries: Sequence[Entry]) -> Axes:
    """Return the settings that vary and their values, numbers by size and the rest by name."""
    axes: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for name, value in entry.settings.items():
            axes.setdefault(name, {})[text(value)] = value
    return {name: sorted(values.values(), key=_order) for name, values in axes.items() if len(values) > 1}


def _order(value: Any) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except (TypeError, ValueError):
        return True, 0.0, text(value)


def _averaged(axes: Axes, *shown: str) -> str:
    """Return what else varies, in words."""
    others = [name for name in axes if name not in shown]
    return f", averaged over {', '.join(others)}" if others else ""


def _grid(entries: Sequence[Entry], axes: Axes) -> dict[str, Any] | None:
    """Return the map of what validation has in the mean by alpha (rows) and T (columns), where both vary and most combinations
    were tried.
    """
    means: dict[tuple[int, int], float] = {}
    for row, alpha in enumerate(axes.get("alpha", [])):
        for column, T in enumerate(axes.get("T", [])):
            tried = [e.val.mean for e in entries if (e.settings["T"], e.settings["alpha"]) == (T, alpha)]
            if tried:
                means[row, column] = fmean(tried)
    if not means or 2 * len(means) < len(axes["T"]) * len(axes["alpha"]) or len(axes["T"]) > COLUMNS:
        return None
    metric, (top, bottom) = entries[0].judged, entries[0].judged.ends
    best, worst = (choose(means.values(), key=metric.gain) for choose in (max, min))
    scale = 0.8 / (abs(best - worst) or 1)
    cells = {place: (metric.number(m), 0.1 + scale * abs(m - worst), "student") for place, m in means.items()}
    rows, columns = ([text(value) for value in axes[name]] for name in ("alpha", "T"))
    row, column = max(means, key=lambda place: metric.gain(means[place]))
    finding = f"{capital(top)} at T = {columns[column]} and α = {rows[row]} with {metric.written(best)}; "
    finding += f"{bottom} {metric.written(worst)}"
    finding += f"{_averaged(axes, 'T', 'alpha')}."
    return {"rows": rows, "columns": columns, "cells": cells, "finding": finding}


def _effect(entries: Sequence[Entry], name: str, axes: Axes) -> Effect:
    """Return what validation has in the mean and its spread at each value of one setting, all others averaged."""
    values, metric = [], entries[0].judged
    for value in axes[name]:
        stats = [entry.val for entry in entries if entry.settings[name] == value]
        # among the settings that have the value; where only one has it, among its seeds
        spread = stdev(stat.mean for stat in stats) if len(stats) > 1 else stats[0].spread or 0.0
        values.append((text(value) or "default", fmean(stat.mean for stat in stats), spread))
    ends = zip(
        metric.ends, (choose(values, key=lambda item: metric.gain(item[1])) for choose in (max, min)), strict=True
    )
    finding = capital(", ".join(f"{end} at {value} with {metric.written(mean)}" for end, (value, mean, _) in ends))
    title = f"Validation {metric.head} by {name}"
    return name, values, charts.effect(title, f"{finding}{_averaged(axes, name)}.", values, metric)


def _levels(entries: Sequence[Entry]) -> list[Line]:
    """Return teacher and labels-only student, each where all the settings share it."""
    teachers = {_teachers(record) for entry in entries for record in entry.records}
    baselines = {entry.baseline.mean for entry in entries if entry.baseline}
    roles = (("teacher", "teacher", teachers), ("labels", "labels only", baselines))
    return [Line(colour, label, [0], list(levels)) for colour, label, levels in roles if len(levels) == 1]


def _teachers(record: Record) -> float:
    """Return what the teacher reaches on test in what the record is compared by: it agrees with itself."""
    metric = record.metric
    return float(record.summary["test"]["teacher"][metric]) if metric == record.judged.name else 1.0


def _fidelity(entries: Sequence[Entry]) -> Picture:
    places, metric = [(entry.kl.mean, entry.test.mean) for entry in entries if entry.kl], entries[0].judged
    nearest = min(range(len(places)), key=lambda number: places[number][0])
    finding = (
        f"Nearest to its teacher is the setting of rank {nearest + 1}, with a KL of {places[nearest][0]:.3f} and a test "
        f"{metric.head} of {metric.written(places[nearest][1])}; the first has {places[0][0]:.3f} and "
        f"{metric.written(places[0][1])}."
    )
    title = f"{capital(metric.head)} against distance from the teacher"
    return charts.points(title, finding, places, "KL(teacher ‖ student) on test", _levels(entries), metric)


def _size(entries: Sequence[Entry]) -> Picture:
    metric, places = entries[0].judged, [(entry.params, entry.test.mean) for entry in entries]
    small, large, chosen = ((size, metric.written(test)) for size, test in (min(places), max(places), places[0]))
    finding = (
        f"From {small[0]:,} parameters with a test {metric.head} of {small[1]} to {large[0]:,} with {large[1]}; "
        f"the first has {chosen[0]:,} and {chosen[1]}."
    )
    title = f"{capital(metric.head)} against size"
    return charts.points(title, finding, places, "parameters", _levels(entries), metric, sizes=True)
