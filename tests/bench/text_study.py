"""What distillation of texts buys: sweeps of `distill train -m`, by validation, and what the best reached on test. Costs: text.py.

    python tests/bench/text_study.py sweep | few | layers --data DIR --minilm DIR [--only banking77]

  sweep    experiment=text: the learning rate by one seed at T = 2 and alpha = 0.9, then T by three seeds, then alpha; labels alone
           by their own learning rate
  few      10 labels a class of banking77, its other texts without: distilled on all of them; on those labels alone, for as many
           epochs and for as many steps
  layers   a student of 3 of MiniLM's 6 layers and one of 3 fresh ones, distilled and on labels alone, by two learning rates

The teacher is MiniLM, frozen under a fitted head. DIR holds banking77/ and sst2/. `--train N` takes N of a set's training texts,
`--held N` so many of its validation texts, or of those that train leaves, `--test N` of its test texts, in an order of their own.
Sweeps go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text import ROOT, SMALL, write

SHORT = ["baseline=false", "report=false", "device=cpu", "precision=fp32", "threads=1"]
COLUMNS = {"banking77": ("text", "category"), "sst2": ("sentence", "label")}
SEEDS = "seed=0,1,2"
FEW, FEW_HELD = 10, 2  # labels a class, to train on and for validation


@dataclass(frozen=True)
class Line:
    """What one line reached over its seeds, on validation and test."""

    words: str
    val: list[float]
    test: list[float]

    def __str__(self) -> str:
        return f"{self.words}: validation {told(self.val)}, test {told(self.test)}"


class Study:
    """Where data, models and runs lie."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out.resolve()
        self.minilm = args.minilm.resolve()

    def rows(self, name: str, part: str) -> list[dict[str, Any]]:
        """A part of a data set in an order of its own, the columns called text and label; none where there is no such part."""
        from distill_cli.data.tables import rows

        text, label = COLUMNS[name]
        files = [path for path in (self.args.data / name).iterdir() if path.stem == part]
        read = [{"text": row[text], "label": row[label]} for path in files for _, row in rows(path)]
        random.Random(0).shuffle(read)
        return read

    def data(self, name: str) -> list[str]:
        """The words for so many texts of a data set as are asked for."""
        train, held = self.args.train, self.args.held
        place, rows = self.out / f"{name}-{train}-{held}", self.rows(name, "train")
        dev = (self.rows(name, "dev") or rows[train:])[:held]
        return kept(place, {"train": rows[:train], "dev": dev, "test": self.rows(name, "test")[: self.args.test]})

    def sweep(self, name: str, *words: str) -> list[Line]:
        """Run all combinations; returns them without their seeds, the best on validation first, and prints them."""
        from distill_cli.cli import main

        place = self.out / "sweeps" / name
        teacher = [f"teacher.name={self.minilm}", "teacher=huggingface", "teacher.fit.freeze=encoder"]
        places = [f"hydra.sweep.dir={place}", f"output_dir={self.out}"]
        if main(["train", "-m", "experiment=text", *teacher, *words, *SHORT, *places, *self.args.words]):
            raise SystemExit(f"{name} failed")
        axes = [word.partition("=")[0] for word in words if "," in word and word[-1] != "]"]
        lines: dict[str, Line] = {}
        for path in sorted(place.glob("*/summary.json")):
            run = json.loads(path.read_text(encoding="utf-8"))
            own = " ".join(word for word in run["overrides"] if word.partition("=")[0] in axes and "seed=" not in word)
            line = lines.setdefault(own, Line(own, [], []))
            line.val.append(run["val"]["student"]["accuracy"])
            line.test.append(run["test"]["student"]["accuracy"])
        best = sorted(lines.values(), key=lambda line: -statistics.mean(line.val))
        print(f"\n{name}", *best, sep="\n  ", flush=True)
        return best


