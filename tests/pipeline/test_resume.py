"""Proves that a run killed or stopped anywhere goes on to the very same result, and that whoever may not is told why."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICK, distill, distill_process, killed, make_pictures, read_json, rows, without_times

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError, Terminated
from distill_cli.data import read_spec
from distill_cli.models import Classifier, deployable
from distill_cli.models.deployable import Deployable
from distill_cli.runs import identity
from distill_cli.runs.checkpoints import Checkpoints

LONGER = [*QUICK, "teacher.widths=[8,16]", "schedule.imitate.epochs=3", "schedule.refine.epochs=3", "threads=1"]
KINDS = {
    "two stages": [],
    "inside epochs": ["save_every=4"],
    "steps": ["schedule=constant", "schedule.train.steps=25", "save_every=4", "baseline=true"],
    "a hint first": ["objective=[hint,kd]", "schedule=hint_then_kd", "schedule.hint.epochs=2", "save_every=7"],
    "views of augmented pictures": ["dataset.augmentation.crop=2", "dataset.augmentation.flip=true", "dataset.views=2"],
    "a teacher trained along": ["teacher.joint=true", "save_every=30"],
    "batch normalisation": ["student=resnet8x4", "student.widths=[4,4,4,8]", "save_every=10", "batch_size=256"],
    "sgd, clipped, in parts": ["optimizer=sgd", "optimizer.clip=0.5", "optimizer.accumulate=2", "save_every=9"],
    "weights that are found": [
        "objective=[hint,kd]",
        "objective.hint.weight=auto",
        "objective.kd.weight=auto",
        "save_every=9",
    ],
    "a stage of 8 bits": [
        "schedule=quantize",
        "schedule.imitate.epochs=1",
        "schedule.refine.epochs=1",
        "schedule.quantize.epochs=2",
        "student=resnet8x4",
        "student.widths=[4,4,4,8]",
        "objective=[hint,kd]",
        "objective.kd.weight=auto",
        "baseline=true",
        "save_every=15",
    ],
    "half precision": ["precision=fp16", "batch_size=256", "save_every=2"],
}
RARE = (
    "batch normalisation",
    "sgd, clipped, in parts",
    "weights that are found",
    "half precision",
)  # in the run of slow tests alone


def line(*words: str) -> list[str]:
    """LONGER and more; whoever chooses another schedule says its keys anew."""
    other = any(word.startswith("schedule=") for word in words)
    kept = [word for word in LONGER if not (other and word.startswith("schedule."))]
    return [*kept, *words]


def result(run: Path) -> dict[str, Any]:
    """All of a run that must be the same, however often it was stopped."""
    summary = read_json(run / "summary.json")
    return {
        "weights": files.sha256(run / "student.safetensors"),
        "rows": [without_times(row) for row in rows(run)],
        "summary": {key: summary[key] for key in ("test", "val", "best", "params", "seed")},
    }


def started(place: Path, *words: str) -> subprocess.Popen[str]:
    """A run in a process group of its own."""
    command = [sys.executable, "-m", "distill_cli", "train", *words]
    return subprocess.Popen(
        command, cwd=place, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_hangups
    )


def hear_hangups() -> None:
    """Whoever started these tests may have told them not to."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for(process: subprocess.Popen[str], said: str) -> None:
    """Wait until the process has said something."""
    assert process.stderr is not None
    for text in process.stderr:
        if said in text:
            return
    raise AssertionError(f"ended without saying {said!r}")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in RARE)) for kind in KINDS])
