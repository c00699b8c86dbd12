"""Proves that a teacher answers for the classes, at the size and under the normalisation it was trained with, or is refused."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import distill, make_pictures, read_json
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config.load import load as load_settings
from distill_cli.data import PictureSpec
from distill_cli.models import build
from distill_cli.models.naming import order_of, typed
from distill_cli.teachers.prepare import prepare
from distill_cli.training import job as jobs
from distill_cli.training.job import Job

NET = ["teacher=smallcnn", "teacher.widths=[4]", "student=tinycnn", "student.widths=[2]"]
DATA = ["dataset=image_folder", "dataset.root=pictures"]
SHORT = [*NET, *DATA, "schedule=constant", "schedule.train.epochs=1", "report=false"]
FIT = ["teacher.fit.epochs=25", "teacher.fit.lr=0.03"]
NAMES = ["10", "2", "9"]  # as folders are sorted; by number the last is the second


def folder(place: str, names: list[str]) -> Path:
    """Pictures of three classes that differ in brightness, those of one name always the same ones."""
    make_pictures(Path("plain"), classes="abc")
    for part in ("train", "test"):
        for plain, name in zip("abc", names, strict=True):
            shutil.copytree(Path("plain") / part / plain, Path(place) / part / name)
    shutil.rmtree("plain")
    return Path(place)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a teacher of the three classes, which knows them, lies with its pictures."""
    place = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(place):
        folder("pictures", NAMES)
        assert distill("teacher", *NET, *DATA, *FIT) == 0
        (home,) = Path("outputs/teachers").glob("[!.]*")
        assert read_json(home / "teacher.json")["test"]["accuracy"] > 0.9
    return place


@pytest.fixture
def teacher(trained: Path) -> Path:
    shutil.copytree(trained, ".", dirs_exist_ok=True)
    return next(Path("outputs/teachers").glob("[!.]*"))


def permuted(home: Path, place: list[int]) -> dict[str, Tensor]:
    """The teacher's weights with its classes in another order."""
    weights = load_file(home / "teacher.safetensors")
    return {name: tensor[place].clone() if name.startswith("fc.") else tensor for name, tensor in weights.items()}


def job(*words: str) -> Job:
    return jobs.read(load_settings("train", [*SHORT, *words]))


def accuracy(*words: str) -> float:
    """The test accuracy of a teacher that is prepared for the pictures."""
    one = job(*words)
    facts = prepare(one.teachers["teacher"], one.chosen["teacher"], one.data, one.settings, "teacher").facts
    return float(facts["test"]["accuracy"])


BESIDE: dict[str, Any] = {
    "class_to_idx": {"2": 0, "9": 1, "10": 2},
    "idx_to_class": {0: "2", 1: "9", 2: "10"},
    "classes": ["2", "9", "10"],
    "meta": {"CLASSES": ("2", "9", "10")},
    "config": {"id2label": {"2": "10", "0": "2", "1": "9"}},
}


@pytest.mark.parametrize("key", BESIDE)
def test_a_file_that_lists_its_classes_answers_for_the_datas(key: str, teacher: Path) -> None:
    torch.save({"state_dict": permuted(teacher, [1, 2, 0]), key: BESIDE[key]}, "theirs.pth")
    assert accuracy("teacher.checkpoint=theirs.pth") > 0.9