def told(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def gain(name: str, ours: Line, labels: Line) -> None:
    """Print what the best distilled students are above the best on labels alone, by seed."""
    points = [100 * (one - other) for one, other in zip(ours.test, labels.test, strict=True)]
    print(f"{name}: {ours.words or 'kd'} {told(ours.test)} on test, on labels {labels.words or 'alone'} {told(labels.test)}: "
          f"{statistics.mean(points):+.2f} points, standard deviation of {len(points)} seeds "
          f"{statistics.stdev(points):.2f}", flush=True)  # fmt: skip


def kept(place: Path, parts: dict[str, Sequence[dict[str, str]]]) -> list[str]:
    """Write a data set once, and return the words that choose it."""
    for name, rows in parts.items():
        if not (path := place / f"{name}.csv").exists():
            write(path, rows)
    return ["dataset=text", f"dataset.root={place}"]


def sweep(study: Study, name: str) -> None:
    words, rates = study.data(name), "optimizer.lr=0.0015,0.003,0.006"
    (rate, *_) = study.sweep(f"{name}-labels-rate", *words, rates, "seed=0", "objective=ce")
    (labels,) = study.sweep(f"{name}-labels", *words, rate.words, SEEDS, "objective=ce")
    (rate, *_) = study.sweep(f"{name}-kd-rate", *words, rates, "seed=0", "T=2", "alpha=0.9")
    (ours, *_) = study.sweep(f"{name}-kd-T", *words, rate.words, SEEDS, "T=1,2,4", "alpha=0.9")
    (other, *_) = study.sweep(f"{name}-kd-alpha", *words, rate.words, SEEDS, ours.words, "alpha=0.5,1.0")
    gain(name, max(ours, other, key=lambda line: statistics.mean(line.val)), labels)


def few(study: Study, name: str) -> None:
    rows, held, epochs = study.rows(name, "train"), [], study.args.epochs
    left = [row for row in rows if not _taken(row, held, FEW_HELD)]
    known: list[dict[str, str]] = []
    for row in left:
        _taken(row, known, FEW)
    others = [{**row, "label": ""} for row in left if row not in known]
    parts = {"dev": held, "test": study.rows(name, "test")}
    all_of_them = kept(study.out / "few", {"train": known + others, **parts})
    labels_only = kept(study.out / "few-labels", {"train": known, **parts})
    words = [*SMALL, "teacher.fit.lr=0.01", "seed=0,1,2,3,4", "schedule=constant", "optimizer.lr=0.002"]
    (ours,) = study.sweep("few-kd", *all_of_them, *words, "T=2", "alpha=1.0", f"schedule.train.epochs={epochs}")
    tokenizer = next((study.out / "sweeps/few-kd").glob("*/tokenizer.json")).parent
    for times, what in ((1, "epochs"), (len(known + others) // len(known), "steps")):
        alone = [f"dataset.tokenizer={tokenizer}", "objective=ce", f"schedule.train.epochs={times * epochs}"]
        (labels,) = study.sweep(f"few-{what}", *labels_only, *words, *alone)
        gain(f"{len(known)} labels, {len(others)} texts without; as many {what}", ours, labels)


def _taken(row: dict[str, str], taken: list[dict[str, str]], most: int) -> bool:
    """Whether a row is added to those taken, of which there may be so many of a label."""
    if sum(row["label"] == other["label"] for other in taken) == most:
        return False
    taken.append(row)
    return True


def layers(study: Study, name: str) -> None:
    words = [*study.data(name), "student=huggingface", f"student.name={study.minilm}", "student.layers=3", SEEDS,
             "schedule.imitate.epochs=2", "schedule.refine.epochs=1", "optimizer.lr=0.0001,0.0005"]  # fmt: skip
    for init in ("name", "fresh"):
        (labels, *_) = study.sweep(f"{name}-{init}-labels", *words, f"student.init={init}", "objective=ce")
        (ours, *_) = study.sweep(f"{name}-{init}-kd", *words, f"student.init={init}")
        gain(f"{name}, student.init={init}", ours, labels)


def main() -> None:
    """Measure one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=["sweep", "few", "layers"])
    parser.add_argument("words", nargs="*", help="more words for the lines")
    parser.add_argument("--data", type=Path, required=True, help="a folder of banking77/ and sst2/")
    parser.add_argument("--minilm", type=Path, required=True, help="a folder of MiniLM-L6")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/text-study")
    parser.add_argument("--only", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    for key, default in (("train", 2000), ("held", 1000), ("test", 5000), ("epochs", 6)):
        parser.add_argument(f"--{key}", type=int, default=default)
    args = parser.parse_args()
    for name in ["banking77"] if args.row == "few" else args.only:
        {"sweep": sweep, "few": few, "layers": layers}[args.row](Study(args), name)


if __name__ == "__main__":
    main()
