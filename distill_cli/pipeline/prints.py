"""Fingerprints of what a run works on, and what the last bits of its numbers may depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from distill_cli import __version__
from distill_cli.base import world
from distill_cli.config.building import code_digest
from distill_cli.config.schema import FIRST
from distill_cli.teachers.prepare import Prepared
from distill_cli.training.job import Job


def of_work(job: Job, prepared: Mapping[str, Prepared]) -> dict[str, Any]:
    """Fingerprints of the data, of each teacher's weights, of those the student starts from, and of the user's own code."""
    return {
        "data": job.data.digest,
        "teacher": prepared[FIRST].weights if prepared else None,
        **{f"teachers.{name}": one.weights for name, one in prepared.items() if name != FIRST},
        **({"student": job.start} if job.start else {}),
        "code": user_code({**job.settings.plain, "logger": None}),  # trackers change nothing in what comes out
    }


def of_machine(device: torch.device) -> dict[str, Any]:
    """What the last bits of the numbers may depend on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "ranks": world.size(),
        "distill": __version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def user_code(plain: Any) -> dict[str, str]:
    """SHA-256 of the code behind every `_target_` in a configuration that is the user's own, by target."""
    nodes = list(plain.values()) if isinstance(plain, dict) else plain if isinstance(plain, list) else []
    digests = {target: digest for node in nodes for target, digest in user_code(node).items()}
    target = plain.get("_target_") if isinstance(plain, dict) else None
    digest = code_digest(target) if isinstance(target, str) else None
    return {**digests, target: digest} if target and digest else digests
