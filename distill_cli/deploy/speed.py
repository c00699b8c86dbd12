"""A run's student eager and as its exported files, beside its teacher where that is at hand: measured, kept and shown."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill_cli.base import files, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import size
from distill_cli.deploy import cost
from distill_cli.deploy.judged import run_of
from distill_cli.deploy.predictor import Predictor

FILE = "speed.json"  # in the folder that holds a run's exports
SECONDS = 3.0  # for each model


def of_exports(student: Predictor, home: Path, trust: Sequence[str] = ()) -> dict[str, Any] | None:
    """Measure a student eager and as its exported files in the folders below `home`, and keep that there; None without any.

    Args:
        trust: packages whose classes its teacher's card may name.
    """
    assert student.path is not None
    digest = files.sha256(student.path)
    found = {path.parent.name: files.read_json(path) for path in sorted(home.glob("*/export.json"))}
    found = {name: told for name, told in found.items() if told["format"] == "onnx" and told["source_sha256"] == digest}
    if not found:
        return None
    accuracy = next((told["accuracy"] for told in found.values() if told["accuracy"] is not None), None)
    models = {**_before(student, trust), **{name: Predictor.read(home / name) for name in found}}
    measured = cost.measure(models, torch.device("cpu"), SECONDS)
    for row in measured["rows"]:
        told = found.get(row["name"], {})
        row["accuracy"] = told["exported_accuracy"] if told else accuracy if row["name"] == "student" else None
        row["agreement"] = told.get("agreement")
    files.write_json(home / FILE, measured)
    return measured


def _before(student: Predictor, trust: Sequence[str]) -> dict[str, Predictor]:
    """The teacher, where it is at hand and can be used, and the student itself, or what it was before it learnt to round."""
    run, models = run_of(student), {"student": student}
    if run and student.in_8_bits():  # what rounds while it learns says nothing of what 8 bits cost
        models = {"student, fp32": Predictor.read(run / "fp32")}
    teacher = (student.card.get("teacher") or {}).get("path")
    with contextlib.suppress(CheckpointError):
        if run and teacher and (run / teacher).is_dir():
            return {"teacher": Predictor.read(run / teacher, trust), **models}
    return models


def show(measured: Mapping[str, Any]) -> None:
    """A table of what was measured."""
    rows = []
    for row in measured["rows"]:
        shares = ["-" if row[key] is None else f"{row[key]:.4f}" for key in ("accuracy", "agreement")]
        times = [f"{row['latency_ms'][part]:.3g}" for part in ("p50", "p95")]
        speed = [f"{row['samples_per_second']:,.0f}", str(row["batch"])]
        rows.append([row["name"], row["runtime"], size(row["bytes"]), *times, *speed, *shares])
    columns = ["", "runtime", "bytes", "p50 ms", "p95 ms", "per s", "at batch", "accuracy", "agreement"]
    ui.show(ui.table(f"{words(measured)}, raw samples to probabilities", columns, rows))


def words(measured: Mapping[str, Any]) -> str:
    """Where it was measured."""
    known = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}
    threads = f"{measured['threads']} thread{'s' if measured['threads'] > 1 else ''}"
    return f"{measured['cpu']}, {known[measured['vnni']]}, {threads}"
