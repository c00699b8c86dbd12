"""Bad input: the right exit code, one message that names the key and the choices, and nothing that looks like a result."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, distill_process, make_pictures, run_folders

from distill_cli.models.smallcnn import SmallCNN


def no_results(place: Path) -> None:
    for name in ("summary.json", "student.safetensors", "model.json", "teacher.json"):
        assert not list(place.rglob(name)), f"{name} was written"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["T=0"], "T: must be greater than 0, got 0"),
        (["T=-1"], "T: must be greater than 0, got -1"),
        (["T=abc"], "T: should be a number, got 'abc'"),
        (["T=nan"], "T: should be a finite number"),
        (["alpha=1.5"], "alpha: must be at most 1, got 1.5"),
        (["alpha=-0.1"], "alpha: must be at least 0, got -0.1"),
        (["tempature=3"], "did you mean T?"),
        (["temperature=3"], "did you mean T?"),
        (["+foo=1"], "foo: there is no such key"),
        (["teacher=resnet19"], "did you mean teacher=resnet18?"),
        (["teachr=resnet18"], "did you mean teacher?"),
        (["dataset=mnsit"], "did you mean dataset=mnist?"),
        (["schedule.refine.epochs=-1"], "schedule.refine.epochs: must be at least 0, got -1"),
        (["schedule.refine.epoch=3"], "did you mean schedule.refine.epochs?"),
        (["schedule.refine.T=[3,0]"], "schedule.refine.T: must be greater than 0, got 0"),
        (["schedule.refine.objective=hint"], "try objective=[kd,hint]"),
        (["schedule.imitate.epochs=0", "schedule.refine.epochs=0"], "every stage has 0 epochs"),
        (
            ["schedule.refine.epochs=2", "schedule.refine.steps=9"],
            "schedule.refine: has steps=9, so its epochs count nothing",
        ),
        (["optimizer.lr=0"], "optimizer.lr: must be greater than 0, got 0"),
        (["optimizer.lr=nan"], "optimizer.lr: should be a finite number"),
        (["optimizer.lrr=1"], "did you mean optimizer.lr?"),
        (["batch_size=0"], "batch_size: must be at least 1, got 0"),
        (["seed=1.5"], "seed: should be a whole number"),
        (["T=1,3"], "add -m to sweep"),
        (["T"], "a setting is written key=value, as in T=VALUE"),
        (["--T=3"], "settings are written without dashes: T=3"),
        (["student=null"], "student=null: one must be chosen"),
        (["precision=fp8"], "choices: auto, fp32, bf16, fp16"),
        (["dataset=image_folder"], "dataset.root: has no default"),
        (["optimize=val.mcc"], "optimize=val.mcc: is of two classes, and the data have 10"),
        (["teacher.mean=[0.5]"], "teacher.mean and teacher.std belong together"),
        (["teacher.mean=[]", "teacher.std=[]"], "teacher.mean and teacher.std belong together, one value a channel"),
        (["teacher.mean=[0.5]", "teacher.std=[0]"], "teacher.std: must be greater than 0, got 0"),
        (
            ["teacher.mean=[123.675]", "teacher.std=[58.395]"],
            "divided by 255 they are teacher.mean=[0.485] teacher.std=[0.229]",
        ),
        (["dataset.mean=[0.5]", "dataset.std=[127.5]"], "dataset.mean=[0.001961] dataset.std=[0.5]"),
        (["teacher.mean=[-1,0,0]", "teacher.std=[1,1,1]"], "teacher.mean: must be at least 0, got -1"),
        (["teacher.size=0"], "teacher.size: must be at least 1, got 0"),
        (["teacher.classes=[]"], "teacher.classes: should be a list of names, got []"),
        (["-m", "T=1,2", "alpha=0.5,3"], "alpha: must be at most 1, got 3"),
        (["-m", "T=1,2", "run_dir=x"], "run_dir: names one folder"),
        (["-cn", "nope"], "there is no nope.yaml"),
        (["experiment=nope"], "choices: annealing_kd, born_again, distilbert, fitnets"),
        # these need the classes themselves
        (["student.widths=abc"], "student.widths: should be a list"),
        (["student.widths=[0]"], "widths must be positive"),
        (["+student.depth=3"], "SmallCNN takes no such key"),
        (["student._target_=os.system"], "is not a Module"),
        (["student._target_=nowhere.Net"], "cannot find nowhere.Net"),
        (["objective=[kd,ce]"], "ce is labels only"),
        (["device=tpu"], "this machine has no 'tpu'"),
        (["teacher.weights=NOPE"], "choices: IMAGENET1K_V1"),
        (["student=torchvision", "student.name=vgg11", "student.stem=small"], "vgg11 has no such stem"),
        (["student=torchvision", "student.name=resnt18"], "did you mean resnet18?"),
        (["teacher.fit.optimizer=adm", "student=tinycnn"], "did you mean teacher.fit.optimizer=adam?"),
        (["run_dir="], "run_dir: is empty"),
        (["output_dir="], "output_dir: is empty"),
        (["~teacher.fit"], "teacher.fit: is needed"),
        (["teacher.fit=null"], "teacher.fit: should be a mapping"),
        (["schedule.refine=null"], "schedule.refine.epochs=0"),
        (["schedule.refine.objective=3"], "should be an objective's name"),
        (["+schedule.polish={epochs:1}"], "write a schedule of your own"),
        (["+optimizer.foo=1"], "optimizer.foo: Adam takes no such key"),
        (["objective=ce", "+objective.ce.weight=2"], "objective.ce.weight: CE takes no such key; it takes: none"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "Nesterov"),
        (["+student.dilation=2"], "SmallCNN takes no such key"),
        (["teacher.joint=true", "objective=ce"], "no stage asks the teacher"),
        (["teacher.mean=[0.1,0.2]", "teacher.std=[0.1,0.2]"], "teacher.mean: has 2 values"),
        (["teacher=timm", "teacher.name=resnet10t.c3_in1k"], "write name=resnet10t weights=c3_in1k"),
        (["teacher=timm", "teacher.name=resnet10t", "teacher.weights=nope"], "choices: c3_in1k"),
    ],
)
def test_a_wrong_configuration_is_exit_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *words) == 2
    streams = capsys.readouterr()
    assert said in streams.err
    assert "Traceback" not in streams.err
    no_results(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean distill train?"),
        (["eval"], "ckpt: which checkpoint?"),
        (["eval", "-m", "ckpt=a,b"], "ckpt: takes one value"),
        (["list", "modles"], "did you mean models?"),
        (["teacher", "teacher.joint=true"], "nothing to prepare"),
    ],
)
def test_other_commands_refuse_with_exit_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(*words) == 2
    assert said in capsys.readouterr().err


def broken_folder(root: Path, fault: str) -> Path:
    if fault == "missing":
        return root / "nowhere"
    if fault == "empty":
        root.mkdir()
        return root
    make_pictures(root, number=1 if fault == "few" else 8)
    if fault == "unreadable":
        (root / "train" / "b" / "3.png").write_bytes(b"not a picture")
    if fault == "truncated":
        whole = (root / "test" / "a" / "1.png").read_bytes()
        (root / "test" / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    if fault == "class in train only":
        make_pictures(root, ("train",), "z")
    return root


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing", "there is no such folder"),
        ("empty", "it holds nothing"),
        ("unreadable", "train/b/3.png"),
        ("truncated", "test/a/1.png"),
        ("class in train only", "class 'z' is in train/ only"),
        ("few", "train holds 2 samples: too few"),
    ],
)
def test_wrong_data_are_exit_3(fault: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = broken_folder(tmp_path / "pictures ü=1", fault)
    assert distill("train", *QUICK, "dataset=image_folder", f"dataset.root={root}") == 3
    streams = capsys.readouterr()
    assert said in streams.err
    assert "Traceback" not in streams.err
    no_results(tmp_path)
    (run,) = run_folders(tmp_path)
    status = json.loads((run / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("failed", 3)
    assert "Traceback" in (run / "train.log").read_text()


def test_a_missing_data_set_says_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "dataset=mnist", f"dataset.root={tmp_path}", "dataset.download=false") == 3
    assert str(tmp_path / "MNIST" / "raw") in capsys.readouterr().err


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("sentinel",))


def bad_checkpoint(path: Path, fault: str) -> Path:
    if fault == "another architecture":
        torch.save(SmallCNN([3], 1, 10, (28, 28)).state_dict(), path)
    elif fault == "truncated":
        torch.save(SmallCNN([8, 16], 1, 10, (28, 28)).state_dict(), path)
        path.write_bytes(path.read_bytes()[:500])
    elif fault == "empty":
        path.touch()
    elif fault == "pickle":
        path.write_bytes(pickle.dumps(Payload()))
    elif fault == "pickle in a state dict":
        torch.save({"state_dict": Payload()}, path)
    return path


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("another architecture", "does not fit SmallCNN"),
        ("truncated", "is damaged: it is cut short"),
        ("empty", "is empty"),
        ("pickle", "it was not loaded"),
        ("pickle in a state dict", "it was not loaded"),
        ("not there", "there is no file"),
    ],
)
def test_a_wrong_teacher_checkpoint_is_exit_4_and_runs_no_code(
    fault: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad_checkpoint(tmp_path / "teacher é.pt", fault)
    assert distill("train", *QUICK, f"teacher.checkpoint={path}") == 4
    assert said in capsys.readouterr().err
    assert not (tmp_path / "sentinel").exists()
    no_results(tmp_path)


@pytest.mark.parametrize("fault", ["truncated", "empty", "pickle", "pickle in a state dict", "not there", "no run"])
def test_eval_of_what_is_no_checkpoint_is_exit_4(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    path = checkpoints.parent if fault == "no run" else bad_checkpoint(checkpoints / "last.pt", fault)
    if fault != "no run":
        card = {"dataset": {"_target_": "distill_cli.data.digits.digits"}}
        (tmp_path / "run" / "model.json").write_text(json.dumps(card))
    assert distill("eval", f"ckpt={path}") == 4
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "sentinel").exists()


def test_an_output_folder_that_cannot_be_written_is_exit_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert distill("train", *QUICK, f"output_dir={tmp_path / 'file'}") == 6
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_folder_with_a_run_that_does_not_say_what_it_is_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "status.json").write_text("{}")
    assert distill("train", *QUICK, f"run_dir={folder}") == 4
    assert "holds a run without run.json" in capsys.readouterr().err
    assert (folder / "status.json").read_text() == "{}"


def test_a_bug_of_ours_is_exit_1_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("distill_cli.training.job.load", broken)
    assert distill("train", *QUICK) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_network_that_cannot_be_built_is_exit_2_with_the_line_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "student").mkdir(parents=True)
    (tmp_path / "conf" / "student" / "mine.yaml").write_text("_target_: mine.Net\n")
    package = tmp_path / "mine.py"
    package.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self) -> None:\n        raise KeyError('oops')\n"
    )
    assert distill("train", *QUICK, "student=mine") == 2
    assert "student: mine.Net cannot be built: KeyError: 'oops' (mine.py, line 4)" in capsys.readouterr().err


def test_batches_too_small_to_train_on_are_exit_2_everywhere(tmp_path: Path) -> None:
    words = [word for word in QUICK if not word.startswith(("teacher=", "teacher.widths"))]
    assert distill("train", *words, "teacher=resnet18", "teacher.fit.batch_size=1") == 2
    (run,) = run_folders(tmp_path)
    assert json.loads((run / "status.json").read_text())["exit_code"] == 2


@pytest.mark.parametrize(
    "words",
    [["optimizer.lr=1e30"], ["optimizer.lr=1e30", "batch_size=2000"], ["teacher.checkpoint=nan.pt"]],
    ids=["in the epoch", "by its last step", "in the teacher"],
)
def test_numbers_that_are_not_finite_are_exit_5(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = SmallCNN([16, 32], 1, 10, (28, 28)).state_dict()
    weights["fc.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "nan.pt")
    quick = [word for word in QUICK if not word.startswith("teacher.fit")]
    assert distill("train", *quick, "teacher.fit.epochs=0", *words) == 5
    assert "not finite" in capsys.readouterr().err
    no_results(tmp_path / "outputs" / "train")


def test_whoever_reads_stdout_may_leave(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m distill_cli train {' '.join(QUICK)} threads=1 | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("summary.json"))) == 1


def test_a_terminal_without_greek_is_no_reason_to_fail(tmp_path: Path) -> None:
    done = distill_process("train", *QUICK, "threads=1", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
