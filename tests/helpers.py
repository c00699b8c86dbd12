"""Small real data, and the command line as a user types it, for the tests beside this file."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill_cli.cli import main
from distill_cli.config.records import read as record
from distill_cli.config.schema import Optimizer
from distill_cli.data import Batch, Data, Part, PictureSpec, Split
from distill_cli.data.augmentation import Augmentation
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Held, Source
from distill_cli.models import Classifier, inference
from distill_cli.models.features import Output, Tap
from distill_cli.objectives import Loss
from distill_cli.tasks import task as tasks
from distill_cli.tasks.rows import Dense, Rows
from distill_cli.tasks.task import Ask
from distill_cli.training import loop
from distill_cli.training.loop import Pace
from distill_cli.training.optim import Recipe
from distill_cli.training.schedule import Stage
from distill_cli.training.state import State

ROOT = Path(__file__).parent.parent

# A whole two-stage job in seconds: digits, a small CNN as the teacher, one epoch each.
QUICK = [
    "teacher=smallcnn",
    "teacher.widths=[16,32]",
    "student=tinycnn",
    "teacher.fit.epochs=1",
    "schedule.imitate.epochs=1",
    "schedule.refine.epochs=1",
    "optimizer.lr=0.003",
    "report=false",
]


def picture_split(
    pictures: Any,
    labels: Tensor,
    workers: int = 0,
    augmentation: Augmentation | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> Split:
    """Pictures in memory, or a data set that reads them, as a split under one mean and deviation for all channels."""
    source = Held(pictures) if isinstance(pictures, Tensor) else Items(pictures)
    return Split(source, labels, PictureSpec(1, (8, 8), (mean,), (std,)), workers, augmentation)


@dataclass(frozen=True)
class Items(Source):
    """Samples that are read one by one, as `dataset[i]`; it may have `take` and `digest`, as a source has."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, rows: Sequence[int]) -> Inputs:
        samples = [self.dataset[row] for row in rows]
        if isinstance(samples[0], Tensor):
            return torch.stack(samples)
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def take(self, rows: np.ndarray) -> Items:
        return Items(self.dataset.take(rows))

    def digest(self) -> str:
        return str(self.dataset.digest())


def pictures_in(part: Split | Part) -> Tensor:
    """The raw pictures (N, C, H, W) of what holds them in memory."""
    held = part.source.held
    assert isinstance(held, Tensor)
    return held


def run_folders(place: Path) -> list[Path]:
    """The run folders below `place`/outputs, oldest first."""
    return sorted(path.parent for path in (place / "outputs").rglob("status.json"))


def only_run(place: Path) -> Path:
    (folder,) = run_folders(place)
    return folder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds" and not key.endswith("_per_second")}


def distill(*words: str) -> int:
    """Type `distill ...` in this process."""
    return main(list(words))


