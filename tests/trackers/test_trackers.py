"""Trackers get what metrics.jsonl and summary.json hold, a run gone on with is one run there, and none can harm a run."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import torch
from helpers import QUICK, distill, read_json, rows, without_times

from distill_cli.base import files, locks
from distill_cli.base.errors import CheckpointError, Terminated
from distill_cli.config.load import load
from distill_cli.config.overrides import quoted
from distill_cli.runs import identity
from distill_cli.trackers import about, following, numbers

ALL = ("tensorboard", "wandb", "mlflow")

# A logger that writes down what it is told, and at one place does what it should not.
MINE = """
import json, logging, os, random, signal, time
from pathlib import Path
from distill_cli.trackers import Logger


class Mine(Logger):
    def __init__(self, at: str = "", does: str = "raises", file: str = "told.jsonl", target: str = "") -> None:
        self.at, self.does, self.file, self.target = at, does, Path(file).absolute(), target

    def told(self, call, *what):
        with self.file.open("a") as file:
            file.write(json.dumps([call, *what]) + "\\n")
        if call == self.at:
            getattr(self, self.does)()

    def start(self, run, after):
        self.told("start", after)
        return "here"

    def epoch(self, row):
        self.told("epoch", row)

    def finish(self, summary, report):
        self.told("finish", summary, str(report))

    def close(self, status):
        self.told("close", status)

    def raises(self):
        raise RuntimeError(f"broken at {self.at}\\nand more")

    def raises_and_hangs(self):
        self.at, self.does = "close", "hangs"
        raise RuntimeError("broken at epoch")

    def leaves(self):
        raise SystemExit(0)

    def dies(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def hangs(self):
        time.sleep(600)

    def meddles(self):
        print("chatter", flush=True)
        os.chdir("/")
        random.seed(1)
        logging.basicConfig(level=0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        input("a question? ")
"""

ROWS = [
    {
        "stage": "imitate",
        "epoch": 1,
        "step": 10,
        "T": 3.0,
        "loss": {"total": 2.5},
        "val": {"accuracy": 0.25},
        "best": 1,
    },
    {"stage": "refine", "epoch": 2, "step": 20, "T": 1.0, "loss": {"total": 1.5}, "val": {"accuracy": 0.5}, "best": 1},
    {"stage": "refine", "epoch": 3, "step": 30, "T": 1.0, "loss": {"total": 0.5}, "val": {"accuracy": 0.75}, "best": 1},
]
SUMMARY = {"run": "x", "test": {"student": {"accuracy": 0.875}}}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, a home that stays empty, and no process left behind."""
    surroundings(monkeypatch, tmp_path)
    monkeypatch.setattr(following, "PATIENCE", 60.0)  # a busy machine takes its time over three imports
    (tmp_path / "mine.py").write_text(MINE)
    yield
    assert not list((tmp_path / "home").iterdir())
    assert not processes_in(tmp_path)


def surroundings(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    (place / "home").mkdir()
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def processes_in(place: Path) -> list[str]:
    """Command lines of the processes other than this one that work in `place`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid() and (process / "cwd").readlink().is_relative_to(place):
                found.append((process / "cmdline").read_text())
        except OSError:  # it is gone
            continue
    return [words for words in found if words]  # a zombie has none


def run_in(folder: Path) -> Path:
    """A folder that says what its run is, as one that is about to train."""
    folder.mkdir(exist_ok=True)
    stages = {"imitate": {"T": "3.0"}, "refine": {"T": ["3.0", 1.0]}}
    config = {
        "seed": 7,
        "schedule": stages,
        "output_dir": "outputs",
        "logger": {"mlflow": {"tracking_uri": "http://me:secret@there"}},
    }
    typed = ["seed=7", "logger=mlflow", "logger.mlflow.tracking_uri=http://me:secret@there"]
    says = {"config": config, "overrides": typed, "name": "train", "directory": ".", "prints": {}, "machine": {}}
    files.write_json(folder / "run.json", says)
    return folder


def wrote(folder: Path, rows: list[dict[str, Any]], summary: dict[str, Any] | None = None) -> None:
    """Leave in the run's folder what a run leaves there after an epoch, or after all of them."""
    told = ({key: value for key, value in row.items() if key != "best"} for row in rows)
    files.write(folder / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in told))
    if summary:
        files.write_json(folder / "summary.json", summary)


def mine(at: str = "", does: str = "raises") -> dict[str, Any]:
    return {"mine": {"_target_": "mine.Mine", "at": at, "does": does}}


def shipped(*names: str) -> dict[str, dict[str, Any]]:
    """The shipped trackers' nodes."""
    return {name: one.node for name, one in load("train", [f"logger=[{','.join(names)}]"]).logger.items()}


def told(file: Path = Path("told.jsonl")) -> list[list[Any]]:
    """What the logger above was told."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def until(happened: Callable[[], object]) -> None:
    """Wait for something that a tracker is to do."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning:")]


