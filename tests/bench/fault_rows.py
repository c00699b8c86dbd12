"""The ways in which faults.py breaks distill. A try is one function: it returns its numbers, or raises Failed.

Every process is a real one in a session of its own, struck by real signals. Most are forked from this one, which has imported
torch and never computes with more than this thread; some begin as `python -m distill_cli`. Leaves out GPUs and several ranks.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import json
import os
import pickle
import random
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import odd
import torch
from helpers import make_documents, make_pictures, make_texts, recipe_of
from torch.nn import functional as F
from tqdm import tqdm

from distill_cli import cli
from distill_cli.base import files
from distill_cli.base.errors import DistillError
from distill_cli.data import PictureSpec
from distill_cli.models import Classifier
from distill_cli.models.smallcnn import SmallCNN
from distill_cli.models.zoo import torchvision
from distill_cli.runs import checkpoints
from distill_cli.training.state import begin

for module in (
    "pipeline.distillation",
    "cli.dispatch",
    *(f"cli.commands.{name}" for name in ("train", "resume", "eval")),
):
    importlib.import_module(f"distill_cli.{module}")  # so that no forked process has to

ROOM = 2**18  # bytes that a process may say
PATIENCE = 300.0  # seconds after which a process counts as hung
Numbers = dict[str, float]


class Failed(Exception):
    """What distill did not survive."""


def require(holds: object, why: str) -> None:
    if not holds:
        raise Failed(why)


# --- processes


living: list[Child] = []  # processes of the try under way
groups: set[int] = set()  # and their groups, which may outlive them


def end_all() -> None:
    """Leave no process behind, whatever became of the try."""
    for child in list(living):
        child.strike(signal.SIGKILL)
        child.ended(PATIENCE)
    for pid in groups:
        with contextlib.suppress(ProcessLookupError):  # as it should be
            os.killpg(pid, signal.SIGKILL)
    groups.clear()


class Child:
    """`distill WORDS` in `place`, forked, or with `real` begun as `python -m distill_cli`; `first` is called before it.

    What it says comes through pipes, which no limit on the size of files can break, and is kept in place/said/.
    """

    def __init__(
        self, place: Path, words: Sequence[str], real: bool = False, first: Callable[[], Any] | None = None
    ) -> None:
        self.place, self.words = place, " ".join(words)
        self.started, self.seconds, self.peak = time.monotonic(), 0.0, 0.0
        self.code: int | None = None
        self.out = self.err = ""
        pipes = os.pipe(), os.pipe()
        for _, end in pipes:
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, ROOM)
        self.pid = os.fork()
        if self.pid == 0:
            become(place, words, real, first, [end for _, end in pipes])
        self.ends = [end for end, _ in pipes]
        for _, end in pipes:
            os.close(end)
        self.handle = os.pidfd_open(self.pid)
        living.append(self)
        groups.add(self.pid)

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it ends within so many seconds."""
        if self.code is None and select.select([self.handle], [], [], seconds)[0]:
            self.seconds = time.monotonic() - self.started
            _, status, usage = os.wait4(self.pid, 0)
            self.code, self.peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 2**10
            self.out, self.err = map(drained, self.ends)
            os.close(self.handle)
            living.remove(self)
            self._keep()
        return self.code is not None

    def _keep(self) -> None:
        with contextlib.suppress(OSError):  # a disk that is to be full has no room for it
            said = self.place / "said"
            said.mkdir(exist_ok=True)
            text = f"distill {self.words}\nexit code {self.code}\n{self.out}\n{self.err}"
            (said / f"{len(list(said.iterdir()))}.txt").write_text(text, errors="backslashreplace")

    def until(self, happened: Callable[[], object]) -> bool:
        """Wait for something while it runs; False when it ended before."""
        limit = time.monotonic() + PATIENCE
        while not happened():
            if self.ended(0.0005):
                return bool(happened())
            require(time.monotonic() < limit, f"{self.words}: waited {PATIENCE:g} s in vain")
        return True

    def strike(self, number: int, group: bool = True) -> None:
        if self.code is None:
            try:
                (os.killpg if group else os.kill)(self.pid, number)
            except ProcessLookupError:  # it has not made its session yet
                os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code."""
        if not self.ended(PATIENCE):
            self.strike(signal.SIGKILL)
            self.ended(PATIENCE)
            raise Failed(f"{self.words}: did not end in {PATIENCE:g} s")
        assert self.code is not None
        return self.code

    def told(self, codes: Sequence[int]) -> str:
        """Its one message, when it ended with one of these codes."""
        code, err = self.wait(), self.err
        require(code in codes, f"{self.words}: exit code {code}, not {codes}: {err.strip()[-600:]}")
        require("Traceback" not in err and err.count("error:") == 1, f"{self.words}: not one message: {err[-600:]}")
        return err


def drained(end: int) -> str:
    """What was written into a pipe until now; closes it."""
    os.set_blocking(end, False)
    content = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(end, ROOM):
            content += part
    os.close(end)
    return content.decode(errors="replace")


def become(place: Path, words: Sequence[str], real: bool, first: Callable[[], Any] | None, ends: Sequence[int]) -> None:
    """In a forked process: be distill, and end as it does."""
    code = 99
    try:
        os.setsid()
        os.chdir(place)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, end in enumerate(ends, 1):
            os.dup2(end, number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        tqdm.set_lock(threading.RLock())  # its own is shared by all forks: one killed in it would stop the others
        if first is not None:
            first()
        if real:
            os.execv(sys.executable, [sys.executable, "-m", "distill_cli", *words])
        code = cli.main(list(words))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def run(place: Path, *words: str, real: bool = False, first: Callable[[], Any] | None = None) -> Child:
    """A process at its end."""
    child = Child(place, words, real, first)
    child.wait()
    return child


# --- jobs, and what of a run must be the same however it came about


@dataclass(frozen=True)
class Job:
    """A small training. It is struck at a moment drawn evenly from when `begin` is there until it ends or, with `hit`, until
    that was last there, and then waited for.
    """

    words: str
    begin: str = "run/run.json"
    hit: str = ""


SMALL = "teacher=tinycnn student=tinycnn dataset.size=12 teacher.fit.epochs=1 optimizer.lr=0.003 threads=1 "
ONE = SMALL + "schedule.imitate.epochs=1 schedule.refine.epochs=1 "
TWO = SMALL + "schedule.imitate.epochs=2 schedule.refine.epochs=1 "
FOLDER = TWO + "dataset=image_folder dataset.root={pictures} dataset.memory=0 batch_size=8 teacher.fit.batch_size=16 "
TEXTS = ("dataset=text dataset.root={texts} dataset.bucket=2 teacher=words_tiny student=words_tiny teacher.fit.epochs=1 threads=1 "
         "schedule.imitate.epochs=2 schedule.refine.epochs=1 batch_size=8 ")  # fmt: skip
LANGUAGE = ("dataset=language dataset.root={documents} dataset.separator=\\n\\n dataset.length=32 threads=1 T=1 batch_size=4 "
            "teacher=bytes_tiny teacher.layers=1 teacher.fit.epochs=1 student=bytes_tiny student.layers=1 student.width=16 "
            "schedule.imitate.epochs=2 schedule.refine.epochs=1 optimizer.accumulate=2 save_every=3 teacher.words=8 "
            "teacher.keep=")  # fmt: skip
STOPPED = FOLDER + "schedule.imitate.epochs=4 save_every=null "
JOBS = {
    "two stages": Job(TWO + "save_every=5"),
    "inside a save": Job(TWO + "save_every=1", hit="run/checkpoints/.*.tmp"),
    "a save each step": Job(TWO + "save_every=1", begin="run/checkpoints"),
    "hint": Job(TWO + "experiment=fitnets schedule.hint.epochs=1 save_every=7"),
    "views, cached": Job(TWO + "dataset.augmentation.crop=1 dataset.views=2 teacher.cache=on save_every=9"),
    "building the cache": Job(TWO, begin="outputs/cache", hit="outputs/cache/.*.making"),
    "fitting the teacher": Job(
        TWO + "teacher.fit.epochs=3 save_every=6", begin="outputs/teachers", hit="outputs/teachers/.*.making"
    ),
    "baseline": Job(TWO + "baseline=true save_every=8"),
    "joint teacher": Job(TWO + "teacher.joint=true save_every=5"),
    "pictures": Job(FOLDER + "save_every=5 workers=0"),
    "pictures, 2 workers": Job(FOLDER + "save_every=5 workers=2"),
    "batch norm": Job(ONE + "student=resnet8x4 student.widths=[4,4,4,8] batch_size=128 save_every=4"),
    "texts": Job(TEXTS + "optimizer.accumulate=2 teacher.fit.freeze=encoder student.freeze=[embeddings] save_every=5"),
    **{f"language, {keep}": Job(LANGUAGE + keep) for keep in ("logits", "hidden", "topk", "sampled")},
    "language, adapters": Job(LANGUAGE + "topk student.lora.rank=4 student.lora.dropout=0.1"),
    "dropout, own class": Job(TWO + "student=mynet save_every=6"),
}
MANIFEST = "run/checkpoints/manifest.json"
STOPS = {f"{n} workers": Job(STOPPED + f"workers={n}", begin="run/metrics.jsonl") for n in (0, 2)}
DAMAGED = Job(TWO + "baseline=true save_every=5")

MYNET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, num_classes))
"""


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its results, how long it can be struck, its writes, and how many bytes it left."""

    results: dict[str, Any]
    span: float
    writes: list[str]
    size: int


@dataclass
class Lab:
    """Where everything lies, and the uninterrupted runs by their job's name."""

    root: Path
    seed: int
    references: dict[str, Reference] = field(default_factory=dict)

    def set_up(self) -> None:
        """Pictures, texts, documents, and a desk to start every run from."""
        make_pictures(self.root / "pictures", number=48)
        make_texts(self.root / "texts")
        make_documents(self.root / "documents")
        (self.root / "desk" / "conf" / "student").mkdir(parents=True)
        (self.root / "desk" / "mynet.py").write_text(MYNET)
        (self.root / "desk" / "conf" / "student" / "mynet.yaml").write_text("_target_: mynet.Net\n")

    def fresh(self, place: Path, source: str = "desk") -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.root / source, place, symlinks=True)

    def words(self, job: Job, folder: str = "run") -> list[str]:
        places = {name: self.root / name for name in ("pictures", "texts", "documents")}
        return ["train", *job.words.format(**places).split(), f"run_dir={folder}"]


