"""Compare distillation techniques honestly: the same trials for each, chosen on validation, and seeds they share.

    python tests/bench/study.py --root .data --out outputs/study --hours 2     # goes on where it stopped
    python tests/bench/study.py --table                                        # tables and picture from the raw rows

Each row of study_rows.py is tried under --trials settings with seed 0; the best on validation is run again with seeds 1, 2, ...
(--seeds), and test is read from these alone. Every run is a `distill train` of its own on one thread, in
OUT/<dataset>/<row>/<trial-0|seed-1>; its raw numbers go to results/study.csv as it ends. DIR of --root holds
FashionMNIST/raw, and for CIFAR-10 cifar10-jpeg/{train,test} and cifar10-resnet-weights. What is in results/ was run with the
teacher beside it: --teacher fashion=tests/bench/results/teacher-fashion --only fashion goes on from there. CIFAR-10 wants a GPU.

A run that diverges keeps its line, without numbers. Any other failure is told and left for the next time; Ctrl-C stops all
runs, which save first. A run whose numbers are in study.csv is not run again, whether its folder is there or not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fnmatch
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import study_rows
import study_table
from study_rows import DATASETS, Row, Setting
from study_table import Line
from tqdm import tqdm

REPOSITORY = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
PLACES = ("run_dir", "output_dir", "dataset.root", "teacher.checkpoint")
START = 12.0  # assumed seconds of a run outside of its epochs
DIVERGED = 5  # exit code

Key = tuple[str, str, str, int]  # data set, row, phase, number


@dataclass(frozen=True)
class Job:
    """One run of a row: a trial, or a seed with the setting that was chosen."""

    row: Row
    phase: str
    number: int
    setting: Setting

    @property
    def key(self) -> Key:
        return *self.row.key, self.phase, self.number

    def __str__(self) -> str:
        return f"{self.row.dataset}/{self.row.name}/{self.phase}-{self.number}"

    @property
    def seed(self) -> int:
        return 0 if self.phase == "trial" else self.number

    def words(self) -> list[str]:
        own = study_rows.setting_words(self.row, self.setting)
        return [*study_rows.row_words(self.row), *own, f"seed={self.seed}", "threads=1", "report=false"]


class Bench:
    """Runs what is missing, at most so many at once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.csv = args, args.out.resolve(), args.results / "study.csv"
        self.plan = study_rows.ordered()
        self.settings: dict[tuple[str, str], list[Setting]] = {}
        for row in self.plan:
            with contextlib.suppress(FileNotFoundError):
                self.settings[row.key] = study_rows.settings(row, args.trials)
        self.wanted = [row for row in self.plan if self.asked_for(row)]
        self.teachers: dict[str, Path] = {}
        self.lines: dict[Key, Line] = {}
        self.before = {
            (line["dataset"], line["row"], line["phase"], int(line["number"])): line
            for line in study_table.read(self.csv)
        }
        self.failed: dict[Key, str] = {}
        self.running: dict[Key, tuple[Job, subprocess.Popen[bytes], float, bool]] = {}
        for row in self.plan:
            for job in self.jobs(row):  # its seeds come after its trials, whose lines are there by then
                self.take_in(job)

    def asked_for(self, row: Row) -> bool:
        names = (row.name, f"{row.dataset}/{row.name}", row.part, row.dataset)
        return any(fnmatch.fnmatch(name, pattern) for name in names for pattern in self.args.only)

    def jobs(self, row: Row) -> Iterator[Job]:
        """All runs of a row that are known: its seeds once every trial has ended."""
        settings = self.settings.get(row.key, [])
        trials = [Job(row, "trial", number, setting) for number, setting in enumerate(settings)]
        yield from trials
        ended = [self.lines[job.key] for job in trials if job.key in self.lines]
        best = study_table.choose(ended) if len(ended) == len(settings) else None
        if best is not None:
            setting = settings[int(best["number"])]
            yield from (Job(row, "seed", number, setting) for number in range(1, self.args.seeds + 1))

    def take_in(self, job: Job) -> None:
        """A run's line, where it has ended: finished, or diverged."""
        folder = self.out / str(job)
        line = {"part": job.row.part, "dataset": job.row.dataset, "row": job.row.name, "phase": job.phase}
        line |= {"number": f"{job.number}", "seed": f"{job.seed}", "epochs": f"{job.row.epochs}"}
        line |= {name: told(getattr(job.setting, name)) for name in study_table.SETTING}
        line["overrides"] = " ".join(study_rows.setting_words(job.row, job.setting))
        if (folder / "summary.json").exists():
            summary = read_json(folder / "summary.json")
            asked, ran = ({unplaced(word) for word in words} for words in (job.words(), summary["overrides"]))
            if asked <= ran:
                self.lines[job.key] = line | numbers_of(folder, summary, job.phase == "seed")
            else:
                self.failed[job.key] = "its folder holds a run of other settings; delete it to have it run again"
        elif (folder / "status.json").exists() and read_json(folder / "status.json")["exit_code"] == DIVERGED:
            self.lines[job.key] = line
        elif (kept := self.before.get(job.key)) and kept.items() >= line.items():
            self.lines[job.key] = kept  # its folder is gone, its numbers are here

    def write(self) -> None:
        """The raw rows, in the plan's order; a row of which nothing is in OUT keeps the lines it had."""
        mine = {key[:2] for key in self.lines}
        lines = {key: line for key, line in self.before.items() if key[:2] not in mine} | self.lines
        places = {row.key: place for place, row in enumerate(self.plan)}
        order = sorted((key for key in lines if key[:2] in places), key=lambda x: (places[x[:2]], x[2] == "seed", x[3]))
        self.csv.parent.mkdir(parents=True, exist_ok=True)
        new = self.csv.with_name(f".{self.csv.name}.tmp")
        with new.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, study_table.FIELDS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines[key] for key in order)
        new.replace(self.csv)

    def left(self, row: Row) -> int:
        """How many runs are missing, the seeds of a row that has not chosen yet among them."""
        ended = sum(key[:2] == row.key for key in self.lines)
        return max(0, self.args.trials + self.args.seeds - ended) if row.key in self.settings else 0

    def estimate(self) -> str:
        """What is left to do, from what runs took before where that is known."""
        file, took = self.out / "seconds.jsonl", dict[tuple[str, str], list[float]]()
        for line in file.read_text().splitlines() if file.exists() else []:
            found = json.loads(line)
            took.setdefault((found["dataset"], found["row"]), []).append(found["seconds"])
        assumed = {row.key: START + row.epochs * row.cost * DATASETS[row.dataset].seconds for row in self.plan}
        each = {key: statistics.median(seconds) for key, seconds in took.items() if key in assumed}
        pace = statistics.median(each[key] / assumed[key] for key in each) if each else 1.0
        runs = {row.key: self.left(row) for row in self.wanted}
        total = sum(count * each.get(key, pace * assumed[key]) for key, count in runs.items())
        number, measured = sum(runs.values()), sum(count for key, count in runs.items() if key in each)
        return (
            f"{number} runs left, {total / max(1, number):.0f} s each (measured for {measured} of them, assumed for the "
            f"others), {total / 3600 / self.args.jobs:.1f} hours with {self.args.jobs} at once"
        )

    def begin(self, words: list[str], place: Path, threads: int = 1, output: int = subprocess.DEVNULL) -> Any:
        """Start a command whose messages go to PLACE.err."""
        place.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "distill_cli", *words, f"output_dir={self.out}", *self.args.more]
        env = os.environ | {"OMP_NUM_THREADS": f"{threads}"}
        with errors_of(place).open("wb") as errors:
            return subprocess.Popen(
                command, cwd=REPOSITORY, env=env, stdout=output, stderr=errors, start_new_session=True
            )

    def placed(self, words: list[str], dataset: str) -> list[str]:
        return [word.format(root=self.args.root.resolve(), teacher=self.teachers.get(dataset, "")) for word in words]

    def prepare(self, name: str) -> None:
        """Find or make the teacher of a data set; OUT remembers which one it was."""
        note, given = self.out / name / "teacher.txt", self.args.teacher.get(name)
        before = Path(note.read_text()) if note.exists() else None
        if given and before and given != before:
            raise SystemExit(f"{note.parent} was begun with the teacher {before}: choose another --out for this one")
        found = given or before
        if found is None:
            print(f"{name}: preparing its teacher", file=sys.stderr)
            found = self.fitted(name, note)
            if found is None:
                return
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{found}")
        self.teachers[name] = found

    def fitted(self, name: str, note: Path) -> Path | None:
        """Fit a teacher; returns its folder, or None where that failed, and prints why."""
        all_words = self.placed([*DATASETS[name].words.split(), *DATASETS[name].prepare.split()], name)
        child = self.begin(["teacher", *all_words, f"threads={self.args.jobs}"], note, self.args.jobs, subprocess.PIPE)
        try:
            said = child.communicate()[0].decode()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
        if child.returncode:
            print(f"{name}: no teacher: {last_words(note)}", file=sys.stderr)
            return None
        return REPOSITORY / said.strip().splitlines()[-1].removeprefix("teacher: ")

    def next_job(self) -> Job | None:
        """The first run that is missing, of a row whose teacher is there."""
        for row in self.wanted:
            if row.teacher is not None or row.dataset in self.teachers:
                for job in self.jobs(row):
                    if not any(job.key in known for known in (self.lines, self.failed, self.running)):
                        return job
        return None

    def start(self, job: Job) -> None:
        folder = self.out / str(job)
        fresh = not folder.exists()  # a run that goes on says nothing about how long one takes
        child = self.begin(["train", *self.placed(job.words(), job.row.dataset), f"run_dir={folder}"], folder)
        self.running[job.key] = job, child, time.monotonic(), fresh

    def collect(self) -> int:
        """Take in what has ended; returns how many runs have a line now."""
        ended = [entry for entry in self.running.values() if entry[1].poll() is not None]
        for job, child, started, fresh in ended:
            del self.running[job.key]
            self.take_in(job)
            if job.key not in self.lines:
                self.failed.setdefault(job.key, last_words(self.out / str(job)))
                tqdm.write(f"failed: {job}: {self.failed[job.key]}", file=sys.stderr)
            elif child.returncode:
                tqdm.write(f"diverged: {job}", file=sys.stderr)
            else:
                errors_of(self.out / str(job)).unlink(missing_ok=True)
                if fresh:
                    found = {"dataset": job.row.dataset, "row": job.row.name, "seconds": time.monotonic() - started}
                    with (self.out / "seconds.jsonl").open("a") as file:
                        file.write(json.dumps(found) + "\n")
        if ended:
            self.write()
        return sum(entry[0].key in self.lines for entry in ended)

    def run(self) -> int:
        """Run until nothing is left, or time is up; returns the exit code."""
        lacking = [f"{row.dataset}/{row.name}" for row in self.wanted if row.key not in self.settings]
        if lacking:
            print(f"left out, no such objective or recipe is there: {', '.join(lacking)}", file=sys.stderr)
        for key, why in self.failed.items():
            print(f"left out: {'/'.join(map(str, key))}: {why}", file=sys.stderr)
        print(self.estimate(), file=sys.stderr)
        self.write()
        end = time.monotonic() + 3600 * self.args.hours
        try:
            for name in DATASETS:
                if any(row.dataset == name and row.teacher is None and self.left(row) for row in self.wanted):
                    self.prepare(name)
            with tqdm(total=sum(map(self.left, self.wanted)), unit="run", smoothing=0, mininterval=1) as bar:
                while True:
                    while len(self.running) < self.args.jobs and time.monotonic() < end and (job := self.next_job()):
                        self.start(job)
                    bar.set_postfix_str("  ".join(str(entry[0]) for entry in self.running.values()), refresh=False)
                    if not self.running:
                        break
                    time.sleep(0.3)
                    bar.update(self.collect())
        except KeyboardInterrupt:
            print("stopping; the same command goes on from here", file=sys.stderr)
            for _, child, _, _ in self.running.values():
                child.terminate()
            for _, child, _, _ in self.running.values():
                child.wait()
            return 130
        print(self.estimate(), file=sys.stderr)
        return min(1, len(self.failed))


