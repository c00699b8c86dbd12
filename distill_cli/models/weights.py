"""Weights of ours from and to files, and what keeps weights from fitting a network; cards and others' files are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.base.tensors import read_tensors


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the network's weights as safetensors, whole or not at all; returns the file's SHA-256.

    Equal weights give equal bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return str(files.write(path, save(tensors, metadata={"format": "pt"}))["sha256"])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict that a file of ours is.

    Raises:
        CheckpointError: as `read_tensors`, or it is no state dict.
    """
    state = read_tensors(path)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state dict (a mapping of names to tensors)")
    return dict(state)


def load_into(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict of ours.

    Raises:
        CheckpointError: names or shapes are not the network's; the message shows the first that are not.
    """
    if faults := misfits(net.state_dict(), weights):
        message = f"{source} does not fit {type(net).__name__}: {'; '.join(faults)}"
        raise CheckpointError(message, "check the architecture")
    net.load_state_dict(weights)


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps the weights `given` from being those of a network whose state dict is `own`, a line each."""
    missing, extra = ([k for k in one if k not in other] for one, other in ((own, given), (given, own)))
    faults = []
    if first := next((k for k in own if k in given and own[k].shape != given[k].shape), None):
        faults.append(f"{first} is {tuple(given[first].shape)} there and {tuple(own[first].shape)} here")
    if missing:
        faults.append(f"{len(missing)} of our tensors are missing there ({missing[0]}, ...)")
    if extra:
        faults.append(f"{len(extra)} of its tensors are unknown here ({extra[0]}, ...)")
    return faults
