"""A whole run: prepare the teacher, distill, evaluate, write the folder; or go on from where an earlier try stopped."""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_cli import __version__
from distill_cli.base import files, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.config.schema import FIRST, Train
from distill_cli.deploy import cost
from distill_cli.models import Classifier, weights
from distill_cli.pipeline import baseline
from distill_cli.pipeline import summary as words
from distill_cli.report import write
from distill_cli.runs.checkpoints import fitting
from distill_cli.runs.identity import SUMMARY
from distill_cli.runs.run import Run
from distill_cli.tasks import evaluation, metrics
from distill_cli.teachers import answering
from distill_cli.teachers import preparing as teachers
from distill_cli.trackers.following import following
from distill_cli.training import loop, saving, setup
from distill_cli.training.setup import Setup


def distill(settings: Train, run: Run) -> dict[str, Any]:
    """Run the job in its folder, from its newest checkpoint if there is one, and return its summary.

    Args:
        settings: what the run is to do; a link of a chain does another thing than its folder's settings say.

    Raises:
        DistillError: as the parts say.
    """
    if (known := run.summary()) is not None:
        ui.say(f"{run.folder} holds this run, finished")
        close(known, run.folder, settings.report)
        return known
    job = setup.read(settings)
    untrained = copy.deepcopy(job.student)
    way = answering.way_of(job)
    ui.show(words.header(job, way.note))
    ui.show(f"run        {run.folder}\n")
    for line in setup.idle_settings(job, teachers.fit_epochs(settings.teacher)):
        ui.warn(line)
    clock = words.Clock()
    with clock("teacher"):
        prepared = {} if way.joint else {name: teachers.prepare(own) for name, own in job.teachers.items()}
        homes = {name: one.folder for name, one in prepared.items()} or homes_along(job, run.folder)
        card = job.card("student") | ({} if way.joint else taught_by(job, homes, run.folder))
    run.agree(prints_of(job, prepared), machine_of(job))
    with following({name: one.node for name, one in settings.logger.items()}, run.folder):
        with clock("cache"):
            teacher = answering.start(job, way, prepared)
        state = train(job, teacher, run, card, clock)
        logits = answers(job, state, teacher, untrained, clock)
        summary = summarise(job, state, logits, run) | {"seconds": clock.seconds}
        if way.joint:
            for name, own in job.teachers.items():
                homes[name].mkdir(parents=True, exist_ok=True)
                weights.write_model(homes[name], "teacher", own.teacher.net, own.card("teacher"))
            card |= taught_by(job, homes, run.folder)
        weights.write_model(run.folder, "student", job.student.net, card)
        files.write_json(run.folder / evaluation.FILE, details(job, logits["test"]))
        files.write_json(run.folder / SUMMARY, summary)
        close(summary, run.folder, settings.report)
    return summary


def homes_along(job: Setup, folder: Path) -> dict[str, Path]:
    """Where teachers that are trained along are kept: in the run's own folder."""
    first, *others = job.teachers
    return {first: folder / "teacher", **{name: folder / "teachers" / name for name in others}}


def prints_of(job: Setup, prepared: Mapping[str, teachers.Prepared]) -> dict[str, Any]:
    """Fingerprints of what the run works on: its data, its teacher's weights, and the user's own code by target."""
    return {
        "data": job.data.digest,
        "teacher": prepared[FIRST].weights if prepared else None,
        **{f"teachers.{name}": one.weights for name, one in prepared.items() if name != FIRST},
        "code": setup.user_code({**job.config.plain, "logger": None}),  # trackers change nothing in what comes out
    }


