"""Seconds, memory and accuracy of one distillation, ours and others', each way a process of its own, run in turn.

    python tests/bench/throughput.py --root DIR        # DIR holds FashionMNIST/raw/*-ubyte

A small CNN learns Fashion-MNIST from a ResNet-18 that `distill teacher` fits once per stem. The ways:

  student      the ceiling: the student alone on labels, its pictures in memory (this and the last four: peers.py)
  ours-ce      distill train objective=ce
  ours-built   distill train in an empty output_dir: takes the teacher over and asks it once about every sample
  ours-warm    the same where an ours-built has been: what every further run costs
  ours-live    distill train teacher.cache=off, in an empty output_dir
  textbook     the frozen teacher answers every batch of a DataLoader
  torchdistill-0, torchdistill-2   the same through torchdistill, with so many workers; the table shows the faster
  seed         the teacher is trained along

Wall seconds are whole processes: importing, loading, training, evaluating on test; ours also measures the teacher there and
both on validation, and writes a run folder. Images/s are the training loops' alone. Peak memory is that of the main process:
DataLoader workers are not in it. A process that ends adds a row to WORK/rows.jsonl, and what has its row is not run again: a
stopped benchmark goes on where it was. All of it runs on the CPU, under Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

# Nothing here imports torch: on Linux a child's peak memory starts from what its parent held.

ROOT, PEERS = Path(__file__).parents[2], Path(__file__).with_name("peers.py")
RAW = "FashionMNIST/raw"
STEMS = ["imagenet", "small"]
WAYS = [
    "student", "ours-ce", "ours-built", "ours-warm", "ours-live", "textbook", "torchdistill-0", "torchdistill-2", "seed",
]  # fmt: skip
MORE = {"ours-ce": ["objective=ce"], "ours-live": ["teacher.cache=off"]}
SETTINGS = ["n", "test", "epochs", "batch", "precision", "threads", "teacher_epochs"]
FORMS = {"wall": "{:.1f}", "images_per_second": "{:,.0f}", "peak": "{:,.0f}", "accuracy": "{:.4f}"}
HEAD = ["", "wall s", "loop images/s", "peak MiB", "test accuracy", "wall vs torchdistill", "images/s vs student"]
OURS, THEIRS = "#2f6fb0", "#b4b9c0"

Row = dict[str, Any]


class FailedError(Exception):
    """A process that did not do its work: which, how it ended, and its last words."""


class Bench:
    """What a benchmark's processes share: settings, data, teachers, and where everything lies."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, args.work.resolve()
        self.settings = {key: getattr(args, key) for key in SETTINGS}
        self.shared = self.work / f"n{args.n}-test{args.test}-teacher{args.teacher_epochs}"
        self.place = self.shared / f"epochs{args.epochs}-batch{args.batch}-{args.precision}-threads{args.threads}"
        self.data, self.fresh, self.run_dir = self.shared / "data", self.place / "fresh", self.place / "run"
        self.started = time.perf_counter()

    def rows(self, stem: str) -> list[Row]:
        """The stem's finished processes under these settings."""
        file, asked = self.work / "rows.jsonl", self.settings | {"stem": stem}
        found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [row for row in found if asked.items() <= row.items() and row["repeat"] < self.args.repeats]

    def run(self) -> int:
        """Run what is missing; returns how many processes failed."""
        self.place.mkdir(parents=True, exist_ok=True)
        self.cut()
        failures = 0
        for stem in self.args.stems:
            done = {(row["way"], row["repeat"]) for row in self.rows(stem)}
            plan = [(way, repeat) for repeat in range(self.args.repeats) for way in self.args.ways[:: (-1) ** repeat]]
            plan += [(f"sweep-{self.args.sweep}", 0)] * bool(self.args.sweep)
            plan = [item for item in plan if item not in done]
            plan = [("teacher", 0)] * bool(plan and not self.weights(stem)) + plan
            for way, repeat in plan:
                try:
                    row = self.settings | {"stem": stem, "way": way, "repeat": repeat} | self.measure(stem, way, repeat)
                except FailedError as error:
                    say(f"failed: {error}")
                    failures += 1
                    if way == "teacher":
                        break
                    continue
                with (self.work / "rows.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return failures

    def cut(self) -> None:
        """Fashion-MNIST's files, with as many training samples as leave n once validation is cut from them."""
        source, target = self.args.root / RAW, self.data / RAW
        target.mkdir(parents=True, exist_ok=True)
        for name, header, size in (("images-idx3-ubyte", 16, 28 * 28), ("labels-idx1-ubyte", 8, 1)):
            for part, count in (("train", round(self.args.n / 0.9)), ("t10k", self.args.test)):
                content = (source / f"{part}-{name}").read_bytes()[: header + count * size]
                (target / f"{part}-{name}").write_bytes(content[:4] + count.to_bytes(4, "big") + content[8:])

    def weights(self, stem: str) -> Path | None:
        """The teacher that every way is given."""
        return next((self.shared / f"teacher-{stem}").glob("teachers/[!.]*/teacher.safetensors"), None)

    def measure(self, stem: str, way: str, repeat: int) -> Row:
        """One process of one way: what its row says."""
        warm = self.place / f"warm-{stem}"
        home = self.shared / f"teacher-{stem}" if way == "teacher" else self.fresh
        if way == "ours-warm" or way.startswith("sweep"):
            home = warm
            if not warm.exists():
                self.measure(stem, "ours-built", repeat)
        for folder in (self.run_dir, self.fresh):
            shutil.rmtree(folder, ignore_errors=True)
        title = f"{stem}  repeat {repeat + 1}/{self.args.repeats}  {way}"
        row, said = self.timed(title, self.command(stem, way, repeat, home))
        if way.startswith("ours"):
            row |= loop_of(self.run_dir)
        elif way in WAYS:
            row |= {**json.loads(said.splitlines()[-1]), "way": way}
        if way == "ours-built":  # only a finished one gets the name that ours-warm looks for
            shutil.rmtree(warm, ignore_errors=True)
            self.fresh.rename(warm)
        return row

    def command(self, stem: str, way: str, seed: int, home: Path) -> list[str]:
        """What starts a process of this way; `home` is the output_dir of ours."""
        args, weights = self.args, self.weights(stem)
        if way in WAYS and not way.startswith("ours"):
            name, _, workers = way.partition("-")
            words = f"{name} --stem {stem} --epochs {args.epochs} --batch {args.batch} --seed {seed} "
            words += f"--workers {workers or 0} --precision {args.precision}"
            return [sys.executable, f"{PEERS}", *words.split(), f"--root={self.data}", f"--teacher={weights}"]
        words = f"dataset=fashion_mnist dataset.mean=[0.5] dataset.std=[0.5] teacher=resnet18 teacher.stem={stem} device=cpu"
        ours = [sys.executable, "-m", "distill_cli", "teacher" if way == "teacher" else "train", *words.split()]
        ours += [f"dataset.root={self.data}", "dataset.download=false", f"output_dir={home}"]
        ours += [f"threads={args.threads}"] * bool(args.threads)
        if way == "teacher":
            return [*ours, f"teacher.fit.epochs={args.teacher_epochs}"]
        words = f"student=smallcnn student.in_channels=3 schedule=constant schedule.train.epochs={args.epochs} "
        words += f"optimizer.curve=constant optimizer.lr=1e-3 batch_size={args.batch} precision={args.precision}"
        ours += [f"teacher.checkpoint={weights}", *words.split()]
        if way.startswith("sweep"):
            return [*ours, "-m", "T=" + ",".join("1234"[: args.sweep // 3]), "alpha=0.3,0.6,0.9"]
        return [*ours, "T=3", "alpha=0.7", f"seed={seed}", f"run_dir={self.run_dir}", *MORE.get(way, [])]

    def timed(self, title: str, command: Sequence[str]) -> tuple[Row, str]:
        """Run a process to its end: its wall seconds and peak MiB, and what it said.

        Raises:
            FailedError: it ended with another code than 0.
        """
        say(f"{time.perf_counter() - self.started:6.0f} s  {title} ...", end="")
        out, err = self.place / "last.out", self.place / "last.err"
        env = os.environ | ({"OMP_NUM_THREADS": f"{self.args.threads}"} if self.args.threads else {})
        with out.open("w") as stdout, err.open("w") as stderr:
            started = time.perf_counter()
            child = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stdout, stderr=stderr, start_new_session=True)
            try:
                _, status, usage = os.wait4(child.pid, 0)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # with the workers it started
                child.wait()
                raise
            wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss / 2**10
        say(f" {wall:.1f} s, {peak:,.0f} MiB" + f", exit code {child.returncode}" * bool(child.returncode))
        if child.returncode:
            last = [*out.read_text().splitlines()[-2:], *err.read_text().splitlines()[-8:]]
            raise FailedError("\n    ".join([f"{title}, exit code {child.returncode}", *last]))
        return {"wall": wall, "peak": peak}, out.read_text()


def loop_of(run: Path) -> Row:
    """A run folder's numbers as the peers count them: all images by all seconds, and the last epoch's student on test."""
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(epoch["seconds"] for epoch in epochs)
    images = sum(epoch["samples_per_second"] * epoch["seconds"] for epoch in epochs)
    accuracy = json.loads((run / "summary.json").read_text())["test"]["student_last"]["accuracy"]
    return {"loop_seconds": seconds, "images_per_second": images / seconds, "accuracy": accuracy,
            "images": round(images / len(epochs))}  # fmt: skip


class Stem:
    """What has been measured with one stem: rows by way, torchdistill's faster setting under its plain name too."""

    def __init__(self, name: str, rows: Iterable[Row], repeats: int) -> None:
        self.name = name
        self.ways: dict[str, list[Row]] = {}
        for row in rows:
            self.ways.setdefault(row["way"], []).append(row)
        both = [way for way in self.ways if way.startswith("torchdistill")]
        best = min(both, key=lambda way: self.median(way, "wall"), default="")
        self.labels = {}
        for way in (way for way in WAYS if way in self.ways and (way not in both or way == best)):
            label, done = f"torchdistill, {way[-1]} workers" if way == best else way, len(self.ways[way])
            self.labels[way] = label if done == repeats else f"{label} ({done} of {repeats})"
        self.ways["torchdistill"] = self.ways.get(best, [])

    def median(self, way: str, key: str) -> float:
        return statistics.median([row[key] for row in self.ways.get(way, [])] or [float("nan")])

    def ratio(self, key: str, above: str, below: str) -> str:
        value = self.median(above, key) / self.median(below, key)
        return "-" if value != value else f"{value:.2f}x"

    def table(self) -> list[list[str]]:
        """For each way medians with their ranges, then how it compares; as Markdown."""
        lines = []
        for way, label in self.labels.items():
            cells = [label]
            for key, form in FORMS.items():
                values = [row[key] for row in self.ways[way]]
                low, middle, high = (form.format(of(values)) for of in (min, statistics.median, max))
                cells.append(f"{middle} <sub>{low}–{high}</sub>" if len(values) > 1 else middle)
            compared = self.ratio("wall", "torchdistill", way), self.ratio("images_per_second", way, "student")
            lines.append([*cells, *compared])
        return lines

    def findings(self) -> list[str]:
        """The lines that matter."""
        theirs = {row["repeat"]: row["accuracy"] for row in self.ways["torchdistill"]}
        gains = [r["accuracy"] - theirs[r["repeat"]] for r in self.ways.get("ours-built", []) if r["repeat"] in theirs]
        gain = "-"
        if gains:
            gain = f"{statistics.mean(gains):+.4f} ({min(gains):+.4f} to {max(gains):+.4f}, {len(gains)} seeds)"
        found = {
            "loop images/s, warm cache over the student alone": self.ratio("images_per_second", "ours-warm", "student"),
            "whole process, torchdistill over ours, build included": self.ratio("wall", "torchdistill", "ours-built"),
            "whole process, torchdistill over ours, warm": self.ratio("wall", "torchdistill", "ours-warm"),
            "peak memory over the textbook loop's": self.ratio("peak", "ours-built", "textbook"),
            "accuracy minus torchdistill's (mean over seeds)": gain,
        }
        for way in (way for way in self.ways if way.startswith("sweep")):
            jobs, wall = int(way.partition("-")[2]), self.median(way, "wall")
            alone = jobs * self.median("student", "wall")
            found[f"sweep of {jobs} runs over {jobs} of the student alone"] = f"{wall / alone:.2f}x ({wall:.1f} s)"
        return [f"{what}: {value}" for what, value in found.items()]


def header(args: argparse.Namespace) -> list[str]:
    """Where, with what and on how much the numbers were made; the machine first."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"
    versions = [f"{package} {version(package)}" for package in ("torch", "torchvision", "torchdistill")]
    work = [f"n {args.n:,}", f"test {args.test:,}", f"epochs {args.epochs}", f"batch {args.batch}"]
    work += [f"repeats {args.repeats}", args.precision]
    work += [f"threads {args.threads}"] * bool(args.threads)
    return [machine, f"python {platform.python_version()}", *versions, *work]


def report(bench: Bench) -> None:
    """Print a table for each stem, write the same as Markdown, and draw it."""
    stems = [Stem(name, bench.rows(name), bench.args.repeats) for name in bench.args.stems]
    stems = [stem for stem in stems if stem.labels]
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    text = ["; ".join(header(bench.args))]
    console.print(text[0], soft_wrap=True)
    for stem in stems:
        title = f"Teacher: resnet18, {stem.name} stem"
        text += ["", f"**{title}**", "", markdown(HEAD), "|---" + "|---:" * (len(HEAD) - 1) + "|"]
        table = Table(*HEAD, title=f"\n{title}", title_justify="left", box=box.SIMPLE_HEAD)
        for column in table.columns[1:]:
            column.justify = "right"
        for cells in stem.table():
            text.append(markdown(cells))
            table.add_row(*(cell.replace("<sub>", "[dim]").replace("</sub>", "[/]") for cell in cells))
        text += ["", *(f"- {line}" for line in stem.findings())]
        console.print(table, *stem.findings(), sep="\n")
    (bench.work / "table.md").write_text("\n".join(text) + "\n")
    if bench.args.plot and stems:
        plot(stems, bench.args.plot, header(bench.args)[0])


def markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(stems: Sequence[Stem], file: Path, machine: str) -> None:
    """Bars of median wall seconds, a panel for each stem."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (9, 0.9 + 0.32 * max(len(stem.labels) for stem in stems))
    figure, panels = plt.subplots(1, len(stems), figsize=size, squeeze=False, layout="constrained")
    for stem, panel in zip(stems, panels[0], strict=True):
        walls = [stem.median(way, "wall") for way in stem.labels]
        colours = [OURS if way.startswith("ours") else THEIRS for way in stem.labels]
        bars = panel.barh(list(stem.labels.values()), walls, color=colours, height=0.7)
        panel.bar_label(bars, [f"{wall:,.0f} s" if wall >= 10 else f"{wall:.1f} s" for wall in walls], padding=4)
        panel.set_title(f"{stem.name} stem", loc="left", fontweight="bold")
        panel.set(xlim=(0, 1.2 * max(walls)), xticks=[])
        panel.invert_yaxis()
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    figure.suptitle(f"Whole process, seconds: less is better ({machine})", x=0.01, ha="left", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=200)


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    """The command line, checked; n is what there is when all is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20_000, help="training images after validation is cut; 0: all")
    parser.add_argument("--test", type=int, default=10_000, help="test images, which our teacher is asked about too")
    for name, default in (("epochs", 5), ("batch", 64), ("repeats", 3), ("teacher-epochs", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, known in (("stems", STEMS), ("ways", WAYS)):
        parser.add_argument(f"--{name}", default=",".join(known), metavar="A,B", help=", ".join(known))
    parser.add_argument("--threads", type=int, help="CPU threads of every process")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs/bench/throughput")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--sweep", type=int, choices=[0, 3, 6, 9, 12], default=0, help="runs of a sweep to time, warm")
    parser.add_argument("--table", action="store_true", help="only show what has been measured")
    args = parser.parse_args()
    for name, known in (("stems", STEMS), ("ways", WAYS)):
        chosen = getattr(args, name).split(",")
        if not set(chosen) <= set(known):
            parser.error(f"--{name} {','.join(chosen)}: choose from {', '.join(known)}")
        setattr(args, name, [item for item in known if item in chosen])
    labels = args.root / RAW / "train-labels-idx1-ubyte"
    if not labels.is_file():
        parser.error(f"there is no {labels}")
    samples = labels.stat().st_size - 8
    most = samples - round(0.1 * samples)
    args.n = args.n or most
    if not 90 <= args.n <= most:  # below it, validation would take more than its tenth
        parser.error(f"--n goes from 90 to {most:,}; 0 is all")
    if not 1 <= args.test <= 10_000:
        parser.error("--test goes from 1 to 10,000")
    return args


def main() -> int:
    bench = Bench(parsed())
    bench.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failures = 0 if bench.args.table else bench.run()
    except KeyboardInterrupt:
        say(f"\nstopped; what was done is in {bench.work / 'rows.jsonl'}, and the same command goes on from there")
        return 130
    report(bench)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
