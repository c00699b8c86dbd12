"""The report of one run: everything its folder says, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill_cli.base import files
from distill_cli.report import answers, cost, curves, headline, recipe
from distill_cli.report.headline import Score
from distill_cli.report.leaderboard import Difference
from distill_cli.report.page import Html, Section, folded, key, markup, note, page, table, tag
from distill_cli.report.records import Record
from distill_cli.runs import identity

METRICS = {"accuracy": "accuracy", "f1": "F1", "nll": "NLL", "ece": "ECE", "kl": "KL", "agreement": "agreement"}
EVALUATION = "evaluation.json"


def run_page(record: Record) -> str:
    """The page of a finished run.

    Raises:
        CheckpointError: a file of the run is damaged.
    """
    kept = record.folder / EVALUATION
    evaluation = files.read_json(kept) if kept.exists() else None
    measured = evaluation["cost"] if evaluation else None
    sections = [Section("Results", _results(record)), curves.training(record, curves.read(record.folder))]
    if evaluation:
        sections += answers.sections(evaluation, record.summary)
    else:
        missing = note(f"This run kept no {EVALUATION}: its mistakes, confidence and single samples cannot be shown.")
        sections.append(Section("Answers", missing))
    sections += [
        cost.section(record, measured),
        recipe.time(record.summary["seconds"]),
        recipe.configuration(identity.read(record.folder)),
    ]
    teacher, student, data = (record.names[role] for role in ("teacher", "model", "dataset"))
    top = markup(
        headline.title(teacher, student, data),
        note(recipe.stages(record.config), f"; seed {record.seed}"),
        _scores(record),
        _verdict(record),
        headline.facts(cost.ratios(record.summary["compression"], measured)),
    )
    return page(f"{teacher} distilled into {student} on {data}", top, sections)


def _scores(record: Record) -> Html:
    test, params = record.summary["test"], record.summary["params"]
    compared = [
        Score("teacher", "teacher", test["teacher"]["accuracy"], f"{params['teacher']:,} parameters"),
        Score("student", "student", test["student"]["accuracy"], f"{params['student']:,} parameters"),
    ]
    if "baseline" in test:
        compared.append(Score("labels", "labels only", test["baseline"]["accuracy"], "same student"))
    return headline.scores(compared, "Accuracy on test")


def _verdict(record: Record) -> Html:
    found = record.summary.get("difference")
    if found is None:
        return headline.unknown()
    mean, half = found["accuracy"], found["half_interval"]
    difference = Difference(mean, mean - half, mean + half, None, found["samples"], "test samples")
    more = (" This is one seed: ", tag("code", "-m seed=0,1,2"), " shows the spread.")
    return headline.verdict(difference, more)


def _results(record: Record) -> Html:
    about = (
        f"The best student is that of epoch {record.summary['best']['epoch']}, chosen on validation. Higher is better for "
        "accuracy, macro F1 and agreement with the teacher; lower for NLL, calibration error (ECE) and KL(teacher ‖ student)."
    )
    return markup(
        _table("Test", record.summary, "test"),
        note(about),
        folded("The same on validation", _table("Validation", record.summary, "val")),
    )


def _table(caption: str, summary: Mapping[str, Any], split: str) -> Html:
    labels = {
        "teacher": key("teacher", "teacher"),
        "student": key("student", "student, best"),
        "student_last": key("student", "student, last"),
        "baseline": key("labels", "labels only"),
    }
    rows = [
        (label, *(f"{summary[split][who][metric]:.4f}" if metric in summary[split][who] else "–" for metric in METRICS))
        for who, label in labels.items()
        if who in summary[split]
    ]
    return table(caption, ["", *METRICS.values()], rows)
