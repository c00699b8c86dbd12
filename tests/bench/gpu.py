"""The check for a machine with one GPU: what it can do, what we cost on it, whether stops and several processes hold.

    python tests/bench/gpu.py --out gpu.json                  all steps, in at most 12 minutes; typed again, it goes on
    python tests/bench/gpu.py --out gpu.json --only cost warm
    python tests/bench/gpu.py --dry                           every step's code, with tiny sizes on the CPU; its speeds mean nothing
    python tests/bench/gpu.py --list

A step is a process of its own, and a line of the table: what was measured, and what was asked for. A step that fails, or takes
more than its time, is a line too, and the next one goes on. What was done is kept in --out and not done again; what failed is.
Exit codes: 0 all that was asked for was reached, 1 something was not, 2 there is no GPU, or the file is another check's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MOST = 1.5  # times the seconds that a step is expected to take: all together are 12 minutes
SLOW = 4  # times as many in a dry run: what starts as many processes wants more of two cores than of sixteen
GRACE = 10.0  # seconds in which a step that is ended takes its processes along
FOUND = "found.jsonl"


@dataclass(frozen=True)
class Step:
    """A function of that name in a module beside. seconds: expected on an H100."""

    module: str
    seconds: int
    what: str


STEPS = {
    "ceilings": Step("gpu_reading", 25, "what the machine can do"),
    "nccl": Step("gpu_runs", 35, "a group of one by NCCL against a plain run"),
    "ranks": Step("gpu_runs", 50, "two processes on one GPU by gloo against one"),
    "cost": Step("gpu_training", 70, "a ResNet-50 step over that of a plain loop of torch"),
    "warm": Step("gpu_training", 45, "from a warm cache over the student alone"),
    "reading": Step("gpu_reading", 50, "what arrives over what networks take"),
    "live": Step("gpu_training", 35, "a live teacher against its kept answers"),
    "language": Step("gpu_training", 65, "a language student of 300 M"),
    "fsdp": Step("gpu_shards", 55, "weights in shards: memory, and saving them"),
    "stops": Step("gpu_runs", 50, "a signal, then resumed"),
}


def carried_out(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Do a step in a process and a folder of its own: the pieces of its line, its seconds, and why it failed, if it did."""
    started, most = time.monotonic(), MOST * STEPS[name].seconds * (SLOW if args.dry else 1)
    with (
        tempfile.TemporaryDirectory(prefix=f"gpu-{name}-", ignore_cleanup_errors=True) as place,
        Path(place, "said").open("w+") as said,
    ):
        command = [sys.executable, __file__, "--step", name, *["--dry"] * args.dry]
        with ending(subprocess.Popen(command, cwd=place, stdout=said, stderr=said, start_new_session=True)) as child:
            try:
                code = child.wait(most)
                failed = f"exit code {code}: {last(Path(place, 'said'))}" if code else ""
            except subprocess.TimeoutExpired:
                failed = f"over its {most:.0f} s"
        kept = Path(place, FOUND)
        pieces = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    return {"pieces": pieces, "seconds": round(time.monotonic() - started, 1), "failed": failed}


@contextmanager
def ending(child: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """A process with all of its group, which is gone at the end, however that comes."""
    try:
        yield child
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)


def last(said: Path) -> str:
    """The last line that tells why something failed."""
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].replace("|", "/")[:300] if lines else "it said nothing"


def inside(name: str, dry: bool) -> int:
    """The step itself, in its process."""
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:3], os.environ.get("PYTHONPATH", "")])
    import gpu_made

    for found in getattr(importlib.import_module(STEPS[name].module), name)(gpu_made.DRY if dry else gpu_made.REAL):
        with Path(FOUND).open("a") as kept:
            kept.write(json.dumps(found) + "\n")
    return 0


def line(name: str, record: Mapping[str, Any]) -> str:
    measured, asked, good = (
        (list(column) for column in zip(*record["pieces"], strict=True)) if record["pieces"] else ([], [], [])
    )
    if record["failed"]:
        measured = [f"FAILED: {record['failed']}", *(["until then: " + measured[0], *measured[1:]] if measured else [])]
    asked = [text if reached else f"{text} NOT REACHED" for text, reached in zip(asked, good, strict=True) if text]
    return f"| {name}: {STEPS[name].what} | {'; '.join(measured)} | {'; '.join(asked)} | {record['seconds']:.0f} |"


def machine(dry: bool) -> str:
    """What the table was made on; empty: on nothing, as there is no GPU."""
    import torch

    if dry:
        return f"dry, torch {torch.__version__}"
    if not torch.cuda.is_available():
        return ""
    about = torch.cuda.get_device_properties(0)
    memory = f"{about.total_memory / 2**30:.0f} GiB, {len(os.sched_getaffinity(0))} cores"
    return f"{about.name}, {memory}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP")
    parser.add_argument("--out", type=Path, help="a file in which steps that are done are kept")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--list", action="store_true", help="the steps, and their expected seconds")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parsed()
    if args.step:
        return inside(args.step, args.dry)
    if args.list:
        for name, step in STEPS.items():
            print(f"{name:10} {step.seconds:4} s  {step.what}")
        print(f"{'':10} {sum(step.seconds for step in STEPS.values()):4} s, at most {MOST} times as many")
        return 0
    if args.dry:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    where = machine(args.dry)
    if not where:
        print("there is no GPU here; with tiny sizes on the CPU: python tests/bench/gpu.py --dry", file=sys.stderr)
        return 2
    kept: dict[str, Any] = {"machine": where, "steps": {}}
    if args.out and args.out.exists():
        kept = json.loads(args.out.read_text())
    if kept["machine"] != where:
        print(f"{args.out} is of another machine ({kept['machine']}): choose another file", file=sys.stderr)
        return 2
    print(f"{where}\n\n| what | measured | asked | s |\n|---|---|---|---:|", flush=True)
    for name in args.only:
        if kept["steps"].get(name, {"failed": True})["failed"]:
            kept["steps"][name] = carried_out(name, args)
            if args.out:
                aside = args.out.with_suffix(".part")
                aside.write_text(json.dumps(kept, indent=1))
                aside.replace(args.out)
        print(line(name, kept["steps"][name]), flush=True)
    records = [kept["steps"][name] for name in args.only]
    return int(any(record["failed"] or not all(good for *_, good in record["pieces"]) for record in records))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the steps that are done", file=sys.stderr)
        sys.exit(130)
