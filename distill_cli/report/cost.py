"""What teacher and student cost to run: their size, and their speed where it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from distill_cli.base.names import size
from distill_cli.report.headline import times
from distill_cli.report.page import Section, key, markup, note, table
from distill_cli.report.records import Record

Cost = Mapping[str, Any]


def ratios(compression: float, cost: Cost | None) -> list[tuple[str, str]]:
    """How much smaller and faster the student is, as facts."""
    found = [times(compression, "fewer parameters", "more parameters")]
    if cost:
        teacher, student = cost["teacher"], cost["student"]
        latency = teacher["latency_ms"]["p50"] / student["latency_ms"]["p50"]
        rate = student["images_per_second"] / teacher["images_per_second"]
        found.append(times(latency, "faster on one image", "slower on one image"))
        if teacher["batch"] == student["batch"]:
            found.append(times(rate, "more images/s", "fewer images/s"))
    return found


def section(record: Record, cost: Cost | None) -> Section:
    """Teacher beside student."""
    params = record.summary["params"]
    rows = [_row("parameters", (params["teacher"], params["student"]), "{:,}".format)]
    if cost:
        teacher, student = cost["teacher"], cost["student"]
        rows.append(_row("size on disk", (teacher["bytes"], student["bytes"]), size))
        for part, name in (("p50", "median"), ("p95", "95th percentile")):
            latencies = (who["latency_ms"][part] for who in (teacher, student))
            rows.append(_row(f"latency at batch 1, {name}", latencies, lambda value: f"{_digits(value)} ms"))
        rates = (teacher["images_per_second"], student["images_per_second"])
        batches = " and ".join(f"{batch:,}" for batch in dict.fromkeys((teacher["batch"], student["batch"])))
        rows.append(_row(f"images/s at batch {batches}", rates, _digits))
        if teacher["peak_bytes"] and student["peak_bytes"]:
            rows.append(_row(f"peak memory at batch {batches}", (teacher["peak_bytes"], student["peak_bytes"]), size))
        about = f"Measured on {cost['device']} with {cost['threads']} thread{'s' if cost['threads'] != 1 else ''}."
    else:
        about = "Speed was not measured in this run."
    head = ["", key("teacher", "teacher"), key("student", "student"), "the student has"]
    return Section("Size and speed", markup(table("Cost of teacher and student", head, rows), note(about)))


def _row(name: str, pair: Iterable[float], written: Callable[[float], str]) -> list[str]:
    teacher, student = pair
    compared = "the same" if teacher == student else " ".join(times(teacher / student, "less", "more"))
    return [name, written(teacher), written(student), compared]


def _digits(value: float) -> str:
    """Three digits at least: 1,146, 64.2, 2.07."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
