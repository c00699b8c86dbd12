"""What every data set becomes: three splits over the same classes, checked and cut; how they are read is elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from distill_cli.base.errors import DataError
from distill_cli.base.names import fingerprint
from distill_cli.config import building
from distill_cli.data import hardship
from distill_cli.data.augmentation import Augmentation
from distill_cli.data.split import Batch, InputSpec, Split, batch_sizes

__all__ = [
    "Batch",
    "Data",
    "InputSpec",
    "Part",
    "Resized",
    "Split",
    "assemble",
    "batch_sizes",
    "load",
    "resized",
    "within",
]


@dataclass(frozen=True)
class Data:
    """A data set: three splits over the same classes.

    `digest` tells its content, split and normalisation apart from any other's. `note` says where validation and test
    come from.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    input: InputSpec
    digest: str
    note: str

    def to(self, device: torch.device) -> Data:
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def normalised(self, spec: InputSpec) -> Data:
        """The same pictures under another normalisation; grey ones take the mean of its channels where it has three."""
        mean, std = _shaped(_full(spec.mean, self.input.channels)), _shaped(_full(spec.std, self.input.channels))
        splits = {name: replace(getattr(self, name), mean=mean, std=std) for name in ("train", "val", "test")}
        return replace(self, **splits, input=spec)


OURS = (
    "augmentation",
    "views",
    "view_seed",
    "limit",
    "label_noise",
)  # keys of a dataset's node that are ours rather than its function's


def load(node: Mapping[str, Any], workers: int, trust: Sequence[str] | None = None) -> Data:
    """The data set that a `dataset` node describes, its training pictures augmented as it says; `trust` as in
    `config.build`.

    Raises:
        ConfigError: the node is wrong. DataError: the data are, or cannot be read.
    """
    try:
        data = building.build(node, Data, "dataset", leave_out=OURS, trust=trust, workers=workers)
    except OSError as error:
        raise DataError(f"the data cannot be read: {error}") from error
    data = _hardened(data, node)
    augmentation = Augmentation(**(node.get("augmentation") or {}), seed=node.get("view_seed", 0))
    if not augmentation:
        return data
    return replace(data, train=replace(data.train, augmentation=augmentation, views=node.get("views", 0)))


def _hardened(data: Data, node: Mapping[str, Any]) -> Data:
    """The data with as many training samples, and as many wrong labels among them, as the node says."""
    limit, noise, seed = node.get("limit"), node.get("label_noise") or 0.0, node.get("split_seed") or 0
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


@dataclass(frozen=True)
class Part:
    """A split as a reader found it: pictures (uint8 tensor, or a dataset with a `digest`), and labels (N,)."""

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Part:
        if isinstance(self.images, Tensor):
            return Part(self.images[torch.from_numpy(index)], self.labels[index])
        return Part(self.images.take(index), self.labels[index])

    def digest(self) -> str:
        if isinstance(self.images, Tensor):
            content = hashlib.sha256(np.ascontiguousarray(self.images.numpy()).data)
        else:
            content = hashlib.sha256(self.images.digest().encode())
        content.update(np.ascontiguousarray(self.labels.astype(np.int64)).data)
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
    name_of: Callable[[str, int], str] = "{} sample {}".format,
) -> Data:
    """Check the parts, cut validation from train where there is none, and fix the normalisation.

    Args:
        name_of: (part's name, index) -> how to name that sample in a message.

    Raises:
        DataError: empty parts, wrong labels, one class only, fewer samples than classes, or too few to cut validation
            from.
    """
    for name, part in (("train", train), ("val", val), ("test", test)):
        if part is not None:
            _check(name, part, classes, name_of)
    if len(classes) < 2:
        raise DataError(f"the data have one class only, {classes[0]!r}: there is nothing to tell apart")
    if len(train) < len(classes):
        raise DataError(f"train holds {len(train)} samples, fewer than the {len(classes)} classes")
    if val is None:
        train, val = _cut(train, val_fraction, split_seed, classes)
    sample = train.images[:1] if isinstance(train.images, Tensor) else train.images[0][None]
    channels, height, width = sample.shape[1:]
    mean, std = (mean, std) if mean is not None and std is not None else _measured(train)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise DataError(f"dataset.{key} has {len(values)} values, but the pictures have {channels} channel(s)")
    spec = InputSpec(channels, (height, width), _full(mean, channels), _full(std, channels))
    ingredients = [[part.digest() for part in (train, val, test)], list(classes), spec.mean, spec.std]
    shaped = _shaped(spec.mean), _shaped(spec.std)
    splits = {
        name: Split(part.images, torch.from_numpy(part.labels.astype(np.int64)), *shaped, workers)
        for name, part in (("train", train), ("val", val), ("test", test))
    }
    return Data(**splits, classes=tuple(classes), input=spec, digest=fingerprint(ingredients), note=note)


