"""What is kept of a teacher's answers on a split: rows and features by sample, from the cache or computed and kept there
in one pass. No T, alpha or student plays a part.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_cli import models
from distill_cli.base import runtime, ui, world
from distill_cli.config.building import code_digest
from distill_cli.config.schema import Teacher, Train
from distill_cli.config.sources import files_of
from distill_cli.data import Data, Split
from distill_cli.models import Classifier, inference
from distill_cli.models.features import shapes
from distill_cli.models.sharded import gathered, sharded
from distill_cli.runs import store
from distill_cli.runs.store import Array, Arrays, Words
from distill_cli.tasks import task as tasks
from distill_cli.teachers.keeping import HALF, Keeper, halved, keeper, whole
from distill_cli.teachers.kept import Answers
from distill_cli.teachers.ordering import LAYER, after, in_order

LIBRARIES = ("torch", "torchvision", "timm")


@dataclass(frozen=True)
class Asked:
    """A teacher that is asked about data: its network, the settings it was made by, and the run that asks.

    Attributes:
        weights: SHA-256 of the weights that `model` has.
    """

    model: Classifier
    teacher: Teacher
    data: Data
    run: Train
    weights: str

    @property
    def device(self) -> torch.device:
        return self.model.device

    @functools.cached_property
    def answering(self) -> Classifier:
        """The network as it is run; made by all ranks."""
        return sharded(self.model)

    @property
    def heading(self) -> Classifier:
        """The network whose head is run on the states that are kept: where it has shards, the head is gathered for good."""
        return gathered(self.answering) if self.model.spread else self.model

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes on training data."""
        return runtime.dtype(self.run.precision, self.device)

    def about(self, name: str, view: int = 0, layers: Sequence[str] = (), keep: str | None = None) -> Answers:
        """The teacher's answers on a split: `train` as it is shown in `view`, `val` or `test`.

        For train they are computed in the run's precision; val and test are for measuring, always in fp32.

        Args:
            layers: paths of the modules whose features are wanted too. keep: what is kept of each row; None: all classes.

        Raises:
            NonFiniteError: some number is not finite. StorageError: the disk has no room for them.
        """
        split: Split = getattr(self.data, name)
        dtype = self.dtype if name == "train" else torch.float32
        task, targets = tasks.of(self.data), split.targets.cpu()
        keep = keep or whole(self.model)
        held, wanted = self.wanted(name, layers, keep)
        title = f"teacher's answers, {name}" + (f", view {view}" if split.draws else "")

        def compute(blocks: int = 0) -> Iterator[Mapping[str, np.ndarray]]:
            skip, first = after(blocks, self.model, split)
            with ui.bar(len(split), title, first) as bar:
                asked = self._pass(split, view if name == "train" else None, dtype, layers, held, bar, skip)
                yield from in_order(asked, task.counts(targets), first)

        if self.teacher.cache == "off":
            blocks = list(compute())
            arrays = Arrays({part: np.concatenate([block[part] for block in blocks]) for part in wanted}, {})
        else:
            arrays = self._kept(name, view, dtype, wanted, keep, compute)
        tensors = {part: torch.from_numpy(values).view(wanted[part].shape) for part, values in arrays.items()}
        counts = task.counts(targets)
        starts = None if counts is None else torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        features = {path: tensors.pop(LAYER + path) for path in layers}

        def check(rows: np.ndarray | None, samples: np.ndarray | None) -> None:
            for part in arrays.watched:
                arrays.check(part, samples if part.startswith(LAYER) else rows)

        return Answers(held, tensors, features, starts, check if arrays.watched else None)

    def wanted(self, name: str, layers: Sequence[str], keep: str) -> tuple[Keeper, dict[str, Array]]:
        """What keeps the answers on a split, see `about`, and the arrays that it keeps them in."""
        split: Split = getattr(self.data, name)
        rows = tasks.of(self.data).num_rows(split.targets.cpu())
        dtype = self.dtype if name == "train" else torch.float32
        model = self.heading if keep == "hidden" else self.model
        shape = keep, model, len(self.data.classes), self.teacher.words, dtype
        held = keeper(*shape)
        if name == "train" and halved(
            self.teacher.cache_dtype, sum(array.bytes for array in held.arrays(rows).values())
        ):
            held = keeper(*shape, half=True)
        sizes = shapes(self.model) if layers else {}
        return held, held.arrays(rows) | {LAYER + path: Array((len(split), *sizes[path][1:])) for path in layers}

    def _pass(
        self,
        split: Split,
        view: int | None,
        dtype: torch.dtype,
        layers: Sequence[str],
        held: Keeper,
        bar: Any,
        skip: int,
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Ask about every batch: the samples' index (n,), and rows and features by array."""
        task = tasks.of(self.data)

        def own() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            for batch, output in inference.outputs(self.answering, split, None, view, dtype, layers, True, skip):
                features = {LAYER + path: values for path, values in output.features.items()}
                parts = {**held.pack(task.rows(output, batch)), **features}
                yield batch.index.cpu(), {part: values.cpu() for part, values in parts.items()}

        for index, parts in world.in_order(own(), inference.num_batches(self.model, split) - skip):
            bar.update(len(index))
            yield index, parts

    def _kept(
        self,
        name: str,
        view: int,
        dtype: torch.dtype,
        wanted: Mapping[str, Array],
        keep: str,
        compute: Callable[..., Iterator[Mapping[str, np.ndarray]]],
    ) -> Arrays:
        """The arrays from the cache, made now if they are not there."""
        split, dataset = getattr(self.data, name), self.run.dataset.name
        seen = {**split.draws, "view": view} if split.draws else None
        layers = [part.removeprefix(LAYER) for part in wanted if part.startswith(LAYER)]
        about = {
            "teacher": self.teacher.name,
            "dataset": dataset,
            "split": name + (f", view {view}" if seen else "") + "".join(f", {path}" for path in layers),
            "precision": str(dtype).removeprefix("torch."),
        }
        ingredients = {
            **self._depends(),
            "weights": self.weights,
            "split": name,
            "precision": about["precision"],
            "view": seen,
        }
        ingredients |= {"layers": layers} if layers else {}
        ingredients |= {} if keep == "logits" else {"keep": [keep, self.teacher.words]}
        ingredients |= {"kept in": "fp16"} if wanted.get(keep, Array(())).dtype == HALF else {}
        doing = f"asking {self.teacher.name} about {dataset}, {about['split']}"
        words, root = (
            Words(doing, "the teacher's answers", "use teacher.cache=off"),
            Path(self.run.output_dir) / "cache",
        )
        return store.arrays(root, ingredients, about, wanted, compute, words, compute, later=True)

    def _depends(self) -> dict[str, Any]:
        """What every split's answers depend on beside the weights: the network and its code, its stem, the data, the
        classes, the normalisation.
        """
        target = self.teacher.node["_target_"]
        classes = {type(part).__module__ for part in (self.model.spec, *self.model.modules())}
        parts = (target, self.run.dataset.node["_target_"], inference.__name__, *sorted(classes))
        used = [name for name in LIBRARIES if name != "timm" or target.endswith(".timm")]
        return {
            "model": network_of(self.teacher, self.model),
            "code": [own_code(parts), code_digest(target), *(f"{name} {version(name)}" for name in used)],
            "data": self.data.digest,
            "input": self.model.spec.as_card(),
        }


def network_of(teacher: Teacher, model: Classifier) -> dict[str, Any]:
    """What says which network a teacher is, whatever its weights."""
    return models.rebuild_node(teacher.network, model)


def of_rows(held: Keeper, data: Data) -> int:
    """Bytes that the rows of train take, in one view."""
    task = tasks.of(data)
    return sum(array.bytes for array in held.arrays(task.num_rows(data.train.targets.cpu())).values())


def of_features(model: Classifier, data: Data, layers: Sequence[str]) -> int:
    """Bytes that the features of train take, in one view."""
    sizes = shapes(model) if layers else {}
    return 4 * len(data.train) * sum(math.prod(sizes[path]) for path in layers)


@functools.cache
def own_code(parts: tuple[str, ...], package: Path = Path(__file__).parent.parent) -> str:
    """SHA-256 of our files, of data and models, that decide what a network sees and answers: those that these import.

    Args:
        parts: dotted names of modules, or of what is in them; others' are left out. package: the folder that ours lie in.
    """
    content = hashlib.sha256()
    for path in files_of(parts, package.parent, [package / "data", package / "models"]):
        content.update(path.read_bytes())
    return content.hexdigest()
