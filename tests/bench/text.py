"""What texts cost: rows of the table in the manual's page on texts, by a command each. What distillation buys: text_study.py.

    python tests/bench/text.py shares --data DIR --minilm DIR       # DIR: of banking77/ and sst2/; a folder of MiniLM-L6
    python tests/bench/text.py bucket | cached | logits | frozen | torchdistill | digits ...

  shares   real tokens of all in padded batches of 32
  bucket   seconds an epoch with dataset.bucket=64 over those with 0
  cached   seconds an epoch with the teacher's cached answers over those on labels alone
  logits   largest difference of a logit: the cache's batches and the loop's, padded wider, by other numbers at once
  frozen   test accuracy of MiniLM with a fitted head, and what it took
  torchdistill  the whole process by torchdistill (text_peer.py), the same teacher, student, texts and epochs, over ours: with
           nothing kept, and with answers kept
  digits   what pictures, --help and a bad value import of transformers

Seconds are of one core's own work, not of the clock, so that a machine may be shared; ways are run in turn, A B A B, and medians
shown. `--train N` takes the first N training texts in an order of its own, where all of them would take too long.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUIET = ["report=false", "threads=1", "device=cpu", "precision=fp32"]
SMALL = ["student=words_tiny", "student.layers=2", "student.width=128", "student.inner=512"]
COLUMNS = {"banking77": ["dataset.text=text", "dataset.label=category"],
           "sst2": ["dataset.text=sentence", "dataset.label=label"]}  # fmt: skip


class Bench:
    """Where data, models and runs lie."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.minilm = [f"teacher.name={args.minilm}", "teacher=huggingface"]

    def data(self, name: str = "banking77") -> list[str]:
        """The words that choose a data set, of as many training texts as are asked for."""
        root = self.args.data / name
        return ["dataset=text", f"dataset.root={self.part(root) if self.args.train else root}", *COLUMNS[name]]

    def part(self, root: Path) -> Path:
        place = self.out / f"{root.name}-{self.args.train}"
        if not place.exists():
            write(place / "train.csv", shuffled(root)[: self.args.train])
            shutil.copy(root / "test.csv", place)
        return place

    def distill(self, command: str, name: str, *words: str) -> Path:
        """Run a line of ours here, with its seconds those of this process; returns its folder."""
        from distill_cli.cli import main

        place = self.out / "runs" / name
        if place.exists():
            shutil.rmtree(place)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = main([command, *words, *QUIET, f"run_dir={place}", f"output_dir={self.out}"])
        if code:
            raise SystemExit(f"distill {command} {' '.join(words)}: exit code {code}\n{said.getvalue()}")
        return place

    def turns(self, ways: dict[str, list[str]]) -> None:
        """Epochs in turn; prints each way's median and the ratio of the first to the second."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(self.args.turns):
            for name, words in ways.items():
                place = self.distill(
                    "train", name, *words, "schedule=constant", f"schedule.train.epochs={self.args.epochs}"
                )
                lines = (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
                seconds[name] += [json.loads(line)["seconds"] for line in lines]
                print(f"turn {turn + 1}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
        (one, first), (other, second) = ((name, statistics.median(values)) for name, values in seconds.items())
        ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
        print(f"{one} {first:.2f} s, {other} {second:.2f} s an epoch: {first / second:.3f} "
              f"(of pairs {min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} epochs each)")  # fmt: skip


def shuffled(root: Path) -> list[dict[str, str]]:
    """The rows to train on, in an order of their own."""
    with (root / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    return rows


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def shares(bench: Bench) -> None:
    from distill_cli.config.load import load
    from distill_cli.data import load as load_data

    for name in COLUMNS:
        for bucket in (64, 0):
            words = [*bench.data(name), f"dataset.bucket={bucket}", f"dataset.tokenizer={bench.args.minilm}"]
            train = load_data(load("train", words).dataset, 0).train
            real = held = 0
            for batch in train.batches(32, train.order(32, seed=0, epoch=1)):
                mask: Any = batch.inputs["attention_mask"]  # type: ignore[call-overload, index]
                real, held = real + int(mask.sum()), held + mask.numel()
            print(f"{name}, bucket={bucket}: {real / held:.3f} of {len(train):,} texts' tokens are real", flush=True)


def bucket(bench: Bench) -> None:
    words = [*bench.data(), "objective=ce", "teacher=words_tiny", "teacher.fit.epochs=0", *SMALL, "batch_size=32"]
    bench.turns({f"bucket={size}": [*words, f"dataset.bucket={size}"] for size in (64, 0)})


def cached(bench: Bench) -> None:
    words = [*bench.data(), "teacher=words_large", "teacher.fit.epochs=0", *SMALL, "batch_size=32"]
    bench.turns({"objective=kd": [*words, "objective=kd"], "objective=ce": [*words, "objective=ce"]})


def logits(bench: Bench) -> None:
    import torch

    from distill_cli.config.load import load
    from distill_cli.data.inputs import Inputs
    from distill_cli.models import evaluating, inference
    from distill_cli.training import job as jobs

    torch.set_num_threads(1)
    job = jobs.read(load("train", [*bench.data(), *bench.minilm, *SMALL, "device=cpu"]))
    model, split = job.teachers["teacher"], job.data.under(job.teachers["teacher"].spec).val

    def kept(size: int | None = None) -> torch.Tensor:
        parts = [(batch.index, output.logits) for batch, output in inference.outputs(model, split, size)]
        return torch.cat([answers for _, answers in parts])[torch.cat([index for index, _ in parts]).argsort()]

    def live(wider: Callable[[Inputs], Inputs]) -> torch.Tensor:
        order = split.order(32, seed=0, epoch=1)
        with evaluating(model), torch.no_grad():
            answers = torch.cat([model(wider(batch.inputs)) for batch in split.batches(32, order)])
        return answers[order.argsort()]

    def padded(inputs: Inputs) -> Inputs:
        assert not isinstance(inputs, torch.Tensor)
        return {name: torch.nn.functional.pad(values, (0, 17)) for name, values in inputs.items()}

    first = kept()
    others = {"live": live(lambda inputs: inputs), "live, padded by 17": live(padded), "5 at once": kept(5)}
    for name, answers in others.items():
        print(f"{len(split):,} texts, logits to {first.abs().max():.2f}, cached against {name}: "
              f"{(answers - first).abs().max():.1e}", flush=True)  # fmt: skip


def teacher_of(bench: Bench) -> dict[str, Any]:
    """What teacher.json says of MiniLM with a fitted head on all of banking77's labels."""
    words = [*bench.minilm, "teacher.fit.freeze=encoder", *bench.args.words]
    before = set((bench.out / "teachers").glob("*/teacher.json"))
    bench.distill("teacher", "teacher", *bench.data(), *words, *SMALL)
    (path,) = set((bench.out / "teachers").glob("*/teacher.json")) - before
    return dict(json.loads(path.read_text(encoding="utf-8")))