def refer(lab: Lab, job: Job, place: Path) -> Reference:
    """Run a job undisturbed, and look when it can be struck."""
    lab.fresh(place)
    child = Child(place, lab.words(job), first=lambda: watch(lambda name: note(place / "writes", name)))
    begun = seen = 0.0
    while not child.ended(0.0005):
        begun = begun or (time.monotonic() if found(place, job.begin) else 0.0)
        seen = time.monotonic() if job.hit and found(place, job.hit) else seen
    require(child.code == 0 and begun, f"{child.words}: exit code {child.code}: {child.err}")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    end = seen if job.hit else child.started + child.seconds
    return Reference(results(place), end - begun, (place / "writes").read_text().splitlines(), size)


def found(place: Path, pattern: str) -> bool:
    return next(place.glob(pattern), None) is not None


def watch(before: Callable[[str], None]) -> None:
    """From now on call `before` with the name of every file that this process begins to write aside, to be renamed."""

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[2], int) and given[2] & os.O_EXCL:
            if str(given[0]).endswith(".lock") or Path(given[0]).name.startswith("pym-"):
                return  # a lock, or memory that processes share: neither holds anything of a run's
            before(re.sub(r"^\.(.+)\.\w+\.tmp$", r"\1", Path(given[0]).name))

    sys.addaudithook(hook)