def test_classes_in_another_order_are_warned_about_and_the_line_to_type_mends_them(
    teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(permuted(teacher, [1, 2, 0]), "theirs.pth")
    words = [*SHORT, "teacher.checkpoint=theirs.pth", "dataset.val_fraction=0.5"]
    assert distill("train", *words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "is 0.0%; it would be 100.0% with its classes in another order (9 means 10, 10 means 2, 2 means 9)" in said
    line = shlex.split(re.findall(r"'teacher.classes=.*?'", said)[0])[0]
    assert line == "teacher.classes=[2,9,10]"
    assert distill("train", *words, line) == 0
    told = capsys.readouterr()
    assert "another order" not in told.err and "its 3 classes matched by name" in " ".join(told.out.split())
    assert accuracy("teacher.checkpoint=theirs.pth", "dataset.val_fraction=0.5", line) > 0.9


def test_our_own_folder_serves_data_whose_classes_are_called_or_sorted_otherwise(teacher: Path) -> None:
    shutil.rmtree("pictures")
    folder("pictures", ["Nr 1", "Nr 2", "Nr 3"])
    assert distill("train", *SHORT, *FIT, "run_dir=run") == 0
    (mine,) = set(Path("outputs/teachers").glob("[!.]*")) - {teacher}
    shutil.rmtree("pictures")
    folder("pictures", ["nr_1", "Nr-2", "NR-3"])
    assert job().data.classes == ("NR-3", "Nr-2", "nr_1")
    assert accuracy(f"teacher.checkpoint={mine}") > 0.9
    # of its classes the data may have some only
    for part in ("train", "test"):
        shutil.rmtree(Path("pictures") / part / "Nr-2")
    one = job(f"teacher.checkpoint={mine}")
    assert one.teachers["teacher"].order is not None and one.teachers["teacher"].order.tolist() == [2, 0]
    assert accuracy(f"teacher.checkpoint={mine}") > 0.9
    # and a finished student is measured on them: it may answer any class that it knows
    assert distill("eval", "ckpt=run", "dataset.root=pictures") == 0
    assert read_json(next(Path("run/eval").iterdir()))["samples"] == 16


def test_a_teacher_that_does_not_know_the_datas_classes_is_refused_with_the_lines_to_type(
    teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("pictures")
    folder("pictures", ["ant", "bee", "cat"])
    with pytest.raises(
        CheckpointError, match=r"other classes \(3: 10, 2, 9\): it does not know ant, bee, cat\n.*fit.*classes="
    ):
        job(f"teacher.checkpoint={teacher}")
    with pytest.raises(ConfigError, match="the data's bee is not among its 3 names; did you mean"):
        job(f"teacher.checkpoint={teacher}", "teacher.classes=[ant,bea,cat]")
    assert accuracy(f"teacher.checkpoint={teacher}", "teacher.classes=[ant,bee,cat]") > 0.9
    job(f"teacher.checkpoint={teacher}", "teacher.fit.epochs=1")  # it is to learn them
    assert "was trained on other classes (3: 10, 2, 9); the fit is to teach" in " ".join(
        capsys.readouterr().err.split()
    )
    more = ["+model@teachers.more=smallcnn", "+teachers.more.widths=[4]", f"+teachers.more.checkpoint={teacher}"]
    with pytest.raises(
        CheckpointError, match=r"teachers\.more\.fit\.epochs=6 .*teachers\.more\.classes=\[ant,bee,cat\]"
    ):
        job(*more)


def test_names_are_matched_letter_by_letter_or_else_by_what_is_read() -> None:
    assert order_of(["a", "b"], ["a", "b"]) == (None, [])
    assert order_of(["b", "A", "a"], ["a", "b"]) == ([2, 0], [])
    assert order_of(["great_white", "Tench"], ["tench ", "Great White"]) == ([1, 0], [])
    assert order_of(["A", "a", "c"], ["a", "C"]) == (None, ["a"])  # which of the two?
    assert order_of(["crane", "crane", "dog"], ["crane", "dog"]) == (None, ["crane"])
    assert order_of(["a"], ["a", "A"]) == (None, ["a", "A"])
    assert shlex.split(typed("k", ["a", "007", "1", "it's", "null"])) == ['k=[a,"007",1,"it\'s","null"]']


# --- size and normalisation


class FixedViT(nn.Module):
    """A user's transformer in little: positions for 4 x 4 patches of 4 pixels, and no others."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.places = nn.Parameter(torch.zeros(1, 16, 8))
        self.head = nn.Linear(8, num_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        assert pictures.shape[-1] == 16, f"16 pixels, not {pictures.shape[-1]}"
        tokens = self.patches(pictures).flatten(2).transpose(1, 2) + self.places
        answer: Tensor = self.head(tokens.mean(1))
        return answer


VIT = {"_target_": f"{__name__}.FixedViT"}
COLOUR = PictureSpec(3, (32, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.mark.parametrize(
    ("role", "key"),
    [("teacher", "teacher.size=16"), ("student", "dataset.size=16"), ("teachers.b", "teachers.b.size=16")],
)
def test_a_network_of_one_size_tells_which(role: str, key: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{role}: cannot take pictures of 3x32x32: AssertionError: 16 pixels, not 32"
    ) as e:
        build(VIT, role, COLOUR, 4)
    assert e.value.hint == f"it takes 16x16: {key}" and "(test_origin.py, line" in e.value.message


def test_a_teacher_of_another_size_sees_the_pictures_resized_and_under_its_normalisation() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model = build({**VIT, "size": 16, "mean": mean, "std": std}, "teacher", COLOUR, 4).eval()
    raw = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    shaped = [torch.tensor(v).view(1, -1, 1, 1) for v in (COLOUR.mean, COLOUR.std, mean, std)]
    by_hand = (F.interpolate(raw, (16, 16), mode="bilinear", antialias=True) - shaped[2]) / shaped[3]
    assert torch.allclose(model((raw - shaped[0]) / shaped[1]), model.net(by_hand), atol=1e-5)


@pytest.mark.parametrize("wrong", [{"mean": [0.5] * 3, "std": [0.2] * 2}, {"mean": [0.5] * 2, "std": [0.2] * 3}])
def test_a_normalisation_of_other_channels_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"has 2 values, but the network takes 3 channel\(s\)\ngive one value a channel"
    ):
        build({"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 8, "widths": [4, 4, 4, 4], **wrong}, "teacher",
              COLOUR, 4)  # fmt: skip


def test_the_size_is_part_of_the_teacher_and_of_its_cache(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SHORT, f"teacher.checkpoint={teacher}", "objective=[kd,hint]"]
    for size in ([], ["teacher.size=24"], ["+model@teachers.big=resnet8x4", "+teachers.big.size=24", "objective=kd"]):
        before = {path.name for path in Path("outputs/cache").iterdir()}
        teachers = set(Path("outputs/teachers").glob("[!.]*"))
        # smallcnn's head is made for its input's size: the second must be another network, and is fitted
        chosen = [word for word in words if not (size and word.startswith("teacher.checkpoint"))]
        assert distill("train", *chosen, *size, "teacher.fit.epochs=0") == 0
        assert {path.name for path in Path("outputs/cache").iterdir()} - before
        assert set(Path("outputs/teachers").glob("[!.]*")) - teachers
    assert "from scratch, shown resized to 24x24" in " ".join(capsys.readouterr().out.split())


def test_our_own_folder_brings_its_size_and_normalisation(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = read_json(teacher / "model.json")
    smaller = ["dataset.size=12", "dataset.mean=[0.5]", "dataset.std=[0.25]"]
    one = job(f"teacher.checkpoint={teacher}", *smaller)
    chosen, model = one.chosen["teacher"], one.teachers["teacher"]
    assert (chosen.size, chosen.mean, chosen.std) == (16, card["input"]["mean"], card["input"]["std"])
    assert accuracy(f"teacher.checkpoint={teacher}", *smaller) > 0.6
    assert model.taken.words() == "3x16x16"
    # what is typed comes before what the folder says; and what the data have anyway is not said twice
    typed = job(f"teacher.checkpoint={teacher}", *smaller, "teacher.mean=[0.4]", "teacher.std=[0.3]").chosen["teacher"]
    assert (typed.mean, typed.size) == ([0.4], 16)
    same = job(f"teacher.checkpoint={teacher}").chosen["teacher"]
    assert (same.size, same.mean, same.classes) == (None, None, None)
    # a teacher that was made so is itself a folder to start from
    made = [path for path in Path("outputs/teachers").glob("[!.]*") if path != teacher]
    again = job(f"teacher.checkpoint={made[0]}", *smaller).chosen["teacher"]
    assert (again.size, again.mean) == (16, chosen.mean)
    assert json.dumps(np.asarray(again.std).tolist()) == json.dumps(chosen.std)