def read_tensorboard(run: Path) -> tuple[dict[str, str], dict[int, dict[str, float]]]:
    """The texts, and the scalars by step, as TensorBoard itself reads the folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    scalars: dict[int, dict[str, float]] = {}
    for tag in found.Tags()["scalars"]:
        for event in found.Scalars(tag):
            assert tag not in scalars.setdefault(event.step, {}), f"{tag} at {event.step} is there twice"
            scalars[event.step][tag] = event.value
    texts = {tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    return texts, scalars


def read_mlflow(store: Path, name: str) -> tuple[Any, dict[int, dict[str, float]], list[str]]:
    """The store's only run of that name, its metrics by step, and its artifacts' names, as MLflow's client gives them."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("distill").experiment_id
    (run,) = client.search_runs([experiment], f"run_name = '{name}'")
    metrics: dict[int, dict[str, float]] = {}
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            assert name not in metrics.setdefault(metric.step, {}), f"{name} at {metric.step} is there twice"
            metrics[metric.step][name] = metric.value
    return run, metrics, [artifact.path for artifact in client.list_artifacts(run.info.run_id)]


def read_wandb(run: Path) -> dict[str, list[Any]]:
    """The records of all tries by kind, from the files that `wandb sync` would send (LevelDB's log format)."""
    from wandb.proto.wandb_internal_pb2 import Record

    records: dict[str, list[Any]] = {}
    for file in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        data, at, parts = file.read_bytes(), 7, b""  # after wandb's own header
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:  # the rest of a block that takes no more
                at += 32768 - at % 32768
                continue
            length, part = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            parts += data[at + 7 : at + 7 + length]
            at += 7 + length
            if part in (1, 4):  # a whole record, or its last part
                record = Record.FromString(parts)
                kind = record.WhichOneof("record_type")
                records.setdefault(kind, []).append(getattr(record, kind))
                parts = b""
    return records


