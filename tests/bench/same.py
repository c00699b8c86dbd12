"""A yardstick for a rebuild: does the command line give the same numbers as before, to the last bit?

    python tests/bench/same.py --out before.json                  record what today's code gives
    python tests/bench/same.py --against before.json [--strict]   hold another state of the code against that
    python tests/bench/same.py --only mutual resumed --jobs 1     some of the recipes; --list shows them all

Each recipe is a line or two typed at `python -m distill_cli` in one temporary directory, on one CPU thread, with seconds of
training. Nothing of the package is imported: only the command line, the keys of its configuration and the files of a run's
folder are relied on. The package is looked for in PYTHONPATH, then in the checkout that this file lies in. Recipes share their
teachers and caches as runs do, and neither their order nor the moment of a kill may show in what comes out.

Of every run the student's weights, the rows of metrics.jsonl without their times and the numbers of summary.json are recorded:
their SHA-256, and the values, so that a difference can be told in its size. The exit code is 1 when a run failed, is missing or
is DIFFERENT, with --strict also when it is equal but for rounding; its folder is kept then. Bits hold for one machine and one
version of torch: where the record was made with others, that is said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from same_recipes import KILLED, QUICK, RECIPES, TWINS, prepare

ROOT = Path(__file__).resolve().parents[2]
TIMES = {"images_per_second", "samples_per_second", "tokens_per_second", "seconds"}
NUMBERS = ("val", "test", "best", "params", "difference")  # of summary.json
ROUNDING = 1e-12  # the largest relative difference that is rounding
BIT, ROUNDED, DIFFERENT, FAILED = "equal to the bit", "equal but for rounding", "DIFFERENT", "FAILED"
RECORDED = "recorded"
Record = dict[str, Any]
NOTHING: Record = {"student": "", "rows": "", "numbers": "", "values": {"rows": [], "numbers": {}}}
Records = dict[str, dict[str, Record]]  # by recipe, then by the run's folder below the recipe's


class Failed(Exception):
    """A command, or what it left, is not as it must be."""


class Gap(NamedTuple):
    """A value that is not what it was: by how much relatively, infinity where that cannot be said."""

    size: float
    where: str
    now: Any
    before: Any


class Verdict(NamedTuple):
    """How a run compares with its record, and in what it differs."""

    grade: str
    why: str = ""


def environment() -> dict[str, str]:
    """One thread, the package from PYTHONPATH or from this checkout, and no settings of a user's."""
    places = [*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTILL_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}


def package(place: Path) -> str:
    """Where the package lies that the recipes run."""
    code = "from importlib.util import find_spec; print(find_spec('distill_cli').origin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=environment(), capture_output=True, text=True)
    return done.stdout.strip() or "not found"


