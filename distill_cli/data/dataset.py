"""A data set of any kind: three splits over the same classes. How each is read stands in the files beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_cli.base.names import fingerprint
from distill_cli.config import building
from distill_cli.data import labels
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.pictures import PictureSpec
from distill_cli.data.spec import Spec
from distill_cli.data.split import Split

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Data:
    """A data set: three splits over the same classes.

    Args:
        digest: tells its content, split and normalisation apart from any other's.
        note: where validation and test come from, for people.
        task: dotted path of the class of the task that the data ask of a model.
        class_weights: of the classes in the label term; see `labels.row_weights`.
        cut: whether validation was cut from train.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    digest: str
    note: str
    task: str = "distill_cli.tasks.classification.Classification"
    class_weights: str | Sequence[float] | None = None
    cut: bool = False

    @property
    def input(self) -> Spec:
        """What a model gets to see of a sample."""
        return self.train.spec

    @property
    def row_weights(self) -> Tensor | None:
        """What a row of train counts in the label term by its class; see `labels.row_weights`."""
        return labels.row_weights(self.train.targets, self.classes, self.class_weights, self.train.balanced)

    def without_labels(self) -> Data:
        """The same data, whose training samples and what was cut from them have no labels."""
        train, val = (
            replace(one, targets=one.targets.where(one.targets < 0, UNKNOWN)) for one in (self.train, self.val)
        )
        digest = fingerprint([self.digest, "without labels"])
        return replace(self, train=train, val=val if self.cut else self.val, digest=digest)

    def labelled(self) -> Data:
        """The same data, with the training samples alone that have labels."""
        if self.train.complete:
            return self
        return replace(self, train=self.train.take(self.train.labelled), digest=fingerprint([self.digest, "labelled"]))

    def to(self, device: torch.device) -> Data:
        """The same data, those in memory on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in SPLITS})

    def under(self, spec: Spec) -> Data:
        """The same samples made into the inputs that a model of `spec` takes."""
        if spec == self.input:
            return self
        splits = {name: getattr(self, name) for name in SPLITS}
        return replace(self, **{name: replace(s, spec=spec, source=spec.reads(s.source)) for name, s in splits.items()})

    def answered(self, classes: Sequence[str], order: Sequence[int]) -> Data:
        """The same samples among the classes of a model that answers more of them, or in another order.

        Args:
            classes: the model's, (K,). order: which of them is each of the data's, (C,).
        """
        places = torch.tensor(order)

        def moved(targets: Tensor) -> Tensor:
            return torch.where(targets < 0, targets, places.to(targets.device)[targets.clamp(min=0)])

        splits = {name: getattr(self, name) for name in SPLITS}
        splits = {name: replace(split, targets=moved(split.targets)) for name, split in splits.items()}
        return replace(self, **splits, classes=tuple(classes))


def read_spec(stored: Any, trust: Sequence[str], folder: Path) -> Spec:
    """The spec that model.json holds: of pictures, or of the class that its `_target_` names, by that class's `read`.

    Args:
        trust: as in `building.build`. folder: of the card, in which the files lie that it names.

    Raises:
        CheckpointError: it is damaged, or names code that is not trusted; see `building.build`.
    """
    path = stored.get("_target_") if isinstance(stored, Mapping) else None
    kind: Any = PictureSpec if path is None else building.trusted(path, "input", trust)
    spec: Spec = kind.read(stored, folder)
    return spec
