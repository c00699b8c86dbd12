"""Proves that a cached teacher teaches what a live one does, that runs say which it is, and when logits are made anew."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import distill, make_pictures, rows, rows_from, without_times
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from distill_cli.base import ui
from distill_cli.base.runtime import sample_order
from distill_cli.config import building, places
from distill_cli.config.load import load as load_settings
from distill_cli.config.records import read as record
from distill_cli.config.schema import Dataset
from distill_cli.data import Batch, Data, load
from distill_cli.data.assembling import within
from distill_cli.models.features import Output
from distill_cli.objectives import Loss, Objective
from distill_cli.pipeline import distillation
from distill_cli.pipeline import words as told
from distill_cli.runs import store
from distill_cli.tasks.rows import Rows, Signal
from distill_cli.teachers import answer
from distill_cli.teachers.answer import Frozen, Teacher
from distill_cli.teachers.way import Way, way_of
from distill_cli.training import job as jobs
from distill_cli.training.job import Job

# A run of a second: 3 x 8 pictures of 16 x 16 pixels less those for validation, one epoch, an untrained teacher.
TINY = [
    "teacher=smallcnn",
    "teacher.widths=[4]",
    "teacher.fit.epochs=0",
    "student=tinycnn",
    "student.widths=[2]",
    "schedule=constant",
    "schedule.train.epochs=1",
    "batch_size=5",
    "dataset=image_folder",
    "dataset.root=pictures",
]
AUGMENTED = ["dataset.augmentation.crop=2", "dataset.augmentation.flip=true"]
VIEWS = [*AUGMENTED, "dataset.views=2"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", classes="abc")


def line(*words: str) -> list[str]:
    """TINY and more; whoever chooses another teacher or schedule says its keys anew."""
    chosen = tuple(group for group in ("teacher", "schedule") if any(word.startswith(f"{group}=") for word in words))
    return [*(word for word in TINY if not word.startswith(chosen)), *words]


class Taught(NamedTuple):
    job: Job
    way: Way
    teacher: Teacher


def read(*words: str) -> Job:
    """The job that a command line describes, as `distill train` sets it up."""
    return jobs.read(load_settings("train", line(*words)))


def taught(*words: str) -> Taught:
    """What `distill train` has in hands when training starts."""
    job = read(*words)
    way = way_of(job)
    weights = {name: one.weights for name, one in distillation.prepare_all(job, way).items()}
    return Taught(job, way, answer.start(job, way, weights))


def kept(root: Path = Path("outputs")) -> dict[str, str]:
    """Which logits each entry of the cache holds: train, or train, view 1; val; test."""
    return {entry.folder.name: entry.card["about"]["split"] for entry in store.entries(root / "cache")}


def made(before: dict[str, str], root: Path = Path("outputs")) -> list[str]:
    return sorted(split for name, split in kept(root).items() if name not in before)


# --- the same lesson


@pytest.mark.parametrize("how", [[], VIEWS], ids=["as they are", "augmented"])
def test_cached_features_are_those_of_a_live_teacher(how: list[str], pictures: Path) -> None:
    words = ["objective=[hint,kd]", "teacher=resnet8x4", "teacher.widths=[4,4,4,8]", "schedule.train.epochs=2", *how]
    cached, live = taught(*words, "teacher.cache=on"), taught(*words, "teacher.cache=off")
    assert (cached.way.kind, live.way.kind) == ("cached", "live")
    (layer,) = cached.way.layers
    for (_, ours), (_, theirs) in zip(lessons(cached), lessons(live), strict=True):
        assert ours.features[layer].shape == theirs.features[layer].shape and ours.features[layer].dim() == 4
        assert torch.allclose(ours.features[layer], theirs.features[layer], rtol=1e-4, atol=1e-5)
        assert torch.allclose(ours.logits(), theirs.logits(), rtol=1e-4, atol=1e-5)


def logit_objectives() -> list[str]:
    """The shipped objectives that ask the teacher for logits and nothing else."""
    found = []
    for name, path in places.group_files("objective").items():
        for key, node in OmegaConf.to_container(OmegaConf.load(path), resolve=False).items():
            target = building.check({"_target_": node["_target_"]}, Objective, str(key))
            objective = target()
            if objective.needs_teacher and not objective.teacher_layers:
                found.append(name)
    return found


EVERY_LOSS = f"objective=[{','.join(logit_objectives())}]"


def ask(one: Taught, batch: Batch) -> Signal:
    """The teacher's answer to a batch, about which the student has nothing to say."""
    nothing = torch.zeros(len(batch), len(one.job.data.classes))
    return one.teacher(batch, 1.0, Rows(nothing, batch.targets, batch.index))


