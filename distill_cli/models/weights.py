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
    expected = net.state_dict()
    loaded = {_stripped(name, expected): tensor for name, tensor in weights.items()}
    # What we call the head, and what they do.
    new, old = (next((h for h in HEADS if f"{h}.weight" in names), "") for names in (expected, loaded))
    if new and old and f"{new}.weight" not in loaded:
        loaded = {new + k.removeprefix(old) if k.startswith(f"{old}.") else k: v for k, v in loaded.items()}
    # Counters of batches are absent from old checkpoints, and no part of what a network computes.
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
    loaded = counters | {k: v for k, v in loaded.items() if k in expected or not k.endswith("num_batches_tracked")}
    missing, extra = sorted(expected.keys() - loaded.keys()), sorted(loaded.keys() - expected.keys())
    faults = []
    if first := next((k for k in expected if k in loaded and expected[k].shape != loaded[k].shape), None):
        faults.append(f"{first} is {tuple(loaded[first].shape)} there and {tuple(expected[first].shape)} here")
    if missing:
        faults.append(f"{len(missing)} of our tensors are missing there ({missing[0]}, ...)")
    if extra:
        faults.append(f"{len(extra)} of its tensors are unknown here ({extra[0]}, ...)")
    if faults:
        misfit = f"{source} does not fit {type(net).__name__}: {'; '.join(faults)}"
        raise CheckpointError(misfit, "check the architecture")
    net.load_state_dict(loaded)


def _stripped(name: str, expected: Mapping[str, Tensor]) -> str:
    while name not in expected and (prefix := next((p for p in PREFIXES if name.startswith(p)), "")):
        name = name.removeprefix(prefix)
    return name
