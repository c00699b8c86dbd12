"""A data set of any kind, and the one that a `dataset` node describes; how each is read stands in the files beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill_cli.base.errors import DataError
from distill_cli.base.names import fingerprint
from distill_cli.config import building, schema
from distill_cli.data import hardship
from distill_cli.data.pictures import PictureSpec
from distill_cli.data.spec import Spec
from distill_cli.data.split import Split

SPLITS = ("train", "val", "test")
CLASSIFICATION = "distill_cli.tasks.classification.Classification"


@dataclass(frozen=True)
class Data:
    """A data set: three splits over the same classes.

    Args:
        input: what a model gets to see of a sample.
        digest: tells its content, split and normalisation apart from any other's.
        note: where validation and test come from, for people.
        task: dotted path of the class of the task that the data ask of a model.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    input: Spec
    digest: str
    note: str
    task: str = CLASSIFICATION

    def to(self, device: torch.device) -> Data:
        """The same data, those in memory on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in SPLITS})

    def normalised(self, spec: Spec) -> Data:
        """The same samples made into the inputs that a model of `spec` takes, without random changes."""
        transform = spec.transform(self.input)
        return replace(self, **{name: replace(getattr(self, name), transform=transform) for name in SPLITS}, input=spec)


def load(dataset: schema.Dataset, workers: int, trust: Sequence[str] | None = None, store: Path | None = None) -> Data:
    """The data set that settings describe, its training samples augmented as they say; `trust` as in `building.build`.

    Args:
        store: a folder in which what is slow to read may be kept for other runs.

    Raises:
        ConfigError: the settings are wrong. DataError: the data are, or cannot be read.
    """
    try:
        data = building.build(dataset.node, Data, "dataset", trust=trust, workers=workers, store=store)
    except OSError as error:
        raise DataError(f"the data cannot be read: {error}") from error
    data = _hardened(data, dataset)
    transform = data.train.transform.augmented(dataset.plain.get("augmentation") or {}, dataset.view_seed)
    views = dataset.views if transform.draws else 0
    return replace(data, train=replace(data.train, transform=transform, views=views))


def _hardened(data: Data, dataset: schema.Dataset) -> Data:
    """The data with as many training samples, and as many wrong labels among them, as the settings say."""
    limit, noise, seed = dataset.limit, dataset.label_noise, dataset.split_seed
    train, classes, notes = data.train, len(data.classes), [data.note]
    if limit is not None and limit < len(train):
        notes.append(f"train limited to {limit:,} of {len(train):,}")
        train = hardship.limited(train, limit, classes, seed)
    if noise:
        notes.append(f"{noise:.0%} of train labelled wrongly on purpose")
        train = hardship.mislabelled(train, noise, classes, seed)
    if train is data.train:
        return data
    digest = fingerprint([data.digest, len(train), noise, seed])
    return replace(data, train=train, digest=digest, note="; ".join(notes))


def read_spec(stored: Any, trust: Sequence[str]) -> Spec:
    """The spec that model.json holds: of pictures, or of the class that its `_target_` names, by that class's `read`.

    Raises:
        CheckpointError: it is damaged, or names code that is not trusted; see `building.build`.
    """
    path = stored.get("_target_") if isinstance(stored, Mapping) else None
    kind: Any = PictureSpec if path is None else building.trusted(path, "input", trust)
    spec: Spec = kind.read(stored)
    return spec