def values(items: Any) -> dict[str, Any]:
    """What wandb's items hold, by name."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str, str]]:
    """The same job without trackers and with all: both run folders, and what the second put on stdout and stderr."""
    place = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        surroundings(patch, place)
        assert distill("train", *QUICK, "run_dir=bare") == 0
        patch.setattr(following, "PATIENCE", 60.0)
        out = io.StringIO()
        with (place / "err").open("a+", buffering=1) as err, stderr_to(err), contextlib.redirect_stdout(out):
            assert distill("train", *QUICK, "run_dir=run", f"logger=[{','.join(ALL)}]") == 0
        assert not list((place / "home").iterdir()) and not processes_in(place)
        yield place / "bare", place / "run", out.getvalue(), (place / "err").read_text()


@contextlib.contextmanager
def stderr_to(file: TextIO) -> Iterator[None]:
    """Have what this process and those that it starts say on stderr in `file`."""
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        with contextlib.redirect_stderr(file):
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)


Tracked = tuple[Path, Path, str, str]


def test_trackers_change_nothing_in_a_run_and_say_one_line_each(tracked: Tracked) -> None:
    bare, run, out, err = tracked
    assert (run / "student.safetensors").read_bytes() == (bare / "student.safetensors").read_bytes()
    assert [without_times(row) for row in rows(run)] == [without_times(row) for row in rows(bare)]
    assert sorted(line.split(":")[0] for line in err.splitlines() if line.startswith(ALL)) == sorted(ALL)
    assert not warnings(err) and not any(f"{name}:" in out for name in ALL)


def test_tensorboard_holds_the_run(tracked: Tracked) -> None:
    _, run, _, _ = tracked
    texts, scalars = read_tensorboard(run)
    last = rows(run)[-1]["step"]
    for number, row in enumerate(rows(run)):
        told = {key: value for key, value in scalars[row["step"]].items() if not key.startswith("summary/")}
        assert told == pytest.approx({"stage": number, **numbers(row)}, rel=1e-6)
    final = numbers({"summary": read_json(run / "summary.json")})
    assert {key: scalars[last][key] for key in final} == pytest.approx(final, rel=1e-6)
    assert "| schedule.refine.T | [3.0, 1.0] |" in texts["config"] and "| teacher.mean | null |" in texts["config"]
    assert "student=tinycnn" in texts["overrides"] and texts["status"] == "finished"


def test_mlflow_holds_the_run(tracked: Tracked) -> None:
    _, run, _, _ = tracked
    found, metrics, artifacts = read_mlflow(run.parent / "outputs" / "mlflow", "run")
    for number, row in enumerate(rows(run)):
        assert {"stage": number, **numbers(row)}.items() <= metrics[row["step"]].items()
    assert numbers({"summary": read_json(run / "summary.json")}).items() <= found.data.metrics.items()
    assert found.data.params["schedule.refine.T"] == "[3.0, 1.0]" and found.data.params["teacher.mean"] == "null"
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert artifacts == [page.name for page in run.glob("report.html")]


def test_wandb_holds_the_run(tracked: Tracked) -> None:
    _, run, _, _ = tracked
    records = read_wandb(run)
    for number, (row, told) in enumerate(zip(rows(run), records["history"], strict=True)):
        wanted = {"stage": number, "stage_name": row["stage"], "_step": row["step"], **numbers(row)}
        assert wanted.items() <= values(told.item).items()
    final = {key: value for summary in records["summary"] for key, value in values(summary.update).items()}
    assert numbers({"summary": read_json(run / "summary.json")}).items() <= final.items()
    (begun,) = records["run"]
    config = values(begun.config.update)
    assert config["schedule"]["refine"]["T"] == [3.0, 1.0] and config["seed"] == 0 and "logger" not in config
    assert begun.display_name == "run" and begun.project == "distill"
    assert [ended.exit_code for ended in records["exit"]] == [0]


def test_a_run_gone_on_with_is_one_run_with_every_epoch_once(
    tracked: Tracked, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, nodes, page = run_in(tmp_path / "again"), shipped(*ALL), tmp_path / "again" / "report.html"
    page.write_text("<p>report</p>")
    store = tracked[0].parent / "outputs" / "mlflow"  # it takes seconds to lay one out
    nodes["mlflow"]["store"] = str(store)
    with pytest.raises(ValueError), following.Following(nodes, run):
        wrote(run, ROWS[:1])
        wrote(run, ROWS[:2])
        raise ValueError("the run's own")
    with following.Following(nodes, run):
        wrote(run, ROWS[:2])
        wrote(run, ROWS, SUMMARY)
    assert not warnings(capfd.readouterr().err)
    texts, scalars = read_tensorboard(run)
    assert {step: told["val/accuracy"] for step, told in scalars.items()} == {10: 0.25, 20: 0.5, 30: 0.75}
    assert scalars[30]["summary/test/student/accuracy"] == 0.875 and texts["report"] == str(page)
    assert texts["overrides"] == "seed=7" and "secret" not in texts["config"]
    found, metrics, artifacts = read_mlflow(store, "again")
    assert {step: told["val/accuracy"] for step, told in metrics.items()} == {10: 0.25, 20: 0.5, 30: 0.75}
    assert artifacts == ["report.html"] and found.info.status == "FINISHED"
    records = read_wandb(run)
    told = [values(record.item) for record in records["history"]]
    assert [(row["_step"], row["val/accuracy"]) for row in told] == [(10, 0.25), (20, 0.5), (30, 0.75)]
    assert {begun.run_id for begun in records["run"]} == {about(run).id}
    assert [artifact.name for artifact in records["artifact"]] == [f"report-{about(run).id}"]


def test_a_logger_is_told_of_epochs_that_an_earlier_try_did_not_get_to(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    with pytest.raises(ValueError), following.Following(mine(at="epoch"), run):
        wrote(run, ROWS[:2])
        raise ValueError("the run's own")
    for _ in range(2):
        with following.Following(mine(), run):
            wrote(run, ROWS, SUMMARY)
    sent = [{key: value for key, value in row.items() if key != "best"} for row in ROWS]
    assert told() == [
        ["start", 0],
        ["epoch", sent[0]],  # and failed: it does not count
        ["close", "failed"],
        ["start", 0],
        *(["epoch", row] for row in sent),
        ["finish", SUMMARY, "None"],
        ["close", "finished"],
        ["start", 30],
        ["close", "finished"],
    ]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_stop_passes_through_and_is_told(stop: type[BaseException], tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    with pytest.raises(stop), following.Following(mine(), run):
        wrote(run, ROWS[:1])
        until(lambda: Path("told.jsonl").exists())  # it takes a busy machine longer to start than a stopped run waits
        raise stop
    assert [line[0] for line in told()] == ["start", "epoch", "close"] and told()[-1] == ["close", "interrupted"]


def test_rows_that_an_earlier_try_left_are_not_sent_before_the_run_has_written_its_own(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    wrote(run, ROWS)
    with pytest.raises(ValueError), following.Following(mine(), run):
        raise ValueError("its teacher cannot be read")
    with following.Following(mine(), run):
        until(lambda: told()[-1][0] == "start")
        wrote(run, ROWS[1:2], SUMMARY)
    assert [line[0] for line in told()] == ["start", "close", "start", "epoch", "finish", "close"]
    assert told()[3][1]["step"] == 20


def test_a_place_that_is_new_is_told_of_every_epoch(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    for place in ("here", "there", "here"):
        with following.Following(mine() | {"mine": {**mine()["mine"], "target": place}}, run):
            wrote(run, ROWS, SUMMARY)
    epochs = ["epoch"] * len(ROWS)
    assert [line[0] for line in told()] == [*["start", *epochs, "finish", "close"] * 2, "start", "close"]


def test_a_run_with_broken_loggers_is_the_run_without_and_each_is_warned_about_once(
    tracked: Tracked, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tracked[0]
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    broken = {call: (call, "raises") for call in ("start", "epoch", "finish", "close")}
    broken |= {"dying": ("epoch", "dies"), "leaving": ("start", "leaves")}
    for name, (call, does) in broken.items():
        text = f"{name}: {{_target_: mine.Mine, at: {call}, does: {does}, file: {name}.jsonl}}"
        (tmp_path / "conf" / "logger" / f"{name}.yaml").write_text(text)
    monkeypatch.setitem(sys.modules, "wandb", None)
    chosen = ",".join([*broken, "wandb", "tensorboard"])
    typed = [f"logger=[{chosen}]", "logger.tensorboard.dir=mine.py/below/a/file"]
    assert distill("train", *QUICK, *typed, f"output_dir={bare.parent / 'outputs'}", "run_dir=run") == 0
    warned = warnings(capfd.readouterr().err)
    assert sorted(line.split()[1] for line in warned) == sorted(f"logger={name}:" for name in chosen.split(","))
    assert "warning: logger=wandb: wandb is not installed; pip install 'distill-cli[log]'" in warned
    assert "warning: logger=epoch: broken at epoch" in warned
    assert any("logger=dying: its process died" in line for line in warned)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == (bare / "student.safetensors").read_bytes()
    assert "RuntimeError: broken at close" in (tmp_path / "run" / "train.log").read_text()
    assert [line[0] for line in told(Path("epoch.jsonl"))] == ["start", "epoch", "close"]


@pytest.mark.parametrize("at", ["start", "epoch", "close"])
def test_a_logger_that_hangs_costs_no_more_than_the_patience(
    at: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 2.0)
    run = run_in(tmp_path / "run")
    with following.Following(mine(at, "hangs"), run):  # for ten minutes
        wrote(run, ROWS, SUMMARY)
        since = time.monotonic()
    assert time.monotonic() - since < 60
    assert len(warnings(capfd.readouterr().err)) == 1


def test_a_logger_that_fails_and_then_hangs_is_warned_about_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_in(tmp_path / "run")
    with following.Following(mine("epoch", "raises_and_hangs"), run):
        wrote(run, ROWS)
    assert warnings(capfd.readouterr().err) == ["warning: logger=mine: broken at epoch"]


def test_a_stop_while_waiting_for_a_logger_is_heard_at_once(tmp_path: Path) -> None:
    def ring(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(KeyboardInterrupt), following.Following(mine("close", "hangs"), run_in(tmp_path / "run")):
            signal.alarm(2)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["", "close"])
def test_when_the_run_is_killed_its_loggers_close_and_end_even_where_they_hang(at: str, tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    wrote(run, ROWS)
    (run / "metrics.jsonl").rename(run / "new.jsonl")
    code = f"""
