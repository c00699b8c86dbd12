"""Which files of a folder are train, validation and test, by their names; what is in them is the readers' business."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from distill_cli.base.errors import DataError
from distill_cli.data.layout import PARTS


def split_files(root: Path, endings: Sequence[str], only: str | None) -> dict[str, Path]:
    """The file of each split that is there; of one file alone, train.

    Args:
        root: a folder, or a file. endings: of the files that are read. only: the one split that is wanted: train may be missing.

    Raises:
        DataError: there is no such file, none that can be train, or two that can be the same split.
    """
    if root.is_file():
        if root.suffix.lower() not in endings:
            raise DataError(f"dataset.root={root}: should end in {', '.join(endings)}")
        return {only or "train": root}
    if not root.is_dir():
        raise DataError(f"dataset.root={root}: there is no such file or folder")
    present = [path for path in sorted(root.iterdir()) if path.suffix.lower() in endings and path.name[0] != "."]
    files = dict[str, Path]()
    for split, names in PARTS.items():
        fitting = [path for path in present if path.stem.strip().casefold() in names]
        if len(fitting) > 1:
            raise DataError(f"{root} holds {' and '.join(path.name for path in fitting)}: which is {split}?")
        if fitting:
            files[split] = fitting[0]
    if "test" not in files and "val" in files and ("train" in files or only == "test"):
        files["test"] = files.pop("val")  # what was not cut off is worth more as test, and validation is cut from train
    if "train" not in files and only not in files:
        held = ", ".join(path.name for path in present) or "no file that ends so"
        raise DataError(
            f"dataset.root={root}: it holds {held}", f"it needs train and test, each as one of {', '.join(endings)}"
        )
    return files


def files_by_part(root: Path, endings: Sequence[str], only: str | None) -> tuple[dict[str, list[Path]], list[Path]]:
    """The files of train, val and test, each in order, below a folder or `root` alone, and those that nothing says the part of.

    A file's own name says it, as in train-0000.tar, or else the nearest folder's; where nothing says it of any, all are train.

    Args:
        endings: of the files that are read. only: the one split that is wanted: train may be missing.

    Raises:
        DataError: there is no such file, or a part that is needed is missing.
    """
    if root.is_file():
        return {only or "train": [root]}, []
    if not root.is_dir():
        raise DataError(f"dataset.root={root}: there is no such file or folder")
    parts, none = {part: list[Path]() for part in PARTS}, list[Path]()
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in endings and path.name[0] != "."):
        names = reversed(path.relative_to(root).parts)
        words = ({*re.split(r"[^a-z]+", name.lower())} for name in names)
        said = next((part for word in words for part in PARTS if word & {*PARTS[part]}), None)
        (parts[said] if said else none).append(path)
    files = {part: paths for part, paths in parts.items() if paths}
    if not files and none:
        files, none = {only or "train": none}, []
    if not files:
        held = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise DataError(f"dataset.root={root}: it holds {held}", f"it needs files that end in {', '.join(endings)}")
    return files, none