def machine_of(job: Setup) -> dict[str, Any]:
    """What the last bits of the numbers may depend on."""
    return {
        "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else str(job.device),
        "threads": torch.get_num_threads(),
        "distill": __version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def taught_by(job: Setup, homes: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """How a student's card names its teachers: where each is from the run's folder, which weights it has, and what share
    it has in what several say.
    """
    shares = answering.weights_of(job).tolist()
    found = {
        name: {"path": os.path.relpath(home, folder), "sha256": weights.read_card(home)["sha256"], "weight": share}
        for (name, home), share in zip(homes.items(), shares, strict=True)
    }
    first = found.pop(FIRST)
    return {"teacher": first, "teachers": found} if found else {"teacher": first}


def train(job: Setup, teacher: answering.Teacher, run: Run, card: Mapping[str, Any], clock: words.Clock) -> loop.State:
    """Run the stages, or what is left of them; every epoch leaves a row and checkpoints. Returns the final state."""
    state = loop.begin(job.student, job.objectives, job.recipe, job.dtype)
    checkpoints = job.checkpoints(run.folder)
    if (snapshot := checkpoints.latest()) is not None:
        if snapshot.get("run") != run.fingerprint:
            raise CheckpointError(
                f"{checkpoints.folder} holds the checkpoints of another run", "delete it to start again"
            )
        with fitting(checkpoints.folder):
            state.restore(snapshot)
            teacher.restore(snapshot["teacher"])
            clock.restore(snapshot["seconds"])
        ui.say(f"going on after step {state.step}, {state.epoch} epoch(s) done")
    run.rows(state.rows)

    def more() -> dict[str, Any]:
        own = {"run": run.fingerprint, "card": dict(card), "seconds": clock.so_far()}
        return {**own, "teacher": teacher.snapshot()}

    total = sum(stage.epochs for stage in job.stages)
    with clock("train"):
        steps = loop.fit(state, job.stages, job.losses, job.recipe, job.data, job.settings(), teacher)
        for row in saving.kept(state, steps, checkpoints, more):
            run.rows(state.rows)
            ui.say(words.epoch_line(row, total))
            if "debug" in row:
                ui.say(words.debug_line(row))
    return state


def answers(
    job: Setup, state: loop.State, teacher: answering.Teacher, untrained: Classifier, clock: words.Clock
) -> dict[str, dict[str, Tensor]]:
    """Everyone's logits on val and test; leaves the student with its best weights.

    Args:
        untrained: the student as initialised, which the baseline starts from.
    """
    contestants = {"student": job.student}
    if state.best and state.best["epoch"] != state.epoch:
        contestants["student_last"] = copy.deepcopy(job.student)
    job.student.net.load_state_dict(state.best_weights)
    if job.config.baseline:
        with clock("baseline"):
            contestants["baseline"] = baseline.prepare(job, untrained)
    logits: dict[str, dict[str, Tensor]] = {}
    with clock("eval"):
        for name, split in (("val", job.data.val), ("test", job.data.test)):
            mine = {who: metrics.logits_of(model, split) for who, model in contestants.items()}
            last = mine.get("student_last", mine["student"])  # the last epoch may be the best
            logits[name] = {"teacher": teacher.logits(name), **mine, "student_last": last}
    return logits


def summarise(job: Setup, state: loop.State, logits: Mapping[str, Mapping[str, Tensor]], run: Run) -> dict[str, Any]:
    """summary.json's numbers, from everyone's logits on val and test."""
    scores: dict[str, Any] = {
        name: {
            who: metrics.measure(mine, split.targets, everyone["teacher"] if who != "teacher" else None)
            for who, mine in everyone.items()
        }
        for name, everyone, split in ((n, logits[n], getattr(job.data, n)) for n in ("test", "val"))
    }
    sizes = job.sizes
    rates = [row["images_per_second"] for row in state.rows]
    assert state.best is not None
    summary = {
        "run": str(run.folder),
        "seed": job.config.seed,
        "overrides": run.known["overrides"],
        **scores,
        "params": sizes,
        "compression": sizes["teacher"] / sizes["student"],
        "best": {"epoch": state.best["epoch"], "stage": state.best["stage"]},
        "images_per_second": sum(rates) / len(rates),
    }
    test = logits["test"]
    if "baseline" in test:
        delta, half = metrics.paired_difference(test["student"], test["baseline"], job.data.test.targets)
        summary["difference"] = {"accuracy": delta, "half_interval": half, "samples": len(job.data.test)}
    return summary


def details(job: Setup, test: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the report shows beyond the summary; what the models cost to run is measured only for one."""
    found = evaluation.describe(test, job.data.test, job.data.classes)
    models = {"teacher": job.teacher, "student": job.student}
    return {**found, "cost": cost.of_models(models, job.data.input, job.device) if job.config.report else None}


def close(summary: Mapping[str, Any], folder: Path, report: bool) -> None:
    """Write the report where it is wanted and missing; the closing table, what distillation bought, and where all is."""
    val = summary["val"]
    if "baseline" in val and val["baseline"]["accuracy"] > val["teacher"]["accuracy"]:
        ui.warn("on validation the teacher is worse than the student trained on labels only: it has little to teach")
    ui.show("")
    ui.show(words.results(summary))
    ui.show(words.closing(summary))
    ui.show(f"\nrun folder: {folder}")
    if report and not (folder / write.PAGE).exists():
        ui.show(f"report:     {write.of_run(folder)}")