import os, time
from pathlib import Path
from distill_cli.trackers.following import Following
with Following({mine(at, "hangs")!r}, Path({str(run)!r})):
    Path({str(run)!r}, "new.jsonl").rename(Path({str(run)!r}, "metrics.jsonl"))
    while not Path("told.jsonl").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    until(lambda: not processes_in(tmp_path))
    assert [line[0] for line in told()] == ["start", "epoch", "epoch", "epoch", "close"]
    assert told()[-1] == ["close", "failed"]


def test_nothing_of_a_logger_reaches_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def state() -> list[Any]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        chance = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        root = [logging.root.level, list(logging.root.handlers)]
        return [handlers, Path.cwd(), chance, root, {**os.environ}, threading.active_count()]

    before = state()
    with following.Following(mine("start", "meddles"), run_in(tmp_path / "run")):
        assert state() == before
    assert state() == before
    said = capfd.readouterr()
    assert not said.out and said.err.startswith("warning: logger=mine: EOF when reading a line")
    assert "chatter" in (tmp_path / "run" / "train.log").read_text()


def test_a_finished_run_can_be_sent_later_and_is_sent_once(
    tracked: Tracked, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "mpl"))  # the report's, not the tracker's
    run = tmp_path / "run"
    shutil.copytree(tracked[0], run)
    assert distill("report", "run", "logger=tensorboard") == 0
    assert f"sent         {run} to tensorboard: finished" in capfd.readouterr().out
    texts, scalars = read_tensorboard(run)
    for number, row in enumerate(rows(run)):
        assert scalars[row["step"]].items() >= approximately({"stage": number, **numbers(row)}).items()
    final = numbers({"summary": read_json(run / "summary.json")})
    assert scalars[rows(run)[-1]["step"]].items() >= approximately(final).items()
    assert texts["status"] == "finished" and texts["report"] == str(run / "report.html")
    assert distill("report", "run", "logger=tensorboard") == 0
    assert f"it has this run up to step {rows(run)[-1]['step']}" in capfd.readouterr().err
    assert read_tensorboard(run)[1] == scalars


