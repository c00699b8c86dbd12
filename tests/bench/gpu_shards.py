"""The step of gpu.py about weights in shards: what they take of memory, and how they are saved."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from gpu_made import GPU, Found, Sizes, Taken, exchanging, wait
from gpu_training import of_language

from distill_cli.base import launching, world
from distill_cli.base.errors import DistillError
from distill_cli.runs.checkpoints import Checkpoints

CLOSE = 1e-3  # of the losses: by other kernels of the optimizer, and in bf16 where the GPU has it


def fsdp(sizes: Sizes) -> Iterator[Found]:
    """A group of one has all the shards: what sharding itself costs. Two processes on one GPU have half each, and talk by gloo."""
    words = [*of_language(sizes), "objective=kd", "teacher.keep=topk", f"student.layers={sizes.layers}"]
    words += [f"dataset.limit={2 * sizes.language_batch}"]
    (whole,) = kept(words, "ddp")
    with exchanging():
        (lone,) = kept(words, "fsdp")
    for name, one in {"whole": whole, "shards of one": lone}.items():
        yield Found(told(name, one))
    yield close("loss of shards", lone["loss"], whole["loss"])
    try:
        two = launching.spread(2, functools.partial(kept, words, "fsdp"))
    except DistillError as error:
        yield Found(f"two processes by gloo: exit code {error.exit_code}", "0", False)
        return
    yield Found("; ".join(told(f"half by gloo, process {rank}", one) for rank, one in enumerate(two)))
    yield close("loss of halves", two[0]["loss"], whole["loss"])


def kept(words: Sequence[str], parallel: str) -> list[dict[str, float]]:
    """What two epochs and a checkpoint take, of every process."""
    run = Taken(*words, f"parallel={parallel}")
    run.epoch()
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    found = {"epoch": run.epoch(), "loss": run.rows[-1]["loss"]["total"]}
    wait()
    started, folder = time.perf_counter(), Path(f"saved-{parallel}-{world.size()}")
    Checkpoints(folder).save(run.state.snapshot())
    found |= {"save": time.perf_counter() - started, "bytes": size(folder)}
    found |= {"rests": torch.cuda.memory_allocated(), "most": torch.cuda.max_memory_allocated()} if GPU else {}
    del run  # models and hooks hold each other
    gc.collect()
    torch.cuda.empty_cache()
    return world.gathered(found)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def told(name: str, one: dict[str, float]) -> str:
    memory = f", {one['rests'] / 2**30:.1f} GiB at rest, {one['most'] / 2**30:.1f} at most" if GPU else ""
    return f"{name}: an epoch {one['epoch']:.2f} s{memory}, saved {one['bytes'] / 2**30:.3f} GiB in {one['save']:.2f} s"


def close(what: str, one: float, other: float) -> Found:
    apart = abs(one - other) / other
    return Found(f"{what} {apart:.1e} apart", f"{what} {CLOSE:.0e}", apart <= CLOSE)
