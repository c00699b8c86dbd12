"""Proves what missing labels and rare classes do: what an epoch shows, what a row counts, what is refused, and that a run
on such data goes on to the same bits.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import QUICK, distill, killed, read_json, rows, without_times
from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.data import Data, Part, assemble
from distill_cli.data.labels import UNKNOWN, balanced_order, row_weights

TARGETS = torch.tensor([0] * 50 + [1] * 20 + [2] * 4 + [UNKNOWN] * 6)
ABC = ("a", "b", "c")
SMALL = [word for word in QUICK if not word.startswith("schedule")]
SMALL += ["dataset.limit=200", "threads=1"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_balanced_epoch_shows_each_class_equally_often_and_is_as_long(epoch: int) -> None:
    order = balanced_order(TARGETS, 3, epoch)
    shown = TARGETS[order]
    assert len(order) == len(TARGETS) and sorted((shown == c).sum().item() for c in range(3)) == [24, 25, 25]
    assert sorted(order[shown == UNKNOWN].tolist()) == list(range(74, 80))  # each once
    assert order[shown == 0].unique().numel() == (shown == 0).sum()  # of a large class none twice
    often = order[shown == 2].bincount(minlength=80)[70:74]
    assert often.max() - often.min() <= 1  # of a small one all alike
    assert torch.equal(order, balanced_order(TARGETS, 3, epoch))
    assert not torch.equal(order, balanced_order(TARGETS, 3, epoch + 1))
    assert not torch.equal(order, balanced_order(TARGETS, 4, epoch))


def mean_by(weights: Tensor, values: Tensor, balanced: bool = False) -> float:
    """The mean over the rows that an epoch shows, those without a label being 0."""
    shown = TARGETS[balanced_order(TARGETS, 0, 1)] if balanced else TARGETS
    known = shown != UNKNOWN
    return float((weights[shown[known]] * values[shown[known]]).sum() / len(shown))


def test_missing_labels_alone_leave_the_mean_over_the_others() -> None:
    weights, values = row_weights(TARGETS, ABC, None, False), torch.tensor([1.0, 10.0, 100.0])
    assert weights is not None
    assert mean_by(weights, values) == pytest.approx((50 * 1 + 20 * 10 + 4 * 100) / 74)
    assert row_weights(TARGETS[:74], ABC, None, False) is None


def test_balanced_weights_make_every_class_count_the_same() -> None:
    weights, values = row_weights(TARGETS, ABC, "balanced", False), torch.tensor([1.0, 10.0, 100.0])
    assert weights is not None and mean_by(weights, values) == pytest.approx(111 / 3)
    assert weights[2] / weights[0] == pytest.approx(50 / 4)


def test_given_weights_keep_their_ratios_and_a_mean_of_1() -> None:
    weights = row_weights(TARGETS, ABC, [1.0, 0.0, 5.0], False)
    assert weights is not None and mean_by(weights, torch.ones(3)) == pytest.approx(1)
    assert weights[1] == 0 and weights[2] / weights[0] == pytest.approx(5)


def test_a_balanced_sampler_leaves_balanced_weights_nothing_to_do() -> None:
    whole = TARGETS[:74]
    assert row_weights(whole, ABC, "balanced", True).tolist() == pytest.approx([1, 1, 1])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("targets", "weights", "balanced", "message"),
    [
        (
            TARGETS,
            [1.0, 2.0],
            False,
            r"dataset\.class_weights: has 2 values, but there are 3 classes\n.*order: a, b, c",
        ),
        (TARGETS, [0.0, 0.0, 0.0], False, "every training sample would count 0"),
        (TARGETS[:70], "balanced", False, r"dataset\.class_weights=balanced: class 'c' has no training samples"),
        (TARGETS[:70], None, True, r"dataset\.sampler=balanced: class 'c' has no training samples"),
        (TARGETS[74:], "balanced", False, r"dataset\.class_weights=balanced: train has no labels"),
        (TARGETS[74:], None, True, r"dataset\.sampler=balanced: train has no labels"),
        (TARGETS[:74].view(-1, 2), None, True, "has several targets"),
    ],
)
def test_what_cannot_be_weighed_is_refused(
    targets: Tensor, weights: str | list[float] | None, balanced: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        row_weights(targets, ABC, weights, balanced)


def part(targets: list[int], first: int = 0) -> Part:
    """Grey pictures of one pixel value each."""
    pixels = torch.arange(first, first + len(targets), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return Part(pixels.contiguous(), np.array(targets))


def assembled(train: list[int]) -> Data:
    how = {"val_fraction": 0.2, "split_seed": 0, "mean": [0.5], "std": [0.5], "note": ""}
    return assemble(part(train), None, part([0, 1], 200), ["a", "b"], **how)  # type: ignore[arg-type]


def test_validation_is_cut_from_what_has_labels_and_from_all_where_nothing_has() -> None:
    half = assembled([0, 1, UNKNOWN, UNKNOWN] * 10)
    assert (len(half.val), len(half.train), len(half.train.labelled)) == (4, 36, 16) and half.val.complete
    assert sorted(half.val.targets.tolist()) == [0, 0, 1, 1]
    none = assembled([UNKNOWN] * 40)
    assert (len(none.val), len(none.train)) == (8, 32) and not len(none.val.labelled) and not none.note


def test_the_labelled_samples_alone_are_the_same_samples() -> None:
    data = assembled([0, 1, UNKNOWN, UNKNOWN] * 10)
    alone = data.labelled().train
    assert alone.complete and torch.equal(alone.targets, data.train.targets[data.train.labelled])
    (batch,) = alone.batches(100)
    (whole,) = data.train.batches(100)
    assert torch.equal(batch.inputs, whole.inputs[data.train.labelled])  # type: ignore[call-overload, arg-type]
    assert assembled([0, 1] * 10).labelled().train.complete


@pytest.mark.parametrize(
    "chosen", [["dataset.sampler=balanced"], ["dataset.class_weights=[9,1,1,1,1,1,1,1,1,1]", "rows_at_once=24"]]
)
def test_a_run_that_makes_up_for_rare_classes_goes_on_to_the_same_bits(tmp_path: Path, chosen: list[str]) -> None:
    words = ["train", *SMALL, "schedule=constant", "schedule.train.epochs=2", "baseline=true", *chosen, "run_dir=run"]
    assert distill(*words, "save_every=1") == 0
    whole, weights = rows(tmp_path / "run"), (tmp_path / "run" / "student.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run")
    killed(*words, "save_every=1", saves=3)
    assert distill("resume", "run") == 0
    assert [without_times(row) for row in rows(tmp_path / "run")] == [without_times(row) for row in whole]
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == weights
    # The teacher and the labels-only student learn so too: they are others than those of a run without.
    plain = [word for word in words if word not in chosen]
    assert distill(*plain, "run_dir=plain") == 0
    for place in ("teachers", "baselines"):
        assert len(list((tmp_path / "outputs" / place).glob("[!.]*"))) == 2
    assert read_json(tmp_path / "plain" / "summary.json")["val"] != read_json(tmp_path / "run" / "summary.json")["val"]


def test_weights_of_classes_are_said_and_a_wrong_number_of_them_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SMALL, "schedule=constant", "run_dir=run"]
    assert distill(*words, "dataset.class_weights=[1,2]") == 2
    assert "has 2 values, but there are 10 classes" in capsys.readouterr().err
    chosen = ["dataset.class_weights=balanced", "dataset.sampler=balanced"]
    assert distill(*words, *chosen) == 0
    said = capsys.readouterr()
    assert "classes weigh 1 to 1; an epoch shows each class equally often" in said.out
    assert "dataset.class_weights=balanced has no effect with dataset.sampler=balanced" in said.err
