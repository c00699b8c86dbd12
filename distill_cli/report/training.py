"""How a run went, epoch by epoch: accuracy, losses, fidelity, and the schedule as it moved, as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from distill_cli.report.charts import NARROW, WIDE, Stage, curves, logarithmic
from distill_cli.report.drawing import Line, Picture
from distill_cli.report.records import Record

Row = Mapping[str, Any]
DASHES = ("dashed", "solid", "dotted")  # of the teacher's terms, one after the other
METRICS = {  # title, whether in percent, and how a finding shows it
    "accuracy": ("Validation accuracy", True, "{:.2%}"),
    "kl": ("KL(teacher ‖ student) on validation", False, "{:.3f}"),
    "agreement": ("Agreement with the teacher on validation", True, "{:.2%}"),
}


def learned(record: Record, rows: Sequence[Row]) -> list[Picture]:
    """Return what the student learned: its accuracy, the losses, and its fidelity where it was measured."""
    accuracy, *fidelity = (_metric(record, rows, name) for name in METRICS if name in rows[-1]["val"])
    return [accuracy, _losses(rows), *fidelity]


def taught(record: Record, rows: Sequence[Row]) -> list[Picture]:
    """Return how the student was taught: T, alpha and the learning rate."""
    rate = _line("ink", "", rows, "lr")
    finding = f"From {rate.y[0]:.3g} in the first epoch to {rate.y[-1]:.3g} in the last."
    return [
        _moved(record, rows, "T", "Temperature T"),
        _moved(record, rows, "alpha", "Weight of the teacher α"),
        curves("Learning rate", finding, [rate], _stages(rows), NARROW, limits=(0, None)),
    ]


def names(mappings: Iterable[Row]) -> list[str]:
    """Return the keys of all mappings, each once, in their order."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _stages(rows: Sequence[Row]) -> list[Stage]:
    """Return name, beginning and end of each stage; an epoch's row stands at its end."""
    stages: list[Stage] = []
    for name, group in groupby(rows, key=lambda row: row["stage"]):
        stages.append((name, stages[-1][2] if stages else 0, list(group)[-1]["epoch"]))
    return stages


def _line(colour: str, label: str, rows: Sequence[Row], *keys: str, dash: str = "") -> Line:
    """Return what the rows say under the keys, one inside the other; an epoch that does not say it has no point."""
    xs, ys = [], []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value.get(key, {})
        if value != {}:
            xs.append(row["epoch"])
            ys.append(value)
    return Line(colour, label, xs, ys, dash)


def _metric(record: Record, rows: Sequence[Row], metric: str) -> Picture:
    """Return a metric on validation, with what teacher and labels-only student reach as far as that was measured."""
    (title, percent, shown), stages, val = METRICS[metric], _stages(rows), record.summary["val"]
    student = _line("student", "student", rows, "val", metric)
    roles = (("teacher", "teacher", "teacher"), ("baseline", "labels", "labels only"))
    levels = [(colour, label, val.get(who, {}).get(metric)) for who, colour, label in roles]
    lines = [Line(colour, label, [0, stages[-1][2]], [y, y]) for colour, label, y in levels if y is not None]
    finding, mark = f"{title} goes from {shown.format(student.y[0])} to {shown.format(student.y[-1])}", None
    if metric == "accuracy":
        epoch, best = record.summary["best"]["epoch"], val["student"]["accuracy"]
        finding += f"; its best is {best:.2%} at epoch {epoch}"
        mark = (epoch, best, f"best {best:.2%}")
    finding += "".join(f"; {line.label} {shown.format(line.y[0])}" for line in lines) + "."
    lines.append(student)
    finding += " The scale is logarithmic." if logarithmic(lines, percent) else ""
    return curves(title, finding, lines, stages, WIDE, percent, mark)


def _losses(rows: Sequence[Row]) -> Picture:
    """Return the total, what comes from the labels, and each term that comes from the teacher."""
    terms = [name for name in names(row["loss"] for row in rows) if name not in ("total", "ce")]
    lines = [_line("ink", "total", rows, "loss", "total"), _line("labels", "ce (labels)", rows, "loss", "ce")]
    lines += [
        _line("teacher", f"{term} (teacher)", rows, "loss", term, dash=DASHES[number % 3])
        for number, term in enumerate(terms)
    ]
    lines = [line for line in lines if line.y]
    moved = "; ".join(f"{line.label} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    scale = ", on a logarithmic scale" if logarithmic(lines) else ""
    return curves("Training loss", f"Mean training loss of an epoch{scale}: {moved}.", lines, _stages(rows), WIDE)


def _moved(record: Record, rows: Sequence[Row], name: str, title: str) -> Picture:
    """Return T or alpha, from where a stage starts to what its epochs' last steps had."""
    lines, moves, stages = [], [], _stages(rows)
    for stage, first, _ in stages:
        start = record.config["schedule"][stage][name]
        line = _line(
            "ink" if name == "T" else "teacher", "", [r for r in rows if r["stage"] == stage], name, dash="solid"
        )
        line = line._replace(x=[first, *line.x], y=[start[0] if isinstance(start, list) else start, *line.y])
        moves.append(f"{stage} {line.y[0]:g}" + (f" to {line.y[-1]:g}" if line.y[0] != line.y[-1] else ""))
        lines.append(line)
    limits = (0, None) if name == "T" else (-0.05, 1.05)
    return curves(title, f"{', '.join(moves)}.", lines, stages, NARROW, limits=limits)
