"""The steps of gpu.py that are whole runs, typed as users type them: one process in a group, two on one GPU, runs that are stopped.

torchrun --standalone --nproc-per-node=1 tests/bench/gpu_runs.py train ...      a run that exchanges everything with nobody
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_made import Found, Sizes, Taken, lone
from scale import apart, loss_apart

from distill_cli.base import launching, world
from distill_cli.cli import main
from distill_cli.training.state import State

PLAIN = ["train", "dataset=digits", "teacher=smallcnn", "teacher.fit.epochs=1", "schedule=constant", "report=false"]
SGD = ["optimizer=sgd", "optimizer.lr=0.01"]
OURS, TORCHRUN = ["-m", "distill_cli"], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}  # TF32 rounds what is apart by an ulp to numbers that are 1e-3 apart
# Asked for where batches of 32 and 64 may go through other kernels; on a CPU 1e-6 and 1e-5 are reached.
LOSS, WEIGHTS, SYNCED = 1e-5, 1e-4, 2e-4
SUMS = "sums.json"


def started(name: str, words: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Python with these words, what it says in a file of that name."""
    with Path(f"{name}.said").open("wb") as said:
        return subprocess.Popen([sys.executable, *words], stdout=said, stderr=said, env={**os.environ, **(env or {})})


def done(lines: Mapping[str, Sequence[str]], env: Mapping[str, str] | None = None) -> None:
    """Run the lines at the same time; raises where one fails."""
    runs = {name: started(name, words, env) for name, words in lines.items()}
    for name, run in runs.items():
        if code := run.wait():
            raise RuntimeError(f"{name}: exit code {code}: {said(name)}")


def said(name: str) -> str:
    """The last lines that a process said."""
    return " / ".join(Path(f"{name}.said").read_text(errors="replace").split("\n")[-4:])


def same(what: str, one: str, other: str) -> Found:
    """Whether two runs' students have the same weights."""
    ours, theirs = (Path(name, "student.safetensors").read_bytes() for name in (one, other))
    return Found(
        f"{what} {'the same bits' if ours == theirs else f'{apart(one, other):.1e} apart'}",
        "the same bits",
        ours == theirs,
    )


def nccl(sizes: Sizes) -> Iterator[Found]:
    """A world of one is a plain run and has no group. In the last one a group of one does all that several would do."""
    words = [
        *PLAIN,
        *SGD,
        "student=resnet8x4",
        f"dataset.limit={sizes.limit}",
        "schedule.train.epochs=2",
        "sync_bn=false",
    ]
    ways = {"plain": OURS, "again": OURS, "torchrun": [*TORCHRUN, *OURS], "exchanging": [*TORCHRUN, __file__]}
    done({name: [*how, *words, f"output_dir={name}-outputs", f"run_dir={name}"] for name, how in ways.items()})
    yield same("plain twice:", "again", "plain")
    yield same("under torchrun:", "torchrun", "plain")
    sums = json.loads(Path("exchanging", SUMS).read_text())
    yield same(f"a group of one ({sums.pop('group')}; sums {sums}):", "exchanging", "plain")


def exchanged(words: Sequence[str]) -> int:
    """A run in a group of one; beside it is written what was summed where."""
    import torch.distributed as dist

    sums, group, reduce = Counter[str](), [""], dist.all_reduce

    def counted(values: Any, *others: Any) -> Any:
        sums[values.device.type] += 1
        group[0] = str(dist.get_backend_config())
        return reduce(values, *others)

    dist.all_reduce = counted  # type: ignore[assignment]
    with lone():
        code = main(list(words))
    folder = next(word.partition("=")[2] for word in words if word.startswith("run_dir="))
    Path(folder, SUMS).write_text(json.dumps({"group": group[0], **sums}))
    return code


def ranks(sizes: Sizes) -> Iterator[Found]:
    """NCCL refuses two processes on one GPU, so they talk by gloo."""
    words = [*OURS, *PLAIN, *SGD, "schedule.train.epochs=2", "precision=fp32", f"dataset.limit={sizes.limit}"]
    students = {"": "tinycnn", "bn": "resnet8x4"}
    for devices in (1, 2):  # one teacher for all
        lines = {f"{name}{devices}": [*words, f"student={one}", f"devices={devices}"] for name, one in students.items()}
        done({name: [*line, f"run_dir={name}"] for name, line in lines.items()}, EXACT)
    for what, value, most in (
        ("loss", loss_apart("2", "1"), LOSS),
        ("weights", apart("2", "1"), WEIGHTS),
        ("weights with synced batch norm", apart("bn2", "bn1"), SYNCED),
    ):
        yield Found(f"{what} {value:.1e}", f"{what} {most:.0e}", value <= most)
    line = ["dataset=digits", "teacher=smallcnn", "teacher.fit.epochs=0", "student=tinycnn", "precision=fp16", *SGD[:1]]
    line += [
        "optimizer.lr=1e-6",
        "objective.kd.weight=1000",
        f"dataset.limit={sizes.limit}",
    ]  # so that gradients overflow at first
    first, other = launching.spread(2, functools.partial(scales, line))
    skips = sum(after < before for before, after in itertools.pairwise(first))
    told = f"fp16: scales {'alike' if first == other else 'unlike'} on both, {skips} of {len(first)} steps left out"
    yield Found(told, "alike, some left out", first == other and skips > 0)


def scales(words: Sequence[str]) -> list[list[float]]:
    """fp16's scale after each step of an epoch, of every process."""
    seen = []

    def see(state: State) -> None:
        seen.append(state.guard.scaler.get_scale())

    Taken(*words, see=see).epoch()
    return world.gathered(seen)


def stops(sizes: Sizes) -> Iterator[Found]:
    words = [*OURS, *PLAIN, "student=tinycnn", f"schedule.train.epochs={sizes.epochs}", "save_every=7"]
    struck = {"SIGTERM": (signal.SIGTERM, 143), "SIGKILL": (signal.SIGKILL, -9)}
    runs = {name: started(name, [*words, f"run_dir={name}"]) for name in ("whole", "again", *struck)}
    dice, codes = random.Random(0), {}
    for name, (how, _) in struck.items():
        while runs[name].poll() is None and not Path(name, "checkpoints", "manifest.json").exists():
            time.sleep(0.01)
        time.sleep(dice.uniform(0.1, 0.5))
        runs[name].send_signal(how)
        codes[name] = runs[name].wait()
    done({f"{name}, resumed": [*words, f"run_dir={name}"] for name in struck})
    if any(runs[name].wait() for name in ("whole", "again")):
        raise RuntimeError(said("whole"))
    yield same("undisturbed twice:", "again", "whole")
    for name, (_, code) in struck.items():
        yield Found(f"{name}: exit {codes[name]}", str(code), codes[name] == code)
        yield same("resumed:", name, "whole")


if __name__ == "__main__":
    sys.exit(exchanged(sys.argv[1:]))
