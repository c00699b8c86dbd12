"""What distilling a language model costs and buys: each row of the table in the manual's page on language models, by a command.

    python tests/bench/language.py step --data DIR --teacher DIR     # DIR: WikiText-2's valid.txt, test.txt; a model's folder

  step      core-seconds of a training step over those of the student alone, 5 M and 30 M: topk, hidden, live
  memory    the most that a step takes over the loaded models, 8 x 128 tokens
  gradient  top-k with the rest's mass against all words: cosine of the gradients, bytes a token, error of the mass at any T
  wikitext  96 windows of 128, 6 epochs: distilled against labels only, test perplexity and KL
  perplexity  of the teacher on the first 24 windows of 128 of WikiText-2's test part
  pydoc     the embedded default: bits a byte of teacher, student and labels-only student, and its seconds

Seconds are of one core's own work, not of the clock, so that a machine may be shared; ways are run in turn, and medians shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.cli import main
from distill_cli.config.load import load
from distill_cli.objectives.logits import KD, kd
from distill_cli.pipeline.distillation import prepare_all
from distill_cli.tasks.rows import Dense, Rows
from distill_cli.tasks.signals import Few, likeliest
from distill_cli.teachers import answer
from distill_cli.teachers.way import way_of
from distill_cli.training import job as jobs
from distill_cli.training import loop
from distill_cli.training.state import begin

QUIET = ["report=false", "threads=1", "device=cpu", "precision=fp32"]
SIZES = {  # of students with SmolLM2's 49,152 words
    "5 M": ["student.width=96", "student.layers=4", "student.heads=4", "student.inner=256"],
    "30 M": ["student.width=288", "student.layers=16", "student.heads=6", "student.inner=768"],
}
BATCH, LENGTH = 8, 128


class Bench:
    """Where data, models and runs lie."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)

    def windows(self, train: int, others: int) -> Path:
        """A folder with so many windows' worth of WikiText-2: train of its validation part, the others of its test part."""
        place = self.out / f"windows-{train}-{others}"
        if not place.exists():
            parts = {name: (self.args.data / f"{name}.txt").read_text(encoding="utf-8") for name in ("valid", "test")}
            size = 6 * LENGTH  # characters, a little more than a window's tokens
            place.mkdir()
            (place / "train.txt").write_text(parts["valid"][: size * train], encoding="utf-8")
            (place / "val.txt").write_text(parts["test"][size * others : 2 * size * others], encoding="utf-8")
            (place / "test.txt").write_text(parts["test"][: size * others], encoding="utf-8")
        return place

    def words(self, student: str, train: int = 16, others: int = 2) -> list[str]:
        """The words of a run on that many windows."""
        return [
            "dataset=language",
            f"dataset.root={self.windows(train, others)}",
            f"dataset.length={LENGTH}",
            "dataset.packing=stream",
            "teacher=huggingface",
            f"teacher.name={self.args.teacher}",
            "student=llama",
            *SIZES[student],
            "student.kv_heads=null",
            "student.positions=1024",
            f"batch_size={BATCH}",
            "T=1",
            *QUIET,
            f"output_dir={self.out}",
            *self.args.words,
        ]

    def stepping(self, words: list[str]) -> Iterator[None]:
        """A run whose every `next` is one step, its teacher prepared and its cache warm."""
        settings = load("train", [*words, "schedule=constant", "schedule.train.epochs=1000"])
        job = jobs.read(settings)
        way = way_of(job)
        prepared = prepare_all(job, way)
        print(f"  teacher {way.note}", file=sys.stderr)
        state = begin(job.student, job.objectives, job.recipe, job.dtype)
        with answer.start(job, way, {name: one.weights for name, one in prepared.items()}) as teacher:
            row = (state, job.stages, job.losses, job.data, job.task, job.pace)
            for told in loop.fit(*row, teacher if way.kind != "unused" else None):
                if told is None:
                    yield


