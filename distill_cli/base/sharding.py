"""Tensors of which each rank keeps a shard: how a network's become so and whole again, and how they are kept in a folder of
torch's own format (DCP), from which any number of ranks reads them.
"""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import files, world
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

Tree = Any  # mappings and lists of plain values and tensors


def is_shard(value: Any) -> bool:
    """Whether each rank has a shard of a tensor alone."""
    return hasattr(value, "full_tensor")


def shard(units: Sequence[nn.Module], device: torch.device) -> None:
    """Keep a shard of the parameters of some modules alone, on a device: those of a unit are gathered for as long as it computes.

    Gradients are summed over ranks.

    Args:
        units: a module comes after those inside it, and the network is the last.
    """
    from torch.distributed.fsdp import fully_shard

    for unit in units:
        sharded: Any = fully_shard(unit, mesh=_mesh(device.type))
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo can do nothing else


def has_shards(tree: Tree) -> bool:
    """Whether a rank has a shard alone of some tensor in a tree."""
    return any(map(has_shards, tree.values())) if isinstance(tree, Mapping) else is_shard(tree)


def whole(value: Tensor) -> Tensor:
    """A tensor itself, on every rank; called by all of them."""
    if not is_shard(value):
        return value
    given: Any = value
    return given.to(given.device_mesh.device_type).full_tensor()


def laid(value: Any, like: Any) -> Any:
    """A tensor laid out as another one of its shape is: as this rank's shard where it has a shard alone, else in memory."""
    if not (isinstance(value, Tensor) and isinstance(like, Tensor)) or is_shard(value) or value.shape != like.shape:
        return value
    if not is_shard(like):
        return value if value.stride() == like.stride() else torch.empty_like(like, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    place: Any = like
    return distribute_tensor(value.to(like.device), place.device_mesh, place.placements, src_data_rank=None)


def write(folder: Path, tree: Tree) -> tuple[Tree, dict[str, Any]]:
    """Write the shards in a tree, each rank its own; called by all.

    Returns:
        The tree with plain values in their places; of each file of the folder, its SHA-256 and bytes.

    Raises:
        OSError: some rank could not write.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    found: dict[str, Tensor] = {}

    def stand_in(name: str, value: Any) -> Any:
        if not is_shard(value):
            return value
        found[name] = value
        return {KEY: name, "in": folder.name, "shape": list(value.shape), "dtype": str(value.dtype)}

    left = _mapped(tree, stand_in)
    try:
        dcp.save(found, storage_writer=dcp.FileSystemWriter(folder, overwrite=False))
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first from error
    own = [folder / METADATA] * (world.rank() == 0) + sorted(folder.glob(f"__{world.rank()}_*"))
    facts = world.gathered({path.name: {"sha256": files.sha256(path), "bytes": path.stat().st_size} for path in own})
    return left, {name: one for each in facts for name, one in each.items()}


def read(home: Path, tree: Tree, device: torch.device | None = None) -> Tree:
    """The tree that was written into a folder below `home`, or into several: with whole tensors or, on a device, with this rank's
    shards.

    Raises:
        CheckpointError: a folder is not one that `write` has made.
    """
    import torch.distributed.checkpoint as dcp

    folders: dict[str, dict[str, Tensor]] = {}

    def room(name: str, value: Any) -> Any:
        if not (isinstance(value, Mapping) and KEY in value):
            return value
        shape, kind = value["shape"], getattr(torch, value["dtype"].removeprefix("torch."))
        target = _shard_of_zeros(shape, kind, device) if device else torch.zeros(shape, dtype=kind)
        folders.setdefault(value["in"], {})[value[KEY]] = target
        return target

    tree = _mapped(tree, room)
    for name, targets in folders.items():
        with warnings.catch_warnings(action="ignore"):  # each rank reads for itself
            dcp.load(targets, storage_reader=_reader(home / Path(name).name), no_dist=True)
    return tree


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


def _shard_of_zeros(shape: Sequence[int], kind: torch.dtype, device: torch.device) -> Tensor:
    from torch.distributed.tensor import Shard, zeros

    return zeros(shape, dtype=kind, device_mesh=_mesh(device.type), placements=[Shard(0)])


def _mesh(kind: str) -> Any:
    import torch.distributed as dist

    return _mesh_of(kind, dist.group.WORLD)


@functools.cache
def _mesh_of(kind: str, group: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(kind, (group.size(),))


def _mapped(tree: Tree, change: Any, path: str = "") -> Tree:
    """The tree with each of its values, named by its path, changed; a mapping is asked for before what it holds."""
    changed = change(path, tree)
    if changed is not tree or not isinstance(tree, Mapping):
        return changed
    return {key: _mapped(value, change, f"{path}/{key}") for key, value in tree.items()}
