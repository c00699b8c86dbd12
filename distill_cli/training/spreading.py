"""A run over several processes: what comes out otherwise than of one, and what is refused; how they talk: base/world.py."""

from __future__ import annotations

import torch

from distill_cli.base import world
from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import FIRST
from distill_cli.models.features import uneven
from distill_cli.training.job import Job


def check(job: Job) -> None:
    """Refuse what several processes cannot do yet.

    Raises:
        ConfigError: naming the key that asks for it.
    """
    if world.size() > 1 and job.settings.on_policy:
        raise ConfigError("on_policy: what the student writes is not shared out to several processes", "devices=1")
    for name in {name for loss in job.losses.values() for name, one in loss.objectives.items() if one.compares}:
        one = job.objectives[name]
        if world.size() > 1 and (
            uneven(job.student, one.student_layers) or uneven(job.teachers[FIRST], one.teacher_layers)
        ):
            raise ConfigError(
                f"objective.{name}: compares what is as long as each sample, which several processes cannot do",
                "devices=1",
            )

    if _sharded(job):
        _check_sharded(job)


def _check_sharded(job: Job) -> None:
    """Refuse what shards cannot do, or was not tried with them; raises as `check`."""
    settings = job.settings
    asked = {
        "compile=true": settings.compile,
        "debug=true": settings.debug,
        "precision=fp16": job.dtype == torch.float16,
        "teacher.joint=true": settings.teacher.joint,
        "student.lora": settings.student.lora.rank,
        "teacher.fit.lora": any(one.fit.lora.rank for one in job.chosen.values()),
        **{f"schedule.{stage.name}.quantize": stage.quantize for stage in job.stages},
        **{f"objective.{name}.weight=auto": one.fitted for name, one in job.objectives.items()},
        **{
            f"objective.{name}, which learns along,": any(True for _ in one.parameters())
            for name, one in job.objectives.items()
        },
    }
    if wrong := [what for what, wanted in asked.items() if wanted]:
        raise ConfigError(f"parallel=fsdp: {wrong[0]} does not go with shards of a model's weights", "parallel=ddp")


def _sharded(job: Job) -> bool:
    return job.student.spread is not None


def told(job: Job) -> str:
    """What the header says of the processes; of one nothing."""
    if world.size() == 1:
        return "one process: parallel=fsdp shards nothing" if job.settings.parallel == "fsdp" else ""
    text = f"{world.size()} processes, each with its part of every batch"
    if _sharded(job):
        text += "; each with a shard of the models' weights (fsdp)"
    if not job.settings.sync_bn:
        text += "; batch norm over a part alone, the first one's averages kept"
    return text
