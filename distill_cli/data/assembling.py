"""From the parts that a reader found to three checked splits; where files are and what they hold is the reader's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_cli.base import ui
from distill_cli.base.errors import DataError
from distill_cli.base.names import fingerprint
from distill_cli.data import inputs as of_inputs
from distill_cli.data.dataset import SPLITS, Data
from distill_cli.data.inputs import Inputs
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.loading import Loader, blocks
from distill_cli.data.pictures import PictureSpec, spread
from distill_cli.data.source import Held, Source, sha256
from distill_cli.data.spec import Spec
from distill_cli.data.split import Split

MEASURED = 10_000  # pictures, of which mean and deviation are taken at most


class Part:
    """A split as a reader found it: its samples, and the class of each.

    Args:
        samples: raw ones in memory (pictures: uint8 (N, C, H, W)), or a source.
        targets: (N,) whole numbers; UNKNOWN, -1, of a sample without a label.
    """

    def __init__(self, samples: Inputs | Source, targets: np.ndarray) -> None:
        self.source = Held(samples) if isinstance(samples, Tensor | Mapping) else samples
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> Part:
        """The samples at `rows` (n,) alone, in that order."""
        return Part(self.source.take(rows), self.targets[rows])

    def split(self, spec: Spec, workers: int) -> Split:
        """The part as models of `spec` see it, read by so many processes where it is not in memory."""
        return Split(self.source, torch.from_numpy(self.targets.astype(np.int64)), spec, workers)

    def digest(self) -> str:
        """SHA-256 of the samples, or of what their source says of them, and of the targets."""
        held = self.source.held
        samples = [self.source.digest().encode()] if held is None else of_inputs.content(held)
        return sha256([*samples, np.ascontiguousarray(self.targets.astype(np.int64)).data])


def assemble(
    train: Part,
    val: Part | None,
    test: Part,
    classes: Sequence[str],
    *,
    val_fraction: float,
    split_seed: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    spec: Spec | None = None,
    note: str,
    workers: int = 0,
) -> Data:
    """Parts as a data set: checked, and validation cut from train where there is none.

    Args:
        mean, std: of pictures, one value a channel, or one for all; None: of the training pictures.
        spec: what a model gets to see of the samples; None: they are pictures, normalised by `mean` and `std`.
        note: where validation and test come from, for people.

    Raises:
        DataError: empty parts, wrong targets, one class only, fewer samples than classes, too few to cut validation from,
            or a wrong number of values in `mean` or `std`.
    """
    cut_off = val is None
    for name, part in (("train", train), ("val", val), ("test", test)):
        if part is not None:
            _check(name, part, len(classes))
    if len(classes) < 2:
        raise DataError(f"the data have one class only, {classes[0]!r}: there is nothing to tell apart")
    if len(train) < len(classes):
        raise DataError(f"train holds {len(train)} samples, fewer than the {len(classes)} classes")
    if val is None:
        train, val = cut(train, val_fraction, split_seed, classes)
        lone = [name for label, name in enumerate(classes) if label not in val.targets]
        if lone and UNKNOWN not in val.targets:
            note += f"; validation lacks the classes of one sample ({', '.join(lone[:5])})"
    if spec is None:
        spec = _spec(train, mean, std, workers)
        if mean is None and len(train) > MEASURED:
            note += f"; mean and deviation of {MEASURED:,} pictures"
    parts = {"train": train, "val": val, "test": test}
    digest = fingerprint([[part.digest() for part in parts.values()], list(classes), *spec.measured])
    splits: dict[str, Any] = {name: part.split(spec, workers) for name, part in parts.items()}
    return Data(**splits, classes=tuple(classes), digest=digest, note=note, cut=cut_off)


def alone(name: str, part: Part, classes: Sequence[str], note: str, workers: int = 0, spec: Spec | None = None) -> Data:
    """One split for a model that knows how pictures are normalised, which is left out; the others are empty.

    Raises:
        DataError: the part is empty, or its targets are wrong.
    """
    _check(name, part, len(classes))
    spec = spec or _spec(part, [0.0], [1.0], workers)
    none = np.arange(0)
    parts = {each: part if each == name else part.take(none) for each in SPLITS}
    splits: dict[str, Any] = {each: one.split(spec, workers) for each, one in parts.items()}
    return Data(**splits, classes=tuple(classes), digest=fingerprint([part.digest(), list(classes)]), note=note)


def within(memory: float, sizes: Mapping[str, int]) -> set[str]:
    """Which parts, of so many bytes each, are held in `memory` GiB: the smallest first, as many as it takes."""
    left, chosen = memory * 2**30, set()
    for name in sorted(sizes, key=sizes.__getitem__):
        left -= sizes[name]
        if left >= 0:
            chosen.add(name)
    return chosen


def stratified(labels: np.ndarray, number: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `number` samples, or of that share, drawn with each class's share, and the other rows; both in order.

    Each class that has two samples is on both sides; a class's only sample is among the other rows.
    """
    from sklearn.model_selection import train_test_split  # takes a second, which a bad value need not wait for

    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[place] > 1)
    rest, chosen = train_test_split(several, test_size=number, stratify=labels[several], random_state=seed)
    _complete(chosen, rest, labels)
    _complete(rest, chosen, labels)
    return np.sort(chosen), np.sort([*rest, *np.flatnonzero(counts[place] == 1)])