def step(bench: Bench) -> None:
    for size in bench.args.sizes:
        words = bench.words(size)
        ways = {
            "labels": ["objective=ce"],
            "topk": ["objective=kd", "teacher.keep=topk"],
            "hidden": ["objective=kd", "teacher.keep=hidden"],
            "live": ["objective=kd", "teacher.cache=off"],
        }
        runs = {name: bench.stepping([*words, *more]) for name, more in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for run in runs.values():
            next(run)  # warm
        for turn in range(bench.args.turns):
            for name, run in runs.items():
                started = time.process_time()
                next(run)
                seconds[name].append(time.process_time() - started)
            print(
                f"  {size}, turn {turn + 1}: " + ", ".join(f"{n} {s[-1]:.2f}" for n, s in seconds.items()),
                file=sys.stderr,
            )
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        alone = medians["labels"]
        told = ", ".join(f"{name} {value:.2f} s ({value / alone:.2f} x)" for name, value in medians.items())
        ratio = medians["live"] / medians["topk"]
        print(
            f"{size}, a step of {BATCH} x {LENGTH} tokens, median of {bench.args.turns}: {told}; live over topk {ratio:.1f}"
        )
        for run in runs.values():
            run.close()  # type: ignore[attr-defined]


def memory(bench: Bench) -> None:
    """The growth of the process while it steps, from the kernel's own count."""
    for name, more in {"topk": ["teacher.keep=topk"], "hidden": ["teacher.keep=hidden"]}.items():
        run = bench.stepping([*bench.words("5 M"), "objective=kd", *more])
        next(run)  # the optimizer's moments are of the models
        clear = Path("/proc/self/clear_refs")
        clear.write_text("5")  # the peak counts from now on
        before = status("VmRSS")
        next(run)
        print(
            f"{name}: {status('VmHWM') - before:.0f} MiB over the loaded models in a step of {BATCH} x {LENGTH} tokens"
        )
        run.close()  # type: ignore[attr-defined]


def status(name: str) -> float:
    """A line of the kernel's table of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def rows_of(bench: Bench, number: int) -> tuple[Tensor, Tensor]:
    """The teacher's and a fresh student's logits of some tokens of test."""
    job = jobs.read(load("train", bench.words("5 M")))
    batch = next(job.data.test.batches(max(1, number // LENGTH)))
    said = []
    for model in (job.teachers["teacher"], job.student):
        with torch.no_grad():
            head = model.head
            assert head is not None
            said.append(head(model(batch.inputs).flatten(0, 1)[:number]))
    return said[0], said[1]


def gradient(bench: Bench) -> None:
    teacher, student = rows_of(bench, LENGTH)
    student = (0.9 * student).requires_grad_()
    none = torch.zeros(len(student), dtype=torch.int64)
    few = Few(*likeliest(teacher, 64), teacher.shape[1] - 64)
    ids = few.ids
    ways = {
        "all": kd(student, teacher),
        "topk": KD()(Rows(student, none, none), few, 1.0),
        "renormalised": kd(student.gather(1, ids), teacher.gather(1, ids)),
    }
    slopes = {name: torch.autograd.grad(value, student)[0].flatten() for name, value in ways.items()}
    for name, slope in list(slopes.items())[1:]:
        print(f"{name}: cosine of its gradient to that of all words {F.cosine_similarity(slopes['all'], slope, dim=0):.3f}, "
              f"divergence {ways[name]:.4f} of {ways['all']:.4f}")  # fmt: skip
    apart = {}
    for T in torch.linspace(1, 8, 29).tolist():
        exact = 1 - (teacher / T).softmax(-1).gather(1, ids).sum(1)
        apart[T] = float((few.share_of_rest(T) - exact).abs().max())
    worst = max(apart, key=apart.__getitem__)
    shares = ", ".join(f"{float(few.share_of_rest(T).mean()):.2f} at T = {T:g}" for T in (1, 1.15, 1.5, 3))
    print(f"the rest's mass: off by at most {apart[worst]:.1e} (T = {worst:g}) from T = 1 to 8; it is {shares}")
    whole = KD()(Rows(student, none, none), Dense(teacher), 1.0)
    print(
        f"of {len(student)} tokens: kd by all logits {float(whole):.6f}, by the function itself {float(ways['all']):.6f}"
    )


def wikitext(bench: Bench) -> None:
    words = [*bench.words("5 M", train=96, others=24), "objective=kd", "optimizer.lr=0.002", "baseline=true", "T=1"]
    words += ["schedule=constant", "alpha=1.0", "schedule.train.epochs=6", *bench.args.words]
    for seed in range(bench.args.seeds):
        summary = distilled(bench, f"wikitext-{seed}", *words, f"seed={seed}")
        tell(f"WikiText-2, seed {seed}", summary)


def perplexity(bench: Bench) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(bench.args.teacher)((bench.args.data / "test.txt").read_text()).input_ids
    job = jobs.read(load("train", bench.words("5 M")))
    model, nll = job.teachers["teacher"].eval(), list[float]()
    for start in range(0, 24 * LENGTH, LENGTH):
        block = torch.tensor(ids[start : start + LENGTH])[None]
        inputs = {"input_ids": block, "position_ids": torch.arange(LENGTH)[None], "segments": torch.ones_like(block)}
        with torch.no_grad():
            head = model.head
            assert head is not None
            nll += F.cross_entropy(head(model(inputs)[0, :-1]), block[0, 1:], reduction="none").tolist()
    print(f"perplexity {torch.tensor(nll).mean().exp():.2f} over {len(nll):,} tokens of 24 windows of {LENGTH}")


def pydoc(bench: Bench) -> None:
    started = time.perf_counter(), time.process_time()
    words = ["dataset=pydoc", "teacher=bytes_small", "student=bytes_tiny", "experiment=lm", "baseline=true", *QUIET]
    summary = distilled(bench, "pydoc", *words, f"output_dir={bench.out}", *bench.args.words)
    tell("pydoc", summary)
    print(
        f"{time.perf_counter() - started[0]:.0f} s, of which {time.process_time() - started[1]:.0f} s of one core's work"
    )


def distilled(bench: Bench, name: str, *words: str) -> dict[str, Any]:
    """The summary of a run, done before or now."""
    place = bench.out / "runs" / name
    if code := main(["train", *words, f"run_dir={place}"]):
        raise SystemExit(f"distill train {' '.join(words)}: exit code {code}")
    return dict(json.loads((place / "summary.json").read_text(encoding="utf-8")))


def tell(what: str, summary: Mapping[str, Any]) -> None:
    for who, scores in summary["test"].items():
        print(f"{what}: {who}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()), flush=True)


ROWS = {
    "step": step,
    "memory": memory,
    "gradient": gradient,
    "wikitext": wikitext,
    "perplexity": perplexity,
    "pydoc": pydoc,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("words", nargs="*", help="settings of the runs, beside those of the row")
    parser.add_argument("--data", type=Path, default=Path("wikitext-2"))
    parser.add_argument("--teacher", type=Path, help="the folder of a causal language model", default=Path("teacher"))
    parser.add_argument("--out", type=Path, default=Path("bench-language"))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    torch.set_num_threads(1)
    args = parser.parse_args()
    ROWS[args.row](Bench(args))
