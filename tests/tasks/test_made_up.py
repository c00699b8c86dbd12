"""Proves that no type under the loop knows pictures: a task of the test's own, whose inputs are dictionaries of variable
length and whose samples have several rows, some of them masked, is trained, cached, resumed and evaluated by the command
line as pictures are. It is a user's module; the package knows nothing of it.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from helpers import distill, killed, read_json, rows, without_times

CODE = '''
"""Sequences of words, each word to be tagged with one of 50 tags, unless nobody knows its tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from distill_cli.base.names import fingerprint
from distill_cli.data import Data, Split
from distill_cli.data.source import Held
from distill_cli.data.spec import Spec
from distill_cli.tasks.classification import ClassificationMeter
from distill_cli.tasks.details import ClassificationDetails
from distill_cli.tasks.rows import Rows
from distill_cli.tasks.task import Task

TAGS, WORDS, LONGEST, UNKNOWN = 50, 200, 9, -100


@dataclass(frozen=True)
class Sequences(Spec):
    longest: int
    kind, unit, at_once = "sequences", "sequences", 16

    @classmethod
    def read(cls, stored, folder):
        return cls(int(stored["longest"]))

    def as_card(self):
        return {"_target_": "madeup.Sequences", "longest": self.longest}

    def words(self):
        return f"up to {self.longest} words"

    def example(self, number, device=None):
        ids = torch.zeros(number, self.longest, dtype=torch.int64, device=device)
        return {"ids": ids, "known": torch.ones_like(ids, dtype=torch.bool)}

    def arguments(self):
        return {"num_words": WORDS}

    def check(self, other):
        assert isinstance(other, Mapping) or other == self

    def inputs(self, raw):
        """A batch as long as its longest sequence."""
        longest = int(raw["known"].sum(1).max())
        return {name: values[:, :longest] for name, values in raw.items()}

    def shown(self, raw):
        return {"text": " ".join(map(str, raw["ids"][0].tolist()))}


