"""How a run went, epoch by epoch: what it is judged by, losses, fidelity, and the schedule as it moved, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from distill_cli.base import metrics
from distill_cli.base.metrics import Metric
from distill_cli.report.charts import NARROW, WIDE, Stage, curves
from distill_cli.report.drawing import Line, Picture
from distill_cli.report.records import Record
from distill_cli.report.words import capital

Row = Mapping[str, Any]
DASHES = ("dashed", "solid", "dotted")  # of the teacher's terms, one after the other


def learned(record: Record, rows: Sequence[Row]) -> list[Picture]:
    """Return what the student learned: what it is judged by, the losses, and its fidelity where it was measured."""
    judged, val = record.judged, rows[-1]["val"]
    drawn = [judged, *metrics.forms(judged, val)[:1], *(one for one in metrics.columns([val]) if one.fidelity)]
    main, *others = (_metric(record, rows, one) for one in dict.fromkeys(drawn) if one.name in val)
    return [main, _losses(rows), *others]


def taught(record: Record, rows: Sequence[Row]) -> list[Picture]:
    """Return how the student was taught: T, alpha and the learning rate."""
    rates = [row["lr"] for row in rows]
    line = Line("ink", "", [row["epoch"] for row in rows], rates)
    finding = f"From {rates[0]:.3g} in the first epoch to {rates[-1]:.3g} in the last."
    return [
        _moved(record, rows, "T", "Temperature T"),
        _moved(record, rows, "alpha", "Weight of the teacher α"),
        curves("Learning rate", finding, [line], _stages(rows), NARROW, limits=(0, None)),
    ]


def terms(rows: Sequence[Row]) -> list[str]:
    """Return the terms of the losses of all epochs, each once, in their order."""
    return list(dict.fromkeys(term for row in rows for term in row["loss"]))


def _stages(rows: Sequence[Row]) -> list[Stage]:
    """Return name, beginning and end of each stage; an epoch's row stands at its end."""
    stages: list[Stage] = []
    for name, group in groupby(rows, key=lambda row: row["stage"]):
        stages.append((name, stages[-1][2] if stages else 0, list(group)[-1]["epoch"]))
    return stages


def _line(colour: str, label: str, rows: Sequence[Row], part: str, name: str, dash: str = "") -> Line:
    """Return a number of a row's loss or val, by epoch; an epoch that does not have it has no point."""
    rows = [row for row in rows if name in row[part]]
    return Line(colour, label, [row["epoch"] for row in rows], [row[part][name] for row in rows], dash)


def _metric(record: Record, rows: Sequence[Row], metric: Metric) -> Picture:
    """Return a metric on validation, with what teacher and labels-only student reach as far as that was measured."""
    stages, val, shown = _stages(rows), record.summary["val"], metric.written
    title = f"{capital(metric.title)} on validation" if metric.fidelity else f"Validation {metric.title}"
    student = _line("student", "student", rows, "val", metric.name)
    roles = (("teacher", "teacher", "teacher"), ("baseline", "labels", "labels only"))
    levels = [(colour, label, val.get(who, {}).get(metric.name)) for who, colour, label in roles]
    lines = [Line(colour, label, [0, stages[-1][2]], [y, y]) for colour, label, y in levels if y is not None]
    finding, mark = f"{title} goes from {shown(student.y[0])} to {shown(student.y[-1])}", None
    if metric == record.judged:
        epoch, best = record.summary["best"]["epoch"], val["student"][metric.name]
        finding += f"; its best is {shown(best)} at epoch {epoch}"
        mark = (epoch, best, f"best {shown(best)}")
    finding += "".join(f"; {line.label} {shown(line.y[0])}" for line in lines) + "."
    return curves(title, finding, [*lines, student], stages, WIDE, metric.share, mark)


def _losses(rows: Sequence[Row]) -> Picture:
    """Return the total, what comes from the labels, and each term that comes from the teacher."""
    lines = [_line("ink", "total", rows, "loss", "total"), _line("labels", "ce (labels)", rows, "loss", "ce")]
    for number, term in enumerate(term for term in terms(rows) if term not in ("total", "ce")):
        lines.append(_line("teacher", f"{term} (teacher)", rows, "loss", term, DASHES[number % 3]))
    lines = [line for line in lines if line.y]
    moved = "; ".join(f"{line.label} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    return curves("Training loss", f"Mean training loss of an epoch: {moved}.", lines, _stages(rows), WIDE)


def _moved(record: Record, rows: Sequence[Row], name: str, title: str) -> Picture:
    """Return T or alpha, from where a stage starts to what its epochs' last steps had."""
    lines, moves, stages = [], [], _stages(rows)
    for stage, first, _ in stages:
        epochs = [row for row in rows if row["stage"] == stage]
        start = record.config["schedule"][stage][name]
        values = [start[0] if isinstance(start, list) else start, *(row[name] for row in epochs)]
        moves.append(f"{stage} {values[0]:g}" + (f" to {values[-1]:g}" if values[0] != values[-1] else ""))
        colour = "ink" if name == "T" else "teacher"
        lines.append(Line(colour, "", [first, *(row["epoch"] for row in epochs)], values, "solid"))
    limits = (0, None) if name == "T" else (-0.05, 1.05)
    return curves(title, f"{', '.join(moves)}.", lines, stages, NARROW, limits=limits)