def lessons(one: Taught, epochs: int = 4) -> Iterator[tuple[Batch, Signal]]:
    """Every batch of some epochs with the teacher's answer to it, as the training loop shows them."""
    train = one.job.data.train
    for epoch in range(1, epochs + 1):
        for batch in train.batches(5, sample_order(len(train), 0, epoch), train.view_of(epoch)):
            for part in batch.parts(2 if epoch == epochs else 1):
                yield part, ask(one, part)


def test_there_are_objectives_on_logits() -> None:
    assert {"kd", "logit_mse", "logit_sse"} <= set(logit_objectives())


@pytest.mark.parametrize("how", [[], VIEWS], ids=["as they are", "augmented"])
def test_a_cached_teacher_gives_every_batch_the_logits_and_every_loss_of_a_live_one(
    how: list[str], pictures: Path
) -> None:
    # A teacher that would answer otherwise in training, and has learnt a little.
    net = ["teacher=resnet8x4", "teacher.widths=[4,4,4,8]", "teacher.fit.epochs=3", "teacher.fit.lr=0.01"]
    words = [*net, EVERY_LOSS, "schedule.train.epochs=4", *how]
    cached, live = taught(*words, "teacher.cache=on"), taught(*words, "teacher.cache=off")
    assert (cached.way.kind, live.way.kind) == ("cached", "live")
    losses = {name: Loss({name: objective}) for name, objective in cached.job.objectives.items()}
    student = cached.job.student.eval()
    shown: dict[int, list[Tensor]] = {}
    for (batch, ours), (same, theirs) in zip(lessons(cached), lessons(live), strict=True):
        assert torch.equal(batch.inputs, same.inputs)
        assert torch.allclose(ours.logits(), theirs.logits(), rtol=1e-5, atol=1e-5 * theirs.logits().abs().max().item())
        with torch.no_grad():
            answer = rows_from(Output(student(batch.inputs)), batch)
            for name, loss in losses.items():
                (total, terms), (expected, others) = (loss(answer, z, 3.0, 0.7) for z in (ours, theirs))
                assert total.item() == pytest.approx(expected.item(), rel=1e-5), name
                assert terms[name].item() == pytest.approx(others[name].item(), rel=1e-5), name
        shown.setdefault(batch.view, []).append(ours.logits())
    # What was compared is not the same everywhere: two views that differ, and pictures that differ.
    assert sorted(shown) == ([0, 1] if how else [0])
    assert all(torch.cat(logits).std(0).min() > 1e-3 for logits in shown.values())


