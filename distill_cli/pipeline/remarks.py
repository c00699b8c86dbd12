"""Remarks on settings that were typed but change nothing in a run."""

from __future__ import annotations

from distill_cli.config import arrangement
from distill_cli.config.schema import FIRST
from distill_cli.models.origin import fit_epochs
from distill_cli.training.job import Job


def idle_settings(job: Job) -> list[str]:
    """Settings that were typed but change nothing in this job, each with the reason."""
    settings = job.settings
    typed = [override.partition("=")[0].lstrip("+") for override in settings.typed]
    by_stage = settings.source.written("schedule")
    names, terms = ", ".join(job.objectives), job.objectives.values()
    found = []
    mixed = len(settings.teachers) > 0 and settings.teacher.choose == "mean"
    asks_T = mixed or any(one.mutual for one in arrangement.teachers(settings).values())
    for key, used in (("T", asks_T or any(o.uses_T for o in terms)), ("alpha", any(o.alpha_weighted for o in terms))):
        if key in typed and not used:
            found.append(f"{key} has no effect with objective={names}")
        elif key in typed and f"${{{key}}}" not in by_stage:
            found.append(f"{key} has no effect: every stage of this schedule sets its own")
    if not job.data.train.draws:
        still = [key for key in typed if key in ("dataset.views", "dataset.view_seed")]
        found += [f"{key} has no effect: no augmentation is chosen (dataset.augmentation.flip=true)" for key in still]
    if settings.on_policy and not any(loss.asks_teacher for loss in job.losses.values()):
        found.append(f"on_policy has no effect with objective={names}, which asks no teacher")
    curve = job.recipe.curve.shape
    found += [
        f"optimizer.{key} has no effect with optimizer.curve={curve}"
        for key in ("milestones", "gamma")
        if f"optimizer.{key}" in typed and curve != "step"
    ]
    if settings.dataset.class_weights == "balanced" and job.data.train.balanced:
        found.append("dataset.class_weights=balanced has no effect with dataset.sampler=balanced")
    asked = {name for stage in job.stages for name in stage.objectives}
    found += [f"objective.{name} has no effect: no stage uses it" for name in job.objectives if name not in asked]
    if settings.teacher.joint:
        along = [key for key in typed if key in ("teacher.fit.epochs", "teacher.fit.batch_size")]
        found += [f"{key} has no effect: the teacher is trained along, on the student's batches" for key in along]
    elif not fit_epochs(settings.teacher, job.teachers[FIRST]) and not settings.chain:
        fitting = [key for key in typed if key.startswith("teacher.fit.") and key != "teacher.fit.epochs"]
        found += [f"{key} has no effect: the teacher is not fitted" for key in fitting]
    return found
