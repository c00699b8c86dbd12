"""Files of tensors, .safetensors or what torch.save wrote, read without running any code that they bring."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from distill_cli.base.errors import CheckpointError


class Inert:
    """Stands in for a plain object beside the tensors, with its attributes; its class is neither imported nor called."""

    def __new__(cls, *values: Any) -> Inert:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            vars(self).update({str(name): value for name, value in state.items()})


class _Table:
    """Stands in for other kinds of dict."""

    def __new__(cls, *values: Any) -> Any:
        return OrderedDict()


class _Row:
    """Stands in for other kinds of list."""

    def __new__(cls, *values: Any) -> Any:
        return []


# What training programs keep beside the weights, by module: read as data, by the stand-ins above.
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_KNOWN = {
    Inert: {
        "argparse": "Namespace",
        "builtins": "bool bytes dict float frozenset int object range slice str tuple type",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "numpy": "ndarray dtype bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 str_",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy._core.numeric": "_frombuffer",
        "omegaconf.base": "ContainerMetadata Metadata",
        "omegaconf.dictconfig": "DictConfig",
        "omegaconf.listconfig": "ListConfig",
        "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode",
        "pathlib": _PATHS,
        "pathlib._local": _PATHS,
        "torch.torch_version": "TorchVersion",
        "types": "SimpleNamespace",
        "typing": "Any",
        "uuid": "UUID",
    },
    _Table: {
        "addict.addict": "Dict",
        "collections": "defaultdict",
        "easydict": "EasyDict",
        "lightning.fabric.utilities.data": "AttributeDict",
        "lightning_fabric.utilities.data": "AttributeDict",
        "mmengine.config.config": "ConfigDict",
        "pytorch_lightning.utilities.parsing": "AttributeDict",
        "yacs.config": "CfgNode",
    },
    _Row: {"builtins": "list", "collections": "deque"},
}
_INERT: list[Any] = [
    (stand_in, f"{module}.{name}")
    for stand_in, modules in _KNOWN.items()
    for module, names in modules.items()
    for name in names.split()
]

_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9c"  # how torch.save began before 1.6

# What else a file under such a name turns out to be, by its first bytes.
_OTHERS = {
    b"version https://git-lfs": ("is a Git LFS pointer, not the weights", "git lfs pull"),
    b"<": ("is a web page, not weights", "download it again"),
    b"\x1f\x8b": ("is compressed by gzip", "unpack it first"),
    b"\x89HDF": ("is an HDF5 file, which distill does not read", "save it from torch"),
}


def read_tensors(path: Path) -> Any:
    """Return the content of a .safetensors file, or of one that torch.save wrote; no code in it runs.

    Plain objects that training programs keep beside weights come as `Inert`, or as a dict or list.

    Raises:
        CheckpointError: it is missing, empty or damaged, or holds objects that are not known to be plain.
    """
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path.absolute()}", "check teacher.checkpoint, student.checkpoint or ckpt"
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty")
    with path.open("rb") as file:
        head = file.read(32)
    try:
        if head[8:9] == b"{":  # of safetensors, after the length of its header
            return load_file(path)
        if zipfile.is_zipfile(path):
            _check_records(path)
        elif head.startswith(b"PK"):
            raise CheckpointError(f"{path} is damaged: it is cut short", "copy or download it again")
        with (
            path.open("rb") as file,
            warnings.catch_warnings(action="ignore"),  # about pickle protocols; what matters is raised
            torch.serialization.safe_globals(_INERT),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # damage shows as a dozen kinds of error, OSError and AssertionError among them
        raise _explained(path, head, error) from error


def _explained(path: Path, head: bytes, error: Exception) -> CheckpointError:
    """What is wrong with a file that cannot be read, by its first bytes and what reading it raised."""
    objects, unread = "code or objects other than tensors", "it was not loaded"
    unpickling = isinstance(error, pickle.UnpicklingError)
    if unpickling and (names := ", ".join(_strangers(path, error)[:5])):
        line = _plain(path, 'torch.load({}, "cpu", weights_only=False)')
        return CheckpointError(f"{path} holds {objects} ({names}): {unread}", line)
    if head.startswith(b"\x80") and not head.startswith(_BEFORE_ZIP):
        line = _plain(path, 'pickle.load(open({}, "rb"))')
        return CheckpointError(f"{path} is a bare pickle, which holds {objects}: {unread}", line)
    for start, (what, hint) in _OTHERS.items():
        if head.lstrip().startswith(start):
            return CheckpointError(f"{path} {what}", hint)
    why = "" if unpickling else str(error).partition("\n")[0].split(". ")[0]
    return CheckpointError(f"{path} is damaged or not a checkpoint" + (f": {why}" if " " in why else ""))


def _strangers(path: Path, error: Exception) -> list[str]:
    """The names in a pickle that are not known to be plain; a file from before torch 1.6 tells the first of them."""
    try:
        with torch.serialization.safe_globals(_INERT):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it is no zip file of torch's
        return re.findall(r"GLOBAL (\S+)", str(error))


def _plain(path: Path, loaded: str) -> str:
    """The line that makes a plain file of one that is not: its tensors, its dicts of tensors, and its networks' weights."""
    there, here = (json.dumps(str(each)) for each in (path, path.with_name(f"{path.stem}-plain.pth")))
    code = (
        f'import pickle, torch; c = {loaded.format(there)}; c = c if isinstance(c, dict) else {{"model": c}}; '
        'torch.save({k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in c.items() if torch.is_tensor(v) or '
        f'hasattr(v, "state_dict") or isinstance(v, dict) and any(map(torch.is_tensor, v.values()))}}, {here})'
    )
    return f"if you trust it, this makes a plain file of it, and runs the code in it:\npython -c {shlex.quote(code)}"


def _check_records(path: Path) -> None:
    """Compare every record of a zip file that torch.save wrote with its CRC-32; torch.load does not."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            message = f"{path} is a TorchScript program, not weights: it was not loaded"
            raise CheckpointError(message, _plain(path, 'torch.jit.load({}, "cpu")'))
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise CheckpointError(f"{path} holds compressed records, which torch.save never writes: it was not loaded")
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: its record {damaged} fails its CRC-32: it was not loaded",
            "if it was saved with torch.serialization.set_crc32_options(False), save it again without",
        )
