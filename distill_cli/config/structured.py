"""The schema as Hydra's structured configs, so that a misspelt key or a word for a number is refused while composing."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Optional

from hydra.core.config_store import ConfigStore

from distill_cli.config.fields import Key, keys
from distill_cli.config.schema import Eval, Open, Train


def register() -> None:
    """Make the schema known to Hydra as `train_schema` and `eval_schema`."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=structured(Train))
    store.store(name="eval_schema", node=structured(Eval))


@functools.cache
def structured(shape: type) -> type:
    """A record as omegaconf takes it: open nodes are left open, with the keys in them that every one of their kind has."""
    fields = []
    for key in keys(shape):
        default = _ours(key.rules["node"]) if key.rules.get("every_has") else key.default
        if isinstance(default, dict | list):
            fields.append((key.name, _kind(key), dataclasses.field(default_factory=default.copy)))
        else:
            fields.append((key.name, _kind(key), dataclasses.field(default=default)))
    return dataclasses.make_dataclass(shape.__name__, fields)


def _kind(key: Key) -> Any:
    nodes = key.rules.get("nodes")
    if nodes is not None:
        return dict[str, Any] if issubclass(nodes, Open) else dict[str, structured(nodes)]  # type: ignore[misc]
    if "node" in key.rules or "form" in key.rules or key.kind is bool:  # omegaconf would take 3 and yes for true
        return Any
    return Optional[key.kind] if key.optional else key.kind  # noqa: UP045 - omegaconf wants it spelt so


def _ours(shape: type) -> dict[str, Any]:
    """The keys that are ours in an open node, by their defaults."""
    ours = [key for key in keys(shape) if not key.rules.get("passed")]
    return {key.name: _ours(key.rules["node"]) if "node" in key.rules else key.default for key in ours}
