"""What came of a run in a person's words, from its summary alone: the closing table, and what distillation bought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from distill_cli.base import metrics, ui
from distill_cli.report.significance import over_samples
from distill_cli.report.words import VERDICTS


def results(summary: Mapping[str, Any]) -> Table:
    """The closing table: who reaches what on test, at T = 1."""
    best, judged = summary["best"], metrics.judged(summary).name
    by = summary.get("chosen_by", f"val.{judged}").removeprefix("val.")
    told = "" if by == judged else f" by {by}"
    labels = {
        "teacher": "teacher",
        "student_start": "student as made of its teacher, not trained",
        "student_fp32": f"student in fp32, best before int8 (epoch {summary.get('fp32', {}).get('epoch')})",
        "student_int8": "the same in int8, calibrated only",
        "student": f"student{', int8' if 'fp32' in summary else ''}, best on validation{told} (epoch {best['epoch']})",
        "student_last": "student, last epoch",
        "baseline": "same student, labels only",
    }
    names, found = scored(summary["test"])
    rows = []
    for who, label in labels.items():
        if who in found:
            size = summary["params"]["teacher" if who == "teacher" else "student"]
            rows.append([label, f"{size:,}", *found[who]])
    return ui.table("test, at T = 1", ["", "parameters", *names], rows)


def scored(scores: Mapping[str, Mapping[str, float]]) -> tuple[list[str], dict[str, list[str]]]:
    """A table's columns, the metrics that some model has, and of each model its cells."""
    shown = metrics.columns(scores.values())
    cells = {who: [one.cell(reached[one.name]) if one.name in reached else "-" for one in shown]
             for who, reached in scores.items()}  # fmt: skip
    return [one.head.lower() for one in shown], cells


def _doubt(summary: Mapping[str, Any]) -> str:
    """What is said of a teacher that is worse than the student on labels alone; of another nothing."""
    metric, val = metrics.judged(summary), summary["val"]
    if metric.gain(val["teacher"][metric.name]) >= metric.gain(val["baseline"][metric.name]):
        return ""
    teacher, baseline = (metric.said(val[who][metric.name], _row(summary)) for who in ("teacher", "baseline"))
    of_decisions = (
        "its classes are in another order (teacher.classes); it was trained under another normalisation or size (teacher.mean, "
        "teacher.std, teacher.size); "
    ) * metric.share
    return (
        f"\nOn validation the teacher ({teacher}) is worse than the student trained on labels only ({baseline}): it has "
        f"little to teach. Likely causes: it was fitted too briefly (teacher.fit.epochs); {of_decisions}"
        "the weights are not those that are meant (teacher.checkpoint)."
    )


def _row(summary: Mapping[str, Any]) -> str:
    """What is judged, in the singular."""
    return str(summary.get("unit", "images")).removesuffix("s")


def closing(summary: Mapping[str, Any]) -> str:
    """What distillation bought, or did not: `difference` in the summary is what the student reaches on test minus what the baseline
    does, and half its 95 % interval over test samples.
    """
    teacher, student = (summary["test"][who] for who in ("teacher", "student"))
    metric = metrics.judged(summary)
    if metric.name in student:
        ours, theirs = (metrics.sentence(metric, scores, _row(summary)) for scores in (student, teacher))
        kept = f"The student reaches {ours} on test, the teacher {theirs}"
    else:
        kept = f"test has no labels: there the student decides as its teacher on {student['agreement']:.2%} of it"
    kept += f", with {summary['compression']:.3g} times fewer parameters." if summary["compression"] > 1 else "."
    if summary.get("labelled") == 0:  # of the training samples: then no student can be trained on labels only
        return kept
    difference = over_samples(summary.get("difference"), metric)
    if difference is None:
        return f"{kept}\nWhat did distillation buy? baseline=true trains the same student on labels only, and compares."
    verdict, (mean, low, high) = (
        VERDICTS[difference.verdict][0],
        map(metric.change, (difference.mean, difference.low, difference.high)),
    )
    return (
        f"{kept}\nAgainst the same student on labels only: {mean} {metric.differences} (95 % interval {low} "
        f"to {high} over {difference.n:,} test samples): {verdict[0].lower()}{verdict[1:]}.{_doubt(summary)}\n"
        "This is one seed: -m seed=0,1,2 shows the spread."
    )