@pytest.mark.parametrize("how", [[], VIEWS], ids=["as they are", "augmented"])
def test_a_run_with_a_cached_teacher_goes_as_with_a_live_one(
    how: list[str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("on", "off"):
        words = [
            EVERY_LOSS,
            "schedule.train.epochs=3",
            "optimizer.accumulate=2",
            "objective.logit_sse.weight=0.01",
            *how,
        ]
        assert distill("train", *TINY, *words, f"teacher.cache={mode}", f"run_dir={tmp_path / mode}") == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert ("are cached" in shown) == (mode == "on")
        assert ("runs live: teacher.cache=off" in shown) == (mode == "off")
    cached, live = (rows(tmp_path / mode) for mode in ("on", "off"))
    assert set(cached[0]["loss"]) == {"total", "ce", *logit_objectives()}
    assert len(cached) == len(live) == 3
    for ours, theirs in zip(cached, live, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["val"] == pytest.approx(theirs["val"], rel=1e-4)
        assert [ours[key] for key in ("step", "T", "alpha", "lr")] == [
            theirs[key] for key in ("step", "T", "alpha", "lr")
        ]


def test_a_cached_teacher_is_asked_nothing_while_the_student_learns(pictures: Path) -> None:
    for mode, expected in (("on", 0), ("off", 8)):
        one = taught(f"teacher.cache={mode}")
        assert isinstance(one.teacher, Frozen)
        asked: list[int] = []
        one.job.teachers["teacher"].net.register_forward_hook(lambda *_, asked=asked: asked.append(1))
        assert len(list(lessons(one, epochs=1))) == 8
        assert len(asked) == expected
        for split, number in (("val", 3), ("test", 24)):
            (batch,) = getattr(one.job.data, split).batches(64)
            assert one.teacher.on(split)(batch).logits().shape == (number, 3)


def test_a_live_teacher_answers_to_the_pixels_the_student_is_shown(pictures: Path) -> None:
    one = taught(*AUGMENTED)
    assert one.way.kind == "live"
    views = set()
    for batch, said in lessons(one):
        with torch.no_grad():
            assert torch.allclose(said.logits(), one.job.teachers["teacher"](batch.inputs), atol=1e-6)
        views.add(batch.view)
    assert views == {0, 1, 2, 3}


@pytest.mark.parametrize("words", [["teacher.cache=off"], ["teacher.joint=true"], ["teacher.cache=on"]], ids=" ".join)
def test_a_teacher_lets_go_of_its_hooks_and_features_when_the_run_is_over(words: list[str], pictures: Path) -> None:
    one = taught("objective=[hint,kd]", "teacher=resnet8x4", "teacher.widths=[4,4,4,8]", *words)
    (model,) = one.job.teachers.values()

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    with one.teacher:
        assert all(said.features for _, said in lessons(one, epochs=1))
        assert hooks() == (0 if "on" in words[0] else 1)  # what is kept needs no hook
    assert hooks() == 0


def test_a_stage_that_reads_no_features_is_answered_from_the_cache_where_another_runs_live(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = [f"schedule.{name}.epochs=1" for name in ("hint", "imitate", "refine")]
    words = ["schedule=hint_then_kd", "objective=[hint,kd]", *epochs]
    one = taught(*words, "teacher.cache_limit=0")
    said = header_of(one, capsys)
    assert "runs live in hint: its features take" in said and "in imitate, refine its logits are cached, 252 B" in said
    assert made({}) == ["test", "train", "val"]
    (model,), passes = one.job.teachers.values(), list[int]()
    model.net.register_forward_hook(lambda *ignored: passes.append(1))
    batch = next(iter(one.job.data.train.batches(5)))
    blank = Rows(torch.zeros(5, 3), batch.targets, batch.index)
    answers = {name: one.teacher(batch, 1.0, blank, one.job.losses[name].teacher_layers) for name in ("hint", "refine")}
    assert (
        len(passes) == 1 and list(answers["hint"].features) == list(one.way.layers) and not answers["refine"].features
    )
    assert torch.allclose(answers["hint"].logits(), answers["refine"].logits(), atol=1e-5)
    for name, more in (("mixed", ["teacher.cache_limit=0"]), ("live", ["teacher.cache=off"])):
        assert distill("train", *line(*words, *more), f"run_dir={tmp_path / name}") == 0
    for ours, theirs in zip(rows(tmp_path / "mixed"), rows(tmp_path / "live"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


# --- which it is, and why


def header_of(one: Taught, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    ui.show(told.header(one.job, one.way.note))
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said", "splits"),
    [
        ([], "its logits are cached, 252 B", ["train"]),
        (["objective=hint"], "its logits and features are cached", ["train, features"]),
        (["objective=[kd,hint]"], "its logits and features are cached", ["train, features"]),
        (["objective=hint", "teacher.cache_limit=0"], "runs live: its features take", []),
        (AUGMENTED, "runs live: with dataset.views=0 every epoch shows new pixels", []),
        (
            [*VIEWS, "schedule.train.epochs=3"],
            "its logits of 2 views are cached, 504 B",
            ["train, view 0", "train, view 1"],
        ),
        ([*AUGMENTED, "dataset.views=5"], "its logits of 1 view", ["train, view 0"]),  # of a single epoch
        (["objective=ce"], "not asked: labels only", []),
        (["teacher.cache=off"], "runs live: teacher.cache=off", None),
        (["teacher.joint=true"], "trained along with the student", None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_header_says_how_the_teacher_answers_and_why(
    words: list[str], said: str, splits: list[str] | None, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in header_of(taught(*words), capsys)
    # Validation and test are measured against it however it answers to train, unless no cache is wanted or it moves.
    assert made({}) == ([] if splits is None else sorted(["test", "val", *splits]))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["objective=hint", "teacher.cache_limit=0"], "runs live: its features take"),
        (["teacher.joint=true"], "is trained along with the student"),
        (AUGMENTED, "runs live: with dataset.views=0"),
    ],
    ids=["hint", "joint", "views"],
)
def test_a_cache_that_cannot_be_is_refused_where_it_is_demanded(
    words: list[str], why: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *TINY, *words, "teacher.cache=on") == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1 and "Traceback" not in said
    assert "teacher.cache=on: " in said and f"the teacher {why}" in said
    assert "use teacher.cache=auto" in said
    assert not (tmp_path / "outputs" / "teachers").exists()


def test_views_without_augmentation_are_said_to_change_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in (("idle", ["dataset.views=3", "dataset.view_seed=1"]), ("plain", [])):
        assert distill("train", *TINY, *words, f"run_dir={tmp_path / name}") == 0
        said = capsys.readouterr().err
        for word in words:
            assert f"{word.partition('=')[0]} has no effect: no augmentation is chosen" in said
        assert said.count("has no effect") == len(words)
    # And they change nothing indeed.
    one, other = ([without_times(row) for row in rows(tmp_path / name)] for name in ("idle", "plain"))
    assert one == other


# --- made once


class Place:
    """A folder of pictures, and outputs in which one run left its teacher's logits."""

    def __init__(self, root: Path) -> None:
        self.outputs = root / "outputs"
        pictures = make_pictures(root / "pictures", classes="abc")
        self.words = [f"dataset.root={pictures}", f"output_dir={self.outputs}"]

    def after_run(self, *words: str) -> list[str]:
        """Which logits a whole run had to make."""
        before = kept(self.outputs)
        assert distill("train", *line(*self.words, *words)) == 0
        return made(before, self.outputs)

    def after(self, *words: str) -> list[str]:
        """Which logits had to be made before a run could start."""
        before = kept(self.outputs)
        taught(*self.words, *words)
        return made(before, self.outputs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("place"))
    assert made.after_run() == ["test", "train", "val"]
    return made


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["T=9", "alpha=0.2"],
        ["seed=5", "batch_size=7"],
        ["student=smallcnn", "student.widths=[3,3]"],
        ["optimizer=sgd", "schedule=two_stage", "schedule.imitate.epochs=1", "schedule.refine.epochs=1"],
        ["objective=logit_mse", "label_smoothing=0.1", "baseline=true"],
        ["workers=1", "threads=2"],
    ],
    ids=" ".join,
)
def test_what_is_no_business_of_the_teacher_makes_nothing_new(words: list[str], place: Place) -> None:
    assert place.after_run(*words) == []


EVERY = ["test", "train", "val"]
FIXED = ["dataset.mean=[0.4,0.4,0.4]", "dataset.std=[0.2,0.2,0.2]"]  # else it follows the pictures that train holds
FLIPPED = ["dataset.augmentation.flip=true", "dataset.views=1"]


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        ([], ["teacher.fit.seed=1"], EVERY),
        ([], ["teacher.fit.epochs=1"], EVERY),
        (["teacher.fit.epochs=1"], ["teacher.fit.batch_size=3"], EVERY),
        ([], ["teacher.widths=[6]"], EVERY),
        ([], ["teacher=tinycnn", "teacher.widths=[4,5]", "teacher.fit.epochs=0"], EVERY),
        ([], ["teacher.mean=[0.4,0.4,0.4]", "teacher.std=[0.2,0.2,0.2]"], EVERY),
        ([], ["dataset.mean=[0.3,0.4,0.4]", "dataset.std=[0.2,0.2,0.2]"], EVERY),
        (FIXED, ["dataset.std=[0.2,0.2,0.3]"], EVERY),
        (FIXED, ["dataset.split_seed=1"], EVERY),
        (FIXED, ["dataset.val_fraction=0.3"], EVERY),
        ([], ["dataset.size=12"], EVERY),
        ([], ["precision=bf16"], ["train"]),
        ([], FLIPPED, ["train, view 0"]),
        (FLIPPED, ["dataset.view_seed=1"], ["train, view 0"]),
        (FLIPPED, ["dataset.augmentation.crop=1"], ["train, view 0"]),
        (FLIPPED, ["dataset.augmentation.rotation=5"], ["train, view 0"]),
    ],
    ids=lambda value: " ".join(value) if value else "nothing",
)
def test_whatever_the_logits_depend_on_makes_them_anew(
    base: list[str], change: list[str], expected: list[str], place: Place
) -> None:
    if base:
        place.after(*base)
    assert place.after(*base, *change) == expected


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_pixel_of_one_picture_makes_them_anew(part: str, pictures: Path) -> None:
    taught(*FIXED)
    before = kept()
    path = pictures / part / "b" / "3.png"
    whole = path.read_bytes()
    pixels = np.array(Image.open(path))
    pixels[5, 5, 1] ^= 1
    Image.fromarray(pixels).save(path)
    taught(*FIXED)
    assert made(before) == EVERY
    before = kept()
    path.write_bytes(whole)
    taught(*FIXED)
    assert made(before) == []


def test_views_that_are_there_are_reused_when_more_are_asked_for(pictures: Path) -> None:
    words = [*AUGMENTED, "schedule.train.epochs=3"]
    two = taught(*words, "dataset.views=2")
    assert made({}) == ["test", "train, view 0", "train, view 1", "val"]
    before = kept()
    three = taught(*words, "dataset.views=3")
    assert made(before) == ["train, view 2"]
    logits = {}
    for name, one in (("two", two), ("three", three)):
        order = torch.arange(len(one.job.data.train))
        for view in range(one.way.views):
            (batch,) = one.job.data.train.batches(len(order), order, view)
            logits[name, view] = ask(one, batch).logits()
    for view in (0, 1):
        assert torch.equal(logits["two", view], logits["three", view])
        assert not torch.allclose(logits["three", view], logits["three", 2])


def test_a_teacher_fitted_on_augmented_pictures_is_the_same_however_many_views_the_student_gets(pictures: Path) -> None:
    weights = set()
    for views in (0, 1, 2):
        words = [*AUGMENTED, f"dataset.views={views}", "teacher.fit.epochs=3", f"output_dir=apart{views}"]
        weights.add(distillation.prepare_all(job := read(*words), way_of(job))["teacher"].weights)
    assert len(weights) == 1


# --- the user's own teacher

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        layers = [nn.Conv2d(in_channels, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        super().__init__(*layers, nn.Linear(64, num_classes))
"""


class OwnCode:
    """A folder of the user's modules, all called own_..., of which each run finds what is written, as a new process does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def teacher_is(self, target: str) -> None:
        (self.folder / "conf" / "teacher").mkdir(parents=True, exist_ok=True)
        (self.folder / "conf" / "teacher" / "mine.yaml").write_text(f"_target_: {target}\n")

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def logits(self) -> tuple[Tensor, Tensor]:
        """What the user's teacher is taken to say to the training pictures, and what it says."""
        self.forget()
        one = taught("teacher=mine", "teacher.fit.epochs=0", "teacher.cache=on")
        answers = list(lessons(one, epochs=1))
        with torch.no_grad():
            live = torch.cat([one.job.teachers["teacher"](batch.inputs) for batch, _ in answers])
        return torch.cat([said.logits() for _, said in answers]), live

    def forget(self) -> None:
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.startswith("own_")]:
            del sys.modules[name]


@pytest.fixture
def own_code(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnCode]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    code = OwnCode(tmp_path)
    yield code
    code.forget()


def test_a_change_in_the_users_own_teacher_makes_them_anew(own_code: OwnCode) -> None:
    own_code.teacher_is("own_teacher.Net")
    own_code.write("own_teacher.py", NET)
    own_code.logits()
    before = kept()
    own_code.logits()
    assert made(before) == []
    own_code.write("own_teacher.py", NET.replace("ReLU", "Tanh"))  # the same weights, other answers
    cached, live = own_code.logits()
    assert torch.allclose(cached, live, atol=1e-5)
    assert made(before) == EVERY


PARTS = "from torch import nn\nAct = nn.ReLU\n"


@pytest.mark.parametrize(
    ("place", "package", "importing"),
    [
        ("", False, "from own_parts import Act"),
        ("own_nets/", True, "from .own_parts import Act"),
        ("own_nets/", True, "from own_nets.own_parts import Act"),
        ("own_nets/", False, "from own_nets.own_parts import Act"),
        ("own_nets/deep/", False, "from .own_parts import Act"),
    ],
    ids=["beside", "package, relative", "package", "folder", "deep folder, relative"],
)
def test_a_change_in_what_the_users_own_teacher_imports_makes_them_anew(
    place: str, package: bool, importing: str, own_code: OwnCode
) -> None:
    own_code.teacher_is(f"{place.replace('/', '.')}own_teacher.Net")
    own_code.write(f"{place}own_teacher.py", f"{importing}\n{NET.replace('nn.ReLU', 'Act')}")
    own_code.write(f"{place}own_parts.py", PARTS)
    if package:
        own_code.write(f"{place}__init__.py", "")
    own_code.logits()
    before = kept()
    own_code.write(f"{place}own_parts.py", PARTS.replace("ReLU", "Tanh"))
    cached, live = own_code.logits()
    assert torch.allclose(cached, live, atol=1e-5)
    assert made(before) == EVERY


@pytest.mark.parametrize(
    "text",
    [
        f"import own_folder\n{NET}",  # with no code in it
        f"try:\n    import own_missing.part\nexcept ImportError:\n    pass\n{NET}",
        f"def unused():\n    import own_broken\n{NET}",
        f"{NET}\nimport torch\n@torch.no_grad()\ndef decorated(in_channels: int, num_classes: int) -> nn.Module:\n"
        "    return Net(in_channels, num_classes)\n",
    ],
    ids=["a folder", "a missing library", "a broken file", "a decorated function"],
)
def test_whatever_the_users_own_teacher_imports_it_can_teach(text: str, own_code: OwnCode) -> None:
    own_code.teacher_is(f"own_teacher.{'decorated' if 'decorated' in text else 'Net'}")
    own_code.write("own_folder/readme.txt", "")
    own_code.write("own_broken.py", "this is no Python\n")
    own_code.write("own_teacher.py", text)
    cached, live = own_code.logits()
    assert torch.allclose(cached, live, atol=1e-5)
    own_code.write("own_teacher.py", text.replace("ReLU", "Tanh"))
    cached, live = own_code.logits()
    assert torch.allclose(cached, live, atol=1e-5)


# --- pictures that are not held in memory


def test_the_budget_of_memory_goes_to_the_smallest_parts_first() -> None:
    sizes = {"train": 80, "val": 10, "test": 20}

    def held(bytes_: float) -> set[str]:
        return within(bytes_ / 2**30, sizes)

    assert held(0) == held(9) == set()
    assert held(10) == held(29) == {"val"}
    assert held(30) == held(109) == {"val", "test"}
    assert held(110) == held(10_000) == {"train", "val", "test"}


def all_batches(data: Data, how: Sequence[Any]) -> list[Batch]:
    splits = (data.train, data.val, data.test)
    return [
        batch for split in splits for view in how for batch in split.batches(5, sample_order(len(split), 0, 1), view)
    ]


def test_a_folder_larger_than_the_budget_is_streamed_and_gives_the_same_batches(pictures: Path) -> None:
    shutil.rmtree(pictures / "test" / "a")
    (pictures / "test" / "a").mkdir()
    shutil.copy(pictures / "train" / "a" / "0.png", pictures / "test" / "a")
    node = {"_target_": "distill_cli.data.folder.image_folder", "root": str(pictures)}
    augmentation = {"flip": True, "crop": 2, "rotation": 10}
    # 24 pictures in train, 17 in test, of 3 x 16 x 16 bytes each.
    for memory, expected in ((16, (False, False)), (17, (False, True)), (40, (False, True)), (41, (True, True))):
        for workers in (0,) if memory != 17 else (0, 2):
            here = {**node, "memory": memory * 768 / 2**30, "augmentation": augmentation}
            data = load(record(Dataset, here), workers)
            assert tuple(split.source.held is not None for split in (data.train, data.test)) == expected
            whole = load(record(Dataset, {**node, "augmentation": augmentation}), 0)
            for ours, theirs in zip(all_batches(data, (None, 1)), all_batches(whole, (None, 1)), strict=True):
                assert torch.equal(ours.inputs, theirs.inputs)
                assert torch.equal(ours.targets, theirs.targets)


def test_streamed_pictures_give_the_same_run_with_any_number_of_workers(pictures: Path, tmp_path: Path) -> None:
    words = [*TINY, *VIEWS, "schedule.train.epochs=2"]
    for name, more in (("held", []), ("none", ["dataset.memory=0"]), ("two", ["dataset.memory=0", "workers=2"])):
        before = kept()
        assert distill("train", *words, *more, f"run_dir={tmp_path / name}") == 0
        assert made(before) == ([] if name == "two" else ["test", "train, view 0", "train, view 1", "val"])
    held, none, two = ([without_times(row) for row in rows(tmp_path / name)] for name in ("held", "none", "two"))
    assert none == two == held
