"""Weights from and to files: ours as safetensors, others' as plain state dicts under other names; cards are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.base.tensors import read_tensors

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "student", "teacher")
PREFIXES = ("module.", "net.", "model.", "_orig_mod.")
HEADS = ("fc", "linear", "classifier", "head")


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the network's weights as safetensors, whole or not at all; returns the file's SHA-256.

    Equal weights give equal bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return str(files.write(path, save(tensors, metadata={"format": "pt"}))["sha256"])


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch.save wrote, out of whatever it is wrapped in.

    Raises:
        CheckpointError: as `read_tensors`, or it holds no state dict.
    """
    state = read_tensors(path)
    while isinstance(state, Mapping):
        inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state dict (a mapping of names to tensors)")
    return dict(state)


def load_into(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict under the network's own names; a wrapper's prefix and a head's other name are mapped.

    Raises:
        CheckpointError: names or shapes do not fit; the message shows the first that do not.
    """
    own = net.state_dict()
    given = {_stripped(name, own): tensor for name, tensor in weights.items()}
    if head := _renamed_head(own, given):
        new, old = head
        given = {new + k.removeprefix(old) if k.startswith(f"{old}.") else k: v for k, v in given.items()}
    # Counters of batches are absent from old checkpoints, and no part of what a network computes.
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    given = counters | {k: v for k, v in given.items() if k in own or not k.endswith("num_batches_tracked")}
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    faults = []
    if first := next((k for k in own if k in given and own[k].shape != given[k].shape), None):
        faults.append(f"{first} is {tuple(given[first].shape)} there and {tuple(own[first].shape)} here")
    if missing:
        faults.append(f"{len(missing)} of our tensors are missing there ({missing[0]}, ...)")
    if extra:
        faults.append(f"{len(extra)} of its tensors are unknown here ({extra[0]}, ...)")
    if faults:
        misfit = f"{source} does not fit {type(net).__name__}: {'; '.join(faults)}"
        raise CheckpointError(misfit, "check the architecture")
    net.load_state_dict(given)


def _stripped(name: str, own: Mapping[str, Tensor]) -> str:
    while name not in own and (prefix := next((p for p in PREFIXES if name.startswith(p)), "")):
        name = name.removeprefix(prefix)
    return name


def _renamed_head(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """(our head's name, theirs) when they differ and both are known names of heads."""
    ours = next((h for h in HEADS if f"{h}.weight" in own), None)
    theirs = next((h for h in HEADS if f"{h}.weight" in given), None)
    return (ours, theirs) if ours and theirs and ours != theirs and f"{ours}.weight" not in given else None
