"""The report of one run: everything its folder says, on one page."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import Any

import yaml

from distill_cli.base import files
from distill_cli.base.metrics import METRICS, columns, compared, forms
from distill_cli.report import charts, records, tokens, training, words
from distill_cli.report.drawing import Picture
from distill_cli.report.records import Record
from distill_cli.report.render import page
from distill_cli.report.significance import Difference, over_samples
from distill_cli.runs import identity

CLASSES = 30  # up to so many the confusion matrix is shown
CONFUSIONS = 20
SPEED = "export/speed.json"  # of a run that was exported: the same again, with its student as files


def run_page(record: Record) -> str:
    """Return the page of a finished run.

    Raises:
        CheckpointError: a file of the run is damaged.
    """
    rows, about = records.epochs(record.folder), identity.read(record.folder)
    kept = record.folder / "evaluation.json"
    evaluation = files.read_json(kept) if kept.exists() else None  # older runs have none
    difference = over_samples(record.summary.get("difference"), record.judged)
    terms, metrics = training.terms(rows), list(rows[-1]["val"])
    head = ["epoch", "stage", "T", "α", "learning rate", *(f"loss {term}" for term in terms)]
    recipe = [] if about["name"] == "train" else ["-cn", about["name"]]
    return page(
        "run.html",
        record=record,
        summary=record.summary,
        metric=METRICS[compared(record.summary, "test")],
        columns=columns(record.summary["test"].values()),
        forms=forms,
        schedule=_schedule(record.config),
        difference=difference,
        interval=verdict(difference),
        rows=rows,
        terms=terms,
        metrics=metrics,
        head=[*head, *(f"val {metric}" for metric in metrics), f"{record.unit}/s"],
        learned=training.learned(record, rows),
        taught=training.taught(record, rows),
        evaluation=evaluation,
        cost=_cost(record, evaluation),
        answers=_answers(evaluation, record.summary["test"]) if evaluation and evaluation.get("confusion") else None,
        told=tokens.answers(evaluation) if evaluation and "places" in evaluation else None,
        about=about,
        command=shlex.join(["distill", "train", *recipe, *about["overrides"]]),
        settings=_lines(about["config"], "", records.typed(about["overrides"]).keys()),
    )


def verdict(difference: Difference | None) -> Picture | None:
    """Return the interval of a difference as a picture."""
    if difference is None:
        return None
    finding = f"{words.verdict(difference)} {words.interval(difference)}."
    return charts.intervals("Difference to labels only", finding, [("", difference)], charts.NARROW)


def _schedule(config: Mapping[str, Any]) -> str:
    """Return the schedule in a line: imitate 10 epochs at T 3, α 0.7; refine 5 epochs at T 3 → 1, α 0.7 → 0."""

    def span(value: Any) -> str:
        return " → ".join(f"{number:g}" for number in (value if isinstance(value, list) else [value]))

    def length(stage: Mapping[str, Any]) -> str:
        return words.count(stage["steps"], "step") if stage.get("steps") else words.count(stage["epochs"], "epoch")

    return "; ".join(
        f"{name} {length(stage)} at T {span(stage['T'])}, α {span(stage['alpha'])}"
        for name, stage in config["schedule"].items()
    )


def _cost(record: Record, evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what was measured last of the models' size and speed; None: report=false, or an older run, has none."""
    exports = record.folder / SPEED
    cost = files.read_json(exports) if exports.exists() else (evaluation or {}).get("cost")
    if not cost or "latency_ms" not in cost.get("rows", [{}])[0]:
        return None
    by = {row["name"].partition(",")[0]: row for row in cost["rows"]}
    if "teacher" in by:  # an export judges the student alone
        by["teacher"]["accuracy"] = record.summary["test"]["teacher"].get("accuracy")
    judged = [name for name in ("accuracy", "agreement") if any(row.get(name) is not None for row in cost["rows"])]
    return {**cost, "judged": judged, "by": by}


def _answers(evaluation: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template of a run's page shows of its answers, beside the evaluation itself."""
    classes, per = evaluation["classes"], evaluation["per_class"]
    worst = sorted(range(len(classes)), key=lambda number: (not per["support"][number], per["f1"][number]))
    bins = {role: _bins(evaluation["reliability"][role]) for role in ("teacher", "student")}
    errors = {role: test[role]["ece"] for role in bins}
    finding = f"Expected calibration error on test: teacher {errors['teacher']:.2%}, student {errors['student']:.2%}."
    picture = charts.reliability("Accuracy at each confidence", finding, bins)
    return {**_confusion(evaluation), "worst": worst, "bins": bins, "reliability": picture}


def _confusion(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the confusion matrix and its finding.

    matrix: by true class and answer how many, the depth of the cell's colour from 0 to 1, and whose colour; empty with
    too many classes. confusions: class, what it is taken for, how often, and of how many.
    """
    classes, counts = evaluation["classes"], evaluation["confusion"]
    totals: Counter[int] = Counter()
    for true, _, count in counts:
        totals[true] += count
    errors = sorted((cell for cell in counts if cell[0] != cell[1]), key=lambda cell: -cell[2])
    right = sum(count for true, answer, count in counts if true == answer)
    finding = f"{right:,} of {totals.total():,} test samples are classified right."
    confusions = [(classes[true], classes[answer], count, totals[true]) for true, answer, count in errors[:CONFUSIONS]]
    if confusions:
        name, answer, count, total = confusions[0]
        finding += f" Most often {name} is taken for {answer}: {count:,} of {total:,}."
    matrix = {}
    for true, answer, count in counts if len(classes) <= CLASSES else ():
        if true == answer:
            matrix[true, answer] = (count, 0.14 * count / totals[true], "ink")
        else:
            matrix[true, answer] = (count, 0.15 + 0.75 * count / errors[0][2], "student")
    return {"confusions": confusions, "finding": finding, "matrix": matrix}


def _bins(bins: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """Return confidence, accuracy and number of samples of the bins that hold samples."""
    return [row for row in zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True) if row[2]]


def _lines(node: Mapping[str, Any], path: str, marked: Set[str]) -> Iterator[tuple[str, bool]]:
    """Yield a mapping as YAML, a line a key, and whether that key was typed."""
    for name, value in node.items():
        deeper = isinstance(value, Mapping) and value
        yield "  " * path.count(".") + f"{name}:" + ("" if deeper else f" {_flow(value)}"), path + name in marked
        if deeper:
            yield from _lines(value, f"{path}{name}.", marked)


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
