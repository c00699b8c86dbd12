"""What a run's student answers on test: its mistakes, its confidence, and where it and the teacher differ most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill_cli.report.charts import reliability

DRAWN = 30  # classes up to which the confusion matrix is shown
BESIDE = 12  # classes up to which it leaves room for their table beside it
CONFUSIONS = 20
UNFOLDED = 20  # classes up to which the table of them is open

Evaluation = Mapping[str, Any]


def content(evaluation: Evaluation, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template of a run's page shows of its answers."""
    classes, per = evaluation["classes"], evaluation["per_class"]
    worst = sorted(range(len(classes)), key=lambda number: (not per["support"][number], per["f1"][number]))
    bins = {role: _bins(evaluation["reliability"][role]) for role in ("teacher", "student")}
    errors = {role: summary["test"][role]["ece"] for role in bins}
    finding = f"Expected calibration error on test: teacher {errors['teacher']:.2%}, student {errors['student']:.2%}."
    return {
        "classes": classes,
        "beside": len(classes) <= BESIDE,
        **_confusion(evaluation),
        "per": per,
        "worst": worst,
        "unfolded": UNFOLDED,
        "bins": bins,
        "reliability": reliability("Accuracy at each confidence", finding, bins),
        "samples": evaluation["samples"],
    }


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """Return the confusion matrix and what is said of it.

    matrix: by true class and answer how many, the depth of the cell's colour from 0 to 1, and whose colour; None with
    too many classes. confusions: class, what it is taken for, how often, and of how many.
    """
    classes, counts = evaluation["classes"], evaluation["confusion"]
    totals: dict[int, int] = {}
    for true, _, count in counts:
        totals[true] = totals.get(true, 0) + count
    errors = sorted((cell for cell in counts if cell[0] != cell[1]), key=lambda cell: -cell[2])
    right = sum(count for true, answer, count in counts if true == answer)
    finding = f"{right:,} of {sum(totals.values()):,} test samples are classified right."
    confusions = [(classes[true], classes[answer], count, totals[true]) for true, answer, count in errors[:CONFUSIONS]]
    if confusions:
        name, answer, count, total = confusions[0]
        finding += f" Most often {name} is taken for {answer}: {count:,} of {total:,}."
    most = max((count for _, _, count in errors), default=1)
    matrix = {
        (true, answer): (count, 0.14 * count / totals[true], "ink")
        if true == answer
        else (count, 0.15 + 0.75 * count / most, "student")
        for true, answer, count in counts
    }
    return {"confusions": confusions, "finding": finding, "matrix": matrix if len(classes) <= DRAWN else None}


def _bins(bins: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """Return confidence, accuracy and number of samples of the bins that hold samples."""
    return [row for row in zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True) if row[2]]