def told(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def unplaced(word: str) -> str:
    """A word without the folder in it."""
    key = word.partition("=")[0]
    return key if key in PLACES else word


def errors_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.err")


def last_words(place: Path) -> str:
    """The error in what a command said, or else its last line."""
    lines = [line for line in errors_of(place).read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1]


def numbers_of(folder: Path, summary: dict[str, Any], test: bool) -> Line:
    """What a finished run's line says of it; of test only where that may be looked at."""
    epochs = [json.loads(line)["seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    val = summary["val"]["student"]
    found = {"val_accuracy": val["accuracy"], "val_nll": val["nll"], "seconds_per_epoch": statistics.median(epochs)}
    if test:
        student, teacher = (summary["test"].get(who, {}) for who in ("student", "teacher"))
        found |= {f"test_{key}": student.get(key) for key in ("accuracy", "f1", "nll", "ece", "kl", "agreement")}
        found["teacher_test_accuracy"] = teacher.get("accuracy")
    device = read_json(folder / "run.json")["machine"]["device"]
    facts = {"parameters": f"{summary['params']['student']}", "device": device}
    return {key: told(value) for key, value in found.items()} | facts


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(".data"), help="the folder of the data")
    parser.add_argument("--out", type=Path, default=Path("outputs/study"), help="the folder of the runs")
    parser.add_argument("--hours", type=float, default=float("inf"), help="start no run after so many")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--trials", type=int, default=4, help="settings that each row tries")
    parser.add_argument("--seeds", type=int, default=5, help="runs of the setting that validation chose")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="rows: kd*, cifar/*, a part, a data set"
    )
    parser.add_argument(
        "--teacher", nargs="+", default=[], metavar="[DATASET=]DIR", help="teachers that are there already"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of study.csv, study.md and study.png")
    parser.add_argument(
        "--more", nargs="+", default=[], metavar="WORD", help="more overrides for every run, to try this out"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, show what study.csv says")
    args = parser.parse_args()
    if min(args.jobs, args.trials, args.seeds) < 1 or args.trials > len(study_rows.TRIALS):
        parser.error(f"--jobs, --trials and --seeds start at 1, and there are {len(study_rows.TRIALS)} trials at most")
    if args.more and args.results == RESULTS:
        parser.error("--more makes other runs than the study's: choose another --results for them")
    named = [
        word.partition("=") if word.partition("=")[0] in DATASETS else ("fashion", "=", word) for word in args.teacher
    ]
    args.teacher = {name: Path(place).resolve() for name, _, place in named}
    for place in args.teacher.values():
        if not (place / "teacher.json").is_file():
            parser.error(f"{place} is no folder of a teacher: there is no teacher.json")
    return args


def main() -> int:
    args = parsed()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0 if args.table else Bench(args).run()
    study = study_table.Study(study_table.read(args.results / "study.csv"), args.trials, args.seeds)
    text = study_table.markdown(study, args.trials, args.seeds)
    print(text)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "study.md").write_text(text, encoding="utf-8")
    study_table.draw(study, args.results / "study.png")
    return code


if __name__ == "__main__":
    sys.exit(main())