class Tagger(nn.Module):
    def __init__(self, num_classes: int, num_words: int, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.words, self.drop = nn.Embedding(num_words, width), nn.Dropout(dropout)
        self.mix, self.head = nn.Conv1d(width, width, 3, padding=1), nn.Linear(width, num_classes)

    def forward(self, inputs):
        words = self.words(inputs["ids"]) * inputs["known"][..., None]
        return self.head(self.drop(words + self.mix(words.mT).mT.relu()))


class Tagging(Task):
    unit, best = "words", ("-nll",)

    def mask(self, targets):
        return targets != UNKNOWN

    def rows(self, output, batch) -> Rows:
        return super().rows(output, replace(batch, targets=batch.targets[:, : output.logits.shape[1]]))

    def check(self, output, role):
        assert output.logits.shape[0] == 2 and output.logits.shape[2] == TAGS

    def meter(self):
        return ClassificationMeter(TAGS)

    def difference(self, ours, theirs):
        delta, half = ours.difference(theirs)
        return {"accuracy": delta, "half_interval": half}

    def details(self):
        return ClassificationDetails(self.data)


def sequences(seed: int = 0) -> Data:
    draw = torch.Generator().manual_seed(seed)
    tag_of = torch.randint(0, TAGS, (WORDS,), generator=draw)

    def split(number: int) -> Split:
        ids = torch.randint(0, WORDS, (number, LONGEST), generator=draw)
        lengths = torch.randint(2, LONGEST + 1, (number,), generator=draw)
        known = torch.arange(LONGEST) < lengths[:, None]
        tagged = known & (torch.rand(number, LONGEST, generator=draw) < 0.8)
        return Split(Held({"ids": ids, "known": known}), torch.where(tagged, tag_of[ids], UNKNOWN), Sequences(LONGEST))

    parts = {name: split(number) for name, number in (("train", 90), ("val", 30), ("test", 30))}
    digest = fingerprint([part.source.digest() for part in parts.values()])
    return Data(**parts, classes=tuple(f"tag {n}" for n in range(TAGS)), digest=digest, note="made up",
                task="madeup.Tagging")
'''

WORDS = ["dataset=sequences", "teacher=tagger", "teacher.width=32", "student=tagger", "teacher.fit.epochs=3", "baseline=true",
         "batch_size=16", "schedule.imitate.epochs=2", "schedule.refine.epochs=2", "report=false", "optimizer.lr=0.02",
         "threads=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "madeup.py").write_text(CODE)
    for group, target, keys in (("dataset", "sequences", ""), ("model", "Tagger", "width: 8\n")):
        (tmp_path / "conf" / group).mkdir(parents=True)
        name = target.lower()
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(f"# made up\n_target_: madeup.{target}\n{keys}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "madeup", raising=False)


def test_it_trains_through_two_stages_and_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *WORDS, "run_dir=run") == 0
    said = capsys.readouterr()
    assert "90 train, 30 val, 30 test, 50 classes, up to 9 words" in said.out
    assert "its logits are cached" in said.out and "words/s" in said.err
    summary, epochs = read_json(tmp_path / "run" / "summary.json"), rows(tmp_path / "run")
    assert [row["step"] for row in epochs] == [6, 12, 18, 24]  # a step counts samples
    best = min(epochs, key=lambda row: row["val"]["nll"])  # the task's own criterion
    assert summary["best"]["epoch"] == best["epoch"]
    assert (
        summary["test"]["student"]["nll"] < 3.9 < summary["test"]["baseline"]["nll"] + 1
    )  # ln 50: something was learnt
    assert {"kl", "agreement"} <= summary["test"]["student"].keys() and "words_per_second" in summary
    assert len(read_json(tmp_path / "run" / "evaluation.json")["samples"]) == 12
    # evaluated anew, from the folder and with rows of several a sample
    command = ["eval", "ckpt=run", "trust=[madeup]", "predictions=p.csv"]
    assert distill(*command) == 0
    again = read_json(tmp_path / "run" / "eval" / "sequences-test.json")["student"]
    assert again == pytest.approx(summary["test"]["student"], rel=1e-5)
    with (tmp_path / "p.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert 30 < len(lines) < 270 and {int(line["index"]) for line in lines} == set(range(30))
    right = sum(line["label"] == line["predicted"] for line in lines) / len(lines)
    assert right == pytest.approx(again["accuracy"])


def test_a_cached_teacher_and_a_live_one_teach_the_same(tmp_path: Path) -> None:
    for cache in ("auto", "off"):
        assert distill("train", *WORDS, f"teacher.cache={cache}", f"run_dir={cache}") == 0
    cached, live = (rows(tmp_path / name) for name in ("auto", "off"))
    for one, other in zip(cached, live, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.parametrize("more", ["optimizer.accumulate=3", "rows_at_once=7"])
def test_a_step_that_is_cut_learns_the_same(more: str, tmp_path: Path) -> None:
    # dropout draws other numbers in the parts of a batch
    quiet = ["+student.dropout=0.0", "baseline=false"]
    for number, words in enumerate([[], [more]]):
        assert distill("train", *WORDS, *quiet, *words, f"run_dir=run{number}") == 0
    for one, other in zip(rows(tmp_path / "run0"), rows(tmp_path / "run1"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)  # shares are of rows, not of samples


def test_killed_and_gone_on_with_it_is_the_same_to_the_bit(tmp_path: Path) -> None:
    assert distill("train", *WORDS, "save_every=4", "run_dir=run") == 0
    whole, weights = rows(tmp_path / "run"), (tmp_path / "run" / "student.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run")
    killed("train", *WORDS, "save_every=4", "run_dir=run", saves=4)
    assert distill("resume", "run") == 0
    assert [without_times(row) for row in rows(tmp_path / "run")] == [without_times(row) for row in whole]
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == weights


def test_ragged_rows_come_back_by_sample() -> None:
    from distill_cli.teachers.keeping import Logits
    from distill_cli.teachers.kept import Answers

    starts = torch.tensor([0, 2, 2, 5, 6])
    answers = Answers(Logits(1), {"logits": torch.arange(6.0)[:, None]}, {}, starts)
    assert answers.on(torch.tensor([3, 0, 2])).logits()[:, 0].tolist() == [5, 0, 1, 2, 3, 4]
    assert len(answers.on(torch.tensor([1]))) == 0
