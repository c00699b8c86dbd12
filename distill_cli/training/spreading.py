"""A run over several processes: what comes out otherwise than of one, and what is refused; how they talk: base/world.py."""

from __future__ import annotations

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


def told(job: Job) -> str:
    """What the header says of the processes; of one nothing."""
    if world.size() == 1:
        return ""
    text = f"{world.size()} processes, each with its part of every batch"
    if not job.settings.sync_bn:
        text += "; batch norm over a part alone, the first one's averages kept"
    return text