def frozen(bench: Bench) -> None:
    started = time.process_time()
    facts = teacher_of(bench)
    print(f"banking77, frozen MiniLM: validation {facts['val']['accuracy']:.4f}, test {facts['test']['accuracy']:.4f}, "
          f"{time.process_time() - started:.0f} s of one core")  # fmt: skip


def torchdistill(bench: Bench) -> None:
    texts, held, place = bench.args.train or 1500, 500, bench.out / "peer"
    rows = [{"text": row["text"], "label": row["category"]} for row in shuffled(bench.args.data / "banking77")]
    for name, part in {"train": rows[:texts], "dev": rows[texts:][:held], "test": rows[texts + held :][:held]}.items():
        write(place / f"{name}.csv", part)
    data = ["dataset=text", f"dataset.root={place}", f"dataset.tokenizer={bench.args.minilm}"]
    ours = [*data, *bench.minilm, "teacher.pooling=own", *SMALL, *QUIET]
    bench.distill("teacher", "peer-teacher", *ours, "teacher.fit.freeze=encoder")
    (weights,) = (bench.out / "teachers").glob("*/teacher.safetensors")
    schedule = ["schedule=constant", f"schedule.train.epochs={bench.args.epochs}", "batch_size=32", "T=2", "alpha=0.9"]
    line = [sys.executable, "-m", "distill_cli", "train", *ours, *schedule, "optimizer=adamw"]
    line += [f"teacher.checkpoint={weights}", f"run_dir={place / 'run'}"]
    theirs = [sys.executable, str(Path(__file__).with_name("text_peer.py")), f"--epochs={bench.args.epochs}",
              f"--model={bench.args.minilm}", f"--weights={weights}",
              *(f"--{name}={place / name}.csv" for name in ("train", "test"))]  # fmt: skip
    seconds: dict[str, list[float]] = {"torchdistill": [], "built": [], "warm": []}
    for _ in range(bench.args.turns):
        shutil.rmtree(place / "fresh", ignore_errors=True)
        for name, command in {"torchdistill": theirs, "built": line, "warm": line}.items():
            shutil.rmtree(place / "run", ignore_errors=True)
            seconds[name].append(
                core_seconds([*command, f"output_dir={place / 'fresh'}"] if command is line else command)
            )
            print(f"{name} {seconds[name][-1]:.1f} s", flush=True)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{texts:,} texts, {bench.args.epochs} epochs: " + ", ".join(f"{n} {s:.1f} s" for n, s in middle.items())
          + "".join(f"; torchdistill over {n} {middle['torchdistill'] / middle[n]:.2f}" for n in ("built", "warm")))  # fmt: skip


def core_seconds(command: Sequence[str]) -> float:
    """What a process and those it starts take of a core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def digits(bench: Bench) -> None:
    line = [
        "train",
        "teacher.fit.epochs=1",
        "schedule=constant",
        "schedule.train.epochs=1",
        "teacher=smallcnn",
        f"output_dir={bench.out}",
    ]
    for name, words in {
        "pictures": [*line, *QUIET],
        "--help": ["train", "--help"],
        "a bad value": ["train", "T=-1"],
    }.items():
        code = f"import sys; from distill_cli.cli import main; main({words!r}); sys.exit('transformers' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        print(f"{name}: transformers {'imported' if done.returncode else 'not imported'}", flush=True)


ROWS = (shares, bucket, cached, logits, frozen, torchdistill, digits)


def main() -> None:
    """Measure one row and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=[row.__name__ for row in ROWS])
    parser.add_argument("words", nargs="*", help="more words for the line of frozen")
    parser.add_argument("--data", type=Path, help="a folder of banking77/ and sst2/")
    parser.add_argument("--minilm", type=Path, help="a folder of MiniLM-L6")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/text")
    parser.add_argument("--train", type=int, default=0, help="banking77's texts to train on; 0: all")
    for name, default in (("epochs", 1), ("turns", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    time.perf_counter = time.process_time  # type: ignore[assignment]  # what others do on the machine is not counted
    next(row for row in ROWS if row.__name__ == args.row)(Bench(args))


if __name__ == "__main__":
    main()