def _complete(rows: np.ndarray, others: np.ndarray, labels: np.ndarray) -> None:
    """Give `rows` a sample of each class that only `others` has, in exchange for one of its most frequent class."""
    for name in np.setdiff1d(labels[others], labels[rows]):
        names, counts = np.unique(labels[rows], return_counts=True)
        ours = np.flatnonzero(labels[rows] == names[counts.argmax()])[0]
        theirs = np.flatnonzero(labels[others] == name)[0]
        rows[ours], others[theirs] = others[theirs], rows[ours]


def _check(name: str, part: Part, classes: int) -> None:
    targets = part.targets
    if len(part) == 0:
        raise DataError(f"{name} holds no samples")
    if len(part.source) != len(targets):
        raise DataError(f"{name} holds {len(part.source)} samples but {len(targets)} labels")
    if targets.ndim != 1 or targets.dtype.kind not in "iub":
        raise DataError(
            f"{name} has labels of shape {targets.shape} and type {targets.dtype}",
            "it needs one whole number for each sample",
        )
    wrong = np.flatnonzero((targets < UNKNOWN) | (targets >= classes))
    if len(wrong):
        where, label = part.source.name_of(int(wrong[0])), int(targets[wrong[0]])
        raise DataError(
            f"{name} {where} has label {label}; labels go from 0 to {classes - 1} ({len(wrong)} such samples)"
        )


def cut(train: Part, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Part, Part]:
    """Train without a stratified, seeded validation part, and that part, in which each class is that has two samples.

    Raises:
        DataError: a class has no samples, or there are too few of them.
    """
    labelled = np.flatnonzero(train.targets != UNKNOWN)
    if not len(labelled):  # then validation has none either
        labelled = np.arange(len(train))
    elif (counts := np.bincount(train.targets[labelled], minlength=len(classes))).min() == 0:
        name = classes[int(counts.argmin())]
        raise DataError(f"class {name!r} has no training samples", "add some, or leave the class out")
    size = max(round(fraction * len(labelled)), len(classes))
    if len(labelled) - size < len(classes):
        raise DataError(
            f"train holds {len(labelled)} samples: too few for {len(classes)} classes in train and validation"
        )
    val = labelled[stratified(train.targets[labelled], size, seed)[0]]
    return train.take(np.setdiff1d(np.arange(len(train)), val)), train.take(val)


def _spec(train: Part, mean: Sequence[float] | None, std: Sequence[float] | None, workers: int) -> PictureSpec:
    """What a model gets to see of pictures like the training ones."""
    first = train.source.read([0])
    assert isinstance(first, Tensor)
    channels, height, width = first.shape[1:]
    mean, std = (mean, std) if mean is not None and std is not None else _measured(train.source, workers)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise DataError(f"dataset.{key} has {len(values)} values, but the pictures have {channels} channel(s)")
    return PictureSpec(channels, (height, width), spread(mean, channels), spread(std, channels))


def _measured(source: Source, workers: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of pictures by channel, on evenly spaced ones where there are many.

    They are taken from how often each of the 256 values occurs: exact, and in little memory.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, min(MEASURED, len(source))).astype(int))
    counts: Any = 0  # (channels, 256)
    for pictures in Loader(source, blocks(rows), workers if source.held is None else 0):
        assert isinstance(pictures, Tensor)
        channels = pictures.transpose(0, 1).flatten(1).numpy()
        counts = counts + np.stack([np.bincount(channel, minlength=256) for channel in channels])
    values, share = np.arange(256) / 255, counts / counts[0].sum()
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return [round(float(m), 6) for m in mean], [round(max(float(s), 1e-3), 6) for s in std]


def warn_of_same(same: int, number: int, kind: str) -> None:
    """Say that so many of all samples of test, which are called `kind`, are in train too, if any are."""
    if same:
        ui.warn(f"data: {same:,} of {number:,} test {kind} are in train too: test flatters a model that remembers")
