"""Proves that large caches are right: fp16 rows, blocks compared when they are touched, builds that go on where they were."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import QUICK, Items, distill, flip, leftovers, picture_split, visible
from torch import Tensor

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.base.names import size
from distill_cli.base.sums import BLOCK
from distill_cli.data import Split
from distill_cli.models import inference
from distill_cli.objectives.logits import kd
from distill_cli.runs import store, writing
from distill_cli.tasks.rows import Rows
from distill_cli.teachers import ordering
from distill_cli.teachers.keeping import Hidden, Logits, halved

SMALL = [*QUICK, "teacher.widths=[4]", "student.widths=[2]", "teacher.fit.epochs=0", "threads=1"]


# --- fp16


def rows_of(logits: Tensor) -> Rows:
    none = torch.zeros(len(logits), dtype=torch.int64)
    return Rows(logits, none, none)


@pytest.mark.parametrize("spread", [0.5, 5.0, 30.0])
@pytest.mark.parametrize("T", [1.0, 2.0, 3.0, 4.0])
def test_the_gradient_of_kd_is_nearly_the_same_from_fp16_rows(T: float, spread: float) -> None:
    draw = torch.Generator().manual_seed(0)
    theirs = spread * torch.randn(256, 1000, generator=draw) + 50 * torch.randn(256, 1, generator=draw)
    ours = torch.randn(256, 1000, generator=draw, dtype=torch.float64)
    keeper = Logits(1000, half=True)
    kept = keeper.unpack(keeper.pack(rows_of(theirs)), {}).logits()
    gradients = []
    for teacher in (theirs.double(), kept.double()):
        student = ours.clone().requires_grad_()
        kd(student, teacher, temperature=T).backward()
        gradients.append(student.grad)
    exact, rounded = gradients
    assert exact is not None and rounded is not None
    assert (rounded - exact).norm() / exact.norm() <= 0.002
    assert torch.equal(kept.argmax(-1), theirs.argmax(-1))


def test_logits_that_fp16_cannot_hold_are_kept_all_the_same_and_hidden_states_are_refused() -> None:
    logits = torch.tensor([[1e5, -1e6, 1e5 - 2.0]])
    keeper = Logits(3, half=True)
    found = keeper.unpack(keeper.pack(rows_of(logits)), {}).logits()
    assert torch.equal(found.softmax(-1), logits.softmax(-1))
    hidden = Hidden(3, lambda states: states, half=True)
    with pytest.raises(ConfigError, match="hidden states go beyond"):
        hidden.pack(rows_of(logits))


def test_fp16_is_chosen_above_four_gib_or_as_it_is_said() -> None:
    assert [halved("auto", size) for size in (2**32, 2**32 + 1)] == [False, True]
    assert halved("fp16", 1) and not halved("fp32", 2**40)


def test_a_run_keeps_train_in_fp16_where_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dtype in ("fp32", "fp16", "auto"):
        assert distill("train", *SMALL, f"teacher.cache_dtype={dtype}", f"run_dir={dtype}") == 0
        assert ("its logits in fp16 are cached" in " ".join(capsys.readouterr().out.split())) == (dtype == "fp16")
    found = [entry.card for entry in store.entries(tmp_path / "outputs" / "cache")]
    kinds = sorted((c["ingredients"]["split"], c["arrays"]["logits"]["dtype"]) for c in found)
    assert kinds == [("test", "<f4"), ("train", "<f2"), ("train", "<f4"), ("val", "<f4")]


# --- blocks that are compared when they are touched

SHAPE = (6000, 16)
EACH = 4 * SHAPE[1]
WORDS = store.Words("asking", "the answers", "do without")
NUMBERS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


class Maker:
    """Asks for an array of six blocks of rows; may be stopped before one of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.made, self.stop = root, list[int](), -1

    def __call__(self, later: bool = True) -> store.Arrays:
        def blocks(there: int = 0) -> Iterator[dict[str, np.ndarray]]:
            for block in range(there, 6):
                if block == self.stop:
                    raise KeyboardInterrupt
                self.made.append(block)
                yield {"logits": NUMBERS[1000 * block : 1000 * (block + 1)]}

        wanted = {"logits": store.Array(SHAPE)}
        return store.arrays(self.root, {}, {}, wanted, blocks, WORDS, blocks, later)

    @property
    def file(self) -> Path:
        (found,) = self.root.glob("[!.]*/logits.npy")
        return found


