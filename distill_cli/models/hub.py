"""What transformers reads from a folder or its hub: found, or refused in our words, before any of it is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.base.files import place
from distill_cli.models import gguf

FILES = ["config.json", "tokenizer*.json", "1_Pooling/config.json", "model*.safetensors*"]  # what is fetched of a model
HUB_SECONDS = 3  # after which a hub that does not answer counts as out of reach


def library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("models of text need the package transformers", 'pip install "distill-cli[text]"') from error
    return transformers


@contextmanager
def quiet(lib: Any) -> Iterator[None]:
    """Inside, the library says nothing of itself: what matters is said in our words."""
    level, bars = lib.utils.logging.get_verbosity(), lib.utils.logging.is_progress_bar_enabled()
    lib.utils.logging.set_verbosity_error()
    lib.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        lib.utils.logging.set_verbosity(level)
        if bars:
            lib.utils.logging.enable_progress_bar()


def folder_of(name: str) -> Path:
    """The folder of a model that is named so: itself, what a GGUF file is made, or into which the hub's files are fetched once.

    Raises:
        ConfigError: there is no such folder or model. CheckpointError: the hub cannot be reached, or a file not be read.
    """
    path = place(name, "name")
    packed = gguf.only_one(path) if path.is_dir() else path if path.suffix == gguf.ENDING and path.is_file() else None
    if packed is not None:
        lib = library()
        with quiet(lib):
            return gguf.converted(lib, packed)
    if path.is_dir():
        return path
    import huggingface_hub as hub

    _on_hub(str(path), name)
    try:
        return Path(hub.snapshot_download(str(path), allow_patterns=FILES, etag_timeout=HUB_SECONDS))
    except Exception as error:  # whatever its HTTP library raises
        raise CheckpointError(f"name={name}: cannot be fetched: {error}") from error


def config_of(lib: Any, source: Path, name: str) -> Any:
    """The configuration in a model's folder.

    Args:
        name: what the user called it, for messages.
    """
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source} holds no config.json: it is no folder of a model")
    try:
        settings = lib.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise _foreign(name) from error
        raise CheckpointError(f"name={name}: cannot be read: {str(error).splitlines()[0]}") from error
    if getattr(settings, "auto_map", None):
        raise _foreign(name)
    return settings


def _on_hub(source: str, name: str) -> None:
    """Refuse what is no folder, is not kept from an earlier download, and is not on the hub either."""
    import huggingface_hub as hub

    where = Path(source).absolute()
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
        raise ConfigError(f"name={name}: there is no folder {where}")
    if isinstance(hub.try_to_load_from_cache(source, "config.json"), str):
        return
    try:
        hub.HfApi().model_info(source, timeout=HUB_SECONDS)
    except hub.errors.RepositoryNotFoundError as error:
        raise ConfigError(f"name={name}: there is no folder {where}, and no such model on the hub") from error
    except Exception as error:  # whatever its HTTP library raises
        raise CheckpointError(
            f"name={name}: there is no folder {where}, {hub.constants.HF_HUB_CACHE} holds no earlier download, and the hub "
            f"cannot be reached: {error}",
            "without a network give the folder of a model: name=DIR",
        ) from error


def means(folder: Path) -> bool:
    """Whether the folder of a model says, as sentence-transformers write it, that a text is the mean of its tokens."""
    try:
        said = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("pooling_mode_mean_tokens") is True


def _foreign(name: str) -> CheckpointError:
    return CheckpointError(f"name={name}: the model brings code of its own, which distill does not run")


def safe(source: Path) -> None:
    """Refuse a folder whose weights are pickled or missing."""
    if list(source.glob("*.safetensors")):
        return
    pickled = next(iter([*source.glob("*.bin"), *source.glob("*.pt")]), None)
    if pickled is None:
        raise CheckpointError(f"{source} holds no model.safetensors")
    raise CheckpointError(
        f"{pickled} is pickled, and a pickle can run code",
        f"convert it once: AutoModel.from_pretrained({str(source)!r}).save_pretrained({str(source)!r})",
    )
