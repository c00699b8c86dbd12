"""Hydra's launcher for one machine: each run in its own process, several at once, which share cores and GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from distill_cli.base.runtime import SHARE
from distill_cli.sweep import jobs, plugins
from distill_cli.sweep.jobs import Start

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Processes(Launcher):
    """Runs jobs as processes of this machine.

    Args:
        n_jobs: how many at once; None: one for each GPU, or one.
        gpus: the GPUs to share out, by number or name; None: those visible here.
    """

    def __init__(self, n_jobs: int | None = None, gpus: Sequence[int | str] | None = None) -> None:
        if n_jobs is not None:
            plugins.at_least_one("hydra.launcher.n_jobs", n_jobs)
        self.gpus = [str(gpu) for gpu in gpus] if gpus is not None else visible_gpus()
        self.n_jobs = n_jobs or max(1, len(self.gpus))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Start)
        self.hydra_context, self.start, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, those that have finished before left out; each return value is the run's score, or None.

        Raises:
            KeyboardInterrupt: we were asked to stop; the runs under way have saved and stopped.
        """
        folders = [self._folder(settings) for settings in job_overrides]
        once = dict.fromkeys(folders)  # a search may repeat itself
        waiting = [folders.index(folder) for folder in once if jobs.score(folder, self.start.optimize) is None]
        at_once = min(self.n_jobs, len(waiting))
        slots = [self._environment(number, at_once) for number in range(at_once)]
        running: dict[int, tuple[int, dict[str, str], BaseProcess]] = {}  # by what becomes ready when it ends
        try:
            while waiting or running:
                while waiting and slots:
                    number, slot = waiting.pop(0), slots.pop(0)
                    process = self.start.process(job_overrides[number], folders[number], slot)
                    running[process.sentinel] = number, slot, process
                for ready in wait(list(running), timeout=1.0):
                    assert isinstance(ready, int)
                    number, slot, process = running.pop(ready)
                    process.join()
                    jobs.settle(folders[number], process)
                    slots.append(slot)
        except BaseException:
            jobs.end([process for _, _, process in running.values()])
            raise
        results = []
        for settings, folder in zip(job_overrides, folders, strict=True):
            results.append(JobReturn(overrides=settings, working_dir=str(folder), status=JobStatus.COMPLETED))
            results[-1].return_value = jobs.score(folder, self.start.optimize)
        return results

    def _folder(self, settings: Sequence[str]) -> Path:
        """The folder of the run with these settings, as Hydra would name it."""
        with_settings = OmegaConf.merge(self.config, {"hydra": {"overrides": {"task": list(settings)}}})
        return Path(with_settings.hydra.sweep.dir) / with_settings.hydra.sweep.subdir

    def _environment(self, slot: int, at_once: int) -> dict[str, str]:
        """What the run in this slot is told of the machine: its GPU and its share of the cores, where they are shared."""
        gpu = {VISIBLE: self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return {**gpu, SHARE: str(max(1, cores // at_once))} if at_once > 1 else gpu


def visible_gpus() -> list[str]:
    """The GPUs that CUDA may use here, found without loading it."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip() not in ("", "-1")]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(cards.iterdir())))] if cards.is_dir() else []
