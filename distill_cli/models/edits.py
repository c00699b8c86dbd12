"""What was done to a network after it was built, as plain values on its card, from which it is done again; weights are not here.

An edit is a mapping: its kind, and what that takes. They are applied in order, to the network as its node builds it:

    {"kind": "fold", "pairs": [[path of a layer, path of the batch norm after it], ...]}
    {"kind": "keep", "layers": {path of a list of layers: [numbers of those that are left], ...}}
    {"kind": "resize", "shapes": {path of a module: [*shape of its weight, its groups], ...}}
    {"kind": "convolve", "shortcuts": {path of a parameter-free shortcut: [channels, channels after, zeros before, stride], ...}}
    {"kind": "low_rank", "ranks": {path of a layer that is now two: what is between them, ...}}
    {"kind": "quantize", "ranges": {path of a layer: [scale, zero point] of its inputs, ...}, "largest": 64 of its weights}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from distill_cli.base.errors import ConfigError
from distill_cli.models import quantized, shaping

REBUILD = "rebuild"  # a network's attribute: what to change in its node to build the same again from a file
EDITS = "edits"  # a key of that node

KINDS: dict[str, Callable[..., None]] = {
    "fold": quantized.fold,
    "quantize": quantized.quantize,
    "keep": shaping.keep,
    "resize": shaping.resize,
    "convolve": shaping.convolve,
    "low_rank": shaping.low_rank,
}


def of(net: nn.Module) -> list[dict[str, Any]]:
    """What was done to a network so far."""
    return list(getattr(net, REBUILD, {}).get(EDITS, ()))


def redo(net: nn.Module, noted: Sequence[Mapping[str, Any]]) -> bool:
    """Do what was noted of a network to one that began as it did; returns whether there was something left to do.

    Raises:
        ConfigError: as `apply`.
    """
    left = noted[len(of(net)) :]
    apply(net, left)
    return bool(left)


def apply(net: nn.Module, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Do edits to a network, in place, and note them for its card.

    Raises:
        ConfigError: one is none that is known, or does not fit the network.
    """
    for edit in wanted:
        try:
            rest = dict(edit)
            KINDS[rest.pop("kind")](net, **rest)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            told = f"{EDITS}: what was done to a network does not fit {type(net).__name__}: {type(error).__name__}: {error}"
            raise ConfigError(told) from error
        note(net, edit)


def note(net: nn.Module, edit: Mapping[str, Any]) -> None:
    """Note an edit that was done to a network."""
    net.__dict__[REBUILD] = {**getattr(net, REBUILD, {}), EDITS: [*of(net), dict(edit)]}
