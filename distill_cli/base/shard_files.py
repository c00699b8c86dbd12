"""Shards of tensors in a folder of torch's own format (DCP), each rank's in a file of its own; any number of ranks reads it."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_cli.base import files, sharding, world
from distill_cli.base.errors import CheckpointError

METADATA = ".metadata"  # of a folder: which tensor lies where
KEY = "shards of"  # of what stands in for a tensor in a tree: its name in a folder
PATHS = "PosixPath WindowsPath PurePosixPath PureWindowsPath"
# What such a file is made of, by module: a pickle could name anything.
PLAIN = {
    "torch": " ".join(["Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))]),
    "torch.serialization": "_get_layout",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo",
    "torch.distributed.checkpoint.metadata": "Metadata TensorStorageMetadata TensorProperties ChunkStorageMetadata "
    "MetadataIndex StorageMeta _MEM_FORMAT_ENCODING",
    "pathlib": PATHS,
    "pathlib._local": PATHS,
}

Tree = Any  # mappings of plain values and tensors


class _Stream(files.Sink):
    """A file as DCP writes it."""

    def tell(self) -> int:
        return self.size

    def fileno(self) -> int:
        self.file.flush()
        return self.file.fileno()

    def close(self) -> None:
        self.file.close()


def has_shards(tree: Tree) -> bool:
    """Whether a rank has a shard alone of some tensor in a tree."""
    return any(map(has_shards, tree.values())) if isinstance(tree, Mapping) else sharding.is_shard(tree)


def write(folder: Path, tree: Tree) -> tuple[Tree, dict[str, Any]]:
    """Write the shards in a tree, each rank its own; called by all.

    Returns:
        The tree with plain values in their places; of each file of the folder, its SHA-256 and bytes.

    Raises:
        StorageError: there is no room for some rank's. OSError: it cannot be written for another reason.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    found: dict[str, Tensor] = {}

    def stand_in(name: str, value: Any) -> Any:
        if not sharding.is_shard(value):
            return value
        found[name] = value
        return {KEY: name, "in": folder.name, "shape": list(value.shape), "dtype": str(value.dtype)}

    left, streams = _mapped(tree, stand_in), dict[str, _Stream]()
    try:
        world.together(dcp.save, found, storage_writer=_writer(folder, streams))
    except CheckpointException as error:  # on all ranks
        own = [stream.failure for stream in streams.values() if stream.failure]  # torch.save hides it
        told = [failure for each in world.gathered(own) for failure in each]
        failure = next(iter([*told, *(failure for failure, _ in error.failures.values())]))
        need = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
        raise (files.explained(failure, folder, need) if isinstance(failure, OSError) else failure) from error
    files.sync_folder(folder)
    facts = world.gathered({name.removesuffix(".tmp"): stream.written for name, stream in streams.items()})
    return left, {name: one for each in facts for name, one in each.items()}


def read(home: Path, tree: Tree, device: torch.device | None = None) -> Tree:
    """The tree that was written into a folder below `home`, or into several: with whole tensors or, on a device, with this rank's
    shards.

    Raises:
        CheckpointError: a folder is not one that `write` has made.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    folders: dict[str, dict[str, Tensor]] = {}

    def room(name: str, value: Any) -> Any:
        if not (isinstance(value, Mapping) and KEY in value):
            return value
        shape, kind = value["shape"], getattr(torch, value["dtype"].removeprefix("torch."))
        target = sharding.zeros(shape, kind, device) if device else torch.zeros(shape, dtype=kind)
        folders.setdefault(value["in"], {})[value[KEY]] = target
        return target

    tree = _mapped(tree, room)
    for name, targets in folders.items():
        folder = home / Path(name).name
        try:
            with warnings.catch_warnings(action="ignore"):  # each rank reads for itself
                dcp.load(targets, storage_reader=_reader(folder), no_dist=True)
        except CheckpointException as error:
            raise CheckpointError(f"{folder} cannot be read: {next(iter(error.failures.values()))[0]}") from error
    return tree


def _writer(folder: Path, streams: dict[str, _Stream]) -> Any:
    """What writes a folder; `streams` gets what each file of this rank is written through, by its name."""
    from torch.distributed.checkpoint import FileSystemWriter
    from torch.distributed.checkpoint.filesystem import FileSystem

    class Files(FileSystem):
        @contextmanager
        def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
            with Path(path).open(mode) as file:
                stream = streams[Path(path).name] = _Stream(file)  # type: ignore[arg-type]
                yield stream

    writer = FileSystemWriter(folder, overwrite=False)
    writer.fs = Files()
    return writer


def _reader(folder: Path) -> Any:
    """What reads a folder without running code that its metadata bring."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta

    class Plain(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if name not in PLAIN.get(module, "").split():
                raise CheckpointError(f"{folder / METADATA} holds code ({module}.{name}): it was not loaded")
            return super().find_class(module, name)

    class Reader(FileSystemReader):
        def read_metadata(self, *arguments: Any, **named: Any) -> Any:
            with (folder / METADATA).open("rb") as file:
                metadata = Plain(file).load()
            metadata.storage_meta = StorageMeta(load_id=self.load_id)
            return metadata

    return Reader(folder)


def _mapped(tree: Tree, change: Any, path: str = "") -> Tree:
    """The tree with each of its values, named by its path, changed; a mapping is asked for before what it holds."""
    changed = change(path, tree)
    if changed is not tree or not isinstance(tree, Mapping):
        return changed
    return {key: _mapped(value, change, f"{path}/{key}") for key, value in tree.items()}
