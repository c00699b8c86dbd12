"""A GGUF file made a folder of a model, once: what it holds in few bits is written out in fp32; finding files is in hub.py."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.base.names import slug
from distill_cli.data.tokens import FILE
from distill_cli.models import OURS

ENDING = ".gguf"
NEEDED = ("gguf", "accelerate")


def only_one(folder: Path) -> Path | None:
    """The GGUF file of a folder that is no model's already; a CheckpointError where there are several."""
    there = [] if (folder / "config.json").exists() else sorted(folder.glob(f"*{ENDING}"))
    if there[1:]:
        raise CheckpointError(f"{folder} holds {len(there)} GGUF files", f"name one, as in name={there[0]}")
    return there[0] if there else None


def converted(lib: Any, file: Path) -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json of what a GGUF file holds, beside the hub's own cache.

    Args:
        lib: transformers.

    Raises:
        ConfigError: a package is missing. CheckpointError: the file cannot be read.
    """
    from huggingface_hub import constants

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        told = f"{file.name}: a GGUF file needs the package {' and '.join(missing)}"
        raise ConfigError(told, 'pip install "distill-cli[gguf]"')
    found = file.stat()
    digest = _digest(file, found.st_size, found.st_mtime_ns)
    folder = Path(constants.HF_HOME) / "distill" / f"{slug(file.stem)}-{digest}"

    def make(place: Path) -> None:
        ui.say(f"{file.name}: converting it to safetensors, which takes about a minute; later runs reuse {folder}")
        try:
            with redirect_stderr(io.StringIO()):  # its bar is one that cannot be switched off
                model = lib.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
                lib.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(place)
        except OURS:
            raise
        except Exception as error:  # whatever its reader raises
            raise CheckpointError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from error
        _only(place / FILE, len(model.get_input_embeddings().weight))
        model.config.architectures = [type(model).__name__]
        del model.config.quantization_config  # the numbers are whole again
        model.config.save_pretrained(place)
        save_file(dict(_once(model.state_dict())), place / "model.safetensors", metadata={"format": "pt"})

    locks.once(folder, make, lambda: ui.say(f"{file.name}: another run is converting it; waiting for it"))
    return folder


@functools.cache
def _digest(file: Path, size: int, written: int) -> str:
    """The beginning of a file's SHA-256, which takes seconds a gigabyte and is asked for more than once in a run."""
    return files.sha256(file)[:12]


def _only(tokenizer: Path, words: int) -> None:
    """Leave out what the library's converter has added to a tokenizer beyond the model's table."""
    said = json.loads(tokenizer.read_text(encoding="utf-8"))
    said["added_tokens"] = [token for token in said["added_tokens"] if token["id"] < words]
    tokenizer.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")


def _once(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state dict, one that goes by several names under the first of them."""
    seen = set[int]()
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor.contiguous()
