"""A whole run: prepare the teachers, distill, evaluate, write the folder; or go on from where an earlier try stopped."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_cli import models
from distill_cli.base import files, ui, world
from distill_cli.base.errors import CheckpointError, translated
from distill_cli.config import arrangement
from distill_cli.config.schema import FIRST, Train
from distill_cli.models import Classifier, deployable
from distill_cli.models.deployable import Deployable
from distill_cli.pipeline import judging, outcome, prints, remarks, words
from distill_cli.report import write
from distill_cli.runs.checkpoints import Checkpoints, Snapshot
from distill_cli.runs.identity import SUMMARY
from distill_cli.runs.run import Run
from distill_cli.teachers import answer
from distill_cli.teachers.mixture import weights_of
from distill_cli.teachers.prepare import Prepared, prepare
from distill_cli.teachers.way import Way, way_of
from distill_cli.trackers.following import Following
from distill_cli.training import job as jobs
from distill_cli.training import loop, saving, spreading
from distill_cli.training.job import Job
from distill_cli.training.state import State, begin


def distill(settings: Train, run: Run) -> dict[str, Any]:
    """Do a run in its folder, from its newest checkpoint if there is one, and return its summary.

    Args:
        settings: what the run is to do; a link of a chain does another thing than its folder's settings say.

    Raises:
        DistillError: as the parts say.
    """
    if (summary := run.summary()) is not None:
        ui.say(f"{run.folder} holds this run, finished")
        world.decided(functools.partial(close, summary, run.folder, settings.report))
        return summary
    job = world.in_turn(lambda: jobs.read(settings))
    spreading.check(job)
    way = way_of(job)
    ui.show(words.header(job, way.note, spreading.told(job)))
    ui.show(f"run        {run.folder}\n")
    for line in remarks.idle_settings(job):
        ui.warn(line)
    clock = words.Clock()
    with clock("teacher"):
        prepared = prepare_all(job, way)
    job = jobs.with_teacher(job, prepared[FIRST].weights) if prepared else job
    untrained = copy.deepcopy(job.student)
    run.agree(prints.of_work(job, prepared), prints.of_machine(job.device))
    homes = {name: teacher.folder for name, teacher in prepared.items()} or homes_along(job, run.folder)
    card = deployable.card_of("student", settings.student, job.student, job.data, settings.dataset)
    card |= {} if way.joint else taught_by(job, homes, run.folder)
    trackers = {name: one.node for name, one in settings.logger.items()} if run.ours else {}
    with Following(trackers, run.folder):
        with clock("cache"):
            teacher = answer.start(job, way, {name: one.weights for name, one in prepared.items()})
        with teacher:
            state = train(job, teacher, run, card, clock)
            summary, details = judging.judge(job, state, teacher, untrained, clock)
        about = {"run": str(run.folder), "seed": settings.seed, "overrides": run.known["overrides"]}
        summary = {**about, **summary, "seconds": clock.seconds}

        def finish() -> None:
            if way.joint:
                keep_teachers(job, homes)
            write_results(job, state, untrained, card, homes, run.folder)
            files.write_json(run.folder / judging.DETAILS, details)
            (run.folder / write.PAGE).unlink(missing_ok=True)  # of a shorter run
            files.write_json(run.folder / SUMMARY, summary)
            close(summary, run.folder, settings.report)

        world.decided(finish)
    return summary


def prepare_all(job: Job, way: Way) -> dict[str, Prepared]:
    """The teachers, each with its weights in its model; none where they are trained along."""
    if way.joint:
        return {}
    data, run, key_of = job.data, job.settings, arrangement.key_of
    return {name: prepare(model, job.chosen[name], data, run, key_of(name)) for name, model in job.teachers.items()}


def homes_along(job: Job, folder: Path) -> dict[str, Path]:
    """Where teachers that are trained along are kept: in the run's own folder."""
    first, *others = job.teachers
    return {first: folder / "teacher", **{name: folder / "teachers" / name for name in others}}


