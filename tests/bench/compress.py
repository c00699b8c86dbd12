"""What a student made smaller loses and learns again: the tables of the manual's page on compression, by a command each.

  python tests/bench/compress.py bits --data DIR [--bits 4]      # DIR: of FashionMNIST/
  python tests/bench/compress.py derived --data DIR --weights resnet56-4bfd9763.th      # DIR: cifar10-jpeg, a folder a class
  python tests/bench/compress.py kills

bits      weights rounded to so few bits, three seeds: the student in fp32, rounded without training, with distillation in the
          stage, with labels alone in it, and with as many more epochs in fp32 instead, before and after rounding
derived   ResNet-56 with the weights that are given, pruned by half or in two parts of half the parameters: before any training,
          after labels only, after distillation
kills     SIGKILL ten times inside the stage of 8 bits, resumed each time: the same bits as undisturbed
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUIET = ["report=false", "threads=1", "device=cpu", "precision=fp32"]
SEEDS = (0, 1, 2)


def distill(*words: str) -> None:
    """Run a line of ours in this process."""
    from distill_cli.cli import main

    code = main(list(words))
    if code:
        raise SystemExit(code)


def summary(run: Path) -> dict[str, Any]:
    """The numbers of a finished run."""
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def bits(args: argparse.Namespace) -> None:
    """Weights of so few bits: three seeds of a run whose stage learns from the teacher, of one that learns from labels, and of one
    that is not rounded until an epoch after it, whose student in fp32 has had as many epochs.
    """
    from distill_cli.models import calibration

    calibration.LARGEST = 64 if args.bits == 8 else 2 ** (args.bits - 1) - 1  # type: ignore[misc]
    common = [*QUIET, "dataset=fashion_mnist", f"dataset.root={args.data}", f"dataset.limit={args.train}", "dataset.download=false",
              "teacher=smallcnn", "teacher.fit.epochs=4", "student=tinycnn", "optimizer.lr=3e-3"]  # fmt: skip
    first = {"imitate": {"epochs": 4}, "refine": {"epochs": 2, "T": ["${T}", 1.0], "alpha": ["${alpha}", 0.0]}}
    stage = {"epochs": args.epochs, "lr": float(args.lr)}
    schedules = {"distilled": {**first, "last": {**stage, "quantize": "int8"}},
                 "labels": {**first, "last": {**stage, "quantize": "int8", "alpha": 0}},
                 "longer": {**first, "longer": stage, "last": {"epochs": 1, "quantize": "int8"}}}  # fmt: skip
    conf = args.out / "conf" / "schedule"
    conf.mkdir(parents=True, exist_ok=True)
    for way, schedule in schedules.items():
        (conf / f"{way}.yaml").write_text(json.dumps(schedule))
    table = []
    for seed in SEEDS:
        tests = {}
        for way in schedules:
            run = args.out / f"bits{args.bits}-{way}-{seed}"
            shutil.rmtree(run, ignore_errors=True)
            how = [f"schedule={way}", f"seed={seed}", f"run_dir={run}", f"output_dir={args.out}"]
            distill("train", "--config-dir", str(conf.parent), *common, *how)
            tests[way] = summary(run)["test"]
        row = {"fp32": tests["distilled"]["student_fp32"], "plain": tests["distilled"]["student_int8"],
               "distilled": tests["distilled"]["student"], "labels": tests["labels"]["student"],
               "longer": tests["longer"]["student_fp32"], "longer, plain": tests["longer"]["student_int8"]}  # fmt: skip
        table.append({who: (scores["accuracy"], scores["kl"]) for who, scores in row.items()})
    for who in table[0]:
        points, kls = zip(*(row[who] for row in table), strict=True)
        print(f"{who:<14} accuracy {100 * statistics.mean(points):.2f} %  ({', '.join(f'{100 * p:.2f}' for p in points)})  "
              f"KL {statistics.mean(kls):.4f}")  # fmt: skip
    lost = statistics.mean(row["fp32"][0] - row["plain"][0] for row in table)
    for way in ("distilled", "labels", "longer, plain"):
        regained = statistics.mean(row[way][0] - row["plain"][0] for row in table)
        share = f", {regained / lost:.2f} of it" if lost > 1e-3 else ""
        print(f"{way}: plain rounding loses {100 * lost:.2f} points, regained {100 * regained:.2f}{share}")


def derived(args: argparse.Namespace) -> None:
    """ResNet-56 of the given weights, made smaller in two ways."""
    root = args.out / f"cifar10-jpeg-{args.train}"
    if not root.exists():
        for part, number in (("train", args.train), ("test", args.test)):
            for folder in sorted((args.data / part).iterdir()):
                place = root / part / folder.name
                place.mkdir(parents=True)
                for file in random.Random(0).sample(sorted(folder.iterdir()), number // len(CLASSES)):
                    (place / file.name).symlink_to(file)
    normal = ["dataset.mean=[0.485,0.456,0.406]", "dataset.std=[0.229,0.224,0.225]"]
    classes = ",".join(CLASSES)
    common = [*QUIET, "dataset=image_folder", f"dataset.root={root}", *normal, "teacher=resnet56",
              f"teacher.checkpoint={args.weights}", f"teacher.classes=[{classes}]", "schedule=constant", "T=4", "alpha=0.9",
              f"schedule.train.epochs={args.epochs}", "optimizer=adam", f"optimizer.lr={args.lr}", "baseline=true",
              f"output_dir={args.out}"]  # fmt: skip
    for way in args.ways:
        run = args.out / way
        shutil.rmtree(run, ignore_errors=True)
        started = time.time()
        distill("train", *common, f"student.from_teacher.{way}=0.5", f"run_dir={run}")
        found = summary(run)
        numbers = {who: f"{100 * scores['accuracy']:.1f} %" for who, scores in found["test"].items()}
        print(f"{way}: {numbers}  parameters {found['params']}  {time.time() - started:.0f} s", flush=True)


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def kills(args: argparse.Namespace) -> None:
    """Ten kills at random moments of the stage of 8 bits."""
    words = [*QUIET, "dataset=digits", "teacher=smallcnn", "teacher.widths=[16,32]", "teacher.fit.epochs=1", "student=resnet8x4",
             "student.widths=[8,8,16,16]", "schedule=quantize", "schedule.imitate.epochs=1", "schedule.refine.epochs=1",
             f"schedule.quantize.epochs={args.epochs}", "save_every=5", f"output_dir={args.out}"]  # fmt: skip
    for name in ("whole", "killed"):
        shutil.rmtree(args.out / name, ignore_errors=True)
    distill("train", *words, f"run_dir={args.out / 'whole'}")
    run, draw, done, tries = args.out / "killed", random.Random(0), 0, 0
    line = [sys.executable, "-m", "distill_cli", "train", *words, f"run_dir={run}"]
    while done < args.kills:
        tries += 1
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stderr is not None
        inside = any(said.startswith(("quantize", "going on after")) and is_inside(run) for said in process.stderr)
        time.sleep(draw.uniform(0, 1.0))
        if inside and process.poll() is None and is_inside(run):
            os.killpg(process.pid, signal.SIGKILL)
            done += 1
        process.wait()
        if (run / "summary.json").exists() or tries > 4 * args.kills:
            raise SystemExit(f"over after {done} kills: let it have more epochs")
    subprocess.run(line, check=True, capture_output=True)
    same = [(args.out / name / "student.safetensors").read_bytes() for name in ("whole", "killed")]
    tests = [summary(args.out / name)["test"] for name in ("whole", "killed")]
    print(f"{done} kills inside the stage: weights {'the same' if same[0] == same[1] else 'OTHERS'}, "
          f"numbers {'the same' if tests[0] == tests[1] else 'OTHERS'}")  # fmt: skip


def is_inside(run: Path) -> bool:
    """Whether a run's last checkpoint is one of 8 bits."""
    import torch

    try:
        return bool(torch.load(run / "checkpoints" / "last.pt", weights_only=True).get("edits"))
    except (FileNotFoundError, RuntimeError, EOFError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=("bits", "derived", "kills"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("outputs/compress"))
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--train", type=int, default=10_000, help="training samples")
    parser.add_argument("--test", type=int, default=1_000, help="test pictures")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ways", nargs="+", default=["prune", "low_rank"])
    args = parser.parse_args()
    args.out = args.out.resolve()
    sys.path.insert(0, str(ROOT))
    {"bits": bits, "derived": derived, "kills": kills}[args.row](args)


if __name__ == "__main__":
    main()
