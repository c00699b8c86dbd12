"""What a run would keep of its teachers' answers: bytes, seconds and memory, from a few batches; nothing is kept or trained."""

from __future__ import annotations

import resource
import sys
import time
from itertools import islice

import torch

from distill_cli.base import ui
from distill_cli.base.names import size
from distill_cli.config.schema import Train
from distill_cli.models import inference
from distill_cli.pipeline import words
from distill_cli.tasks import task as tasks
from distill_cli.teachers.keeping import whole
from distill_cli.teachers.store import Asked
from distill_cli.teachers.way import Way, way_of
from distill_cli.training import job as jobs
from distill_cli.training.job import Job

BATCHES = 3  # that are measured, after a first


def tell(settings: Train) -> None:
    """Show the header of the run and the table of what it would keep; it raises as a run does before its teacher is there."""
    job = jobs.read(settings)
    way = way_of(job)
    ui.show(words.header(job, way.note))
    if way.joint or settings.teacher.cache == "off":
        ui.show("\nnothing of the teacher's answers would be kept; nothing was trained")
        return
    rows, every, took = list[list[str]](), 0, 0.0
    for name, model in job.teachers.items():
        asked = Asked(model.eval(), job.chosen[name], job.data.under(model.spec), settings, "")
        each = _seconds_each(asked, way)
        for split, times in (("train", way.views), ("val", 1), ("test", 1)):
            samples = times * len(getattr(job.data, split))
            keep, layers = (way.keep or whole(model), way.kept) if split == "train" else (whole(model), ())
            kept = times * sum(array.bytes for array in asked.wanted(split, layers, keep)[1].values())
            rows.append([name, split, f"{samples:,}", size(kept), f"{each * samples:,.1f}"])
            every, took = every + kept, took + each * samples
    ui.show("")
    ui.show(
        ui.table(
            "the cache, where nothing of it is there yet", ("teacher", "split", "samples", "size", "seconds"), rows
        )
    )
    ui.show(
        f"{size(every)}, {took:,.0f} s by {BATCHES} measured batches, {size(_memory(job))} of memory; beside it the teacher "
        "is fitted, where it is not there. Nothing was kept or trained"
    )


def _seconds_each(asked: Asked, way: Way) -> float:
    """Seconds that the answer to a sample of train takes: reading, the network, and what is kept."""
    split, held = asked.data.train, asked.wanted("train", way.kept, way.keep or whole(asked.model))[0]
    task, answered, started = tasks.of(asked.data), 0, time.perf_counter()
    view = 0 if way.views else None
    outputs = inference.outputs(asked.model, split, view=view, dtype=asked.dtype, layers=way.kept)
    for number, (batch, output) in enumerate(islice(outputs, BATCHES + 1)):
        for values in held.pack(task.rows(output, batch)).values():
            values.cpu()
        if number or len(split) == len(batch):
            answered += len(batch)
        else:
            started = time.perf_counter()
    return (time.perf_counter() - started) / answered


def _memory(job: Job) -> int:
    """The most bytes that were held until now: on a GPU those of torch there, else those of this process."""
    if job.device.type == "cuda":
        return torch.cuda.max_memory_allocated(job.device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
