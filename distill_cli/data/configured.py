"""The data set that settings describe, and its training data made harder on purpose: fewer samples, wrong labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_cli.base.errors import ConfigError, DataError
from distill_cli.base.names import fingerprint
from distill_cli.config import building, schema
from distill_cli.data.assembling import stratified
from distill_cli.data.dataset import Data
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.spec import Spec


def load(
    dataset: schema.Dataset,
    workers: int,
    trust: Sequence[str] | None = None,
    store: Path | None = None,
    spec: Spec | None = None,
    classes: Callable[[], Sequence[str]] = tuple,
    folder: Callable[[], Path | None] = lambda: None,
    only: str | None = None,
) -> Data:
    """The data set that settings describe, its training samples changed at random as they say.

    Args:
        trust: as in `building.build`. store: a folder in which what is slow to read may be kept for other runs.
        spec: of a model that the data are for: what settings leave open is read as it needs. classes: gives those of a
            model, by which samples are known that no folder tells the classes of; none where the model does not say.
        folder: gives that of a model, in which its tokenizer lies; None where it has none.
        only: the one split that is wanted: a reader may leave the others empty.

    Raises:
        ConfigError: the settings are wrong. DataError: the data are, or cannot be read.
    """
    node = dataset.node
    how: dict[str, Any] = {"workers": workers, "store": store, "only": only, "labels": dataset.labels}
    how |= {"model_classes": classes, "model_folder": folder}
    if spec is not None:
        node |= {key: value for key, value in spec.reading().items() if node.get(key, 0) in (None, "auto")}
    try:
        data = building.build(node, Data, "dataset", trust=trust, **how)
    except OSError as error:
        raise DataError(f"the data cannot be read: {error}") from error
    if not dataset.labels and len(data.train.labelled):
        data = data.without_labels()
    data = _hardened(data, dataset)
    changes = data.input.changes(dataset.plain.get("augmentation") or {}, dataset.view_seed)
    views, balanced = dataset.views if changes else 0, dataset.sampler == "balanced"
    train = replace(data.train, changes=changes, views=views, balanced=balanced)
    return replace(data, train=train, class_weights=dataset.class_weights)


def _hardened(data: Data, dataset: schema.Dataset) -> Data:
    """The data with as many training samples, and as many wrong labels among them, as the settings say.

    A wrong label is that of another class, any with equal chance.
    """
    train, limit, noise, seed = data.train, dataset.limit, dataset.label_noise, dataset.split_seed
    classes, notes = len(data.classes), [data.note]
    if limit is not None and limit < len(train):
        notes.append(f"train limited to {limit:,} of {len(train):,}")
        rows = _chosen(train.targets.numpy(), limit, classes, seed)
        train = train.take(torch.from_numpy(rows))
    elif limit is not None and len(train):
        notes.append(f"dataset.limit has no effect: train holds {len(train):,}")
    if noise and train.targets.dim() > 1:
        raise ConfigError("dataset.label_noise: a sample of these data has several targets, not one class")
    if noise:
        notes.append(f"{noise:.0%} of train labelled wrongly on purpose")
        random, labels = np.random.default_rng([seed, 1]), train.targets.numpy().copy()
        known = np.flatnonzero(labels != UNKNOWN)
        wrong = known[random.permutation(len(known))[: round(noise * len(known))]]
        labels[wrong] = (labels[wrong] + random.integers(1, classes, len(wrong))) % classes
        train = replace(train, targets=torch.from_numpy(labels))
    if train is data.train:
        return replace(data, note="; ".join(notes))
    digest = fingerprint([data.digest, len(train), noise, seed])
    return replace(data, train=train, digest=digest, note="; ".join(notes))


def _chosen(labels: np.ndarray, number: int, classes: int, seed: int) -> np.ndarray:
    """A seeded choice of `number` rows, in the order of the data; stratified where each has one class."""
    one_each = labels.ndim == 1
    if one_each and number < classes:
        raise ConfigError(f"dataset.limit: {number} samples are fewer than the {classes} classes")
    if one_each and len(labels) - number >= classes:
        return stratified(labels, len(labels) - number, seed)[1]
    # or too few are left out for each class to be among them
    return np.sort(np.random.default_rng(seed).permutation(len(labels))[:number])