def note(file: Path, name: str) -> None:
    with file.open("a") as lines:
        lines.write(f"{name}\n")


def results(place: Path, folder: str = "run", spoilt: Path | None = None) -> dict[str, Any]:
    """All that must be the same, however often a run was stopped.

    Args:
        spoilt: a file that may still be as we have damaged it, where no result depends on it.

    Raises:
        Failed: a file that is no whole JSON, or one that should not be there.
    """
    home = place / folder
    stray = [path for path in place.rglob("*") if path.suffix in (".tmp", ".making")]
    require(not stray, f"left behind: {stray}")
    mine = [path for top in (home, place / "outputs") for path in sorted(top.rglob("*")) if path.is_file()]
    names = {str(path.relative_to(place)).removeprefix(f"{folder}/"): path for path in mine if path.suffix != ".lock"}
    try:
        read = [
            name
            for name, path in names.items()
            if path.suffix == ".json" and path.name not in ("tokenizer.json", "texts.json") and path != spoilt
        ]
        facts = {name: files.read_json(names[name]) for name in [*read, "summary.json", "model.json"]}
        rows = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    except (DistillError, ValueError, OSError, KeyError) as error:
        raise Failed(f"not whole: {error}") from error
    for row in rows:
        for key in [key for key in row if key == "seconds" or key.endswith("_per_second")]:
            del row[key]
    keys = ("test", "val", "best", "params", "compression", "seed", "difference")
    weights = {name: files.sha256(path) for name, path in names.items() if path.suffix in (".safetensors", ".npy")}
    summary = {key: facts["summary.json"].get(key) for key in keys}
    known = {name for name in names if not name.startswith("eval/") and name != ".lock"}
    return {"files": known, "rows": rows, "card": facts["model.json"], "weights": weights, **summary}