def approximately(values: dict[str, float]) -> dict[str, float]:
    """The values in single precision, as TensorBoard keeps them."""
    return {key: float(np.float32(value)) for key, value in values.items()}


@pytest.fixture
def untold(tmp_path: Path) -> Path:
    """The folder of a run that has a row and no end, beside a conf/ with the logger above."""
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    (tmp_path / "conf" / "logger" / "mine.yaml").write_text('mine: {_target_: mine.Mine, at: "", does: raises}')
    run = run_in(tmp_path / "run")
    wrote(run, ROWS[:1])
    files.write_json(run / "status.json", {"status": "running"})
    return run


def test_a_running_run_is_followed_until_it_ends(untold: Path, tmp_path: Path) -> None:
    lock = locks.claim(untold / identity.LOCK)
    command = [sys.executable, "-m", "distill_cli", "report", str(untold), "logger=mine"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sending:
        until(lambda: sending.poll() or (Path("told.jsonl").exists() and told()[-1][0] == "epoch"))
        assert sending.poll() is None
        wrote(untold, ROWS, SUMMARY)
        files.write_json(untold / "status.json", {"status": "finished"})
        lock.release()
        out, err = sending.communicate()
    assert sending.returncode == 0 and "is still running: it is sent to mine until it ends" in err
    assert [line[0] for line in told()] == ["start", "epoch", "epoch", "epoch", "finish", "close"]
    assert told()[-1] == ["close", "finished"] and out.endswith("to mine: finished\n")


@pytest.mark.parametrize(("status", "ended"), [("running", "failed"), ("interrupted", "interrupted")])
def test_of_a_run_that_was_killed_or_stopped_what_there_is_is_sent(status: str, ended: str, untold: Path) -> None:
    files.write_json(untold / "status.json", {"status": status})
    assert distill("report", "run", "logger=mine") == 0
    assert [line[0] for line in told()] == ["start", "epoch", "close"] and told()[-1] == ["close", ended]


def test_a_run_that_could_not_be_sent_is_a_failure(untold: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert distill("report", "run", "logger=mine", "logger.mine.at=epoch") == 6
    said = capfd.readouterr().err
    assert "warning: logger=mine: broken at epoch" in said and "error: not sent to mine" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run logger=tensorbord", "did you mean logger=tensorboard?"),
        ("run logger=wandb logger.wandb.mode=onlin", "logger.wandb.mode: should be one of online, offline, disabled"),
        ("run logger=wandb,mlflow", "several trackers are a list: logger=[tensorboard,wandb]"),
        ("run loger=wandb", "did you mean logger?"),
        (". logger=wandb", "logger=wandb: sends one run, and . is not the folder of one"),
        ("run run logger=wandb", "logger=wandb: sends one run"),
    ],
)
def test_what_cannot_be_sent_is_told(words: str, said: str, untold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("report", *words.split()) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_is_called_like_a_package_is_not_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    kept = [place for place in sys.path if not (Path(place) / "wandb").is_dir()]
    monkeypatch.setattr(sys, "path", [*kept, str(tmp_path)])
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    with following.Following(shipped("wandb"), run_in(tmp_path / "run")):
        pass
    assert "wandb is not installed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("logger=tensorbord", "did you mean logger=tensorboard?"),
        ("logger=[wandb,nope]", "choices: mlflow, tensorboard, wandb"),
        (
            "logger=wandb logger.wandb.mode=onlin",
            "logger.wandb.mode: should be one of online, offline, disabled or null",
        ),
        ("logger=wandb +logger.wandb.colour=red", "logger.wandb.colour: WandB takes no such key"),
        ("+logger.mine.at=x", "logger.mine: has no _target_"),
    ],
)
def test_a_mistyped_logger_is_told_before_anything_starts(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, *words.split()) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(Path("outputs").glob("teachers/*"))


@pytest.mark.parametrize("word", ["logger=null", "logger=[]"])
def test_a_logger_that_a_recipe_chooses_can_be_left_out(word: str, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\ndefaults:\n  - override /logger: [tensorboard, wandb]\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(recipe)
    assert list(load("train", ["experiment=mine"]).logger) == ["tensorboard", "wandb"]
    assert not load("train", ["experiment=mine", quoted(word)]).logger


def test_loggers_are_no_part_of_what_a_run_is() -> None:
    kept = {"T": 3.0, "logger": {}}
    identity.require_same(kept, {"T": 3.0, "logger": shipped("wandb", "mlflow")}, "differs", "")
    with pytest.raises(CheckpointError, match="T: 3"):
        identity.require_same(kept, {"T": 4.0, "logger": {}}, "differs", "")
