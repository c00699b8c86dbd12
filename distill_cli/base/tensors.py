"""Files of tensors, .safetensors or what torch.save wrote, read without running any code that they bring."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from distill_cli.base.errors import CheckpointError


def read_tensors(path: Path) -> Any:
    """Return the content of a .safetensors file, or of one that torch.save wrote; no code in it runs.

    Raises:
        CheckpointError: it is missing, empty or damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path.absolute()}", "check teacher.checkpoint or ckpt")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            _check_records(path)
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds code or objects other than tensors: it was not loaded",
            "save a plain state dict: torch.save(model.state_dict(), path)",
        ) from error
    except Exception as error:  # damage shows as a dozen kinds of error, OSError and AssertionError among them
        first = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {first}") from error


def _check_records(path: Path) -> None:
    """Compare every record of a zip file that torch.save wrote with its CRC-32; torch.load does not."""
    with zipfile.ZipFile(path) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise CheckpointError(f"{path} holds compressed records, which torch.save never writes: it was not loaded")
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: its record {damaged} fails its CRC-32: it was not loaded",
            "if it was saved with torch.serialization.set_crc32_options(False), save it again without",
        )
