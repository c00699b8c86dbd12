"""What a student takes where it is deployed: eager and as its exported files, in turn on this machine; kept for reports."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_cli.base import files, ui
from distill_cli.base.names import size
from distill_cli.data import inputs as of_inputs
from distill_cli.deploy.onnx_file import OnnxNet
from distill_cli.deploy.predictor import Predictor

FILE = "speed.json"  # in the folder that holds a run's exports
BATCH = 64
WARM_UP, MOST = 5, 200  # passes of each
SECONDS = 1.5  # for each, of its passes at batch 1 and again of those at BATCH


def measure(predictors: Mapping[str, Predictor], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Bytes, latency at batch 1 (ms, p50 and p95) and samples a second at batch 64 of each, from raw samples to probabilities.

    They take turns, pass by pass, after a few passes that do not count: so what else the machine does meets all of them.

    Args:
        found: by name, what was verified: accuracy and agreement.
    """
    one, many = ({name: p.reads.stored(number) for name, p in predictors.items()} for number in (1, BATCH))
    single, batched = _turns(predictors, one), _turns(predictors, many)
    rows = []
    for name, predictor in predictors.items():
        net, p50, p95 = predictor.network.net, *np.percentile(single[name], [50, 95])
        exported, facts = isinstance(net, OnnxNet), found.get(name, {})
        assert predictor.path is not None
        rows.append({
            "name": name,
            "runtime": f"onnxruntime {version('onnxruntime')}" if exported else f"torch {torch.__version__}",
            "bytes": predictor.path.stat().st_size,
            "latency_ms": {"p50": 1000 * float(p50), "p95": 1000 * float(p95)},
            "samples_per_second": of_inputs.count(many[name]) / float(np.median(batched[name])),
            "accuracy": facts.get("exported_accuracy" if exported else "accuracy"),
            "agreement": facts.get("agreement") if exported else None,
        })  # fmt: skip
    return {**cpu(), "threads": torch.get_num_threads(), "batch": BATCH, "rows": rows}


def of_exports(student: Predictor, home: Path) -> dict[str, Any] | None:
    """Measure a student eager and as its exported files in the folders below `home`, and keep that there; None without any."""
    assert student.path is not None
    digest = files.sha256(student.path)
    exports = {path.parent.name: path.parent for path in sorted(home.glob("*/export.json"))}
    found = {name: files.read_json(folder / "export.json") for name, folder in exports.items()}
    found = {
        name: facts for name, facts in found.items() if facts["format"] == "onnx" and facts["source_sha256"] == digest
    }
    if not found:
        return None
    predictors = {"eager": student} | {name: Predictor.read(exports[name]) for name in found}
    measured = measure(predictors, {**found, "eager": next(iter(found.values()))})
    files.write_json(home / FILE, measured)
    return measured


def show(measured: Mapping[str, Any]) -> None:
    """A table of what was measured."""
    rows = []
    for row in measured["rows"]:
        shares = ["-" if row[key] is None else f"{row[key]:.4f}" for key in ("accuracy", "agreement")]
        times = [f"{row['latency_ms'][part]:.3g}" for part in ("p50", "p95")]
        rows.append(
            [row["name"], row["runtime"], size(row["bytes"]), *times, f"{row['samples_per_second']:,.0f}", *shares]
        )
    columns = ["", "runtime", "bytes", "p50 ms", "p95 ms", f"per s at {measured['batch']}", "accuracy", "agreement"]
    ui.show(ui.table(f"{words(measured)}, raw samples to probabilities", columns, rows))


def words(measured: Mapping[str, Any]) -> str:
    """Where it was measured."""
    known = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}
    threads = f"{measured['threads']} thread{'s' if measured['threads'] > 1 else ''}"
    return f"{measured['cpu']}, {known[measured['vnni']]}, {threads}"


def cpu() -> dict[str, Any]:
    """This machine's processor, and whether it has VNNI, by which int8 is quick; None where it cannot be told."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {"cpu": platform.processor() or platform.machine(), "vnni": None}
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    vnni = None if flags is None else bool({"avx512_vnni", "avx_vnni"} & set(flags[1].split()))
    return {"cpu": name[1] if name else platform.machine(), "vnni": vnni}


def _turns(predictors: Mapping[str, Predictor], raw: Mapping[str, Any]) -> dict[str, list[float]]:
    """Seconds of each one's passes, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    started = time.perf_counter()
    for turn in range(WARM_UP + MOST):
        for name, predictor in predictors.items():
            before = time.perf_counter()
            predictor(raw[name])
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - before)
        if turn >= WARM_UP + 2 and time.perf_counter() - started > SECONDS * len(predictors):
            break
    return times
