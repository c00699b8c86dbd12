"""Size, latency, throughput and memory of models, from raw samples to probabilities, in turn on this machine and briefly."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.autograd import profiler
from torch.autograd.profiler_util import MEMORY_EVENT_NAME

from distill_cli.base import runtime
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.deploy.onnx_file import OnnxNet
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import evaluating, num_parameters

LARGEST_BATCH = 64
LEAST, MOST, WARM_UP = 4, 200, 5  # passes at batch 1, and how many of many do not count; a quarter of few
MOST_BATCHES = 20  # passes at the batch that is chosen
SECONDS = 0.8  # for each model
AT_ONCE = 128  # rows that a head is given


def measure(models: Mapping[str, Predictor], device: torch.device, budget: float = SECONDS) -> dict[str, Any]:
    """What models on a device cost, in fp32 and eval mode, a row each; they and the random streams stay as they were.

    They take turns, pass by pass, so that what else the machine does meets all of them. A row has its name; runtime;
    parameters, null of an exported file; bytes: of its weights, or of the file; latency_ms: p50 and p95 at batch 1, warm, and
    latency_by_size: the same by what sizes are called, where they are: all else is of the largest; batch: 64, or the largest
    smaller power of two for which time and memory suffice; samples_per_second there, and the same in the spec's unit where a
    sample is several; peak_bytes: its weights and the most that torch holds at once for that batch, null where it cannot tell.

    Args:
        budget: seconds for each model, which four passes at batch 1 of a very slow one may exceed.
    """
    ends, reads = time.perf_counter() + budget * len(models), {name: model.reads for name, model in models.items()}
    sizes = {name: spec.single(device) for name, spec in reads.items()}
    with contextlib.ExitStack() as stack:
        for context in (torch.inference_mode(), runtime.exact(), runtime.seeded("cost")):
            stack.enter_context(context)
        for model in models.values():
            stack.enter_context(evaluating(model.network))

        passes: dict[Any, tuple[Predictor, Inputs]] = {
            (name, size): (models[name], one) for name, by_size in sizes.items() for size, one in by_size.items()
        }
        alone = _turns(passes, device, budget * len(models) / 2, LEAST, MOST)
        largest = {name: list(by_size)[-1] for name, by_size in sizes.items()}
        batches = dict[str, Inputs]()
        for place, (name, model) in enumerate(models.items()):
            share = (ends - time.perf_counter()) / (2 * (len(models) - place))
            batches[name] = _batch(model, sizes[name][largest[name]], min(alone[name, largest[name]]), device, share)
        passes = {name: (models[name], batch) for name, batch in batches.items()}
        together = _turns(passes, device, ends - time.perf_counter(), 1, MOST_BATCHES)
        rows = []
        for name, model in models.items():
            latencies = {size: _quantiles(alone[name, size]) for size in sizes[name]}
            row = {"name": name, **_about(model), "latency_ms": latencies[largest[name]]}
            row |= {} if "" in latencies else {"latency_by_size": latencies}
            units, number = reads[name].units(sizes[name][largest[name]]), of_inputs.count(batches[name])
            rate, peak = number / float(np.median(together[name])), _peak(model, batches[name], device)
            row |= {"batch": number, "samples_per_second": rate}
            row |= {f"{reads[name].unit}_per_second": units * rate} if units > 1 else {}
            rows.append({**row, "peak_bytes": None if peak is None else row["bytes"] + peak})
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {"device": where, **cpu(), "threads": torch.get_num_threads(), "rows": rows}


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


def _about(model: Predictor) -> dict[str, Any]:
    """What runs it, and its size."""
    if isinstance(model.network.net, OnnxNet):
        assert model.path is not None
        size = model.path.stat().st_size
        return {"runtime": f"onnxruntime {version('onnxruntime')}", "parameters": None, "bytes": size}
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.network.net.state_dict().values())
    return {"runtime": f"torch {torch.__version__}", "parameters": num_parameters(model.network), "bytes": size}


def _turns(
    passes: Mapping[Any, tuple[Predictor, Inputs]], device: torch.device, seconds: float, least: int, most: int
) -> dict[Any, list[float]]:
    """Seconds of each one's passes, which take turns until `most` of them or the time is over, the first ones left out."""
    started, turns = time.perf_counter(), list[list[float]]()
    while len(turns) < least or (len(turns) < most and time.perf_counter() - started < seconds):
        turns.append([_seconds(model, inputs, device) for model, inputs in passes.values()])
    counted = turns[min(WARM_UP, len(turns) // 4) :]
    return dict(zip(passes, map(list, zip(*counted, strict=True)), strict=True))


def _batch(model: Predictor, one: Inputs, seconds: float, device: torch.device, budget: float) -> Inputs:
    """The largest batch of a sample for which time and memory suffice, by doubling; `seconds`: that the sample alone takes."""
    batch, ends = 1, time.perf_counter() + budget

    def inputs(number: int) -> Inputs:
        return of_inputs.take(one, torch.zeros(number, dtype=torch.int64, device=device))

    while batch < LARGEST_BATCH and 4 * seconds < ends - time.perf_counter():
        try:
            seconds = _seconds(model, inputs(2 * batch), device)
        except torch.OutOfMemoryError:
            break
        batch *= 2
    return inputs(batch)


def _quantiles(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile in ms."""
    return {f"p{share}": 1000 * float(np.percentile(times, share)) for share in (50, 95)}


def _seconds(model: Predictor, raw: Inputs, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    _answer(model, raw)
    _wait(device)
    return time.perf_counter() - started


def _answer(model: Predictor, raw: Inputs) -> None:
    """Raw samples to probabilities; of a model with a head to the logits of all rows, of few of them at a time."""
    if (head := model.network.head) is None:
        model.probabilities(raw)
        return
    for part in model.network(model.spec.inputs(raw)).flatten(0, -2).split(AT_ONCE):
        head(part)


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _peak(model: Predictor, raw: Inputs, device: torch.device) -> int | None:
    """The most bytes that torch's allocator holds at once for a forward, beside what it held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _answer(model, raw)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or isinstance(model.network.net, OnnxNet):
        return None
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler tells stderr of its own affairs
    with profiler.profile(profile_memory=True) as watched:
        _answer(model, raw)
    steps = [event for event in watched.kineto_results.events() if event.name() == MEMORY_EVENT_NAME]
    held = itertools.accumulate(event.nbytes() for event in sorted(steps, key=lambda event: event.start_ns()))
    return max(held, default=0)
