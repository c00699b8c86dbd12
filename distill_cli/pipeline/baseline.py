"""The honest comparison: the same student, seed and budget on labels only; kept and shared by its fingerprint."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from distill_cli.base import files, locks, ui, world
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import fingerprint
from distill_cli.config.building import code_digest
from distill_cli.models import Classifier, deployable
from distill_cli.models.deployable import Deployable
from distill_cli.runs.checkpoints import Checkpoints
from distill_cli.tasks import task as tasks
from distill_cli.training import alone
from distill_cli.training.job import Job
from distill_cli.training.schedule import Ramp


def prepare(job: Job, untrained: Classifier) -> Classifier:
    """The labels-only student, trained now or by an earlier run that needed the same one.

    Its budget is the job's: the stages' steps and learning rates, so where some samples have no label, it passes more often over
    those that do. T, alpha and the objectives play no part. Its best epoch is chosen as the student's is, unless that is chosen by
    how it follows the teacher.

    Args:
        untrained: the student as initialised, before any step; it is copied, not changed.
    """
    model, settings, lora = copy.deepcopy(untrained), job.settings, job.settings.student.lora
    smoothing, at_once = settings.label_smoothing, settings.rows_at_once
    card = deployable.card_of("student", settings.student, model, job.data, settings.dataset)
    best = tasks.judged_by(settings.optimize, job.task, fidelity=False)
    pace, train = replace(job.pace, best=best), job.data.train
    often = len(train) / len(train.labelled)
    stages = [stage if often == 1 else replace(stage, steps=stage.length(job.per_epoch)) for stage in job.stages]
    elsewhere = ("checkpoint", "from_teacher", *([] if lora.rank else ["lora"]))
    ingredients = {
        "model": {key: value for key, value in card["model"].items() if key not in elsewhere},
        **({"start": job.start} if job.start else {}),
        "weights": settings.student.node.get("weights"),
        "data": job.data.digest,
        "optimizer": dict(job.recipe.node),
        "stages": [
            [str(stage) if stage.steps else stage.epochs, stage.lr, *(["int8"] if stage.quantize else [])]
            for stage in stages
        ],
        "shown": [dict(job.data.train.draws), job.data.train.views] if job.data.train.draws else None,
        "code": code_digest(settings.student.node["_target_"]),
        "settings": [pace.seed, pace.batch_size, str(pace.dtype), pace.compile, smoothing]
        + ([at_once] if at_once else []),  # the last digits depend on it
        **({} if best == job.task.best else {"best": best}),
        **alone.weighing(job.data),
    }
    folder = Path(settings.output_dir) / "baselines" / fingerprint(ingredients)

    def make(place: Path) -> None:
        ui.say("baseline: training the same student on labels only; later runs with this budget reuse it")
        if often > 1:
            ui.say(f"baseline: passes {often:.1f} times as often over the samples that have labels, for as many steps")
        alike = [replace(stage, T=Ramp(1, 1), alpha=Ramp(0, 0), objectives=("ce",)) for stage in stages]
        checkpoints = Checkpoints(place / "checkpoints", *settings.save_every)
        job_of = (model, alike, job.recipe, job.data, job.task, pace)
        rows = alone.fit(*job_of, "baseline", checkpoints, smoothing, at_once, lora)
        Deployable(card, model).write(place)
        facts = {"ingredients": ingredients, "rows": rows}
        world.decided(lambda: files.write_json(place / "baseline.json", facts))
        checkpoints.remove()

    def waiting() -> None:
        ui.say("baseline: another run is training this one; waiting for it")

    if not locks.once(folder, make, waiting, resumable=Path.exists):
        ui.say(f"baseline: reusing {folder}")
    try:
        deployable.load_into(model.net, folder)
    except CheckpointError as error:
        raise CheckpointError(error.message, f"delete {folder}: the next run makes it again") from error
    return model
