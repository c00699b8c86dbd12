"""What a model costs to run where it is: size, latency, throughput and memory, measured briefly; of one device only."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.autograd import profiler
from torch.autograd.profiler_util import MEMORY_EVENT_NAME

from distill_cli.base import runtime
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.models import Classifier, evaluating, num_parameters

LARGEST_BATCH = 256
WARM_UP, MOST_LATENCIES = 10, 200  # passes at batch 1, where they are quick
PASSES = 3  # of the batch that is chosen: one to see that it fits, one timed, one watched
SECONDS = 0.8  # for each model
AT_ONCE = 128  # rows that a head is given


def of_models(models: Mapping[str, Classifier], device: torch.device) -> dict[str, Any]:
    """`measure` of each model by its name, with the device and the CPU threads that the numbers belong to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    measured = {role: measure(model, device) for role, model in models.items()}
    return {"device": name, "threads": torch.get_num_threads(), **measured}


def measure(model: Classifier, device: torch.device, budget: float = SECONDS) -> dict[str, Any]:
    """What the model costs on the device it is on, in fp32 and eval mode; it and the random streams stay as they were.

    parameters; bytes: of the saved weights; latency_ms: p50 and p95 at batch 1, after warm-up, and latency_by_size: the same by
    what sizes are called, where they are: all else is of the largest; images_per_second, and the same in the spec's unit where
    a sample is several, at a `batch` of 256, or
    the largest smaller power of two for which time and memory suffice; peak_bytes: the weights and the most that torch holds
    at once for a forward of that batch, null on devices that cannot tell.

    Args:
        budget: seconds that it may take, which the six passes at batch 1 of a very slow model may exceed.
    """
    started = time.perf_counter()
    sizes = model.spec.single(device)
    largest = list(sizes)[-1]
    units = model.spec.units(sizes[largest])

    def left() -> float:
        return budget - (time.perf_counter() - started)

    def inputs(number: int) -> Inputs:
        return of_inputs.take(sizes[largest], torch.zeros(number, dtype=torch.int64, device=device))

    with evaluating(model), torch.inference_mode(), runtime.exact(), runtime.seeded("cost"):
        latencies = {
            name: dict(zip(("p50", "p95"), _latency(model, one, device, budget / len(sizes)), strict=True))
            for name, one in sizes.items()
        }
        batch, seconds = 1, latencies[largest]["p50"] / 1000
        while batch < LARGEST_BATCH and PASSES * 2 * seconds < left():
            try:
                seconds = _seconds(model, inputs(2 * batch), device)
            except torch.OutOfMemoryError:
                break
            batch *= 2
        seconds = min(seconds, _seconds(model, inputs(batch), device))
        peak = _peak(model, inputs(batch), device)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.net.state_dict().values())
    return {
        "parameters": num_parameters(model),
        "bytes": weights,
        "latency_ms": latencies[largest],
        **({} if "" in latencies else {"latency_by_size": latencies}),
        "batch": batch,
        "images_per_second": batch / seconds,
        **({f"{model.spec.unit}_per_second": units * batch / seconds} if units > 1 else {}),
        "peak_bytes": None if peak is None else weights + peak,
    }


def _latency(model: Classifier, one: Inputs, device: torch.device, budget: float) -> list[float]:
    """The median and 95th percentile of passes at batch 1 in ms: of three at least, for less than half the budget if they allow."""
    started = time.perf_counter()

    def left() -> float:
        return budget - (time.perf_counter() - started)

    for _ in range(WARM_UP):
        _seconds(model, one, device)
        if left() < 0.9 * budget:
            break
    times: list[float] = []
    while len(times) < 3 or (len(times) < MOST_LATENCIES and left() > 0.6 * budget):
        times.append(_seconds(model, one, device))
    return [1000 * float(quantile) for quantile in np.percentile(times, [50, 95])]


def _seconds(model: Classifier, inputs: Inputs, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    _answer(model, inputs)
    _wait(device)
    return time.perf_counter() - started


def _answer(model: Classifier, inputs: Inputs) -> None:
    """A forward to the logits of all rows, of few rows at a time where a head makes them."""
    answers = model(inputs)
    if (head := model.head) is not None:
        for part in answers.flatten(0, -2).split(AT_ONCE):
            head(part)


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _peak(model: Classifier, inputs: Inputs, device: torch.device) -> int | None:
    """The most bytes that torch's allocator holds at once for a forward, beside what it held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _answer(model, inputs)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler tells stderr of its own affairs
    with profiler.profile(profile_memory=True) as watched:
        _answer(model, inputs)
    steps = [event for event in watched.kineto_results.events() if event.name() == MEMORY_EVENT_NAME]
    held = itertools.accumulate(event.nbytes() for event in sorted(steps, key=lambda event: event.start_ns()))
    return max(held, default=0)