@pytest.fixture
def ask(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "cache")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGE", 1)


def test_a_damaged_block_is_found_when_it_is_touched_and_made_again(
    large: None, ask: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask().watched and ask.made == [*range(6)]
    flip(ask.file, 3 * BLOCK + 7)
    found = ask()
    assert ask.made == [*range(6)]  # nothing was read yet
    bad = (3 * BLOCK + 7) // EACH
    found.check("logits", np.array([0, 5, 1000, 5999]))
    assert np.array_equal(found["logits"][[0, 5, 1000, 5999]], NUMBERS[[0, 5, 1000, 5999]])
    with pytest.raises(
        CheckpointError, match=r"logits\.npy is not what was written \(the SHA-256 of block 4 of 6 differs\)"
    ):
        found.check("logits", np.array([bad]))
    capsys.readouterr()
    again = ask()
    assert "making it again" in capsys.readouterr().err and ask.made == [*range(6)] * 2
    again.check("logits", None)
    assert np.array_equal(again["logits"], NUMBERS)


def test_whoever_cannot_watch_has_all_of_it_compared_at_once(large: None, ask: Maker) -> None:
    ask()
    flip(ask.file, -1)
    assert not ask(later=False).watched and ask.made == [*range(6)] * 2
    flip(ask.file.with_name("logits.sums"), 0)
    assert np.array_equal(ask()["logits"], NUMBERS) and ask.made == [*range(6)] * 3


def test_a_small_array_is_compared_at_once(ask: Maker) -> None:
    ask()
    flip(ask.file, -1)
    assert not ask().watched and ask.made == [*range(6)] * 2


def test_a_run_stops_at_a_damaged_block_and_the_next_makes_it_again(
    large: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert distill("train", *SMALL, "run_dir=whole") == 0
    (train,) = (e for e in store.entries(tmp_path / "outputs" / "cache") if e.card["ingredients"]["split"] == "train")
    flip(train.folder / "logits.npy", -1)
    assert distill("train", *SMALL, "run_dir=run") == 4
    assert "logits.npy is not what was written" in capsys.readouterr().err
    assert distill("resume", "run") == 0
    assert "making it again" in capsys.readouterr().err
    whole, resumed = (Path(f"{run}/student.safetensors").read_bytes() for run in ("whole", "run"))
    assert whole == resumed


# --- builds that go on


@pytest.mark.parametrize("kind", ["usual", "large"])
def test_an_interrupted_build_goes_on_from_its_finished_blocks(
    ask: Maker, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "large":
        monkeypatch.setattr(writing, "LARGE", 1)
    ask()
    whole = {path.name: path.read_bytes() for path in ask.file.parent.iterdir()}
    shutil.rmtree(ask.root)
    monkeypatch.setattr(writing, "SAVED", 0.0)
    ask.made, ask.stop = [], 4
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert visible(ask.root) == [] and ask.made == [0, 1, 2, 3]
    capsys.readouterr()
    ask.stop = -1
    found = ask()
    assert ask.made == [0, 1, 2, 3, 4, 5] and "going on after 4,000 rows" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in ask.file.parent.iterdir()} == whole
    found.check("logits", None)
    assert leftovers(ask.root) == []


@pytest.mark.parametrize("harm", ["a byte", "cut", "no progress"])
def test_what_was_left_is_not_taken_where_it_is_not_what_was_written_down(
    ask: Maker, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SAVED", 0.0)
    ask.stop = 3
    with pytest.raises(KeyboardInterrupt):
        ask()
    (left,) = ask.root.glob(".*.making")
    file = left / {"no progress": writing.PROGRESS}.get(harm, "logits.npy")
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        flip(file, 5000 if harm == "a byte" else 5)
    ask.stop = -1
    assert np.array_equal(ask()["logits"], NUMBERS) and ask.made == [0, 1, 2, *range(6)]


def test_a_teacher_that_was_stopped_answers_the_rest_and_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def entry() -> bytes:
        (found,) = (
            e for e in store.entries(tmp_path / "outputs" / "cache") if e.card["ingredients"]["split"] == "train"
        )
        return (found.folder / "logits.npy").read_bytes()

    assert distill("train", *SMALL, "run_dir=whole") == 0
    whole = entry()
    shutil.rmtree(tmp_path / "outputs" / "cache")
    monkeypatch.setattr(writing, "SAVED", 0.0)
    append, done = writing.Writing._append, list[int]()

    def stopping(self: Any, name: str, values: np.ndarray) -> None:
        done.append(len(values))
        if self.shapes[name].shape[0] > 1000 and self.blocks == 5:
            monkeypatch.setattr(writing.Writing, "_append", append)
            raise KeyboardInterrupt
        append(self, name, values)

    monkeypatch.setattr(writing.Writing, "_append", stopping)
    assert distill("train", *SMALL, "run_dir=run") == 130
    capsys.readouterr()
    assert distill("train", *SMALL, "run_dir=run") == 0
    assert "going on after 640 rows that are there" in capsys.readouterr().err
    assert entry() == whole


@dataclass(frozen=True)
class Mixed(Items):
    """Samples that are shown in an order of their own."""

    def arranged(self, order: Tensor, batch_size: int, draw: Any = None) -> Tensor:
        return torch.cat([part.flip(0) for part in order.split(10)])


def test_the_batches_behind_a_block_are_those_it_was_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "at_once", lambda model, split: 4)
    plain = picture_split([torch.zeros(1, 8, 8)] * 53, torch.zeros(53, dtype=torch.int64))
    split = Split(Mixed(plain.source), plain.targets, plain.spec)
    order = split.source.arranged(torch.arange(53), 4)
    batches = list(order.split([4] * 12 + [5]))
    blocks, seen = list(ordering.in_order(((index, {"x": index}) for index in batches), None)), 0
    assert len(blocks) > 2 and np.array_equal(np.concatenate([block["x"] for block in blocks]), np.arange(53))
    for number, block in enumerate(blocks[:-1], 1):
        seen += len(block["x"])
        skip, first = ordering.after(number, None, split)  # type: ignore[arg-type]
        assert first == seen and sum(map(len, batches[:skip])) == seen
        rest = ordering.in_order(((index, {"x": index}) for index in batches[skip:]), None, first)
        assert np.array_equal(np.concatenate([block["x"] for block in rest]), np.arange(first, 53))
    assert ordering.after(0, None, split) == (0, 0)  # type: ignore[arg-type]


# --- what it would take


def test_a_dry_run_tells_what_a_run_then_keeps_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "objective=[kd,hint]", "teacher.cache_dtype=fp16"]
    assert distill("train", *words, "--dry-run") == 0
    shown = capsys.readouterr().out
    told = {
        split: line.split()[3:5]
        for line in shown.splitlines()
        for split in ("train", "val", "test")
        if f" {split} " in line
    }
    assert "Nothing was kept or trained" in shown and not list((tmp_path / "outputs").glob("*/*"))
    assert distill("train", *words, "run_dir=run") == 0
    for entry in store.entries(tmp_path / "outputs" / "cache"):
        arrays = [np.load(path, mmap_mode="r") for path in entry.folder.glob("*.npy")]
        assert " ".join(told[entry.card["ingredients"]["split"]]) == size(sum(array.nbytes for array in arrays))


def test_a_dry_run_says_where_nothing_would_be_kept_and_is_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *SMALL, "teacher.cache=off", "--dry-run") == 0
    assert "nothing of the teacher's answers would be kept" in capsys.readouterr().out
    assert distill("train", *SMALL, "-m", "T=1,2", "--dry-run") == 2
    assert "--dry-run: tells of one run" in capsys.readouterr().err
