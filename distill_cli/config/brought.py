"""The data set that a checkpoint was trained on, as the default of a command that works on the checkpoint."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.base.files import read_json

BESIDE = (".safetensors", ".onnx")  # endings of files that have their card beside them


def use_dataset_of(checkpoint: str | None) -> None:
    """Make the data a checkpoint was trained on the default of eval's `dataset`, so that its keys can be overridden.

    Raises:
        CheckpointError: nothing there tells what it was trained on.
    """
    ConfigStore.instance().store(group="dataset", name="stored", node=_stored_dataset(checkpoint) if checkpoint else {})


def _stored_dataset(checkpoint: str) -> Any:
    path = files.place(checkpoint, "ckpt").absolute()
    if not path.exists():
        hint = "give a run folder, a student.safetensors or a .pt file"
        raise CheckpointError(f"ckpt: there is nothing at {path}", hint)
    folder = path if path.is_dir() else path.parent
    # Weights lie beside their card, a run's checkpoints one folder below it and below run.json.
    above = [folder] if path.is_dir() or path.suffix in BESIDE else [folder, folder.parent]
    try:
        for place in above:
            if (place / "model.json").is_file():
                return read_json(place / "model.json")["dataset"]
            if (place / "run.json").is_file() and not path.is_dir():
                return read_json(place / "run.json")["config"]["dataset"]
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"ckpt: what describes {path} is damaged: {error}") from error
    if path.is_dir():
        hint = "give a run folder or a file in it"
        raise CheckpointError(f"ckpt: {path} holds no finished run (no model.json)", hint)
    if path.suffix in BESIDE:
        raise CheckpointError(f"ckpt: no model.json beside {path.name}", f"copy model.json to {folder} with it")
    return {}  # a checkpoint copied alone: its own card tells
