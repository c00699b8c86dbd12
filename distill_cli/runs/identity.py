"""What a run is: its configuration, and the fingerprints of data, teacher and code. They must be the same when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_cli.base import files, world
from distill_cli.base.errors import CheckpointError
from distill_cli.config import schema

FILE, SUMMARY, STATUS, LOCK = "run.json", "summary.json", "status.json", ".lock"  # of a run
SWEEP = "sweep.json"  # of a sweep, whose runs lie below it

FREE = frozenset(schema.free())  # keys that a resumed run may change


def config_of(settings: schema.Settings) -> dict[str, Any]:
    """A job's configuration as run.json holds it, and as it is read again."""
    config: dict[str, Any] = json.loads(json.dumps(settings.plain))
    return config


def read(folder: Path) -> dict[str, Any]:
    """What the run in `folder` says of itself.

    Raises:
        CheckpointError: it says nothing, or is damaged.
    """
    shape = {"config": dict, "overrides": list, "name": str, "directory": str, "prints": dict, "machine": dict}
    return read_as(folder / FILE, shape)


def read_as(path: Path, shape: Mapping[str, type]) -> dict[str, Any]:
    """What a JSON file of ours says that tells how something was started.

    Args:
        shape: the keys it must have, and of what type; "overrides", a list of texts, among them.

    Raises:
        CheckpointError: it says nothing, or is damaged.
    """
    content = files.read_json(path)
    wrong = [key for key, kind in shape.items() if not isinstance(content.get(key), kind)]
    if wrong or not all(isinstance(text, str) for text in content["overrides"]):
        raise CheckpointError(f"{path} is damaged: {', '.join(wrong) or 'overrides'} missing or malformed")
    return content


def require_same(kept: Mapping[str, Any], now: Mapping[str, Any], what: str, hint: str) -> None:
    """Hold what a run was against what it would be now.

    Raises:
        CheckpointError: listing every key that differs as old -> new.
    """
    if wrong := changes(kept, now):
        raise CheckpointError(f"{what}:\n" + "\n".join(wrong), hint)


def require_alike(now: Mapping[str, Any]) -> None:
    """Hold what a run is on one of several processes against what it is on the first.

    Raises:
        CheckpointError: as `require_same`.
    """
    first, *others = world.gathered(dict(now))
    for number, other in enumerate(others, start=1):
        hint = "every machine needs the same code, data and settings"
        require_same(first, other, f"process {number} of the run works on something else than the first", hint)


def changes(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every key that differs and changes what comes out, as a line old -> new."""
    differing = [one for one in differences(kept, now) if not within(one[0], FREE)]
    return [f"  {key}: {_shown(old)} -> {_shown(new)}" for key, old, new in differing]


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every dotted key whose value is not the same in both, with both values; a missing one is None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    elif old != new:
        yield where, old, new


def within(key: str, keys: Collection[str]) -> bool:
    """Whether a dotted key is one of `keys`, or lies below one."""
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