def start(place: Path, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Type a line; what it says is added to the recipe's console output."""
    with (place / "runs" / f"{name}.txt").open("a") as console:
        console.write(f"$ distill {' '.join(words)}\n")
        console.flush()
        command = [sys.executable, "-m", "distill_cli", *words]
        return subprocess.Popen(command, cwd=place, env=environment(), stdout=console, stderr=subprocess.STDOUT)


def run(place: Path, name: str) -> dict[str, Record]:
    """Run a recipe, and read what its runs left.

    Raises:
        Failed: a line failed, or a run did not finish.
    """
    folder = place / "runs" / name
    words = RECIPES[name].split()
    # What the recipe says of a group or key comes last, and once.
    said = {word.partition("=")[0] for word in words}
    said |= {"teacher.widths"} if "teacher" in said else set()  # another teacher has no such key
    line = ["train", *(word for word in QUICK if word.partition("=")[0] not in said), *words]
    process = start(place, name, [*line, f"hydra.sweep.dir=runs/{name}" if "-m" in words else f"run_dir=runs/{name}"])
    if name in KILLED:
        while not (folder / "checkpoints" / "last.pt").exists() and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        if (code := process.wait()) != -signal.SIGKILL or (folder / "summary.json").exists():
            raise Failed(f"exit code {code} before it could be killed")
        process = start(place, name, ["resume", f"runs/{name}"])
    if code := process.wait():
        raise Failed(f"exit code {code}")
    found = sorted(path.parent for path in folder.rglob("status.json"))
    if not found:
        raise Failed("it left no run")
    return {str(one.relative_to(folder)): measured(one) for one in found}


def measured(folder: Path) -> Record:
    """Read what a finished run gave.

    Raises:
        Failed: a file is missing, or is not what it should be.
    """
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        weights = (folder / "student.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise Failed(f"{folder.name}: {type(error).__name__}: {error}") from error
    values = {"rows": rows, "numbers": {key: summary.get(key) for key in NUMBERS}}
    text = {what: json.dumps(value, sort_keys=True, separators=(",", ":")) for what, value in values.items()}
    hashes = {what: hashlib.sha256(one.encode()).hexdigest() for what, one in text.items()}
    return {"student": hashlib.sha256(weights).hexdigest(), **hashes, "values": values}


def gaps(now: Any, before: Any, where: str) -> Iterator[Gap]:
    """Find every value that is not what it was; a key that is new says nothing about the others."""
    if isinstance(now, dict) and isinstance(before, dict):
        for key in sorted(before):
            yield from gaps(now.get(key, "nothing"), before[key], f"{where}.{key}")
    elif isinstance(now, list) and isinstance(before, list) and len(now) != len(before):
        yield Gap(math.inf, f"length of {where}", len(now), len(before))
    elif isinstance(now, list) and isinstance(before, list):
        for index, (one, other) in enumerate(zip(now, before, strict=True)):
            yield from gaps(one, other, f"{where}[{index}]")
    elif now != before or isinstance(now, bool) != isinstance(before, bool):
        numbers = all(type(one) in (int, float) and math.isfinite(one) for one in (now, before))
        yield Gap(abs(now - before) / max(abs(now), abs(before)) if numbers else math.inf, where, now, before)


def judge(now: Record, before: Record) -> Verdict:
    """Compare a run with what it is to equal."""
    sizes, told = [], []
    if now["student"] != before["student"]:
        sizes.append(math.inf)
        told.append("student.safetensors differs")
    for what in ("rows", "numbers"):
        if now[what] != before[what]:
            found = gaps(now["values"][what], before["values"][what], what)
            worst = max(
                found,
                key=lambda gap: gap.size,
                default=Gap(0.0, "only in new keys, or in how numbers are written", "", ""),
            )
            sizes.append(worst.size)
            size = f" by at most {worst.size:.0e} relative" if math.isfinite(worst.size) else ""
            values = f": {worst.before!s:.40} -> {worst.now!s:.40}" if worst.size > ROUNDING else ""
            told.append(f"{what} differ{size} ({worst.where}{values})")
    if not sizes:
        return Verdict(BIT)
    return Verdict(ROUNDED if max(sizes) <= ROUNDING else DIFFERENT, "; ".join(told))


def verdicts(name: str, results: Records, known: Records | None) -> Iterator[tuple[str, Verdict]]:
    """Judge every run of a recipe that ran: by its record, and by the recipe that it must equal."""
    twin = TWINS.get(name, "")
    records, before = results[name], (known or {}).get(name, {})
    for run, record in records.items():
        if twin in results and (beside := judge(record, results[twin].get(run, NOTHING))).grade != BIT:
            yield run, Verdict(DIFFERENT, f"from {twin}, which it must equal: {beside.why}")
        elif known is None or name not in known:
            yield run, Verdict(RECORDED)
        else:
            yield run, judge(record, before[run]) if run in before else Verdict(DIFFERENT, "no such run before")
    yield from ((run, Verdict(FAILED, "missing")) for run in before if run not in records)


def run_all(place: Path, names: Sequence[str], jobs: int) -> tuple[Records, dict[str, str]]:
    """Run the recipes, some at once; returns what they gave, and why others failed."""
    results: Records = {}
    failures: dict[str, str] = {}

    def one(name: str) -> None:
        try:
            results[name] = run(place, name)
        except Failed as failed:
            failures[name] = str(failed)
        print(f"{len(results) + len(failures)}/{len(names)} {name}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, names))
    return {name: results[name] for name in names if name in results}, failures


def show(names: Sequence[str], results: Records, failures: dict[str, str], known: Records | None) -> set[str]:
    """Print the table; returns the grades that are in it."""
    lines = [("recipe", "run", "student", "rows", Verdict("verdict"))]
    for name in names:
        if name in failures:
            lines.append((name, "", "", "", Verdict(FAILED, f"{failures[name]}, see runs/{name}.txt")))
            continue
        for run, verdict in verdicts(name, results, known):
            record = results[name].get(run, {"student": "", "rows": ""})
            lines.append((name, run, record["student"][:12], record["rows"][:12], verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = "  ".join(f"{cell:{width}}" for cell, width in zip(line[:4], widths, strict=True))
        print(f"{cells}  {line[4].grade}{': ' if line[4].why else ''}{line[4].why}")
    return {line[4].grade for line in lines}


def facts() -> dict[str, str]:
    """What the last bits may depend on beside the code."""
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what was measured there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with what was written there")
    parser.add_argument("--only", nargs="+", choices=RECIPES, metavar="NAME", default=list(RECIPES))
    parser.add_argument("--jobs", type=int, default=2, help="recipes at once (default: 2)")
    parser.add_argument("--strict", action="store_true", help="rounding is a difference too")
    parser.add_argument("--list", action="store_true", help="show the recipes and run none")
    return parser.parse_args()


def main() -> int:
    """Run, compare, record."""
    given = arguments()
    if given.list:
        print("\n".join(f"{name:14}{words}" for name, words in RECIPES.items()))
        return 0
    known = json.loads(given.against.read_text(encoding="utf-8")) if given.against else None
    for key, value in (known["made_with"] if known else {}).items():
        if value != facts().get(key):
            print(f"note: the record was made with {key} {value}, this is {facts().get(key)}")
    place = Path(tempfile.mkdtemp(prefix="same-"))
    prepare(place)
    print(f"code: {package(place)}")
    started = time.monotonic()
    results, failures = run_all(place, given.only, given.jobs)
    grades = show(given.only, results, failures, known and known["recipes"])
    print(f"{sum(map(len, results.values()))} runs of {len(given.only)} recipes in {time.monotonic() - started:.0f} s")
    if given.out:
        text = json.dumps({"made_with": facts(), "recipes": results}, indent=1, sort_keys=True)
        given.out.write_text(text + "\n", encoding="utf-8")
    if bad := bool(grades & {DIFFERENT, FAILED} or (given.strict and ROUNDED in grades)):
        print(f"run folders and console output are kept in {place / 'runs'}")
    else:
        shutil.rmtree(place)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
