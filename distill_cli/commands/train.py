"""Prepare the teacher, distill, evaluate, and write the run folder.

usage: distill train [key=value ...] [-m] [options]

  distill train                                         digits, ResNet-18 teacher, small CNN student
  distill train teacher=resnet18 student=smallcnn T=3   pick models and temperature
  distill train dataset=mnist baseline=true             also train the student on labels only
  distill train schedule.refine.epochs=8 optimizer.lr=5e-4
  distill train -m T=1,3 alpha=0.5,0.9                  a sweep: four runs, one teacher
  distill train experiment=seed_example dataset=digits  a whole recipe
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from distill_cli import baseline, engine, files, metrics, models, setup, teaching, ui
from distill_cli import summary as words
from distill_cli import teacher as teachers
from distill_cli.errors import translated
from distill_cli.models import weights
from distill_cli.run import Run
from distill_cli.setup import Setup


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run one job and return its summary.

    Raises:
        DistillError: as the parts say; the run folder's status.json then tells what went wrong.
    """
    with Run(Path(HydraConfig.get().runtime.output_dir)) as folder, translated():
        folder.write_config(cfg)
        job = setup.read(cfg)
        untrained = copy.deepcopy(job.student)
        way = teaching.way_of(job)
        ui.show(words.header(job, way.note))
        ui.show(f"run        {folder.folder}\n")
        for line in setup.idle_settings(cfg, job, teachers.fit_epochs(job.plain["teacher"])):
            ui.warn(line)
        clock = words.Clock()
        with clock("teacher"):
            prepared = None if way.joint else teachers.prepare(job)
            home = prepared.folder if prepared else folder.folder / "teacher"
            card = job.card("student") | ({"teacher": taught_by(home, folder.folder)} if prepared else {})
        with clock("cache"):
            teacher = teaching.start(job, way, prepared)
        with clock("train"):
            state, rate = train(job, teacher, folder, card)
        contestants = {"student": job.student}
        if state.best and state.best["epoch"] != state.epoch:
            contestants["student_last"] = copy.deepcopy(job.student)
        job.student.net.load_state_dict(state.best_weights)
        if job.plain["baseline"]:
            with clock("baseline"):
                contestants["baseline"] = baseline.prepare(job, untrained)
        logits: dict[str, dict[str, Tensor]] = {}
        with clock("eval"):
            for name, split in (("val", job.data.val), ("test", job.data.test)):
                answers = {who: metrics.logits_of(model, split) for who, model in contestants.items()}
                last = answers.get("student_last", answers["student"])  # the last epoch may be the best
                logits[name] = {"teacher": teacher.logits(name), **answers, "student_last": last}
        summary = summarise(job, state, logits, folder.folder)
        summary |= {"seconds": clock.seconds, "images_per_second": rate}
        if way.joint:
            home.mkdir()
            weights.write_model(home, "teacher", job.teacher.net, job.card("teacher"))
            card["teacher"] = taught_by(home, folder.folder)
        weights.write_model(folder.folder, "student", job.student.net, card)
        files.write_json(folder.folder / "summary.json", summary)
        show(job, summary, logits, folder.folder)
        return summary


def taught_by(home: Path, folder: Path) -> dict[str, str]:
    """How a student's card names its teacher: where it is from the run's folder, and which weights it has."""
    return {"path": os.path.relpath(home, folder), "sha256": weights.read_card(home)["sha256"]}


def train(job: Setup, teacher: teaching.Teacher, folder: Run, card: Mapping[str, Any]) -> tuple[engine.State, float]:
    """Run the stages; every epoch leaves a row and checkpoints. Returns the final state and the mean images/s."""
    state = engine.begin(job.student, job.objectives, job.recipe)
    rates = []
    for row in engine.fit(state, job.stages, job.losses, job.recipe, job.data, job.settings(), teacher):
        folder.row({key: value for key, value in row.items() if key != "best"})
        snapshot = {**state.snapshot(), "teacher": teacher.snapshot(), "card": card}
        folder.checkpoint(snapshot, ["last", "best"] if row["best"] else ["last"])
        ui.say(words.epoch_line(row, sum(stage.epochs for stage in job.stages)))
        rates.append(row["images_per_second"])
    return state, sum(rates) / len(rates)


def summarise(
    job: Setup, state: engine.State, logits: Mapping[str, Mapping[str, Tensor]], folder: Path
) -> dict[str, Any]:
    """summary.json's numbers, from everyone's logits on val and test."""
    scores: dict[str, Any] = {
        name: {
            who: metrics.measure(mine, split.labels, everyone["teacher"] if who != "teacher" else None)
            for who, mine in everyone.items()
        }
        for name, everyone, split in ((n, logits[n], getattr(job.data, n)) for n in ("test", "val"))
    }
    sizes = {role: models.num_parameters(model) for role, model in (("teacher", job.teacher), ("student", job.student))}
    assert state.best is not None
    return {
        "run": str(folder),
        "seed": job.plain["seed"],
        "overrides": list(HydraConfig.get().overrides.task),
        **scores,
        "params": sizes,
        "compression": sizes["teacher"] / sizes["student"],
        "best": {"epoch": state.best["epoch"], "stage": state.best["stage"]},
    }


def show(job: Setup, summary: Mapping[str, Any], logits: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
    """The closing table, what distillation bought, and where everything is."""
    difference = None
    test = logits["test"]
    if "baseline" in test:
        difference = metrics.paired_difference(test["student"], test["baseline"], job.data.test.labels)
        if summary["val"]["baseline"]["accuracy"] > summary["val"]["teacher"]["accuracy"]:
            ui.warn(
                "on validation the teacher is worse than the student trained on labels only: it has little to teach"
            )
    ui.show("")
    ui.show(words.results(summary))
    ui.show(words.closing(summary, difference, len(job.data.test)))
    ui.show(f"\nrun folder: {folder}")
