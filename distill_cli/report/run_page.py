"""The report of one run: everything its folder says, on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import yaml

from distill_cli.report import answers, charts, records, training, words
from distill_cli.report.drawing import Picture
from distill_cli.report.records import Record, speed
from distill_cli.report.render import page
from distill_cli.report.significance import Difference, over_samples
from distill_cli.runs import identity

PARTS = {
    "teacher": "preparing the teacher",
    "cache": "caching its answers",
    "train": "distilling",
    "baseline": "training on labels only",
    "eval": "measuring",
}


def run_page(record: Record) -> str:
    """Return the page of a finished run.

    Raises:
        CheckpointError: a file of the run is damaged.
    """
    summary, evaluation = record.summary, records.evaluation(record.folder)
    cost = evaluation["cost"] if evaluation else None
    rows, about = records.epochs(record.folder), identity.read(record.folder)
    terms, metrics = training.names(row["loss"] for row in rows), list(rows[-1]["val"])
    losses = [f"loss {term}" for term in terms]
    difference = over_samples(summary.get("difference"))
    return page(
        "run.html",
        record=record,
        summary=summary,
        schedule=schedule(record.config),
        difference=difference,
        interval=verdict(difference),
        ratios=_ratios(record, cost),
        rows=rows,
        terms=terms,
        metrics=metrics,
        head=["epoch", "stage", "T", "α", "learning rate", *losses, *(f"val {m}" for m in metrics), f"{record.unit}/s"],
        learned=training.learned(record, rows),
        taught=training.taught(record, rows),
        answers=answers.content(evaluation, summary) if evaluation else None,
        evaluation_file=records.EVALUATION,
        cost=cost,
        seconds={PARTS.get(part, part): spent for part, spent in summary["seconds"].items()},
        about=about,
        command=records.command(about),
        settings=_lines(about["config"], "", set(records.typed(about["overrides"]))),
    )


def verdict(difference: Difference | None) -> Picture | None:
    """Return the interval of a difference as a picture."""
    if difference is None:
        return None
    finding = f"{words.verdict(difference)} {words.interval(difference)}."
    row = charts.Interval("", difference.mean, difference.low, difference.high, difference.shown)
    return charts.intervals("Difference to labels only", finding, [row], charts.NARROW)


def schedule(config: Mapping[str, Any]) -> str:
    """Return the schedule in a line: imitate 10 epochs at T 3, α 0.7; refine 5 epochs at T 3 → 1, α 0.7 → 0."""

    def span(value: Any) -> str:
        return " → ".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"

    return "; ".join(
        f"{name} {words.count(stage['epochs'], 'epoch')} at T {span(stage['T'])}, α {span(stage['alpha'])}"
        for name, stage in config["schedule"].items()
    )


def _ratios(record: Record, cost: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return how much smaller and faster the student is: a number and its words each."""
    ratios = [words.times(record.summary["compression"], "fewer parameters", "more parameters")]
    if cost:
        teacher, student, one = cost["teacher"], cost["student"], record.unit.removesuffix("s")
        latency = teacher["latency_ms"]["p50"] / student["latency_ms"]["p50"]
        ratios.append(words.times(latency, f"faster on one {one}", f"slower on one {one}"))
        if teacher["batch"] == student["batch"]:
            rate = speed(student) / speed(teacher)
            ratios.append(words.times(rate, f"more {record.unit}/s", f"fewer {record.unit}/s"))
    return ratios


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
