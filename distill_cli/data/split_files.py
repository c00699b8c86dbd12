"""Which files of a folder are train, validation and test, by their names; what is in them is the readers' business."""

from __future__ import annotations

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
