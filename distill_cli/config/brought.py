"""The data set that a checkpoint was trained on, as the default of a command that works on the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from distill_cli.base.errors import CheckpointError
from distill_cli.base.files import read_json


def use_dataset_of(checkpoint: str | None) -> None:
    """Make the data a checkpoint was trained on the default of eval's `dataset`, so that its keys can be overridden.

    Raises:
        CheckpointError: nothing there tells what it was trained on.
    """
    ConfigStore.instance().store(group="dataset", name="stored", node=_stored_dataset(checkpoint) if checkpoint else {})


def _stored_dataset(checkpoint: str) -> Any:
    path = Path(checkpoint).expanduser().absolute()
    if not path.exists():
        raise CheckpointError(
            f"ckpt: there is nothing at {path}", "give a run folder, a student.safetensors or a .pt file"
        )
    if path.is_dir():
        places = [path]
    elif path.suffix == ".safetensors":
        places = [path.parent]  # weights lie beside their card
    else:
        places = [path.parent, path.parent.parent]  # a run's checkpoints lie one folder below it
    try:
        for folder in places:
            if (folder / "model.json").is_file():
                return read_json(folder / "model.json")["dataset"]
            if (folder / "run.json").is_file() and not path.is_dir():
                return read_json(folder / "run.json")["config"]["dataset"]
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"ckpt: what describes {path} is damaged: {error}") from error
    if path.is_dir():
        raise CheckpointError(
            f"ckpt: {path} holds no finished run (no model.json)", "give a run folder or a file in it"
        )
    if path.suffix == ".safetensors":
        raise CheckpointError(f"ckpt: no model.json beside {path.name}", f"copy model.json to {path.parent} with it")
    return {}  # a checkpoint copied alone: its own card tells
