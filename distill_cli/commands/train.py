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

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distill_cli.errors import translated
from distill_cli.run import Run


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run one job, or go on with it where its folder holds it already; returns its summary.

    torch is imported only once the folder is known to be ours to work in: who is refused is told at once.

    Raises:
        DistillError: as the parts say; the run folder's status.json then tells what went wrong.
    """
    hydra = HydraConfig.get()
    named = cfg.run_dir is not None or hydra.mode == RunMode.MULTIRUN
    with Run(cfg, Path(hydra.runtime.output_dir), named) as folder, translated():
        from distill_cli import distillation

        return distillation.distill(cfg, folder)
