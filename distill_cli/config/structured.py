"""The schema as Hydra's structured configs, so that a misspelt key or a word for a number is refused while composing."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Optional

from hydra.core.config_store import ConfigStore

from distill_cli.config import schema
from distill_cli.config.fields import keys
from distill_cli.config.schema import Open


def register(shape: type) -> None:
    """Make a record known to Hydra, as train_schema or eval_schema; one with more keys than another also in its place."""
    for kind in shape.__mro__[: shape.__mro__.index(schema.Settings)]:
        ConfigStore.instance().store(name=f"{kind.__name__.lower()}_schema", node=structured(shape))


@functools.cache
def structured(shape: type) -> type:
    """A record as omegaconf takes it: open nodes are left open, with the keys in them that every one of their kind has."""
    fields: list[tuple[str, Any, Any]] = []
    for key in keys(shape):
        default, nodes = key.default, key.rules.get("nodes")
        kind = Optional[key.kind] if key.optional else key.kind  # noqa: UP045 - omegaconf wants it spelt so
        if nodes is not None:
            kind = dict[str, Any] if issubclass(nodes, Open) else dict[str, structured(nodes)]  # type: ignore[misc]
        elif not key.simple or key.kind is bool:  # omegaconf would take 3 and yes for true
            kind = Any
        if key.rules.get("every_has"):
            default = _ours(key.rules["node"])
        given = {"default_factory": default.copy} if isinstance(default, dict | list) else {"default": default}
        fields.append((key.name, kind, dataclasses.field(**given)))
    made = dataclasses.make_dataclass(shape.__name__, fields, namespace={"__module__": __name__})
    globals()[shape.__name__] = made  # a launcher of Hydra's pickles it by this name for its other process
    return made


def _ours(shape: type) -> dict[str, Any]:
    """The keys that are ours in an open node, by their defaults."""
    ours = [key for key in keys(shape) if not key.rules.get("passed")]
    return {key.name: _ours(key.rules["node"]) if "node" in key.rules else key.default for key in ours}


for command in schema.COMMANDS.values():
    structured(command.shape)  # type: ignore[arg-type]
