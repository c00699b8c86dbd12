"""Prepare the teacher, distill, evaluate, and write the run folder.

usage: distill train [--from RUN] [--debug] [--dry-run] [key=value ...] [-m] [options]

  distill train                                         digits, ResNet-18 teacher, small CNN student
  distill train teacher=resnet18 student=smallcnn T=3   pick models and temperature
  distill train dataset=mnist baseline=true             also train the student on labels only
  distill train schedule.refine.epochs=8 optimizer.lr=5e-4
  distill train -m T=1,3 alpha=0.5,0.9 seed=0,1,2       a sweep: twelve runs, one teacher, a leaderboard
  distill train --from RUN T=5                          an old run's recipe, changed
  distill train student.checkpoint=RUN                  the student starts from a run's, or from a file of weights
  distill train experiment=seed_example dataset=digits  a whole recipe
  distill train dataset=mnist --dry-run                 the header, and what the teacher's cache would take: nothing is trained
  distill train objective=[kd,rkd] --debug              what each term of the loss weighs, epoch by epoch
  distill train devices=4                               on four processes; as a job of Slurm or Ray: distill help clusters
"""

from __future__ import annotations

import functools

from distill_cli.base import launching
from distill_cli.base.errors import DistillError, translated
from distill_cli.config.schema import Train
from distill_cli.runs.run import Run
from distill_cli.sweep import jobs


def run(settings: Train) -> float | None:
    """Run one job, on as many devices as it says; returns what a search is told of it.

    Raises:
        DistillError: the run failed; its status.json tells why.
    """
    value: float | None = launching.spread(settings.devices, functools.partial(_run, settings))
    return value


def _run(settings: Train) -> float | None:
    """Run one job, or go on with it where its folder holds it already; returns what a search is told of it.

    torch is imported only after the folder was taken: a user who cannot have it is told at once.

    Raises:
        DistillError: the run failed; its status.json tells why.
    """
    try:
        with Run(settings, settings.folder, named=settings.run_dir is not None) as folder, translated():
            from distill_cli.pipeline import chain

            return jobs.score_of(chain.distill(settings, folder), settings.optimize)
    except SystemExit as error:
        raise DistillError(f"the code of this run ended Python: sys.exit({error.code})") from error


def dry_run(settings: Train) -> None:
    """Show what a run would do and keep, without a folder of its own."""
    with translated():
        from distill_cli.pipeline import forecast

        forecast.tell(settings)
