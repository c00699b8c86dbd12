"""The honest comparison: the same student, seed and budget on labels only; kept and shared by its fingerprint."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import fingerprint
from distill_cli.config.building import code_digest
from distill_cli.models import Classifier, weights
from distill_cli.teachers import preparing
from distill_cli.training.schedule import Ramp
from distill_cli.training.setup import Setup


def prepare(job: Setup, untrained: Classifier) -> Classifier:
    """The labels-only student, trained now or by an earlier run that needed the same one.

    Its budget is the job's: the stages' epochs and learning rates. T, alpha and the objectives play no part.

    Args:
        untrained: the student as initialised, before any step; it is copied, not changed.
    """
    model, card, settings = copy.deepcopy(untrained), job.card("student"), job.settings()
    smoothing, at_once = job.config.label_smoothing, job.config.rows_at_once
    ingredients = {
        "model": card["model"],
        "weights": job.config.student.node.get("weights"),
        "data": job.data.digest,
        "optimizer": dict(job.recipe.node),
        "stages": [[stage.epochs, stage.lr] for stage in job.stages],
        "shown": [job.data.train.draws, job.data.train.views] if job.data.train.draws else None,
        "code": code_digest(job.config.student.node["_target_"]),
        "settings": [settings.seed, settings.batch_size, str(settings.dtype), settings.compile, smoothing]
        + ([at_once] if at_once else []),  # the last digits depend on it
    }
    folder = job.root / "baselines" / fingerprint(ingredients)

    def make(place: Path) -> None:
        ui.say("baseline: training the same student on labels only; later runs with this budget reuse it")
        stages = [replace(s, T=Ramp(1, 1), alpha=Ramp(0, 0), objectives=("ce",)) for s in job.stages]
        kept = job.checkpoints(place)
        rows = preparing.fit_alone(model, stages, job.recipe, job.data, settings, "baseline", kept, smoothing, at_once)
        weights.write_model(place, "student", model.net, card)
        files.write_json(place / "baseline.json", {"ingredients": ingredients, "rows": rows})
        kept.remove()

    def waiting() -> None:
        ui.say("baseline: another run is training this one; waiting for it")

    if not locks.once(folder, make, waiting, resumable=True):
        ui.say(f"baseline: reusing {folder}")
    try:
        weights.load_kept(folder, model.net)
    except CheckpointError as error:
        raise CheckpointError(error.message, f"delete {folder} to have it made again") from error
    return model
