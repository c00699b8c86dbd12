"""Make a set of weights fit a network: its head by another name or anew, what the network has no use for left out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from distill_cli.base.errors import CheckpointError
from distill_cli.models import REBUILD
from distill_cli.models.weights import misfits

State = Mapping[str, Tensor]


def fit(net: nn.Module, given: State, aside: State, key: str, fitted: bool, source: str) -> tuple[State, list[str]]:
    """The state dict that a set of weights makes for a network, and what was done to make it fit, in words.

    Args:
        given: by the network's names as far as it has them. aside: what lies beside the set, where its head may be.
        key: of the model, for messages. fitted: whether the network is trained after, so that its head may be new.

    Raises:
        CheckpointError: it does not fit; each kind of misfit is told with the first tensor of it.
    """
    own, notes = net.state_dict(), list[str]()
    # Whole numbers are counters and tables that a network brings itself: files lack them, or have more of them.
    state = {name: tensor for name, tensor in own.items() if not tensor.is_floating_point()}
    state |= {name: tensor for name, tensor in given.items() if name in own or tensor.is_floating_point()}
    if renamed := _head_elsewhere(own, state, aside):
        found = {**aside, **state}
        state = {name: tensor for name, tensor in state.items() if name not in renamed.values()}
        state |= {ours: found[theirs] for ours, theirs in renamed.items()}
        notes.append(f"{next(iter(renamed.values()))} is {next(iter(renamed))} here")
    head, why = _other_head(own, state)
    if head and fitted:
        state |= {name: own[name] for name in head}
        notes.append(f"a new head: {why}")
    unused = _unused(own, state)
    if unused:
        state = {name: tensor for name, tensor in state.items() if name not in unused}
        notes.append(f"left out {unused[0]}" + (f" and {len(unused) - 1:,} more" if unused[1:] else ""))
    if faults := misfits(own, state):
        hints = [f"{key}.fit.epochs=5 gives it a new head and fits that"] if head else []
        kernels = [own[n].shape[2:] != state[n].shape[2:] for n in own if n in state and own[n].dim() == 4][:1]
        if (stem := getattr(net, REBUILD, {}).get("stem")) and any(kernels):
            hints.insert(0, f"{key}.stem={'imagenet' if stem == 'small' else 'small'} is the other stem")
        message = f"{source} does not fit {type(net).__name__}: {'; '.join([*([why] if head else []), *faults])}"
        raise CheckpointError(message, "; ".join(hints) or f"check the architecture: {key}=NAME and its keys")
    return state, notes


def _head_elsewhere(own: State, state: State, aside: State) -> dict[str, str]:
    """Where one module alone is lacking, its tensors' names and those of the one module that could be it, elsewhere."""
    lacking = [name for name in own if name not in state]
    modules = {_module(name) for name in lacking}
    if len(modules) != 1 or f"{(here := modules.pop())}.weight" not in lacking:
        return {}
    shape = own[f"{here}.weight"].shape
    free = {name: tensor for name, tensor in {**aside, **state}.items() if name not in own}
    alike = [name for name, tensor in free.items() if name.endswith(".weight") and tensor.shape[1:] == shape[1:]]
    alike = [name for name in alike if free[name].shape == shape] or alike
    names = {name: _module(alike[0]) + name.removeprefix(here) for name in lacking} if len(alike) == 1 else {}
    return names if all(name in free for name in names.values()) else {}


def _other_head(own: State, state: State) -> tuple[list[str], str]:
    """The names of a head that the set lacks, or has for another number of classes, and why it does not fit."""
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    lacking = [name for name in own if name not in state]
    if not wrong and {_module(name) for name in lacking} == {_module(list(own)[-1])}:
        return lacking, f"there is no {_module(lacking[0])} there"
    # Only what nothing follows can differ in its outputs alone.
    counts = {(t[:1], o[:1]) if t[1:] == o[1:] else None for t, o in ((state[n].shape, own[n].shape) for n in wrong)}
    if lacking or len(counts) != 1 or not (pair := counts.pop()):
        return [], ""
    return wrong, f"its head has {pair[0][0]:,} classes there and {pair[1][0]:,} here"


def _unused(own: State, state: State) -> list[str]:
    """What the set has beyond the network, and without which it is the same: single numbers, and whole parts beside it."""
    parts = {name.partition(".")[0] for name in own}
    extra = [name for name in state if name not in own]
    return [n for n in extra if state[n].numel() <= 1 or ("." in n and n.partition(".")[0] not in parts)]


def _module(name: str) -> str:
    return name.rpartition(".")[0]
