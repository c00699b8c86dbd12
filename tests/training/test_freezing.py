"""Proves what does not learn: a teacher's encoder under its fitted head, and modules of a student that are frozen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, killed, read_json, rows, without_times
from torch import nn

from distill_cli.data import PictureSpec
from distill_cli.models import Classifier
from distill_cli.models.weights import read_weights

HEAD = [*(word for word in QUICK if not word.startswith("teacher.fit")), "teacher.fit.freeze=encoder"]


def teacher_of(place: Path) -> dict[str, torch.Tensor]:
    (folder,) = (place / "outputs" / "teachers").glob("digits-*")
    return read_weights(folder / "teacher.safetensors")


def test_a_head_alone_is_fitted_on_features_that_are_computed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("teacher", *QUICK, "teacher.fit.epochs=3", "teacher.fit.lr=0.01") == 0
    whole = teacher_of(tmp_path)
    (folder,) = (tmp_path / "outputs" / "teachers").glob("digits-*")
    capsys.readouterr()
    line = [*HEAD, f"teacher.checkpoint={folder}", "dataset.label_noise=0.1"]
    assert distill("teacher", *line) == 0
    said = capsys.readouterr()
    assert "asking the encoder of smallcnn about digits, train: 1,293 samples" in said.err
    assert "fitting smallcnn on digits, 30 epoch(s)" in said.err
    (other,) = set((tmp_path / "outputs" / "teachers").glob("digits-*")) - {folder}
    fitted = read_weights(other / "teacher.safetensors")
    moved = {name for name in whole if not torch.equal(whole[name], fitted[name])}
    assert moved and all(fitted[name].shape[0] == 10 for name in moved) and len(moved) == 2  # a weight and a bias
    # another fit asks for the features no more; what the head makes of them is what the whole teacher answers
    assert distill("train", *line, "teacher.fit.lr=0.02", "run_dir=run") == 0
    said = capsys.readouterr()
    assert "encoder of smallcnn" not in said.err and "its head alone is fitted" in said.out
    judged = [json.loads(path.read_text()) for path in (tmp_path / "outputs" / "teachers").glob("*/teacher.json")]
    assert len(judged) == 3 and all(one["val"]["accuracy"] > 0.5 for one in judged)


def test_the_best_epoch_of_a_head_is_the_whole_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("teacher", *HEAD, "teacher.fit.epochs=4", "teacher.fit.lr=0.05") == 0
    told = [
        float(line.split("val acc ")[1].split()[0])
        for line in capsys.readouterr().err.splitlines()
        if "val acc" in line
    ]
    (path,) = (tmp_path / "outputs" / "teachers").glob("*/teacher.json")
    assert read_json(path)["val"]["accuracy"] == pytest.approx(max(told), abs=1e-4)


def test_views_are_kept_each_and_shown_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flipped = [*HEAD, "teacher.fit.epochs=4", "dataset.augmentation.crop=4"]
    assert distill("teacher", *flipped) == 2
    assert "teacher.fit.freeze=encoder: needs the same features in every epoch" in capsys.readouterr().err
    assert distill("teacher", *flipped, "dataset.views=2") == 0
    said = capsys.readouterr().err
    assert "about digits, train, view 0" in said and "about digits, train, view 1" in said


def test_a_killed_fit_of_a_head_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    words = [*HEAD, "teacher.fit.epochs=6", "save_every=10"]
    assert distill("train", *words, "run_dir=whole", "output_dir=one") == 0
    killed("train", *words, "run_dir=run", "output_dir=two", saves=3)
    assert distill("resume", "run") == 0
    assert [without_times(row) for row in rows(tmp_path / "run")] == [
        without_times(row) for row in rows(tmp_path / "whole")
    ]


@pytest.mark.parametrize(
    "words, told",
    [
        (["teacher=torchvision", "teacher.name=squeezenet1_1"], "SqueezeNet has no linear layer to fit"),
        (["teacher.fit.epochs=0"], "teacher.fit.freeze: nothing is fitted: the teacher has teacher.fit.epochs=0"),
        (["teacher.joint=true"], "teacher.fit.freeze: nothing is fitted: the teacher is trained along"),
        (["teacher.fit.freeze=decoder"], "choices: encoder"),
    ],
)
def test_what_cannot_be_fitted_so_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        word for word in HEAD if not word.startswith(("teacher=", "teacher.w")) or "teacher=torchvision" not in words
    ]
    assert distill("train", *given, *words) == 2
    assert told in capsys.readouterr().err


def test_frozen_modules_of_a_student_stay_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, more in {"zero": ["optimizer.lr=1e-30"], "run": ["optimizer.lr=0.01"]}.items():
        assert distill("train", *QUICK, *more, "student.freeze=[features.0]", "baseline=true", f"run_dir={name}") == 0
    assert "9,098 parameters, of which " in capsys.readouterr().out
    before, after = (read_weights(tmp_path / name / "student.safetensors") for name in ("zero", "run"))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {name for name in before if name.startswith("features.0.")}


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.fc(self.pool(self.stem(pictures)).flatten(1))
        return answer


def test_neither_running_statistics_nor_dropout_of_a_frozen_module_move() -> None:
    model = Classifier(Normed(), PictureSpec(1, (8, 8), [0.5], [0.5]))
    model.freeze(["stem"], "student.freeze")
    pictures = torch.rand(4, 1, 8, 8)
    mean = model.net.stem[1].running_mean.clone()  # type: ignore[union-attr, index]
    model.eval()
    quiet = model(pictures)
    model.train()
    assert model.net.fc.training and torch.equal(model(pictures), quiet)  # type: ignore[union-attr]
    assert torch.equal(model.net.stem[1].running_mean, mean)  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "names, told",
    [
        ("[feature]", "student.freeze: there is no module 'feature'; did you mean features? modules: features, fc"),
        ("[features,fc]", "student.freeze: features, fc is all there is, so nothing would learn"),
        ("features", "student.freeze"),
    ],
)
def test_a_module_that_does_not_exist_is_named(names: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, f"student.freeze={names}") == 2
    assert told in capsys.readouterr().err