def distill_process(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Type `distill ...` in a process of its own."""
    command = [sys.executable, "-m", "distill_cli", *words]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300)


def killed(*words: str, saves: int, folder: str = "run") -> str:
    """Type `distill ...` in a process that is killed in its save number `saves` + 1 of a run in a folder so called; returns
    what it said.

    The process is a fork of this one: it dies as by kill -9 all the same, and need not import torch first.
    """
    child = os.fork()
    if not child:
        replace, done = Path.replace, []

        def dying(path: Path, target: Path) -> Path:
            if target.name == "last.pt" and target.parent.parent.name == folder:
                done.append(target)
                if len(done) > saves:
                    os.kill(os.getpid(), signal.SIGKILL)
            return replace(path, target)

        Path.replace = dying  # type: ignore[method-assign, assignment]
        with Path("said").open("w", buffering=1) as file:
            sys.stdout = sys.stderr = file
            code = distill(*words)
            file.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    said = Path("said").read_text()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, said
    return said


def rows_from(output: Output, batch: Batch) -> Rows:
    """A classifier's answer to a batch as the rows of a loss."""
    return Rows(output.logits, batch.targets, batch.index, output.features)


def signal_from(output: Output) -> Dense:
    """A teacher's answer as the signal of a loss."""
    return Dense(output.logits, output.features)


def recipe_of(node: dict[str, Any]) -> Recipe:
    """The recipe of an optimizer's node."""
    return Recipe(record(Optimizer, node))


def stored(state: State) -> dict[str, Any]:
    """The state's snapshot as a checkpoint brings it back, loaded without running any code in it."""
    content = io.BytesIO()
    torch.save(state.snapshot(), content)
    content.seek(0)
    loaded: dict[str, Any] = torch.load(content, weights_only=True)
    return loaded


def until(happened: Callable[[], object], process: subprocess.Popen[Any], seconds: float = 120) -> None:
    """Wait for something that a process is to do."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, "it ended before that"
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def make_pictures(root: Path, parts: tuple[str, ...] = ("train", "test"), classes: str = "ab", number: int = 8) -> Path:
    """An image folder whose classes differ in brightness: 16x16 RGB PNG files."""
    rng = np.random.default_rng(0)
    for part in parts:
        for level, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 100, (16, 16, 3)) + level * 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


SAID = {
    "sport": "ball team goal match win",
    "food": "bread soup cook taste salt",
    "music": "song piano choir band tune",
}


def make_texts(root: Path, train: int = 120, test: int = 45) -> Path:
    """Made-up texts of three classes and of many lengths, as train.csv and test.csv; the words of a class are in its texts."""
    draw, between = random.Random(0), ["the", "a", "of", "and", "with", "on", "for", "very"]
    root.mkdir()
    for name, number in (("train", train), ("test", test)):
        with (root / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["text", "label"])
            for label in [*SAID] * (number // 3):
                words = [
                    draw.choice(SAID[label].split() if draw.random() < 0.4 else between)
                    for _ in range(draw.randint(3, 20))
                ]
                table.writerow([" ".join(words), label])
    return root


def make_documents(root: Path) -> Path:
    """Made-up documents of a sentence, some shorter and some longer than 32 bytes, as train.txt, val.txt and test.txt."""
    draw, words = random.Random(0), ["the", "a", "cat", "dog", "sees", "hears", "old", "young", "and", "but", "runs"]
    root.mkdir()
    for name, number in (("train", 24), ("val", 8), ("test", 8)):
        sentences = [" ".join(draw.choices(words, k=draw.randint(2, 18))) for _ in range(number)]
        (root / f"{name}.txt").write_text("\n\n".join(sentences), encoding="utf-8")
    return root


def logits_of(model: Classifier, split: Split, batch_size: int | None = None) -> Tensor:
    """The model's logits (N, C) on a whole split."""
    return torch.cat([output.logits for _, output in inference.outputs(model, split, batch_size)])


class Guide:
    """A frozen teacher that runs live, as the loop asks it."""

    def __init__(self, model: Classifier, layers: Sequence[str] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tap = Tap(self.model.net, layers)

    def __call__(self, batch: Batch, T: float, rows: Rows, layers: Collection[str] = ()) -> Dense:
        return signal_from(self.tap(self.model, batch.inputs))

    def on(self, split: str) -> Ask:
        return lambda batch: Dense(self.tap(self.model, batch.inputs).logits)


def fit(
    state: State,
    stages: Sequence[Stage],
    losses: Mapping[str, Loss],
    data: Data,
    pace: Pace,
    teacher: loop.Teacher | None = None,
) -> Iterator[dict[str, Any] | None]:
    """The training loop on classification."""
    return loop.fit(state, stages, losses, data, tasks.of(data), pace, teacher)


def flip(path: Path, position: int, by: int = 1) -> None:
    """Change one byte of a file; `by` says which of its bits."""
    content = bytearray(path.read_bytes())
    content[position] ^= by
    path.write_bytes(content)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def leftovers(folder: Path) -> list[str]:
    """What a builder may leave behind besides its lock."""
    return [path.name for path in folder.iterdir() if path.name[0] == "." and path.suffix != ".lock"]


def goes_on_as_undisturbed(*words: str, saves: int) -> None:
    """A run here that is killed at its `saves`th save and gone on with ends, to the bit, as one that nothing happened to."""
    run = Path("run")
    assert distill("train", *words, "run_dir=run") == 0
    whole, weights = rows(run), (run / "student.safetensors").read_bytes()
    shutil.rmtree(run)
    killed("train", *words, "run_dir=run", saves=saves)
    assert distill("resume", "run") == 0
    assert [without_times(row) for row in rows(run)] == [without_times(row) for row in whole]
    assert (run / "student.safetensors").read_bytes() == weights