def keep_teachers(job: Job, homes: Mapping[str, Path]) -> None:
    """Write teachers that were trained along."""
    for name, chosen in job.chosen.items():
        homes[name].mkdir(parents=True, exist_ok=True)
        model = job.teachers[name]
        card = deployable.card_of("teacher", chosen, model, job.data, job.settings.dataset)
        Deployable(card, model).write(homes[name])


def write_results(
    job: Job, state: State, untrained: Classifier, card: Mapping[str, Any], homes: Mapping[str, Path], folder: Path
) -> None:
    """Write the student and, where a stage has made it one of 8 bits, what it was before."""
    Deployable({**card, **taught_by(job, homes, folder)}, job.student).write(folder)
    if exact := judging.before_rounding(state, untrained):
        aside = folder / "fp32"
        aside.mkdir(exist_ok=True)
        Deployable({**card, **taught_by(job, homes, aside)}, exact["student_fp32"]).write(aside)


def taught_by(job: Job, homes: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """How a student's card names its teachers: where each is from the run's folder, which weights it has, and what share
    it has in what several say.
    """
    shares = weights_of(job.settings).tolist()
    named = {
        name: {"path": os.path.relpath(home, folder), "sha256": deployable.read_card(home)["sha256"], "weight": share}
        for (name, home), share in zip(homes.items(), shares, strict=True)
    }
    first = named.pop(FIRST)
    return {"teacher": first, "teachers": named} if named else {"teacher": first}


def train(job: Job, teacher: answer.Teacher, run: Run, card: Mapping[str, Any], clock: words.Clock) -> State:
    """Run the stages, or what is left of them; every epoch leaves a row and checkpoints. Returns the final state."""
    lora, seed = job.settings.student.lora, job.settings.seed
    state = begin(job.student, job.objectives, job.recipe, job.dtype, lora, seed)
    checkpoints = Checkpoints(run.folder / "checkpoints", *job.settings.save_every)

    def restore(snapshot: Snapshot) -> None:
        if not run.owns(snapshot.get("run")):
            raise CheckpointError(
                f"{checkpoints.folder} holds the checkpoints of another run", "delete it to start again"
            )
        state.restore(snapshot)
        teacher.restore(snapshot["teacher"])
        clock.restore(snapshot["seconds"])

    def more() -> dict[str, Any]:
        node = models.rebuild_node(card["model"], job.student)  # a stage may have done something to the network
        about = {"run": run.fingerprint, "card": {**card, "model": node}, "seconds": clock.so_far()}
        return {**about, "teacher": teacher.snapshot()}

    saving.go_on(state, checkpoints, restore)
    run.rows(state.rows)
    told = set(words.weights_off(state.balance))  # by an earlier try

    def tell() -> None:
        """What is known of the weights by now, each once."""
        for lines, show in ((words.weights_found(state.balance), ui.show), (words.weights_off(state.balance), ui.warn)):
            for name in [name for name in lines if name not in told]:
                show(lines[name])
                told.add(name)

    tell()
    with clock("train"), translated(job.data.input.lower):
        steps = loop.fit(state, job.stages, job.losses, job.data, job.task, job.pace, teacher, policy=job.policy)
        for row in saving.kept(state, steps, checkpoints, more):
            run.rows(state.rows)
            tell()
            ui.say(words.epoch_line(row, job.epochs, job.task))
            if "debug" in row:
                ui.say(words.debug_line(row))
    state.finish(job.student)
    return state


def close(summary: Mapping[str, Any], folder: Path, report: bool) -> None:
    """Show the closing table, what distillation bought and where the files are; write the report if it is wanted and missing."""
    ui.show("")
    ui.show(outcome.results(summary))
    ui.show(outcome.closing(summary))
    ui.show(f"\nrun folder: {folder}")
    if report and not (folder / write.PAGE).exists():
        ui.show(f"report:     {write.of_run(folder)}")
