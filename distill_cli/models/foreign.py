"""Weights out of a file that others wrote: which of its tensors are the network's is found here, made to fit elsewhere.

Whatever wraps them, dicts in dicts or prefixes of names, a tensor's place in a file is one dotted path. A set of weights is
what lies below one place: in the set that is taken the network's own names and shapes are found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import CheckpointError, NonFiniteError
from distill_cli.base.tensors import Inert, read_tensors
from distill_cli.models.fitting import State, fit

# Parts of a path that libraries put in when they wrap a network.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
ROLES = {"teacher", "student"}
AVERAGED = {"ema", "swa", "averaged", "shadow"}  # in a set's name: it is a mean over training
EVALUATED = {"eval", "evaluate", "test", "use", "val", "validate"}  # beside them in a flag's: it is what is evaluated


@dataclass(frozen=True)
class Taken:
    """What a file has for a network.

    Attributes:
        path: the file. state: the network's whole state dict. place: where in the file it lay. others: what other sets are there.
        note: all that was chosen, in words; empty where there was nothing to choose.
    """

    path: Path
    state: State
    place: str
    others: tuple[str, ...]
    note: str


def take(path: Path, net: nn.Module, key: str, fitted: bool) -> Taken:
    """Find the weights of a network in a file; the network stays as it is.

    Args:
        key: of the model: teacher, teachers.NAME or student. Of the sets that fit, the one that is called so is taken; next
            comes a mean over training, but only where the file says that it is what is evaluated.
        fitted: whether the network is trained after, so that it may have a new head.

    Raises:
        CheckpointError: as `read_tensors`, or there are no weights in it, or not those of such a network. NonFiniteError: a
            number among them is not finite.
    """
    content = read_tensors(path)
    given = dict(_tensors(content))
    tensors = {_bare(name): tensor for name, tensor in given.items()}
    if not tensors:
        raise CheckpointError(f"{path} holds no weights, but {_described(content)}")
    names = {_bare(name): name for name in net.state_dict()}
    place, rivals = _choose(tensors, net, key, _evaluates_mean(content), path)
    below = {name.removeprefix(f"{place}.") if place else name: name for name in tensors if _lies(name, place)}
    own = {names.get(n, n): tensors[full] for n, full in below.items() if not any(_lies(full, o) for o in rivals)}
    aside = {n: t for n, t in tensors.items() if place and not _lies(n, place) and _lies(n, place.rpartition(".")[0])}
    state, notes = fit(net, own, aside, key, fitted, str(path))
    state = {name: state[name].to(tensor.dtype) for name, tensor in net.state_dict().items()}
    if bad := next((name for name, tensor in state.items() if not tensor.isfinite().all()), None):
        raise NonFiniteError(f"{path}: {bad} holds numbers that are not finite", "take an earlier checkpoint")
    forks = dict.fromkeys(_fork(name, place) for name in tensors if not _lies(name, place))
    others = (*rivals, *(fork for fork in forks if not any(f"{rival}.".startswith(f"{fork}.") for rival in rivals)))
    if wrapped := sorted(WRAPPERS & {part for name in given for part in name.split(".")}):
        notes.insert(0, f"names without {', '.join(wrapped)}")
    if place or others:
        notes.insert(0, f"took {place or 'what is at its top'}")
    held = f" holds {', '.join([place or 'weights at its top', *others][:6])}" if others else ""
    return Taken(path, state, place, others, f"{path.name}{held}: {'; '.join(notes)}" if notes else "")


def _tensors(content: Any, place: str = "", depth: int = 8) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of real numbers in mappings of names, by its path; a pickle may go round in a circle."""
    for name, value in content.items() if isinstance(content, Mapping) and depth else ():
        path = f"{place}.{name}" if place else name
        if isinstance(value, Tensor):
            if isinstance(name, str) and value.layout is torch.strided and not (value.is_quantized or value.is_meta):
                yield path, value
        elif isinstance(name, str):
            yield from _tensors(value, path, depth - 1)


def _choose(tensors: State, net: nn.Module, key: str, by_mean: bool, path: Path) -> tuple[str, list[str]]:
    """The place of the set to take, and those of the others that fit: they have most of the network's names and shapes."""
    own = {_bare(name): tensor.shape for name, tensor in net.state_dict().items()}
    named, shaped = Counter[str](), Counter[str]()
    for name, tensor in tensors.items():
        parts = name.split(".")
        for cut in range(len(parts)):
            if (inner := ".".join(parts[cut:])) in own:
                place = ".".join(parts[:cut])
                named[place] += 1
                shaped[place] += tensor.shape == own[inner]
    counts = +shaped or named
    if not counts:
        message = f"{path} does not fit {type(net).__name__}: no tensor's name is one of its own"
        there, here = (", ".join(list(names)[:3]) for names in (tensors, own))
        raise CheckpointError(
            f"{message}\nthere: {there}, ...\nhere: {here}, ...", f"check the architecture: {key}=NAME"
        )
    most, role = max(counts.values()), "student" if key == "student" else "teacher"

    def rank(place: str) -> tuple[bool, bool, bool, int]:
        words = set(re.split(r"[._]", place.lower()))
        averaged = bool(words & AVERAGED)
        return role not in words, bool(words & ROLES - {role}), averaged != by_mean, -counts[place]

    first, *others = sorted((place for place, count in counts.items() if 2 * count > most), key=rank)
    return first, others


def _evaluates_mean(about: Any, depth: int = 3) -> bool:
    """Whether a flag among a file's settings says that what is evaluated is the mean over training."""
    entries = vars(about) if isinstance(about, Inert) else about
    if not isinstance(entries, Mapping) or not depth:
        return False
    for name, value in entries.items():
        words = set(re.split(r"[._-]", str(name).lower()))
        if (value is True and words & AVERAGED and words & EVALUATED) or _evaluates_mean(value, depth - 1):
            return True
    return False


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _lies(name: str, place: str) -> bool:
    return not place or name.startswith(f"{place}.")


def _fork(name: str, place: str) -> str:
    """The shortest part of a path that does not lead to `place`."""
    parts = name.split(".")
    fork = (at for at, (one, other) in enumerate(zip(parts, place.split("."), strict=False)) if one != other)
    return ".".join(parts[: next(fork, 0) + 1])


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(str(key) for key in list(content)[:8])
        return f"a dict with the keys {keys}" if keys else "an empty dict"
    return f"one {type(content).__name__}"
