"""From the parts that a reader found to three checked splits; where its files are and what they hold is the reader's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from distill_cli.base.errors import DataError
from distill_cli.base.names import fingerprint
from distill_cli.data import inputs as of_inputs
from distill_cli.data.dataset import Data
from distill_cli.data.inputs import Inputs
from distill_cli.data.loading import Loader
from distill_cli.data.pictures import PictureSpec, spread
from distill_cli.data.source import Source, source_of
from distill_cli.data.spec import Spec
from distill_cli.data.split import Split

READ_AT_ONCE = 256  # pictures, to measure their values


class Part:
    """A split as a reader found it: its samples, and the class of each.

    Args:
        samples: raw ones in memory (pictures: uint8 (N, C, H, W)), a source, or a data set as `source.Items` takes it.
        targets: (N,) whole numbers.
    """

    def __init__(self, samples: Inputs | Source | Any, targets: np.ndarray) -> None:
        self.source, self.targets = source_of(samples), targets

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> Part:
        """The samples at `rows` (n,) alone, in that order."""
        return Part(self.source.take(rows), self.targets[rows])

    def digest(self) -> str:
        """SHA-256 of the samples, or of what their source says of them, and of the targets."""
        held, content = self.source.held, hashlib.sha256()
        for piece in [self.source.digest().encode()] if held is None else of_inputs.content(held):
            content.update(piece)
        content.update(np.ascontiguousarray(self.targets.astype(np.int64)).data)
        return content.hexdigest()


def assemble(
    train: Part,
    val: Part | None,
    test: Part,
    classes: Sequence[str],
    *,
    val_fraction: float,
    split_seed: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    note: str,
    workers: int = 0,
) -> Data:
    """Pictures as a data set: the parts checked, validation cut from train where there is none, the normalisation fixed.

    Args:
        mean, std: one value a channel, or one for all; None: of the training pictures.
        note: where validation and test come from, for people.

    Raises:
        DataError: as `cut` says, or `mean` or `std` has a wrong number of values.
    """
    parts = cut(train, val, test, classes, val_fraction, split_seed)
    sample = parts["train"].source.read([0])
    assert isinstance(sample, Tensor)
    channels, height, width = sample.shape[1:]
    mean, std = (mean, std) if mean is not None and std is not None else _measured(parts["train"], workers)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise DataError(f"dataset.{key} has {len(values)} values, but the pictures have {channels} channel(s)")
    spec = PictureSpec(channels, (height, width), spread(mean, channels), spread(std, channels))
    return together(parts, classes, spec, [spec.mean, spec.std], note, workers)


def together(
    parts: Mapping[str, Part],
    classes: Sequence[str],
    spec: Spec,
    more: Sequence[Any],
    note: str,
    workers: int = 0,
    **about: Any,
) -> Data:
    """The data set of the parts "train", "val" and "test", of any kind.

    Args:
        more: what else decides the inputs that a model gets, beside the parts and the classes; part of the digest.
        about: other fields of `Data`, such as its task.
    """
    ingredients = [[part.digest() for part in parts.values()], list(classes), *more]
    splits: dict[str, Any] = {
        name: Split(
            part.source,
            torch.from_numpy(part.targets.astype(np.int64)),
            spec.transform(spec),
            workers,
            at_once=spec.at_once,
        )
        for name, part in parts.items()
    }
    return Data(**splits, classes=tuple(classes), input=spec, digest=fingerprint(ingredients), note=note, **about)


def cut(
    train: Part, val: Part | None, test: Part, classes: Sequence[str], val_fraction: float, split_seed: int
) -> dict[str, Part]:
    """The parts by name, checked; without `val` it is cut from train.

    Raises:
        DataError: empty parts, wrong targets, one class only, fewer samples than classes, or too few to cut validation
            from.
    """
    for name, part in (("train", train), ("val", val), ("test", test)):
        if part is not None:
            _check(name, part, classes)
    if len(classes) < 2:
        raise DataError(f"the data have one class only, {classes[0]!r}: there is nothing to tell apart")
    if len(train) < len(classes):
        raise DataError(f"train holds {len(train)} samples, fewer than the {len(classes)} classes")
    if val is None:
        train, val = _cut(train, val_fraction, split_seed, classes)
    return {"train": train, "val": val, "test": test}


def within(memory: float, sizes: Mapping[str, int]) -> set[str]:
    """Which parts, of so many bytes each, are held in `memory` GiB: the smallest first, as many as it takes."""
    left, chosen = memory * 2**30, set()
    for name in sorted(sizes, key=sizes.__getitem__):
        left -= sizes[name]
        if left >= 0:
            chosen.add(name)
    return chosen


def _check(name: str, part: Part, classes: Sequence[str]) -> None:
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
    wrong = np.flatnonzero((targets < 0) | (targets >= len(classes)))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{name} {part.source.name_of(first)} has label {int(targets[first])}; labels go from 0 to "
            f"{len(classes) - 1} ({len(wrong)} such samples)"
        )


def _cut(train: Part, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Part, Part]:
    """Cut a stratified, seeded validation part from train; both keep the order of the data."""
    counts = np.bincount(train.targets, minlength=len(classes))
    if counts.min() < 2:
        rare = int(counts.argmin())
        raise DataError(
            f"class {classes[rare]!r} has {counts[rare]} training sample(s): validation cannot be cut from train",
            "add samples, or give the data set a val/ of its own",
        )
    size = max(round(fraction * len(train)), len(classes))
    if len(train) - size < len(classes):
        raise DataError(f"train holds {len(train)} samples: too few for {len(classes)} classes in train and validation")
    rest, val = train_test_split(np.arange(len(train)), test_size=size, stratify=train.targets, random_state=seed)
    return train.take(np.sort(rest)), train.take(np.sort(val))


def _measured(train: Part, workers: int, most: int = 10_000) -> tuple[list[float], list[float]]:
    """Mean and deviation by channel of the training pictures, on evenly spaced ones where there are more than `most`.

    They are taken from how often each of the 256 values occurs: exact, and in little memory.
    """
    rows = torch.from_numpy(np.unique(np.linspace(0, len(train) - 1, min(most, len(train))).astype(int)))
    blocks = [block.tolist() for block in rows.split(READ_AT_ONCE)]
    counts: Any = 0  # (channels, 256)
    for pictures in Loader(train.source, blocks, workers if train.source.held is None else 0):
        assert isinstance(pictures, Tensor)
        channels = pictures.transpose(0, 1).flatten(1).numpy()
        counts = counts + np.stack([np.bincount(channel, minlength=256) for channel in channels])
    values, share = np.arange(256) / 255, counts / counts[0].sum()
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return [round(float(m), 6) for m in mean], [round(max(float(s), 1e-3), 6) for s in std]