def resized(images: Tensor, size: int | str) -> Tensor:
    """uint8 pictures (N, C, H, W) at `size` pixels square by antialiased bilinear interpolation; "auto" leaves them."""
    if size == "auto" or tuple(images.shape[2:]) == (size, size):
        return images
    return torch.cat(
        [
            F.interpolate(part.float(), (int(size), int(size)), mode="bilinear", antialias=True).round().byte()
            for part in images.split(1024)
        ]
    )


@dataclass(frozen=True)
class Resized(Dataset[Tensor]):
    """Pictures (N, C, H, W) uint8 held at their own size, each resized when it is read."""

    images: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return resized(self.images[index : index + 1], self.size)[0]

    def take(self, index: np.ndarray) -> Resized:
        return replace(self, images=self.images[torch.from_numpy(index)])

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images.numpy()).data).hexdigest() + f" {self.size}"


def within(memory: float, sizes: Mapping[str, int]) -> set[str]:
    """Which parts, of so many bytes each, are held in `memory` GiB: the smallest first, as many as it takes."""
    left, chosen = memory * 2**30, set()
    for name in sorted(sizes, key=sizes.__getitem__):
        left -= sizes[name]
        if left >= 0:
            chosen.add(name)
    return chosen


def _check(name: str, part: Part, classes: Sequence[str], name_of: Callable[[str, int], str]) -> None:
    if len(part) == 0:
        raise DataError(f"{name} holds no samples")
    if len(part.images) != len(part.labels):
        raise DataError(f"{name} holds {len(part.images)} pictures but {len(part.labels)} labels")
    if part.labels.ndim != 1 or part.labels.dtype.kind not in "iub":
        raise DataError(
            f"{name} has labels of shape {part.labels.shape} and type {part.labels.dtype}",
            "it needs one whole number for each sample",
        )
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(classes)))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{name_of(name, first)} has label {int(part.labels[first])}; labels go from 0 to {len(classes) - 1} "
            f"({len(wrong)} such samples)"
        )


def _cut(train: Part, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Part, Part]:
    """Cut a stratified, seeded validation part from train; both keep the order of the data."""
    counts = np.bincount(train.labels, minlength=len(classes))
    if counts.min() < 2:
        rare = int(counts.argmin())
        raise DataError(
            f"class {classes[rare]!r} has {counts[rare]} training sample(s): validation cannot be cut from train",
            "add samples, or give the data set a val/ of its own",
        )
    size = max(round(fraction * len(train)), len(classes))
    if len(train) - size < len(classes):
        raise DataError(f"train holds {len(train)} samples: too few for {len(classes)} classes in train and validation")
    kept, held = train_test_split(np.arange(len(train)), test_size=size, stratify=train.labels, random_state=seed)
    return train.take(np.sort(kept)), train.take(np.sort(held))


def _measured(train: Part, most: int = 10_000) -> tuple[list[float], list[float]]:
    """Mean and deviation by channel of the training pictures, on evenly spaced ones where there are more than `most`."""
    rows = np.unique(np.linspace(0, len(train) - 1, min(most, len(train))).astype(int))
    images = train.images
    pictures = images[torch.from_numpy(rows)] if isinstance(images, Tensor) else torch.stack([images[i] for i in rows])
    values = pictures.numpy().astype(np.float64) / 255
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    return [round(float(m), 6) for m in mean], [round(max(float(s), 1e-3), 6) for s in std]


def _full(values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(float(v) for v in values)
    return (sum(float(v) for v in values) / len(values),) * channels


def _shaped(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
