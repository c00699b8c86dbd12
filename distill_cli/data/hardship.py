"""Training data made harder on purpose: fewer samples, wrong labels. Validation and test stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from distill_cli.base.errors import ConfigError
from distill_cli.data.split import Split


def limited(train: Split, number: int, num_classes: int, seed: int) -> Split:
    """A stratified, seeded choice of `number` samples in the order of the data; all of them where there are no more.

    Raises:
        ConfigError: fewer samples than classes.
    """
    if number >= len(train):
        return train
    if number < num_classes:
        raise ConfigError(f"dataset.limit: {number} samples are fewer than the {num_classes} classes")
    labels = train.targets.numpy()
    rows = np.arange(len(labels))
    if len(labels) - number >= num_classes:
        rows, _ = train_test_split(rows, train_size=number, stratify=labels, random_state=seed)
    else:  # too few are left out for each class to be among them
        rows = np.random.default_rng(seed).permutation(rows)[:number]
    chosen = np.sort(rows)
    return replace(train, source=train.source.take(chosen), targets=train.targets[torch.from_numpy(chosen)])


def mislabelled(train: Split, share: float, num_classes: int, seed: int) -> Split:
    """The same samples, `share` of which, chosen at random, carry the label of another class, any with equal chance."""
    random = np.random.default_rng([seed, 1])
    labels = train.targets.numpy().copy()
    wrong = random.permutation(len(labels))[: round(share * len(labels))]
    labels[wrong] = (labels[wrong] + random.integers(1, num_classes, len(wrong))) % num_classes
    return replace(train, targets=torch.from_numpy(labels))
