"""Prepare the teacher only; takes what `distill train` takes, so a train line can be pasted.

usage: distill teacher [key=value ...] [options]

  distill teacher                                       fit ResNet-18 on digits
  distill teacher dataset=mnist teacher.fit.epochs=3
  distill teacher teacher=resnet56 teacher.checkpoint=resnet56.th dataset=cifar10
  distill teacher teacher=resnet18 teacher.weights=IMAGENET1K_V1 dataset=image_folder dataset.root=photos

It is kept under outputs/teachers/ and found there by every run that needs the same one.
"""

from __future__ import annotations

import functools
from typing import Any

from distill_cli.base import launching, ui, world
from distill_cli.base.errors import ConfigError
from distill_cli.config import arrangement
from distill_cli.config.schema import FIRST, Train
from distill_cli.teachers.prepare import prepare
from distill_cli.training import job as jobs
from distill_cli.training import spreading


def run(settings: Train) -> dict[str, Any]:
    """`prepared` on as many devices as settings say."""
    facts: dict[str, Any] = launching.spread(settings.devices, functools.partial(prepared, settings))
    return facts


def prepared(settings: Train) -> dict[str, Any]:
    """Prepare the configured teachers; returns what teacher.json says of the first.

    Raises:
        ConfigError: the teacher is to be trained along with a student.
    """
    job = world.in_turn(lambda: jobs.read(settings))
    if settings.teacher.joint:
        raise ConfigError("teacher.joint: this teacher is trained along with its student: there is nothing to prepare")
    spreading.check(job)
    facts = {}
    for name, teacher in job.chosen.items():
        made = prepare(job.teachers[name], teacher, job.data, settings, arrangement.key_of(name))
        facts[name] = made.facts
        columns = [column for column, value in made.facts["val"].items() if isinstance(value, float)]
        rows = [[split, *(f"{made.facts[split][column]:.4f}" for column in columns)] for split in ("val", "test")]
        ui.show(ui.table(f"{teacher.name} on {settings.dataset.name}", ["", *columns], rows))
        ui.show(f"teacher: {made.folder}")
    return facts[FIRST]
