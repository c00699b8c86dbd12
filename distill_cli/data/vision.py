"""torchvision's data sets, held in memory."""

from __future__ import annotations

import contextlib
import functools
import io
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from distill_cli.base import ui
from distill_cli.base.errors import DataError
from distill_cli.base.files import place
from distill_cli.base.locks import exclusive
from distill_cli.data import Data, Part, assemble
from distill_cli.data.assembling import within
from distill_cli.data.resizing import Resized, resized
from distill_cli.data.source import Held

FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python", "SVHN": ""}  # the others': NAME/raw


def torchvision(
    name: Literal["MNIST", "FashionMNIST", "KMNIST", "EMNIST", "CIFAR10", "CIFAR100", "SVHN"],
    root: str,
    download: bool = True,
    size: int | str = "auto",
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    memory: float = 2.0,
    workers: int = 0,
) -> Data:
    """One of torchvision's data sets, from `root` or downloaded there; validation is cut from its train split.

    Where its pictures at another `size` would take more than `memory` GiB, they are resized as they are read.
    """
    folder = place(root, "dataset.root")
    sets = [_open(name, folder, train, download) for train in (True, False)]
    arrays = {part: _arrays(name, dataset) for part, dataset in zip(("train", "test"), sets, strict=True)}
    kept = set(arrays)
    if isinstance(size, int):
        kept = within(memory, {part: images[:, :, 0, 0].numel() * size**2 for part, (images, _) in arrays.items()})
    parts = {
        part: Part(resized(images, size) if part in kept else Resized(Held(images), int(size)), labels)
        for part, (images, labels) in arrays.items()
    }
    return assemble(
        parts["train"],
        None,
        parts["test"],
        _classes(name, sets[0]),
        val_fraction=val_fraction,
        split_seed=split_seed,
        mean=mean,
        std=std,
        note=f"test: {name}'s own; validation: {val_fraction:.0%} of its train"
        + "".join(f"; {part} read as needed" for part in arrays if part not in kept),
        workers=workers,
    )


def _open(name: str, root: Path, train: bool, download: bool) -> Any:
    """torchvision's data set object.

    Raises:
        DataError: it is not there and could not be downloaded, or its files are damaged.
    """
    which: dict[str, Any] = {"split": "train" if train else "test"} if name == "SVHN" else {"train": train}
    if name == "EMNIST":
        which["split"] = "letters"
    kind = functools.partial(getattr(datasets, name), root, **which)
    try:
        try:
            return kind(download=False)
        except RuntimeError as error:
            if "not found" not in str(error):  # there, but not what it should be
                raise ValueError(str(error)) from error
        if not download:
            raise RuntimeError("dataset.download is false")
        root.mkdir(parents=True, exist_ok=True)
        ui.say(f"{name} is not in {root.absolute()}: fetching it")
        with exclusive(root / f".{name}.lock"), contextlib.redirect_stdout(io.StringIO()):
            return kind(download=True)
    except (RuntimeError, URLError, ConnectionError, TimeoutError) as error:
        raise DataError(
            f"{name} is not in {root.absolute() / FOLDERS.get(name, f'{name}/raw')}, and it could not be downloaded: "
            + " ".join(str(error).split()),
            "copy its files there from a machine with a network, or point dataset.root at a folder that has them",
        ) from error
    except (ValueError, TypeError, EOFError, AssertionError, KeyError, IndexError) as error:
        raise DataError(
            f"the files of {name} in {root.absolute()} are damaged: {error}", "delete and fetch them again"
        ) from error


def _arrays(name: str, dataset: Any) -> tuple[Tensor, np.ndarray]:
    """Pictures (N, C, H, W) uint8 and labels (N,) from 0."""
    images = torch.as_tensor(dataset.data)
    labels = np.asarray(dataset.labels if name == "SVHN" else dataset.targets)
    if name == "EMNIST":  # stored transposed, with labels from 1
        images, labels = images.transpose(1, 2), labels - 1
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    return images.contiguous(), labels


def _classes(name: str, dataset: Any) -> Sequence[str]:
    if name == "SVHN":
        return [str(d) for d in range(10)]
    return list(string.ascii_lowercase) if name == "EMNIST" else list(dataset.classes)
