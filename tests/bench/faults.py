"""Break distill for real, again and again, and count what it survives.

    python tests/bench/faults.py [--quick] [--rows NAME ...] [--seed N] [--jobs 2] [--markdown FILE]

  kills      SIGKILL at random moments of all kinds of runs, which then go on: the same bits as if nothing had been
  damage     a flipped bit, or an end cut off, in every kind of file: refused, or the same results
  terminate  SIGTERM and Ctrl-C in training: how soon it ends, how many steps are lost
  disk       no room at each write of a run; a small file system that is full
  pairs      two processes on one folder; many that are started at the same moment
  values     bad values of every key
  crafted    files made to run code or to take all memory, with the right checksums
  odd        paths, names, pictures, YAML values and checkpoint files that nobody means
  saves      what saving costs in time and in bytes

--quick does a tenth of it, each row still there. The exit code is 1 when something was not survived; what it was is printed,
and its folder kept. All of it runs on the CPU, under Linux; the rows are in fault_rows.py.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import platform
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

ROWS = ("kills", "damage", "terminate", "disk", "pairs", "values", "crafted", "odd", "saves")
SHARES = (0.0, 0.01, 0.5, 0.9, 0.99)  # of a file that is cut off
SHORT = 1000  # characters of what is printed about a failure
HEAD = ["", "tries", "survived", ""]

Numbers = dict[str, float]
Try = tuple[Callable[..., Numbers], dict[str, Any]]


@dataclass
class Row:
    """Tries of one kind: `alone`, where what is timed must not be disturbed by another one."""

    name: str
    title: str
    tries: Sequence[Try]
    figure: Callable[[list[Numbers]], str]
    alone: bool = False
    done: list[Numbers] = field(default_factory=list)
    failed: int = 0

    @property
    def cells(self) -> list[str]:
        """The row as the table shows it; a try that kills several times counts so often."""
        total = sum(given.get("kills", 1) for _, given in self.tries)
        figure = self.figure(self.done) if self.done else ""
        return [self.title, f"{total:,}", f"{total - self.failed:,}", figure]


@dataclass(frozen=True)
class Verdict:
    """How a try went: its numbers, or why it failed and where its folder is kept."""

    numbers: Numbers
    why: str = ""
    weight: int = 1


def attempt(lab: Any, kept: Path, place: Path, function: Callable[..., Numbers], given: dict[str, Any]) -> Verdict:
    """One try in a folder of its own, which is kept when it fails."""
    import fault_rows

    draw = random.Random(f"{lab.seed} {place.name}")
    try:
        return Verdict(function(lab, place, draw, **given))
    except Exception as error:
        fault_rows.end_all()
        why = str(error) if isinstance(error, fault_rows.Failed) else f"{type(error).__name__}: {error}"
        why = f"{place.name} {given}: {why}"
        kept.mkdir(exist_ok=True)
        place.mkdir(exist_ok=True)
        (place / "why.txt").write_text(why, errors="backslashreplace")
        shutil.move(place, kept / place.name)
        short = why if len(why) < SHORT else f"{why[:SHORT]} ..."
        return Verdict({}, f"{short}\n  kept in {kept / place.name}", given.get("kills", 1))
    finally:
        fault_rows.end_all()
        shutil.rmtree(place, ignore_errors=True)


def plan(lab: Any, wanted: Sequence[str], quick: bool, mountable: bool) -> Iterator[Row]:
    """All rows with their tries; the share of a quick run is a tenth."""
    import fault_rows as rows

    draw = random.Random(lab.seed)
    tries: list[Try]

    def number(full: int) -> int:
        return -(-full // 10) if quick else full

    def row(name: str, title: str, tries: Sequence[Try], figure: Any, alone: bool = False) -> Iterator[Row]:
        if name in wanted:
            yield Row(name, title, tries, figure, alone)

    yield from row("kills", "SIGKILL at a random moment, then resumed", kills(draw, rows, number(100)), told_kills)
    ways = [name for name in rows.JOBS if name.startswith("language")] * max(1, number(5))
    tries = [(rows.kill, {"name": way, "kills": 1, "resume": bool(n % 2), "real": False}) for n, way in enumerate(ways)]
    told = (
        "SIGKILL to a language model's run, packed and accumulated, in each way of keeping answers, and with adapters"
    )
    yield from row("kills", told, tries, told_kills)
    given = {"name": "pictures, 2 workers", "kills": 1, "real": False, "group": False}
    tries = [(rows.kill, {**given, "resume": bool(n % 2)}) for n in range(number(10))]
    yield from row("kills", "SIGKILL to the main process alone, with workers", tries, told_kills)
    flips, cuts = [None] * number(400), [SHARES[(n + n // len(rows.TARGETS)) % 5] for n in range(number(50))]
    for title, each in (("a flipped bit in a file", flips), ("a file cut short", cuts)):
        start = draw.randrange(len(rows.TARGETS))
        kinds = [(start + n) % len(rows.TARGETS) for n in range(len(each))]
        tries = [(rows.damage, {"kind": kind, "cut": cut}) for kind, cut in zip(kinds, each, strict=True)]
        yield from row("damage", title, tries, told_damage)
    for group, what in ((False, "the process"), (True, "all its processes")):
        names = list(rows.STOPS)
        tries = [(rows.terminate, {"name": names[n % 2], "group": group}) for n in range(number(25))]
        yield from row("terminate", f"SIGTERM to {what}", tries, told_stops)
    for times, title in ((1, "Ctrl-C"), (2, "Ctrl-C twice in 50 ms")):
        tries = [(rows.interrupt, {"times": times, "group": bool(n % 2)}) for n in range(max(2, number(10)))]
        yield from row("terminate", title, tries, told_stops)
    if "disk" in wanted:
        writes = lab.references["baseline"].writes
        chosen = [at for at in range(1, len(writes) + 1) if not quick or writes[at - 1] not in writes[: at - 1]]
        # one that is empty fits: then it is the next one's turn
        tries = [(rows.full, {"at": at, "names": "|".join(map(re.escape, writes[at - 1 : at + 1]))}) for at in chosen]
        yield from row("disk", "no room for one of its writes, each in turn", tries, told_disk)
        yield from row("disk", "no room for its log", [(rows.full_log, {})] * number(10), told_disk)
        if mountable:
            yield from row("disk", "a full file system of 1 MiB", [(rows.full_disk, {})] * number(20), told_disk)
    tries = [(rows.pair, {"real": n % 10 == 0}) for n in range(number(20))]
    yield from row("pairs", "two processes on one run_dir", tries, told_pairs, alone=True)
    launches = 4 if quick else 20
    tries = [(rows.launch, {"number": launches, "same": same}) for same in (False, True)]
    yield from row("pairs", f"{launches} launches at the same moment", tries, told_launches, alone=True)
    if "values" in wanted:
        from bad_values import bad_values

        values = bad_values()
        values = draw.sample(values, min(len(values), number(200)))
        yield from row("values", "a bad value", [(rows.bad, {"value": value}) for value in values], told_values)
    titles = [title for n, title in enumerate(rows.CRAFTED) if not quick or n < len(rows.CRAFTED) // 3 or n % 5 == 0]
    tries = [(rows.crafted, {"title": title}) for title in titles]
    yield from row("crafted", "a file made to do harm", tries, told_crafted)
    for kind in rows.odd.KINDS:
        yield from row("odd", f"an odd {kind}", [(rows.strange, {"kind": kind})] * number(200), told_odd)
    tries = [
        (rows.saves, {"model": "resnet18", "number": 5}),
        (rows.saves, {"model": "smallcnn", "number": 50 if quick else 200}),
    ]
    yield from row("saves", "one save a minute, of ResNet-18 and of the small CNN", tries, told_saves, alone=True)


def kills(draw: random.Random, rows: Any, number: int) -> list[Try]:
    """So many kills over all jobs: of one run up to three, every fifth run a `python -m distill_cli`."""
    tries: list[Try] = []
    names = list(rows.JOBS)
    left = max(number, len(names))
    while left:
        count = len(tries)
        times = 1 if left <= len(names) else min(left, draw.choice((1, 1, 1, 2, 3)))
        given = {"name": names[count % len(names)], "kills": times, "resume": bool(count % 2), "real": count % 5 == 0}
        tries.append((rows.kill, given))
        left -= times
    return tries


def of(key: str, numbers: Sequence[Numbers]) -> list[float]:
    return [found[key] for found in numbers]


def times(numbers: Sequence[Numbers]) -> str:
    seconds = of("seconds", numbers)
    return f"median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s"


def told_kills(numbers: list[Numbers]) -> str:
    half = sum(of("half", numbers))
    return f"{len(numbers)} runs the same, bit by bit, no file lost; {half:.0f} kills met something half written"


def told_damage(numbers: list[Numbers]) -> str:
    refused, same = (sum(of(key, numbers)) for key in ("refused", "same"))
    return f"{refused:.0f} commands refused it, {same:.0f} gave the same results"


def told_stops(numbers: list[Numbers]) -> str:
    figure = f"ended after {times(numbers)}"
    if "lost" in numbers[0]:
        inside = sum(of("in the loop", numbers))
        figure += f"; {inside:.0f} inside an epoch, {max(of('lost', numbers)):.0f} steps lost"
    return figure


def told_disk(numbers: list[Numbers]) -> str:
    return "exit code 6, the path and the bytes told; the same results with room again"


def told_pairs(numbers: list[Numbers]) -> str:
    return f"the second was told who works there after {times(numbers)}"


def told_launches(numbers: list[Numbers]) -> str:
    return f"{' and '.join(f'{found:.0f}' for found in of('folders', numbers))} folders"


def told_values(numbers: list[Numbers]) -> str:
    return f"exit code 2, nothing written; {times(numbers)}"


def told_crafted(numbers: list[Numbers]) -> str:
    return f"refused, nothing of it run; {times(numbers)}, {max(of('MiB', numbers)):,.0f} MiB at most"


def told_odd(numbers: list[Numbers]) -> str:
    refused = sum(of("refused", numbers))
    return f"{refused:.0f} refused in one message, {len(numbers) - refused:.0f} done; {times(numbers)}"


def told_saves(numbers: list[Numbers]) -> str:
    each = [f"{found['seconds'] * 1000:,.0f} ms for {found['bytes'] / 1e6:,.1f} MB, {found['share']:.2%} of the time"
            for found in numbers]  # fmt: skip
    most = max(numbers, key=lambda found: found["saves"])
    return f"{'; '.join(each)}; after {most['saves']:.0f} saves {most['left'] / most['bytes']:.1f} times one on disk"


class Bench:
    """The tries of all rows in worker processes, which fork those that are struck."""

    def __init__(self, args: argparse.Namespace, lab: Any, pool: ProcessPoolExecutor) -> None:
        self.args, self.lab, self.pool = args, lab, pool
        self.kept = Path(tempfile.gettempdir()) / f"distill-faults-{os.getpid()}"

    def prepare(self) -> str:
        """The uninterrupted runs, and what is to be damaged; returns why nothing can be mounted."""
        import fault_rows as rows

        self.lab.set_up()
        jobs = {**rows.JOBS, **rows.STOPS}
        damaged = {"damage", "crafted", "odd"} & set(self.args.rows)
        base = self.pool.submit(rows.break_off, self.lab, self.lab.root / "damaged") if damaged else None
        needed = [name for name in jobs if "kills" in self.args.rows or name in needs(self.args.rows, rows)]
        made = {name: self.pool.submit(rows.refer, self.lab, jobs[name], self.lab.root / f"reference-{name}")
                for name in needed}  # fmt: skip
        futures: list[Future[Any]] = [*made.values(), *([base] if base else [])]
        for _ in tqdm(as_completed(futures), total=len(futures), desc="undisturbed", leave=False):
            pass
        self.lab.references |= {name: future.result() for name, future in made.items()}
        if base:
            self.lab.references["damage"] = rows.Reference(base.result(), 0, [], 0)
        return rows.mountable(self.lab.root / "mount") if "disk" in self.args.rows else ""

    def run(self, plan: Sequence[Row]) -> None:
        with tqdm(total=sum(len(row.tries) for row in plan), smoothing=0) as bar:
            for row in plan:
                number = [other for other in plan if other.name == row.name].index(row)  # so that --rows draws the same
                bar.set_description(row.title)
                started = time.monotonic()
                for verdict in self.verdicts(number, row):
                    bar.update()
                    row.failed += verdict.weight if verdict.why else 0
                    if verdict.why:
                        tqdm.write(f"not survived: {row.title}: {verdict.why}", file=sys.stderr)
                    else:
                        row.done.append(verdict.numbers)
                tqdm.write(f"{time.monotonic() - started:6.0f} s  {row.title}", file=sys.stderr)

    def verdicts(self, number: int, row: Row) -> Iterator[Verdict]:
        def submitted() -> Iterator[Future[Verdict]]:
            for count, (function, given) in enumerate(row.tries):
                place = self.lab.root / f"{row.name}-{number}-{count}"
                yield self.pool.submit(attempt, self.lab, self.kept, place, function, given)

        if row.alone:
            return (future.result() for future in submitted())
        return (future.result() for future in as_completed(list(submitted())))


def needs(wanted: Sequence[str], rows: Any) -> set[str]:
    """The jobs whose uninterrupted runs these rows take."""
    by_row = {"terminate": [*rows.STOPS, "two stages"], "disk": ["baseline", "two stages"], "pairs": ["two stages"]}
    return set(chain.from_iterable(by_row.get(name, []) for name in wanted))


def header(args: argparse.Namespace) -> str:
    """Where, with what and on how much the table was made."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = f"{cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    much = "a tenth of it" if args.quick else "all of it"
    return f"{machine}; python {platform.python_version()}; torch {version('torch')}; seed {args.seed}; {much}"


def show(args: argparse.Namespace, plan: Sequence[Row], remarks: Sequence[str]) -> None:
    """The table, and the same as Markdown."""
    table = Table(*HEAD, box=box.SIMPLE_HEAD)
    for column in table.columns[1:3]:
        column.justify = "right"
    lines = [header(args), "", f"| {' | '.join(HEAD)} |", "|---|---:|---:|---|"]
    for row in plan:
        table.add_row(*row.cells, style="bold red" if row.failed else "")
        lines.append(f"| {' | '.join(row.cells)} |")
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(header(args), table, *remarks, sep="\n")
    if args.markdown:
        args.markdown.write_text("\n".join([*lines, *(f"\n{remark}" for remark in remarks)]) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="tries at a time")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> int:
    args = parsed()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import fault_rows  # torch begins with one thread now: a process with several cannot be forked

    tqdm.monitor_interval = 0  # nor one with tqdm's
    gc.freeze()  # what is imported is shared by all forks
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="distill-faults-") as root, ProcessPoolExecutor(args.jobs, fork) as pool:
        lab = fault_rows.Lab(Path(root).resolve(), args.seed)
        bench = Bench(args, lab, pool)
        try:
            refused = bench.prepare()
            rows = list(plan(lab, args.rows, args.quick, not refused))
            bench.run(rows)
        except fault_rows.Failed as error:
            print(f"it does not even run undisturbed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            pool.shutdown(cancel_futures=True)
    show(args, rows, [f"no file system of 1 MiB: {refused}"] if refused else [])
    return min(1, sum(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