def test_killed_and_gone_on_with_a_run_ends_as_if_nothing_had_been(kind: str, tmp_path: Path) -> None:
    words = line(*KINDS[kind])
    assert distill("train", *words, "run_dir=whole") == 0
    for again in (False, True):
        said = killed("train", *words, "run_dir=run", saves=1)
        assert read_json(tmp_path / "run" / "status.json")["status"] == "running"
        assert ("going on after step" in said) == again
    assert distill("resume", "run") == 0
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    assert read_json(tmp_path / "run" / "status.json")["status"] == "finished"
    assert not list((tmp_path / "run").rglob("*.tmp")) and not list((tmp_path / "run").rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_stops_after_the_step_and_the_run_goes_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    make_pictures(tmp_path / "pictures", number=24)
    words = [*LONGER, "dataset=image_folder", "dataset.root=pictures", "dataset.memory=0", "workers=2", "batch_size=4"]
    words += ["save_every=null", "schedule.imitate.epochs=6"]
    assert distill("train", *words, "run_dir=whole") == 0
    process = started(tmp_path, *words, "run_dir=stopped")
    wait_for(process, "imitate    2/")
    time.sleep(0.05)
    sent = time.monotonic()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert time.monotonic() - sent < 20
    assert "stopped after step" in said and "to go on: distill resume" in said
    status = read_json(tmp_path / "stopped" / "status.json")
    assert (status["status"], status["exit_code"]) == ("interrupted", code)
    assert distill("train", *words, "run_dir=stopped") == 0
    assert result(tmp_path / "stopped") == result(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["terminated", "terminal closed"])
def test_a_stop_loses_no_step(number: signal.Signals, tmp_path: Path) -> None:
    process = started(tmp_path, *LONGER, "run_dir=stopped", "save_every=null", "schedule.imitate.epochs=50")
    wait_for(process, "imitate    2/")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    (step,) = (int(text.split()[3].rstrip(";")) for text in said.splitlines() if text.startswith("stopped after step"))
    last = torch.load(tmp_path / "stopped" / "checkpoints" / "last.pt", weights_only=True)
    assert last["step"] == step >= 2 * 21


@pytest.mark.slow
def test_the_teachers_own_training_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    words = [*QUICK, "teacher.fit.epochs=4", "save_every=3", "threads=1", "baseline=true"]
    assert distill("train", *words, "run_dir=whole") == 0
    shutil.move(tmp_path / "outputs", tmp_path / "first")
    process = started(tmp_path, *words, "run_dir=killed")
    wait_for(process, "teacher    2/4")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = distill_process("resume", "killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "teacher: going on after step" in done.stderr
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    made = [sorted(place.glob("*/*/*.safetensors")) for place in (tmp_path / "outputs", tmp_path / "first")]
    assert [files.sha256(path) for path in made[0]] == [files.sha256(path) for path in made[1]]
    assert len(made[0]) == 2  # a teacher and a baseline
    assert not list((tmp_path / "outputs").rglob("checkpoints"))


def test_a_finished_run_shows_its_summary_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, "run_dir=run", "baseline=true") == 0
    first = capsys.readouterr().out
    before = contents(tmp_path / "run")
    for words in (["resume", "run"], ["train", *QUICK, "run_dir=run", "baseline=true"]):
        assert distill(*words) == 0
        shown = capsys.readouterr().out
        assert shown.strip() == first[first.index("test, at T = 1") :].strip()
        assert contents(tmp_path / "run") == before


def contents(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run stopped half way, and the pictures it works on."""
    place = tmp_path_factory.mktemp("half")
    make_pictures(place / "pictures")
    with contextlib.chdir(place):
        killed("train", *LONGER, *PICTURES, "run_dir=run", saves=3)
        shutil.copytree("run", "whole")
        files.write_json(place / "whole" / "run.json", files.read_json(place / "run" / "run.json"))
        assert distill("resume", "whole") == 0
    return place


PICTURES = ["dataset=image_folder", "dataset.root=pictures", "batch_size=4"]


@pytest.fixture
def copy(half_done: Path, tmp_path: Path) -> Path:
    shutil.copytree(half_done, tmp_path, dirs_exist_ok=True)
    known = files.read_json(tmp_path / "run" / "run.json")
    files.write_json(tmp_path / "run" / "run.json", {**known, "directory": str(tmp_path)})
    return tmp_path / "run"


CHANGED = [
    ("T=5", "T: 3.0 -> 5.0"),
    ("alpha=0.1", "schedule.imitate.alpha: 0.7 -> 0.1"),
    ("seed=1", "seed: 0 -> 1"),
    ("batch_size=5", "batch_size: 4 -> 5"),
    ("label_smoothing=0.1", "label_smoothing: 0.0 -> 0.1"),
    ("precision=bf16", "precision: auto -> bf16"),
    ("student.widths=[3,5]", "student.widths: [8, 16] -> [3, 5]"),
    ("student=smallcnn", "student.widths: [8, 16] -> [64, 128]"),
    ("teacher.fit.epochs=2", "teacher.fit.epochs: 1 -> 2"),
    ("dataset.split_seed=1", "dataset.split_seed: 0 -> 1"),
    ("dataset.augmentation.flip=true", "dataset.augmentation.flip: False -> True"),
    ("objective=logit_mse", "objective.logit_mse"),
    ("objective.kd.weight=2", "objective.kd.weight: 1.0 -> 2"),
    ("schedule.refine.epochs=9", "schedule.refine.epochs: 3 -> 9"),
    ("schedule.refine.shape=cosine", "schedule.refine.shape: linear -> cosine"),
    ("optimizer.lr=0.1", "optimizer.lr: 0.003 -> 0.1"),
    ("optimizer=sgd", "optimizer._target_: torch.optim.Adam -> torch.optim.SGD"),
    ("optimizer.accumulate=2", "optimizer.accumulate: 1 -> 2"),
    ("baseline=true", "baseline: False -> True"),
    ("compile=true", "compile: False -> True"),
]


@pytest.mark.parametrize(("word", "said"), CHANGED)
def test_a_changed_configuration_is_refused_and_nothing_is_touched(
    word: str, said: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copy)
    assert distill("resume", "run", word) == 4
    streams = capsys.readouterr()
    assert said in streams.err
    assert "holds a run of another configuration" in streams.err
    assert contents(copy) == before


@pytest.mark.parametrize("word", ["workers=2", "threads=2", "device=cpu", "save_every=2", "output_dir=outputs"])
def test_what_does_not_change_the_result_may_be_changed(word: str, copy: Path) -> None:
    assert distill("resume", "run", word) == 0
    assert read_json(copy / "summary.json")["test"]


def test_another_number_of_threads_is_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("resume", "run", "threads=2") == 0
    assert "started with threads 1, it goes on with 2: its last bits may differ" in capsys.readouterr().err


def test_every_key_of_a_configuration_is_held_against_what_it_was() -> None:
    old = {"T": 3.0, "list": [1, 2], "inner": {"a": 1, "b": None}, "workers": 0, "gone": 1}
    identity.require_same(old, {**old, "workers": 8}, "x", "y")
    for new in ({**old, "T": 4.0}, {**old, "list": [2, 1]}, {**old, "inner": {"a": 1}, "more": 2}):
        with pytest.raises(CheckpointError):
            identity.require_same(old, new, "x", "y")
    found = list(identity.differences(old, {"T": 3.0, "list": [1], "inner": {"a": 2, "b": None, "c": 0}, "workers": 0}))
    assert found == [("list", [1, 2], [1]), ("inner.a", 1, 2), ("inner.c", None, 0), ("gone", 1, None)]


def test_changed_pictures_are_refused_with_both_fingerprints(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copy)
    one, other = copy.parent / "pictures" / "train" / "a" / "0.png", copy.parent / "pictures" / "train" / "b" / "0.png"
    shutil.copy(other, one)
    assert distill("resume", "run") == 4
    said = capsys.readouterr().err
    assert "was started on something else" in said and "data: " in said and " -> " in said
    assert contents(copy) == before


def test_another_teacher_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home,) = (copy.parent / "outputs" / "teachers").glob("[!.]*")
    from distill_cli.models.smallcnn import SmallCNN

    card = deployable.read_card(home)
    spec = read_spec(card["input"], [], home)
    net = Classifier(SmallCNN([8, 16], 3, 2, (16, 16)), spec)
    Deployable(card, net).write(home)
    assert distill("resume", "run") == 4
    assert "teacher: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_student_whose_code_has_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conf" / "student").mkdir(parents=True)
    (tmp_path / "conf" / "student" / "own.yaml").write_text("_target_: renewed.Net\n")
    code = (
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes: int) -> None:\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, num_classes))\n"
    )
    (tmp_path / "renewed.py").write_text(code)
    killed("train", *LONGER, "student=own", "run_dir=run", saves=2)
    (tmp_path / "renewed.py").write_text(code.replace("ReLU", "Tanh"))
    refused = distill_process("resume", "run", cwd=tmp_path)
    assert refused.returncode == 4
    assert "code.renewed.Net: " in refused.stderr
    (tmp_path / "renewed.py").write_text(code)
    gone_on = distill_process("resume", "run", cwd=tmp_path)  # ./conf names the class, not the run folder: no trust=
    assert gone_on.returncode == 0, gone_on.stderr


def test_damaged_checkpoints_fall_back_and_none_is_exit_4(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = copy / "checkpoints" / "last.pt"  # the run was killed while it was to be replaced
    newest.write_bytes(b"cut short")
    assert distill("resume", "run") == 0
    assert "going on from previous.pt" in capsys.readouterr().err
    (copy / "summary.json").unlink()
    for path in (copy / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    assert distill("resume", "run") == 4
    assert "no checkpoint can be used" in capsys.readouterr().err


def test_the_checkpoints_of_another_run_are_not_taken_for_its_own(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed("train", *LONGER, *PICTURES, "seed=5", "run_dir=other/run", saves=3)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(copy.parent / "other" / "run" / "checkpoints", copy / "checkpoints")
    assert distill("resume", "run") == 4
    assert "holds the checkpoints of another run" in capsys.readouterr().err


def test_a_damaged_summary_is_made_again_from_the_last_checkpoint(copy: Path) -> None:
    assert distill("resume", "run") == 0
    before = result(copy)
    content = bytearray((copy / "summary.json").read_bytes())
    content[content.index(b"accuracy") + 15] ^= 1
    (copy / "summary.json").write_bytes(content)
    (copy / "metrics.jsonl").write_text("nonsense\n")
    assert distill("resume", "run") == 0
    assert result(copy) == before


@pytest.mark.parametrize(
    "name", ["run.json", "checkpoints/manifest.json", "status.json", "metrics.jsonl", ".hydra/config.yaml"]
)
def test_no_other_file_of_a_run_can_change_its_result_unseen(name: str, copy: Path, half_done: Path) -> None:
    content = (copy / name).read_bytes()
    for place in range(5, len(content), len(content) // 3):
        (copy / name).write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        code = distill("resume", "run")
        if code == 0:
            assert result(copy) == result(half_done / "whole")
            break
        assert code == 4


def test_a_run_stopped_before_anything_was_saved_starts_again_on_whatever_it_is_told(tmp_path: Path) -> None:
    assert distill("train", *QUICK, "dataset=image_folder", "dataset.root=nowhere", "run_dir=run") == 3
    make_pictures(tmp_path / "pictures")
    assert distill("train", *QUICK, "dataset=image_folder", "dataset.root=pictures", "run_dir=run") == 0
    assert read_json(tmp_path / "run" / "status.json")["status"] == "finished"


def test_the_second_process_on_a_folder_is_told_who_has_it_at_once(tmp_path: Path) -> None:
    first = started(tmp_path, *LONGER, "run_dir=run", "schedule.imitate.epochs=1000")
    wait_for(first, "imitate    1/")
    began = time.monotonic()
    second = distill_process("train", *LONGER, "run_dir=run", "schedule.imitate.epochs=1000", cwd=tmp_path)
    took = time.monotonic() - began
    assert second.returncode == 7
    assert f"in use by process {first.pid}" in second.stderr
    assert took < 5, "torch must not be imported for it"
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()


@pytest.mark.slow
def test_launches_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    # The same moment for all: Hydra's clock stands still.
    code = (
        "import sys, datetime\n"
        "class Still(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return cls(2026, 1, 2, 3, 4, 5, 6)\n"
        "import hydra.core.utils\n"
        "hydra.core.utils.datetime = Still\n"
        "from distill_cli.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "train", *QUICK, "threads=1"]
    processes = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 2, said
    folders = sorted(path.parent.name for path in (tmp_path / "outputs" / "train").rglob("summary.json"))
    assert len(folders) == 2 and folders[0].startswith("03-04-05-000006")


def crafted(run: Path, **changes: Any) -> None:
    """A run.json whose checksum is right: what it says must be refused for what it says."""
    files.write_json(run / "run.json", {**files.read_json(run / "run.json"), **changes})


EVIL = [
    "student._target_=os.mkdir",
    "+student.x={_target_:os.mkdir,name:sentinel}",
    "student._target_=logging.os.mkdir",
    "student._target_=distill_cli.base.files.os.mkdir",
    "student._target_=builtins.open",
    "student._target_=torch.load",
    "+hydra.callbacks.x={_target_:os.mkdir,name:sentinel}",
    "hydra/job_logging=x",
    "student=../../evil",
    "objective=[kd,../evil]",
    "experiment=../evil",
    "+model@hydra.callbacks.x=../../evil",
    "teacher@hydra.callbacks.x=resnet18",
    "+model=../../evil",
    "+objective.x='${oc.create:${oc.decode:\"{_target_: os.mkdir}\"}}'",
    "student._target_='${oc.env:HOME}'",
    "student._target_=distill_cli.base.runtime.torch.nn.Identity",
    "student._target_=distill_cli.models.nn.Linear",
]


@pytest.mark.parametrize("text", EVIL)
def test_a_crafted_run_folder_runs_no_code(text: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.parent / "evil.yaml").write_text("_target_: os.mkdir\nname: sentinel\n")
    crafted(copy, overrides=[*files.read_json(copy / "run.json")["overrides"], text])
    before = contents(copy)
    assert distill("resume", "run") == 4
    assert "Traceback" not in capsys.readouterr().err
    assert not (copy.parent / "sentinel").exists()
    assert contents(copy) == before


@pytest.mark.slow
def test_classes_that_a_run_folder_names_need_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "brought.py").write_text(
        "from distill_cli.models.smallcnn import SmallCNN\nopen('imported', 'w').close()\nclass Net(SmallCNN): pass\n"
    )
    killed("train", *LONGER, "student._target_=brought.Net", "run_dir=run", saves=2)
    (tmp_path / "imported").unlink()
    refused = distill_process("resume", "run", cwd=tmp_path)
    assert refused.returncode == 4
    assert "add trust=[brought]" in refused.stderr
    assert not (tmp_path / "imported").exists()
    done = distill_process("resume", "run", "trust=[brought]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "which run?"),
        (["a", "b"], 2, "which run?"),
        (["nowhere"], 4, "holds no run"),
        (["run", "T=0"], 2, "T: must be greater than 0"),
        (["run", "--nope"], 2, "unrecognized arguments: --nope"),
        (["run", "T=1,2"], 2, "lists several values"),
    ],
)
def test_what_cannot_be_resumed_is_said(
    words: list[str], code: int, said: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("resume", *words) == code
    assert said in capsys.readouterr().err


def test_a_run_is_resumed_from_where_it_was_started(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.parent / "elsewhere").mkdir()
    monkeypatch.chdir(copy.parent / "elsewhere")
    assert distill("resume", "../run") == 2
    assert f"cd {copy.parent}" in capsys.readouterr().err
    words = [f"output_dir={copy.parent / 'outputs'}", f"dataset.root={copy.parent / 'pictures'}"]
    assert distill("resume", "../run", *words) == 0


def test_json_rows_are_as_many_as_epochs_whatever_was_left_half_written(copy: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "imi')
    assert distill("resume", "run") == 0
    assert [json.loads(text)["epoch"] for text in (copy / "metrics.jsonl").read_text().splitlines()] == list(
        range(1, 7)
    )


@pytest.mark.parametrize("key", ["config", "overrides", "name", "directory", "prints", "machine"])
def test_a_run_that_says_too_little_of_itself_is_damaged(
    key: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = files.read_json(copy / "run.json")
    files.write_json(copy / "run.json", {name: value for name, value in known.items() if name != key})
    assert distill("resume", "run") == 4
    assert f"run.json is damaged: {key}" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["optimizer", "meter", "objectives", "teacher", "seconds", "guard", "rows"])
def test_a_checkpoint_that_lacks_something_is_no_traceback(
    key: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(copy / "checkpoints")
    content = checkpoints.latest()
    assert content is not None
    checkpoints.save({name: value for name, value in content.items() if name != key})
    assert distill("resume", "run") == 4
    assert "does not fit what is trained here" in capsys.readouterr().err


def test_a_finished_runs_lost_student_is_made_again(copy: Path, half_done: Path) -> None:
    assert distill("resume", "run") == 0
    (copy / "student.safetensors").unlink()
    assert distill("resume", "run") == 0
    assert result(copy) == result(half_done / "whole")


def test_a_network_that_draws_from_numpy_and_python_goes_on_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "conf" / "student").mkdir(parents=True)
    (tmp_path / "conf" / "student" / "drawing.yaml").write_text("_target_: drawing.Net\n")
    (tmp_path / "drawing.py").write_text(
        "import random\n"
        "import numpy as np\n"
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes: int) -> None:\n"
        "        super().__init__()\n"
        "        self.order = np.random.permutation(784)[:300]\n"
        "        self.scale = 1 + random.random()\n"
        "        self.fc = nn.Linear(300, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1)[:, self.order] * self.scale * (1 + np.random.rand())\n"
        "        return self.fc(nn.functional.dropout(x, 0.1))  # in evaluation too\n"
    )
    words = [*LONGER, "student=drawing", "save_every=5"]
    assert distill("train", *words, "run_dir=whole") == 0
    killed("train", *words, "run_dir=run", saves=7)
    assert distill("resume", "run") == 0
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_a_stage_may_use_other_objectives_than_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "own.yaml").write_text(
        "both: {epochs: 1, objective: [kd, logit_mse]}\none: {epochs: 1, objective: kd}\n"
    )
    assert distill("train", *line("schedule=own", "objective=[kd,logit_mse]"), "run_dir=run") == 0
    assert [set(row["loss"]) for row in rows(tmp_path / "run")] == [
        {"total", "ce", "kd", "logit_mse"},
        {"total", "ce", "kd"},
    ]


def test_stopped_while_it_is_measured_the_teacher_keeps_its_training(tmp_path: Path) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_cli.teachers.store.Asked.about", stopped)
        assert distill("teacher", *QUICK) == 130
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_cli.training.guard.Guard.step", stopped)  # no step is left to take
        assert distill("teacher", *QUICK) == 0


def test_a_stop_that_an_extension_module_turned_into_an_import_error_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(folder: Path) -> Path:
        raise ImportError("initialization failed") from Terminated()

    words = [word for word in QUICK if word != "report=false"]
    with monkeypatch.context() as patch:
        patch.setattr("distill_cli.report.write.of_run", stopped)
        assert distill("train", *words, "run_dir=run") == 143
    assert read_json(tmp_path / "run" / "status.json")["status"] == "interrupted"
    assert distill("resume", "run") == 0
    assert read_json(tmp_path / "run" / "status.json")["status"] == "finished"
