"""train, teacher and eval on real digits: the run folder's contract, honest numbers, sharing, and the same bits twice."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    QUICK,
    distill,
    distill_process,
    make_pictures,
    only_run,
    read_json,
    rows,
    run_folders,
    without_times,
)
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from distill_cli.base import files
from distill_cli.config import places
from distill_cli.runs.run import Run

COMPILE = torch.compile


def table(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """A predictions file: labels, decisions, and the probabilities of student and teacher."""
    with path.open(encoding="utf-8") as file:
        header, *lines = list(csv.reader(file))
    values = np.array(lines, dtype=np.float64)
    columns = {who: [i for i, name in enumerate(header) if name.startswith(who)] for who in ("student_", "teacher_")}
    return {
        "index": values[:, 0],
        "label": values[:, 1],
        "predicted": values[:, 2],
        "student": values[:, columns["student_"]],
        "teacher": values[:, columns["teacher_"]],
    }


def test_a_run_from_training_to_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "baseline=true", "T=4") == 0
    shown = capsys.readouterr()
    run = only_run(tmp_path)
    summary = read_json(run / "summary.json")

    # the header shows the recipe and the loss with its numbers
    for words in ("smallcnn  20,490 parameters", "tinycnn  9,098 parameters", "1,293 train, 144 val, 360 test",
                  "0.3·CE + 0.7·T²·KL(teacher‖student),  T=4", "T=4→1", "same student, labels only", str(run)):  # fmt: skip
        assert words in shown.out
    assert "imitate    1/2" in shown.err

    # the folder holds what the contract says
    for name in ("train.log", "metrics.jsonl", "checkpoints/last.pt", "checkpoints/best.pt", "student.safetensors",
                 "model.json", "summary.json", "status.json", ".hydra/config.yaml", ".hydra/overrides.yaml"):  # fmt: skip
        assert (run / name).is_file(), name
    assert read_json(run / "status.json")["status"] == "finished"
    assert [(row["stage"], row["epoch"]) for row in rows(run)] == [("imitate", 1), ("refine", 2)]
    assert [(row["T"], row["alpha"]) for row in rows(run)] == [(4.0, 0.7), (1.0, 0.0)]
    assert set(summary["test"]) == set(summary["val"]) == {"teacher", "student", "student_last", "baseline"}
    assert set(summary["test"]["student"]) == {
        *("accuracy", "balanced_accuracy", "f1", "kl", "agreement", "nll", "ece")
    }
    assert set(summary["seconds"]) == {"teacher", "cache", "train", "baseline", "eval"}
    assert summary["params"] == {"teacher": 20_490, "student": 9_098}
    with safe_open(run / "student.safetensors", "pt") as file:
        assert len(file.metadata()) <= 1

    # best is chosen on validation
    best = max(rows(run), key=lambda row: (row["val"]["accuracy"], -row["val"]["nll"]))
    assert summary["best"] == {"epoch": best["epoch"], "stage": best["stage"]}
    assert summary["val"]["student"]["accuracy"] == pytest.approx(best["val"]["accuracy"], abs=1e-12)

    # eval gives the run's numbers, and so does independent arithmetic on its predictions
    before = (run / "summary.json").read_bytes()
    assert distill("eval", f"ckpt={run}", "predictions=out/p.csv", "per_class=true") == 0
    assert (run / "summary.json").read_bytes() == before
    evaluated = read_json(run / "eval" / "digits-test.json")["student"]
    for name, value in summary["test"]["student"].items():
        assert evaluated[name] == pytest.approx(value, abs=1e-6), name
    found = table(tmp_path / "out" / "p.csv")
    assert found["index"].tolist() == list(range(360))
    assert found["predicted"].tolist() == found["student"].argmax(1).tolist()
    log_ratio = np.log(found["teacher"]) - np.log(found["student"])
    recomputed = {
        "accuracy": accuracy_score(found["label"], found["predicted"]),
        "f1": f1_score(found["label"], found["predicted"], average="macro"),
        "kl": (found["teacher"] * log_ratio).sum(1).mean(),
        "agreement": (found["teacher"].argmax(1) == found["predicted"]).mean(),
        "nll": -np.log(found["student"][np.arange(360), found["label"].astype(int)]).mean(),
    }
    for name, value in recomputed.items():
        assert evaluated[name] == pytest.approx(value, abs=1e-5), name


def test_a_copied_student_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK) == 0
    run = only_run(tmp_path)
    elsewhere = tmp_path / "deployed ü"
    elsewhere.mkdir()
    for name in ("student.safetensors", "model.json"):
        shutil.copy(run / name, elsewhere)
    assert distill("eval", f"ckpt={elsewhere / 'student.safetensors'}") == 0
    assert "there is no teacher to ask" in capsys.readouterr().err
    alone = read_json(elsewhere / "digits-test.json")["student"]
    assert alone["accuracy"] == read_json(run / "summary.json")["test"]["student"]["accuracy"]
    assert "kl" not in alone


def test_eval_tells_what_a_card_and_the_data_or_the_teacher_disagree_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, "run_dir=run") == 0
    card = files.read_json(tmp_path / "run" / "model.json")
    make_pictures(tmp_path / "photos")
    elsewhere = ["dataset=image_folder", "dataset.root=photos"]
    for change, words, code, said in (
        ({"teacher": {"path": 3}}, [], 4, "its card is damaged where it names the teacher"),
        ({"teachers": {"second": {"path": "x"}}}, [], 4, "its card is damaged where it names the teacher"),
        ({"teacher": {**card["teacher"], "sha256": "0"}}, [], 4, "holds another teacher than this student's"),
        ({"classes": [*card["classes"][:-1], "ten"]}, [], 4, "it does not know the data's 9"),
        ({}, elsewhere, 4, "answers 10 classes (0, 1, 2, 3, 4, ...): it does not know the data's a, b"),
    ):
        files.write_json(tmp_path / "run" / "model.json", {**card, **change})
        assert distill("eval", "ckpt=run", *words) == code
        assert said in " ".join(capsys.readouterr().err.split())


def test_checkpoints_evaluate_and_load_without_running_code(tmp_path: Path) -> None:
    assert distill("train", *QUICK) == 0
    run = only_run(tmp_path)
    summary = read_json(run / "summary.json")
    assert torch.load(run / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 2
    for name, who in (("last", "student_last"), ("best", "student")):
        assert distill("eval", f"ckpt={run / 'checkpoints' / name}.pt", "split=val") == 0
        evaluated = read_json(run / "eval" / f"digits-val-{name}.json")["student"]
        assert evaluated == pytest.approx(summary["val"][who], abs=1e-6)


def test_an_altered_student_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK) == 0
    path = only_run(tmp_path) / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert distill("eval", f"ckpt={path}") == 4
    assert "is not what was written" in capsys.readouterr().err


def test_a_card_that_names_foreign_code_is_refused_until_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "student").mkdir(parents=True)
    (tmp_path / "conf" / "student" / "mine.yaml").write_text("_target_: ownnet.Net\nwidth: 6\n")
    (tmp_path / "ownnet.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, width: int, in_channels: int, num_classes: int) -> None:\n"
        "        super().__init__(nn.Conv2d(in_channels, width, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    assert distill("train", *QUICK, "student=mine", "student.width=4") == 0
    run = only_run(tmp_path)
    assert distill("eval", f"ckpt={run}") == 4
    assert "trust=[ownnet]" in capsys.readouterr().err
    assert distill("eval", f"ckpt={run}", "trust=[ownnet]") == 0


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert distill("train", *QUICK, f"seed={seed}", f"run_dir={tmp_path / name}") == 0
    first, second, third = ([without_times(row) for row in rows(tmp_path / name)] for name in "abc")
    assert first == second
    weights = [(tmp_path / name / "student.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert first != third


def test_teacher_and_baseline_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("teacher", *QUICK) == 0
    (teacher,) = (tmp_path / "outputs" / "teachers").glob("[!.]*")
    assert {path.name for path in teacher.iterdir()} == {"teacher.safetensors", "model.json", "teacher.json"}
    assert distill("train", *QUICK, "baseline=true") == 0
    assert distill("train", *QUICK, "baseline=true", "T=9", "alpha=0.2") == 0
    shown = capsys.readouterr().err
    assert shown.count("teacher: fitting") == 1
    assert shown.count("baseline: training") == 1
    first, second = (read_json(run / "summary.json")["test"] for run in run_folders(tmp_path))
    assert first["teacher"] == second["teacher"]
    assert first["baseline"] == second["baseline"]
    assert first["student"] != second["student"]
    assert distill("train", *QUICK, "teacher.fit.seed=5") == 0
    assert "teacher: fitting" in capsys.readouterr().err


def test_the_baseline_is_a_run_on_labels_only(tmp_path: Path) -> None:
    assert distill("train", *QUICK, "baseline=true") == 0
    with_baseline = read_json(only_run(tmp_path) / "summary.json")["test"]["baseline"]
    labels_only = tmp_path / "labels"
    assert distill("train", *QUICK, "objective=ce", f"run_dir={labels_only}") == 0
    assert read_json(labels_only / "summary.json")["test"]["student"] == pytest.approx(with_baseline, abs=1e-12)


def test_the_teacher_learns_along_in_the_classic_practice_loop(tmp_path: Path) -> None:
    recipe = ["experiment=seed_example", "dataset=digits", "teacher=smallcnn", "schedule.train.epochs=2"]
    assert distill("train", *recipe, "objective.logit_sse.weight=0.001") == 0
    run = only_run(tmp_path)
    summary = read_json(run / "summary.json")
    assert summary["test"]["teacher"]["accuracy"] > 0.5
    assert not (tmp_path / "outputs" / "teachers").exists()
    assert distill("eval", f"ckpt={run}") == 0
    evaluated = read_json(run / "eval" / "digits-test.json")["student"]
    assert evaluated == pytest.approx(summary["test"]["student"], abs=1e-6)


def test_a_schedule_of_the_users_own_with_three_stages(tmp_path: Path) -> None:
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "mine.yaml").write_text(
        "look: {epochs: 1, T: 8, alpha: 1.0}\n"
        "learn: {epochs: 2, T: [8, 2], alpha: [1.0, 0.5], shape: cosine}\n"
        "polish: {epochs: 1, T: 1, alpha: 0, lr: 1e-4}\n"
    )
    words = [word for word in QUICK if not word.startswith("schedule.")]
    assert distill("train", *words, "schedule=mine", "optimizer.curve=constant") == 0
    found = [(row["stage"], row["T"], row["alpha"], row["lr"]) for row in rows(only_run(tmp_path))]
    halfway = 20 / 41  # the last step of the first of two epochs of 21 steps
    moved = (1 - np.cos(np.pi * halfway)) / 2
    assert found == [
        ("look", 8.0, 1.0, 0.003),
        ("learn", pytest.approx(8 - 6 * moved), pytest.approx(1 - 0.5 * moved), 0.003),
        ("learn", 2.0, 0.5, 0.003),
        ("polish", 1.0, 0.0, 1e-4),
    ]


def test_two_runs_at_once_fit_their_teacher_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distill_cli", "train", *QUICK, "threads=1"]
    processes = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "".join(said).count("teacher: fitting") == 1
    first, second = (read_json(run / "summary.json")["test"] for run in run_folders(tmp_path))
    assert first == second


def test_a_foreign_checkpoint_becomes_the_teacher_as_it_is(tmp_path: Path) -> None:
    assert distill("teacher", *QUICK, "teacher.fit.epochs=2") == 0
    (teacher,) = (tmp_path / "outputs" / "teachers").glob("[!.]*")
    weights = {
        f"module.{k}".replace("fc.", "linear."): v for k, v in load_file(teacher / "teacher.safetensors").items()
    }
    torch.save({"state_dict": weights, "best_prec1": 12.5}, tmp_path / "foreign.th")
    for number, path in enumerate((tmp_path / "foreign.th", teacher, teacher / "teacher.safetensors")):
        run = tmp_path / f"run{number}"
        words = [word for word in QUICK if not word.startswith("teacher.fit")]
        assert distill("train", *words, f"teacher.checkpoint={path}", f"run_dir={run}") == 0
        expected = read_json(teacher / "teacher.json")["test"]
        assert read_json(run / "summary.json")["test"]["teacher"] == pytest.approx(expected, abs=1e-12)


def test_of_a_file_with_two_networks_the_teacher_is_taken_and_said_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("teacher", *QUICK) == 0
    (teacher,) = (tmp_path / "outputs" / "teachers").glob("[!.]*")
    right = load_file(teacher / "teacher.safetensors")
    torch.save({"student": {k: torch.zeros_like(v) for k, v in right.items()}, "teacher": right}, tmp_path / "both.pth")
    words = [word for word in QUICK if not word.startswith("teacher.fit")]
    for _ in range(2):  # made, then found again
        capsys.readouterr()
        assert distill("teacher", *words, "teacher.checkpoint=both.pth", "output_dir=other") == 0
        assert "teacher: both.pth holds teacher, student: took teacher" in capsys.readouterr().err
    (made,) = (tmp_path / "other" / "teachers").glob("[!.]*")
    assert read_json(made / "teacher.json")["test"] == read_json(teacher / "teacher.json")["test"]


FEW = [*QUICK, "dataset.limit=80", "teacher.widths=[8,8]", "batch_size=40"]
OF_TRANSFORMERS = {"attention_map", "embedding", "hidden", "relation"}  # which pictures' networks here are not
TAUGHT = sorted(set(places.group_files("objective")) - {"ce"} - OF_TRANSFORMERS)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_every_objective_trains_in_half_precision(precision: str, tmp_path: Path) -> None:
    words = [*FEW, f"objective=[{','.join(TAUGHT)}]", f"precision={precision}", "teacher.fit.epochs=0"]
    assert distill("train", *words, *(f"objective.{name}.weight=0.01" for name in TAUGHT)) == 0
    for row in rows(only_run(tmp_path)):
        assert {"ce", *TAUGHT} <= set(row["loss"])
        assert all(np.isfinite(value) for value in row["loss"].values())


@pytest.mark.parametrize("name", ["ce", *TAUGHT])
def test_every_objective_goes_through_two_stages_resumes_and_evaluates(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*FEW, f"objective={name}"]
    assert distill("train", *words, "run_dir=straight") == 0

    def stop(run: Run, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "rows", stop)
        assert distill("train", *words, "run_dir=stopped") == 130
    assert distill("resume", "stopped") == 0
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert (stopped / "student.safetensors").read_bytes() == (straight / "student.safetensors").read_bytes()
    assert [without_times(row) for row in rows(stopped)] == [without_times(row) for row in rows(straight)]
    assert [row["stage"] for row in rows(stopped)] == ["imitate", "refine"]
    assert name in rows(stopped)[-1]["loss"]
    assert distill("eval", "ckpt=stopped") == 0
    measured = read_json(stopped / "eval" / "digits-test.json")["student"]
    assert measured == pytest.approx(read_json(stopped / "summary.json")["test"]["student"], abs=1e-12)


def test_debug_rows_tell_what_each_term_weighs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", "--debug", *FEW, "objective=[kd,logit_mse]", "objective.logit_mse.weight=0.1") == 0
    assert capsys.readouterr().err.count("|their gradient| / |grad CE|:  ce ") == 2
    first, last = (row["debug"] for row in rows(only_run(tmp_path)))
    assert list(first) == ["ce", "kd", "logit_mse"]
    assert first["ce"]["gradient_ratio"] == pytest.approx(0.3)  # 1 - alpha
    assert all(term["weighted"] > 0 and term["gradient_ratio"] > 0 for term in first.values())
    assert last["kd"] == {"weighted": 0.0, "gradient_ratio": 0.0} and last["ce"]["gradient_ratio"] == 1  # alpha is 0


@pytest.mark.slow
def test_a_changed_network_of_the_users_is_trained_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "own.yaml").write_text("_target_: changing.Net\n")
    for activation in ("ReLU", "Tanh"):
        (tmp_path / "changing.py").write_text(
            "from torch import nn\n"
            "class Net(nn.Sequential):\n"
            "    def __init__(self, in_channels: int, num_classes: int) -> None:\n"
            f"        layers = [nn.Conv2d(in_channels, 4, 3, 2), nn.{activation}(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]\n"
            "        super().__init__(*layers, nn.Linear(64, num_classes))\n"
        )
        words = ["teacher=own" if word.startswith("teacher=") else word for word in QUICK if "widths" not in word]
        words = ["student=own" if word.startswith("student=") else word for word in words]
        done = distill_process("train", *words, "baseline=true", "threads=1", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "teacher: fitting" in done.stderr
        assert "baseline: training" in done.stderr


def test_a_checkpoint_copied_alone_tells_what_it_needs(tmp_path: Path) -> None:
    assert distill("train", *QUICK) == 0
    shutil.copy(only_run(tmp_path) / "checkpoints" / "best.pt", tmp_path / "alone.pt")
    assert distill("eval", "ckpt=alone.pt") == 0
    assert distill("eval", "ckpt=alone.pt", "dataset=digits", "split=val") == 0
    found = read_json(tmp_path / "digits-val-alone.json")["student"]["accuracy"]
    assert found == read_json(only_run(tmp_path) / "summary.json")["val"]["student"]["accuracy"]


def test_settings_without_effect_and_a_teacher_at_chance_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, "objective=logit_mse", "T=5", "optimizer.gamma=0.5", "teacher.fit.epochs=0") == 0
    said = capsys.readouterr().err
    assert "T has no effect with objective=logit_mse" in said
    assert "optimizer.gamma has no effect with optimizer.curve=cosine" in said
    assert "no better than chance" in said


def test_pictures_of_the_users_in_a_folder_with_a_difficult_name(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "my pictures, ü=1", ("train", "val", "test"))
    words = [*QUICK, "dataset=image_folder", f"dataset.root={root}"]
    for memory, name in (("2", "held"), ("0", "streamed")):
        assert distill("train", *words, f"dataset.memory={memory}", f"run_dir={tmp_path / name}") == 0
    held, streamed = (rows(tmp_path / name) for name in ("held", "streamed"))
    assert [row["loss"] for row in held] == [row["loss"] for row in streamed]
    assert distill("eval", f"ckpt={tmp_path / 'held'}", "split=train") == 0


def test_a_signal_leaves_an_interrupted_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distill_cli", "train", *QUICK, "schedule.imitate.epochs=1000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "imitate    1/" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    run = only_run(tmp_path)
    status = read_json(run / "status.json")
    assert (status["status"], status["exit_code"]) == ("interrupted", 130)
    assert (run / "checkpoints" / "last.pt").is_file()
    assert not (run / "summary.json").exists()


def test_the_command_works_as_a_module_from_another_directory(tmp_path: Path) -> None:
    done = distill_process("list", "schedules", cwd=tmp_path)
    assert done.returncode == 0
    assert "two_stage" in done.stdout


def test_optimize_chooses_the_best_epoch_of_a_run_and_of_its_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["schedule=constant", "schedule.train.epochs=4", "optimizer.lr=0.02", "baseline=true", "run_dir=run"]
    words = [*(word for word in QUICK if not word.startswith(("schedule", "optimizer"))), *words]
    chosen = {}
    for metric in (None, "val.ece", "val.kl"):
        assert distill("train", *words, *([f"optimize={metric}"] if metric else []), f"run_dir={metric}") == 0
        run = tmp_path / str(metric)
        summary, epochs, said = read_json(run / "summary.json"), rows(run), capsys.readouterr()
        name = "accuracy" if metric is None else metric.removeprefix("val.")
        values = [row["val"][name] for row in epochs]
        best = max(values) if metric is None else min(values)
        assert summary["val"]["student"][name] == pytest.approx(best, rel=1e-9)
        assert {summary["chosen_by"], *(row["chosen_by"] for row in epochs)} == {f"val.{name}"}
        assert f"val {'acc' if metric is None else name} {epochs[0]['val'][name]:.4f}" in said.err
        assert f"best on validation{f' by {name}' if metric else ''} (epoch" in said.out
        chosen[metric] = summary["val"]["baseline"]
    # The baseline has no teacher to follow, so kl leaves it to accuracy; for ece it is another epoch, kept apart.
    assert (
        chosen["val.kl"] == pytest.approx(chosen[None], rel=1e-9)
        or chosen["val.kl"]["accuracy"] == chosen[None]["accuracy"]
    )
    assert len(list((tmp_path / "outputs" / "baselines").glob("[!.]*"))) == 2
    # It changes what comes out, so a run that is gone on with keeps it.
    (tmp_path / "val.ece" / "summary.json").unlink()
    assert distill("train", *words, "optimize=val.nll", "run_dir=val.ece") == 4


def test_a_compiled_student_with_layers_listened_to_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def compiled(model: nn.Module) -> Any:
        asked.append(model)
        return COMPILE(
            model, backend="aot_eager"
        )  # the graph is taken as ever; only its kernels are not made by a C++ compiler

    monkeypatch.setattr(torch, "compile", compiled)
    for name in ("false", "true"):
        assert distill("train", *QUICK, "objective=hint", f"compile={name}", f"run_dir={tmp_path / name}") == 0
    assert len({id(model) for model in asked}) == 1  # the student, and the teacher answers from what is kept
    plain, fast = (rows(tmp_path / name) for name in ("false", "true"))
    for one, other in zip(plain, fast, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
