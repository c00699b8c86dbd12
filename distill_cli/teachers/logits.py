"""A teacher's logits or features on a split: from the cache, or computed and kept there; no T, alpha or student plays a part."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_cli import models
from distill_cli.base import ui
from distill_cli.config.building import code_digest
from distill_cli.models.features import shapes
from distill_cli.runs import store
from distill_cli.tasks import metrics
from distill_cli.training.setup import Setup

LIBRARIES = ("torch", "torchvision", "timm")


def of_teacher(job: Setup, weights: str, name: str, view: int = 0, layer: str | None = None) -> Tensor:
    """The logits (N, K), fp32, of the job's teacher on a split: `train` as it is shown in `view`, `val` or `test`.

    With `layer`, a module's path, what that module gives instead: (N, C, H, W), or as it is.

    For train they are computed in the run's precision; val and test are for measuring, always in fp32.

    Args:
        weights: SHA-256 of the teacher's weights, which are in `job.teacher`.

    Raises:
        NonFiniteError: some logit is not a finite number. StorageError: the disk has no room for them.
    """
    split = getattr(job.data, name)
    dtype = job.dtype if name == "train" else torch.float32
    shown = view if name == "train" else None

    what = f"{layer}'s features" if layer else "logits"
    shape = shapes(job.teacher, job.data.input)[layer][1:] if layer else (len(job.data.classes),)

    def compute() -> Iterator[dict[str, np.ndarray]]:
        title = f"teacher's {what}, {name}" + (f", view {view}" if split.draws else "")
        with ui.bar(len(split), title) as bar:
            for given in metrics.answers(job.teacher, split, view=shown, dtype=dtype, layer=layer):
                bar.update(len(given))
                yield {"logits": given.cpu().numpy()}

    if job.config.teacher.cache == "off":
        return torch.from_numpy(np.concatenate([block["logits"] for block in compute()])).view(len(split), *shape)
    seen = {**split.draws, "view": view} if split.draws else None
    about = {
        "teacher": job.config.teacher.name,
        "dataset": job.config.dataset.name,
        "split": name + (f", view {view}" if seen else "") + (f", {layer}" if layer else ""),
        "precision": str(dtype).removeprefix("torch."),
    }
    ingredients = {**_depends(job), "weights": weights, "split": name, "precision": about["precision"], "view": seen}
    ingredients |= {"layer": layer} if layer else {}
    wanted = {"logits": store.Array((len(split), math.prod(shape)))}
    words = store.Words(
        f"asking {about['teacher']} about {about['dataset']}, {about['split']}",
        "the teacher's answers",
        "use teacher.cache=off",
    )
    kept = store.arrays(job.root / "cache", ingredients, about, wanted, compute, words)
    return torch.from_numpy(kept["logits"]).view(len(split), *shape)


def network_of(job: Setup) -> dict[str, Any]:
    """What says which network the job's teacher is, whatever its weights."""
    return models.rebuild_node(job.config.teacher.network, job.teacher)


def _depends(job: Setup) -> dict[str, Any]:
    """What every split's logits depend on beside the weights: the network and its code, its stem, the pixels, the classes,
    the normalisation.
    """
    target = job.config.teacher.node["_target_"]
    used = [name for name in LIBRARIES if name != "timm" or target.endswith(".timm")]
    return {
        "model": network_of(job),
        "code": [_own_code(), code_digest(target), *(f"{name} {version(name)}" for name in used)],
        "data": job.data.digest,
        "input": job.data.input.as_card(),
    }


@functools.cache
def _own_code() -> str:
    """SHA-256 of our files that decide what a network sees and answers."""
    here = Path(__file__).parent.parent
    content = hashlib.sha256()
    for path in [*sorted((here / "models").glob("*.py")), *sorted((here / "data").glob("*.py"))]:
        content.update(path.read_bytes())
    return content.hexdigest()