def require_same(wanted: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    lost = wanted["files"] - now["files"]
    require(not lost, f"{what}: files lost: {sorted(lost)}")
    other = [key for key in wanted if key != "files" and wanted[key] != now[key]]
    require(not other, f"{what}: other results: " + "; ".join(f"{key}: {wanted[key]} -> {now[key]}" for key in other))


def go_on(lab: Lab, place: Path, job: Job, resume: bool, wanted: Mapping[str, Any], real: bool = False) -> Child:
    """Go on with a run to its end, and hold its results against those of the uninterrupted one."""
    child = run(place, *again(lab, place, job, resume), real=real)
    require(child.code == 0, f"{child.words}: exit code {child.code}: {child.err.strip()[-600:]}")
    require_same(wanted, results(place), child.words)
    return child


def again(lab: Lab, place: Path, job: Job, resume: bool) -> list[str]:
    """`distill resume run`, or the very same train line; the latter where nothing of the run is there yet."""
    return ["resume", "run"] if resume and (place / "run" / "run.json").exists() else lab.words(job)


def drawn(draw: random.Random, hurry: int, span: float) -> float:
    """A moment, drawn from less of the span each time that a run was over before it."""
    return draw.uniform(0, span * 0.8**hurry)


# --- kills


def kill(
    lab: Lab, place: Path, draw: random.Random, name: str, kills: int, resume: bool, real: bool, group: bool = True
) -> Numbers:
    """SIGKILL to all processes of a run, or to the main one alone, several times, until it may go on to its end."""
    job, reference = JOBS[name], lab.references[name]
    for hurry in range(8):
        lab.fresh(place)
        half = 0
        for number in range(kills):
            first = number == 0
            child = Child(place, again(lab, place, job, resume) if number else lab.words(job), real and first)
            # a real one imports for seconds: its moment counts from when the first of its work is there
            begin = "*/[ct]*s" if real and first else job.begin
            waited = child.until(lambda begin=begin: found(place, begin))  # type: ignore[misc]
            if not waited or child.ended(drawn(draw, hurry, reference.span)):
                break
            if job.hit and first and not child.until(lambda: found(place, job.hit)):
                break
            child.strike(signal.SIGKILL, group)
            if child.wait() != -signal.SIGKILL:
                break
            half += any(path.suffix in (".tmp", ".making") for path in place.rglob(".*"))
        else:
            go_on(lab, place, job, resume, reference.results, real)
            return {"kills": kills, "half": half, "real": real}
        child.wait()
    raise Failed("was over before it could be killed, eight times")


# --- damage


@dataclass(frozen=True)
class Target:
    """A kind of file, and the commands that read it."""

    pattern: str
    readers: tuple[str, ...]


RESUME, SHOW, EVAL, LAST = "resume part", "resume run", "eval ckpt=run", "eval ckpt=run/checkpoints/last.pt"
PART, AGAIN = "eval ckpt=part/checkpoints/last.pt", "train again"
TARGETS = [
    Target("run/student.safetensors", (EVAL,)),
    Target("run/model.json", (EVAL, LAST)),
    Target("run/run.json", (SHOW,)),
    Target("run/summary.json", (SHOW,)),
    Target("run/status.json", (SHOW, EVAL)),
    Target("part/run.json", (RESUME, PART)),
    *(Target(f"part/checkpoints/{name}", (RESUME, PART)) for name in ("last.pt", "manifest.json")),
    *(Target(f"part/checkpoints/{name}", (RESUME,)) for name in ("previous.pt", "best.pt")),
    *(Target(f"part/{name}", (RESUME,)) for name in ("status.json", "metrics.jsonl", "train.log")),
    *(Target(f"part/.hydra/{name}.yaml", (RESUME, PART)) for name in ("config", "hydra", "overrides")),
    *(Target(f"outputs/teachers/*/{name}", (RESUME, AGAIN, EVAL)) for name in ("teacher.safetensors", "model.json")),
    Target("outputs/teachers/*/teacher.json", (RESUME, AGAIN)),
    *(Target(f"outputs/baselines/*/{n}", (AGAIN,)) for n in ("student.safetensors", "model.json", "baseline.json")),
    *(Target(f"outputs/cache/*/{name}", (RESUME, AGAIN)) for name in ("logits.npy", "cache.json")),
]


def break_off(lab: Lab, place: Path) -> dict[str, Any]:
    """A finished run and, beside it, one of the same job that was stopped in its second epoch; returns what each command
    gives where nothing is damaged.
    """
    lab.fresh(place)
    require(run(place, *lab.words(DAMAGED)).code == 0, "the run to damage was not made")
    for _ in range(20):
        child = Child(place, lab.words(DAMAGED, "part"))
        child.until(lambda: (place / "part" / "metrics.jsonl").exists())
        child.until(lambda: (place / "part" / "metrics.jsonl").stat().st_size)
        child.strike(signal.SIGTERM)
        if child.wait() == 143 and not (place / "part" / "summary.json").exists():
            break
        shutil.rmtree(place / "part")
    shutil.rmtree(place / "said", ignore_errors=True)
    wanted = {}
    for command in sorted({reader for target in TARGETS for reader in target.readers}):
        work = place.with_name("undamaged")
        lab.fresh(work, str(place))
        wanted[command] = outcome(lab, work, command)
    require(all(isinstance(result, dict) for result in wanted.values()), f"refused undamaged: {wanted}")
    return wanted


def outcome(lab: Lab, place: Path, command: str, spoilt: Path | None = None) -> dict[str, Any] | str:
    """What a command gives: all its results, or its message when it refuses with 3 or 4."""
    words = [*command.split(), "output_dir=outputs"] if command.startswith("resume") else command.split()
    child = run(place, *(lab.words(DAMAGED, "again") if command == AGAIN else words))
    if child.code != 0:
        return child.told((3, 4))
    if command.startswith("eval"):
        tables = [line for line in child.out.splitlines() if not line.startswith("metrics: ")]
        path = next(iter(place.glob(f"{'part' if command == PART else 'run'}/eval/*.json")))
        return {"tables": tables, "eval": {k: v for k, v in files.read_json(path).items() if k != "checkpoint"}}
    return results(place, {RESUME: "part", SHOW: "run", AGAIN: "again"}[command], spoilt)


def damage(lab: Lab, place: Path, draw: random.Random, kind: int, cut: float | None) -> Numbers:
    """Flip a bit, or cut to a share, of one file; each command that reads it refuses, or gives what it gave before."""
    target, source = TARGETS[kind], lab.root / "damaged"
    path = draw.choice(sorted(source.glob(target.pattern)))
    content = path.read_bytes()
    at, bit = draw.randrange(len(content)), draw.randrange(8)
    flipped = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
    spoilt = flipped if cut is None else content[: int(cut * len(content))]
    name = path.relative_to(source)
    what = f"{name}: byte {at}, bit {bit}" if cut is None else f"{name}: cut to {cut:.0%}"
    counted = {"refused": 0.0, "same": 0.0}
    for command in target.readers:
        lab.fresh(place, "damaged")
        (place / name).write_bytes(spoilt)
        try:
            now, wanted = outcome(lab, place, command, place / name), lab.references["damage"].results[command]
            if not isinstance(now, str):
                other = [key for key in wanted if now[key] != wanted[key] and key != "files"]
                require(not other, "\n".join(f"{key}: {wanted[key]} -> {now[key]}" for key in other))
        except Failed as error:
            raise Failed(f"{what}: {command}: {error}") from error
        counted["refused" if isinstance(now, str) else "same"] += 1
    return counted


# --- signals that ask


def terminate(lab: Lab, place: Path, draw: random.Random, name: str, group: bool) -> Numbers:
    """SIGTERM in training: 143 soon, what was done is saved, and the run goes on to the same results."""
    job, reference = STOPS[name], lab.references[name]
    for hurry in range(8):
        lab.fresh(place)
        shutil.copytree(lab.root / f"reference-{name}" / "outputs", place / "outputs")
        child = Child(place, lab.words(job))
        if not child.until(lambda: found(place, job.begin)) or child.ended(drawn(draw, hurry, reference.span)):
            continue
        asked = time.monotonic()
        child.strike(signal.SIGTERM, group)
        code, took = child.wait(), time.monotonic() - asked
        if code == 0 and (place / "run" / "summary.json").exists():
            continue  # it was about to end, and did
        break
    require(code == 143, f"exit code {code}: {child.err}")
    require(took < 5, f"took {took:.1f} s to end")
    status = files.read_json(place / "run" / "status.json")
    require((status["status"], status["exit_code"]) == ("interrupted", 143), f"status.json says {status}")
    done = re.search(r"stopped after step (\d+)", child.err)
    kept = step_of(place / "run")
    lost = int(done[1]) - kept if done else 0
    require(0 <= lost <= 1, f"{lost} steps lost: {child.err}")
    went = go_on(lab, place, job, draw.random() < 0.5, reference.results)
    require(not done or f"going on after step {done[1]}," in went.err, f"{went.words}: {went.err}")
    return {"seconds": took, "lost": lost, "in the loop": bool(done)}


def step_of(folder: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    manifest = folder / "checkpoints" / "manifest.json"
    return int(files.read_json(manifest)["files"]["last.pt"]["step"]) if manifest.exists() else 0


def interrupt(lab: Lab, place: Path, draw: random.Random, times: int, group: bool) -> Numbers:
    """Ctrl-C once: as SIGTERM, but 130; twice within 50 ms: 130 at once, on the checkpoint before."""
    job, reference = JOBS["two stages"], lab.references["two stages"]
    for hurry in range(8):
        lab.fresh(place)
        child = Child(place, lab.words(job))
        if not child.until(lambda: found(place, MANIFEST)) or child.ended(drawn(draw, hurry, reference.span / 3)):
            continue
        asked = time.monotonic()
        for number in range(times):
            if not number or not child.ended(0.05):
                child.strike(signal.SIGINT, group)
        code, took = child.wait(), time.monotonic() - asked
        if code != 0:
            break
    require(code == 130 and took < 5, f"exit code {code} after {took:.1f} s: {child.err}")
    require(checkpoints.Checkpoints(place / "run" / "checkpoints").latest(), "no checkpoint can be used")
    go_on(lab, place, job, True, reference.results)
    return {"seconds": took}


# --- a full disk

LITTLE = 64  # bytes: less than any of a run's files has, but for the metrics before the first epoch


def full(lab: Lab, place: Path, draw: random.Random, at: int, names: str) -> Numbers:
    """No room for the run's write number `at`: 6 and one message, and with room again the same results."""
    job, reference = JOBS["baseline"], lab.references["baseline"]
    lab.fresh(place)
    left = [at]

    def fill(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, resource.RLIM_INFINITY))

    child = run(place, *lab.words(job), first=lambda: watch(fill))
    require_told_full(place, child, names)
    go_on(lab, place, job, draw.random() < 0.5, reference.results)
    return {}


def require_told_full(place: Path, child: Child, names: str = "") -> None:
    """6, one message that tells path, need and room; nothing half written, and a checkpoint that was there still loads."""
    err = child.told((6,))
    for part in ("no space", f"/({names})", r"needs? .+B", r"B (are free|left)"):
        require(re.search(part, err), f"no {part!r} in the message: {err}")
    require(not list(place.rglob(".*.tmp")), f"left behind: {list(place.rglob('.*.tmp'))}")
    with contextlib.redirect_stderr(io.StringIO()):  # it warns where it is the one before the last
        checkpoints.Checkpoints(place / "run" / "checkpoints").latest()


def full_log(lab: Lab, place: Path, draw: random.Random) -> Numbers:
    """A log that has grown until it does not fit."""
    job, reference = JOBS["two stages"], lab.references["two stages"]
    lab.fresh(place)
    child = Child(place, lab.words(job))
    child.until(lambda: found(place, MANIFEST))
    child.strike(signal.SIGKILL)
    child.wait()
    log = place / "run" / "train.log"
    with log.open("a") as file:
        file.write("what earlier tries said\n" * 50_000)
    size = log.stat().st_size + draw.randrange(200)
    limit = (size, resource.RLIM_INFINITY)
    child = run(place, *lab.words(job), first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    require_told_full(place, child, r"train\.log")
    go_on(lab, place, job, True, reference.results)
    return {}


def mountable(place: Path) -> str:
    """Why no small file system can be mounted here; empty when one can."""
    place.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if tried.returncode == 0:
        subprocess.run(["umount", place], check=True)
    return tried.stderr.strip()


def full_disk(lab: Lab, place: Path, draw: random.Random) -> Numbers:
    """A file system of 1 MiB on which the run has room for a part of what it writes."""
    job, reference = JOBS["two stages"], lab.references["two stages"]
    disk = place / "disk"
    for _ in range(8):
        shutil.rmtree(place, ignore_errors=True)
        disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
        try:
            lab.fresh(disk / "work")
            room = draw.randrange(20_000, reference.size)
            (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - room))
            child = run(disk / "work", *lab.words(job))
            if child.code != 0:
                require_told_full(disk / "work", child)
                (disk / "ballast").unlink()
                go_on(lab, disk / "work", job, draw.random() < 0.5, reference.results)
                return {}
        except BaseException:
            shutil.copytree(disk, place / "kept", symlinks=True)
            raise
        finally:
            subprocess.run(["umount", disk], check=True)
    raise Failed("there was room for all of it, eight times")


# --- two at once


def pair(lab: Lab, place: Path, draw: random.Random, real: bool) -> Numbers:
    """Two processes on one folder: one works, the other is told at once who does."""
    job, reference = JOBS["two stages"], lab.references["two stages"]
    lab.fresh(place)
    two = at_once(place, [lab.words(job)] * 2, real)
    lock = place / "run" / ".lock"
    two[0].until(lambda: lock.exists() and lock.read_text())
    held = time.monotonic()
    while not any(child.ended(0.001) for child in two):
        pass
    waited = time.monotonic() - held
    other, winner = sorted(two, key=lambda child: child.code is None)
    err = other.told((7,))
    require(f"in use by process {winner.pid}" in err, f"names another than {winner.pid}: {err}")
    require(waited < 2, f"was told after {waited:.1f} s")
    require(winner.wait() == 0, f"the first ended with {winner.code}: {winner.err}")
    require_same(reference.results, results(place), "the first one's run")
    return {"seconds": waited}


def at_once(place: Path, lines: Sequence[Sequence[str]], real: bool = False) -> list[Child]:
    """Processes that wait for each other before they begin."""
    gate, opened = os.pipe()

    def wait() -> None:
        os.close(opened)
        os.read(gate, 1)  # until no one holds the other end

    children = [Child(place, line, real, wait) for line in lines]
    os.close(opened)
    os.close(gate)
    return children


def launch(lab: Lab, place: Path, draw: random.Random, number: int, same: bool) -> Numbers:
    """Runs without a run_dir, started at the same moment or even given the same name: each has a folder of its own."""
    lab.fresh(place)
    shutil.copytree(lab.root / "reference-two stages" / "outputs", place / "outputs")
    line = [*lab.words(JOBS["two stages"])[:-1], *["hydra.run.dir=outputs/train/day/same"] * same]
    for child in at_once(place, [line] * number):
        require(child.wait() == 0, f"{child.words}: exit code {child.code}: {child.err}")
    runs = {path.parent for path in (place / "outputs" / "train").rglob("summary.json")}
    require(len(runs) == number, f"{len(runs)} folders")
    weights = {files.sha256(path / "student.safetensors") for path in runs}
    require(len(weights) == 1, f"{len(weights)} different students")
    return {"folders": number}


# --- values that are wrong


def bad(lab: Lab, place: Path, draw: random.Random, value: str) -> Numbers:
    """A bad value in a process of its own: 2 in under 3 s, and nothing written."""
    for _ in range(3):  # the machine may have been busy with something else
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        child = run(place, "train", value, real=True)
        child.told((2,))
        written = [path for path in place.rglob("*") if place / "said" not in (path, path.parent)]
        require(not written, f"{value}: wrote {written}")
        if child.seconds < 3:
            return {"seconds": child.seconds}
    raise Failed(f"{value}: took {child.seconds:.1f} s, the third time too")


# --- files made to do harm


Crafting = Callable[[Path, Path], list[str]]  # from a folder and the sentinel's path to what is typed there


class Payload:
    """Runs a shell command when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.sentinel}",)


def evil(target: str, place: Path, sentinel: Path) -> dict[str, Any]:
    """A node that would make the sentinel if it were built."""
    (place / "payload").write_bytes(pickle.dumps(Payload(sentinel)))
    given: dict[str, dict[str, Any]] = {
        "os.system": {"command": f"touch {sentinel}"},
        "logging.os.system": {"command": f"touch {sentinel}"},
        "distill_cli.base.files.os.system": {"command": f"touch {sentinel}"},
        "builtins.open": {"file": str(sentinel), "mode": "w"},
        "torch.load": {"f": str(place / "payload"), "weights_only": False},
        "shutil.copy": {"src": str(place / "run" / "model.json"), "dst": str(sentinel)},
    }
    return {"_target_": target, **given[target]}


NAMES = [
    "os.system",
    "logging.os.system",
    "distill_cli.base.files.os.system",
    "builtins.open",
    "torch.load",
    "shutil.copy",
]
HUGE = {"widths": [10**9, 10**9]}, {"widths": [10**5, 10**5]}  # the second fits into 64 bits, and takes 360 GB
TRAINED = Path("part/checkpoints/last.pt")
RESUMED = "resume part output_dir=outputs"


def edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file of ours, its checksum made anew."""
    value = files.read_json(path)
    change(value)
    files.write_json(path, value)


def of_card(change: Callable[[dict[str, Any]], Any]) -> Crafting:
    """model.json changed; what is typed then."""

    def make(place: Path, sentinel: Path) -> list[str]:
        edited(place / "run" / "model.json", change)
        return ["eval", "ckpt=run"]

    return make


def of_checkpoint(change: Callable[[dict[str, Any]], Any]) -> Crafting:
    """A lone checkpoint with something else in it."""

    def make(place: Path, sentinel: Path) -> list[str]:
        loaded = torch.load(place / TRAINED, weights_only=True)
        change(loaded)
        (place / "lone").mkdir()
        torch.save(loaded, place / "lone" / "last.pt")
        return ["eval", "ckpt=lone/last.pt"]

    return make


def of_run(change: Callable[[dict[str, Any]], Any]) -> Crafting:
    """A run folder whose run.json says something else."""

    def make(place: Path, sentinel: Path) -> list[str]:
        edited(place / "part" / "run.json", change)
        return RESUMED.split()

    return make


def of_overrides(*words: str) -> Crafting:
    """A run folder that brings settings of its own."""
    return lambda place, sentinel: of_run(
        lambda known: known["overrides"].extend(word.format(sentinel=sentinel) for word in words)
    )(place, sentinel)


def of_config(place: Path, sentinel: Path) -> list[str]:
    node = evil("os.system", place, sentinel)
    return of_run(lambda known: known["config"].update(student=node, dataset=node))(place, sentinel)


def pickled(command: str, wrapped: bool) -> Crafting:
    """A pickle that runs code, alone or in a file that torch.save wrote, listed in the manifest with its own SHA-256."""

    def make(place: Path, sentinel: Path) -> list[str]:
        path = place / TRAINED
        if wrapped:
            torch.save({"student": {"w": Payload(sentinel)}, "step": 3, "card": {}}, path)
        else:
            path.write_bytes(pickle.dumps({"student": Payload(sentinel), "step": 3}))
        shutil.copy(path, path.with_name("previous.pt"))
        shutil.copy(path, path.with_name("best.pt"))
        facts = {"sha256": files.sha256(path), "bytes": path.stat().st_size, "step": 3, "epoch": 0}
        files.write_json(path.with_name("manifest.json"), {"files": {"last.pt": facts}})
        return command.split()

    return make


def expanded(loaded: dict[str, Any]) -> None:
    """Weights that take four bytes in the file and 400 GB where someone copies them."""
    loaded["student"] = {name: torch.zeros(1).expand(10**11) for name in loaded["student"]}


def huge_tensor(place: Path, sentinel: Path) -> list[str]:
    """A weights' file whose header claims a shape of petabytes."""
    path = place / "run" / "student.safetensors"
    tensor = {"dtype": "F32", "shape": [10**8, 10**8], "data_offsets": [0, 4 * 10**16]}
    head = json.dumps({"fc.weight": tensor}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(64))
    edited(place / "run" / "model.json", lambda card: card.update(sha256=files.sha256(path)))
    return ["eval", "ckpt=run"]


def evil_places(name: str) -> dict[str, Crafting]:
    """Where a file can name a function that would do harm."""

    def card(key: str) -> Crafting:
        return lambda place, sentinel: of_card(lambda card: card.update({key: evil(name, place, sentinel)}))(
            place, sentinel
        )

    def card_within(key: str) -> Crafting:
        return lambda place, sentinel: of_checkpoint(
            lambda loaded: loaded["card"].update({key: evil(name, place, sentinel)})
        )(place, sentinel)

    def words(key: str) -> Crafting:
        def make(place: Path, sentinel: Path) -> list[str]:
            node = evil(name, place, sentinel)
            return of_overrides(*(f"{key}.{k}={json.dumps(value)}" for k, value in node.items()))(place, sentinel)

        return make

    return {
        f"model.json: model {name}": card("model"),
        f"model.json: dataset {name}": card("dataset"),
        f"checkpoint's card: model {name}": card_within("model"),
        f"checkpoint's card: dataset {name}": card_within("dataset"),
        f"run.json: student {name}": words("++student"),
        f"run.json: dataset {name}": words("++dataset"),
        f"run.json: hydra.callbacks {name}": words("+hydra.callbacks.x"),
        f"run.json: hydra.job_logging {name}": words("++hydra.job_logging.handlers.x"),
    }


CRAFTED: dict[str, Crafting] = {
    "pickle as last.pt, resume": pickled(RESUMED, False),
    "pickle in last.pt, resume": pickled(RESUMED, True),
    "pickle as last.pt, eval": pickled(f"eval ckpt={TRAINED}", False),
    "pickle in last.pt, eval": pickled(f"eval ckpt={TRAINED}", True),
    "pickle as teacher": pickled(f"train {SMALL} teacher.checkpoint={TRAINED}", False),
    "pickle in teacher": pickled(f"train {SMALL} teacher.checkpoint={TRAINED}", True),
    "run.json: student=../../x": of_overrides("student=../../x"),
    "run.json: +experiment=../x": of_overrides("experiment=../x"),
    "run.json: hydra/callbacks=x": of_overrides("+hydra/callbacks=x"),
    "run.json: hydra.run.dir": of_overrides("hydra.run.dir={sentinel}"),
    "run.json: hydra.searchpath": of_overrides("hydra.searchpath=[file://{sentinel}]"),
    "run.json: another config": of_config,
    "run.json: another name": of_run(lambda known: known.update(name="../../x")),
    "model.json: huge widths": of_card(lambda card: card["model"].update(HUGE[0])),
    "model.json: large widths": of_card(lambda card: card["model"].update(HUGE[1])),
    "checkpoint's card: huge widths": of_checkpoint(lambda loaded: loaded["card"]["model"].update(HUGE[0])),
    "checkpoint's card: large widths": of_checkpoint(lambda loaded: loaded["card"]["model"].update(HUGE[1])),
    "checkpoint: a huge shape over one number": of_checkpoint(expanded),
    "student.safetensors: huge shape": huge_tensor,
    "model.json: ../../etc/x": of_card(lambda card: card.update(weights="../../etc/x")),
    "model.json: no mapping": of_card(lambda card: card.update(model=[1])),
    "model.json: ../ as model": of_card(lambda card: card["model"].update(_target_="distill_cli../../x")),
    **{title: make for name in NAMES for title, make in evil_places(name).items()},
}


def crafted(lab: Lab, place: Path, draw: random.Random, title: str) -> Numbers:
    """A file made to do harm, its checksums right: 4 soon, nothing of it run, and no memory taken for it."""
    lab.fresh(place, "damaged")
    sentinel = place / "sentinel"
    child = run(place, *CRAFTED[title](place, sentinel))
    require(not sentinel.exists(), f"{title}: its code was run")
    child.told((4,))
    require(child.seconds < 10, f"{title}: took {child.seconds:.1f} s")
    require(child.peak < 1500, f"{title}: took {child.peak:.0f} MiB")
    return {"seconds": child.seconds, "MiB": child.peak}


# --- what users bring


def strange(lab: Lab, place: Path, draw: random.Random, kind: str) -> Numbers:
    """One odd input of a kind: done, or refused in one message; never by a traceback, nor as a bug in distill."""
    lab.fresh(place, "damaged")
    words = odd.KINDS[kind](place, draw)
    child = run(place, *words, first=lambda: os.environ.update(HOME=str(place)))
    allowed = odd.WRITTEN if kind == "path" else odd.CODES
    if child.code:
        child.told(allowed)
    require("Traceback" not in child.err, f"{words}: {child.err[-600:]}")
    return {"seconds": child.seconds, "refused": float(child.code != 0)}


# --- what saving costs


def saves(lab: Lab, place: Path, draw: random.Random, model: str, number: int) -> Numbers:
    """Seconds for a save and bytes after many; less than 2 % of the time at one save a minute, and three kept at most."""
    for _ in range(3):  # the disk may have been busy with something else
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        child = run(place, first=lambda: measured_saves(place, model, number))
        require(child.code == 0, child.err)
        found: Numbers = json.loads((place / "saves.json").read_text())
        if found["share"] < 0.02:
            break
    require(found["share"] < 0.02, f"{found['seconds']:.2f} s a save are {found['share']:.1%} of a minute")
    require(found["kept"] <= 3, f"{found['kept']} checkpoints kept")
    require(found["left"] < 3.1 * found["bytes"], f"{found['left']:,.0f} bytes left of saves of {found['bytes']:,.0f}")
    return found


def measured_saves(place: Path, model: str, number: int) -> None:
    """In a process of its own, which then ends: five saves of a trained state timed, then as many as asked."""
    size, spec = (32, 32), PictureSpec(3, (32, 32), (0.5,), (0.5,))
    net = torchvision("resnet18", 10, size) if model == "resnet18" else SmallCNN([64, 128], 3, 10, size)
    recipe = recipe_of({"_target_": "torch.optim.Adam", "lr": 1e-3})
    state = begin(Classifier(net, spec), {}, recipe)
    F.cross_entropy(state.model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    state.optimizer.step()
    state.keep_if_best({"epoch": 1, "stage": "x", "val": {"accuracy": 0.5, "nll": 1.0}}, ("accuracy",))
    kept, times = checkpoints.Checkpoints(place / "checkpoints"), []
    for count in range(5):
        started = time.perf_counter()
        kept.save(state.snapshot(), best=count == 0)
        times.append(time.perf_counter() - started)
    for _ in range(number - 5):
        state.step += 1
        kept.save(state.snapshot(), best=state.step % 10 == 0)
    left = list((place / "checkpoints").iterdir())
    seconds, one = statistics.median(times), (place / "checkpoints" / "last.pt").stat().st_size
    found = {"seconds": seconds, "share": seconds / 60, "bytes": one, "saves": max(number, 5)}
    found |= {"kept": sum(path.suffix == ".pt" for path in left), "left": sum(path.stat().st_size for path in left)}
    (place / "saves.json").write_text(json.dumps(found))
    os._exit(0)
