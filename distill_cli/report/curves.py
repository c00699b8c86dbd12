"""How a run went, epoch by epoch: accuracy, losses, fidelity, and the schedule as it moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from distill_cli.base.errors import CheckpointError
from distill_cli.report import charts
from distill_cli.report.charts import NARROW, WIDE, Line
from distill_cli.report.page import Html, Section, figure, folded, note, table, tag
from distill_cli.report.records import Record

MOST = 300  # epochs shown; of more, every second, third, ...

Row = dict[str, Any]


def read(folder: Path) -> list[Row]:
    """A run's epochs, thinned to at most about MOST; the last one stays.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    path = folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not rows:
        raise CheckpointError(f"{path} is damaged: it holds no epoch")
    step = -(-len(rows) // MOST)
    return rows[:-1:step] + rows[-1:]


def training(record: Record, rows: Sequence[Row]) -> Section:
    """The section with the curves."""
    stages = _stages(rows)
    learned = [_accuracy(record, rows, stages), _losses(rows, stages)]
    learned += [_fidelity(record, rows, stages, name) for name in ("kl", "agreement") if name in rows[-1]["val"]]
    taught = [
        _moved("T", "Temperature T", record, rows, stages),
        _moved("alpha", "Weight of the teacher α", record, rows, stages),
        _rate(rows, stages),
    ]
    return Section(
        "Training",
        Html(
            tag("div", learned, class_="two")
            + tag("div", taught, class_="three")
            + folded("All epochs as a table", _numbers(rows))
        ),
    )


def _stages(rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """Name, beginning and end; an epoch's row stands at its end."""
    stages: list[tuple[str, float, float]] = []
    for name, group in groupby(rows, key=lambda row: row["stage"]):
        stages.append((name, stages[-1][2] if stages else 0, list(group)[-1]["epoch"]))
    return stages


def _curve(label: str, colour: str, rows: Sequence[Row], *keys: str, dash: str = "") -> Line:
    """What the rows say under the keys, one inside the other; an epoch that does not say it has no point."""
    found = []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value.get(key, {})
        if value != {}:
            found.append((row["epoch"], value))
    return Line(label, colour, [x for x, _ in found], [y for _, y in found], dash)


def _accuracy(record: Record, rows: Sequence[Row], stages: list[tuple[str, float, float]]) -> Html:
    val, best = record.summary["val"], record.summary["best"]
    top = val["student"]["accuracy"]
    student = _curve("student", "student", rows, "val", "accuracy")
    lines = [*_levels(record, stages, "accuracy"), student]
    others = "".join(f"; {line.label} {line.y[0]:.2%}" for line in lines[:-1])
    finding = (
        f"The student's validation accuracy goes from {student.y[0]:.2%} to {student.y[-1]:.2%}; "
        f"its best is {top:.2%} at epoch {best['epoch']}{others}."
    )
    mark = (best["epoch"], top, f"best {top:.2%}")
    picture = charts.curves("accuracy", finding, lines, stages, WIDE, charts.percent, mark)
    return figure("Validation accuracy", picture, note(finding), keys=[line.key for line in lines])


def _levels(record: Record, stages: list[tuple[str, float, float]], metric: str) -> list[Line]:
    """What teacher and labels-only student reach on validation, as far as there are any."""
    roles = (("teacher", "teacher", "teacher"), ("baseline", "labels", "labels only"))
    val = record.summary["val"]
    ends = [0, stages[-1][2]]
    return [
        Line(label, colour, ends, [val[who][metric]] * 2)
        for who, colour, label in roles
        if who in val and metric in val[who]
    ]


def _losses(rows: Sequence[Row], stages: list[tuple[str, float, float]]) -> Html:
    """The total, what comes from the labels, and each term that comes from the teacher."""
    terms = list(dict.fromkeys(name for row in rows for name in row["loss"] if name not in ("total", "ce")))
    dashes = ("dashed", "solid", "dotted")
    lines = [_curve("total", "ink", rows, "loss", "total")]
    lines += [_curve("ce (labels)", "labels", rows, "loss", "ce")]
    for number, term in enumerate(terms):
        label = f"{term} (teacher)"
        lines.append(_curve(label, "teacher", rows, "loss", term, dash=dashes[number % 3]))
    lines = [line for line in lines if line.y]
    moved = "; ".join(f"{line.label} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    log = charts.logarithmic(lines)
    finding = f"Mean training loss of an epoch{', on a logarithmic scale' if log else ''}: {moved}."
    picture = charts.curves("loss", finding, lines, stages, WIDE, log=log)
    return figure("Training loss", picture, note(finding), keys=[line.key for line in lines])


def _fidelity(record: Record, rows: Sequence[Row], stages: list[tuple[str, float, float]], metric: str) -> Html:
    title, written, shown = {
        "kl": ("KL(teacher ‖ student) on validation", charts.plain, "{:.3f}"),
        "agreement": ("Agreement with the teacher on validation", charts.percent, "{:.2%}"),
    }[metric]
    student = _curve("student", "student", rows, "val", metric)
    lines = [*_levels(record, stages, metric), student]
    others = "".join(f"; {line.label} {shown.format(line.y[0])}" for line in lines[:-1])
    finding = f"{title} goes from {shown.format(student.y[0])} to {shown.format(student.y[-1])}{others}."
    log = charts.logarithmic(lines)
    finding += " The scale is logarithmic." if log else ""
    picture = charts.curves(metric, finding, lines, stages, WIDE, written, log=log)
    return figure(title, picture, note(finding), keys=[line.key for line in lines])


def _moved(name: str, title: str, record: Record, rows: Sequence[Row], stages: list[tuple[str, float, float]]) -> Html:
    """T or alpha: from where a stage starts to what its epochs' last steps had."""
    colour = "teacher" if name == "alpha" else "ink"
    lines = []
    for stage, first, _ in stages:
        start = record.config["schedule"][stage][name]
        own = _curve(title, colour, [row for row in rows if row["stage"] == stage], name)
        lines.append(
            Line(title, colour, [first, *own.x], [start[0] if isinstance(start, list) else start, *own.y], "solid")
        )
    words = ", ".join(
        f"{stage} {line.y[0]:g}" + (f" to {line.y[-1]:g}" if line.y[0] != line.y[-1] else "")
        for (stage, _, _), line in zip(stages, lines, strict=True)
    )
    ends = (-0.05, 1.05) if name == "alpha" else (0, None)
    return figure(
        title, charts.curves(name, f"{title}: {words}.", lines, stages, NARROW, limits=ends), note(f"{words}.")
    )


def _rate(rows: Sequence[Row], stages: list[tuple[str, float, float]]) -> Html:
    line = _curve("learning rate", "ink", rows, "lr")
    words = f"From {line.y[0]:.3g} in the first epoch to {line.y[-1]:.3g} in the last."
    picture = charts.curves("lr", f"Learning rate: {words}", [line], stages, NARROW, limits=(0, None))
    return figure("Learning rate", picture, note(words))


def _numbers(rows: Sequence[Row]) -> Html:
    terms = list(dict.fromkeys(name for row in rows for name in row["loss"]))
    metrics = list(rows[-1]["val"])
    head = [
        "epoch",
        "stage",
        "T",
        "α",
        "learning rate",
        *(f"loss {term}" for term in terms),
        *(f"val {m}" for m in metrics),
        "images/s",
    ]

    def cells(row: Row) -> list[str]:
        return [
            str(row["epoch"]),
            row["stage"],
            *(f"{row[name]:.4g}" for name in ("T", "alpha", "lr")),
            *(f"{row['loss'][term]:.4g}" if term in row["loss"] else "–" for term in terms),
            *(f"{row['val'][metric]:.4f}" for metric in metrics),
            f"{row['images_per_second']:,.0f}",
        ]

    return table("Epoch by epoch", head, map(cells, rows))
