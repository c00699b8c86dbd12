"""Which runs are the same but for the seed, and what tells those that are not apart, in a user's words; no numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distill_cli.base.names import fingerprint, flat
from distill_cli.report.records import Record, typed
from distill_cli.runs import identity

# Runs that differ in these alone are the same thing. Which data and whose weights is told by their paths here.
IGNORED = (identity.FREE - {"dataset.root", "teacher.checkpoint", "student.checkpoint"}) | {
    "seed",
    "baseline",
    "logger",
}


def grouped(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records, those together that differ by their seed alone."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(fingerprint(_binding(record)), []).append(record)
    return list(groups.values())


def telling(firsts: Sequence[Record]) -> list[dict[str, Any]]:
    """Return for each group, from its first record, the typed settings that differ between groups; all that were typed
    where there is one group. Where those do not tell two groups apart, also the configuration's keys that do.
    """
    binding = [_binding(record) for record in firsts]
    keys = dict.fromkeys(key for record in firsts for key in typed(record.overrides))
    pairs = list(zip(firsts, binding, strict=True))
    chosen = [{k: _value(*pair, k) for k in keys if not identity.within(k, IGNORED)} for pair in pairs]
    if len(firsts) == 1:
        return chosen
    told = [key for key in chosen[0] if _differ(chosen, key) and _parts_differ(binding, key)]
    chosen = [{key: settings[key] for key in told} for settings in chosen]
    alike: dict[str, list[dict[str, Any]]] = {}
    for settings, values in zip(chosen, binding, strict=True):
        alike.setdefault(line(settings), []).append(values)
    more = dict.fromkeys(key for group in alike.values() for v in group for key in v if _differ(group, key))
    return [settings | {key: v.get(key, "") for key in more} for settings, v in zip(chosen, binding, strict=True)]


def line(settings: Mapping[str, Any]) -> str:
    """Return settings as they would be typed; one that a group does not have is left out."""
    return " ".join(f"{key}={text(value)}" for key, value in settings.items() if value != "")


def text(value: Any) -> str:
    """Return a value as it would be typed: 3.0 -> 3, null, [3,1]."""
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, str):
        return value
    return repr(value).removesuffix(".0") if isinstance(value, float) else json.dumps(value)


def _binding(record: Record) -> dict[str, Any]:
    """Return the configuration's values by dotted key, without what does not change a result."""
    return {key: value for key, value in flat(record.config) if not identity.within(key, IGNORED)}


def _value(record: Record, values: Mapping[str, Any], key: str) -> Any:
    """Return a key's value; a group's as it was typed, or what the default is called."""
    if key in values:
        return values[key]
    default = record.names.get("model" if key == "student" else key, "")
    return typed(record.overrides).get(key, default)


def _differ(many: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(values.get(key, "") != many[0].get(key, "") for values in many)


def _parts_differ(binding: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Return whether what `key` chose differs: what one run typed may be another's default. A recipe has no key of its own."""
    parts = [{k: v for k, v in values.items() if identity.within(k, [key])} for values in binding]
    return not any(parts) or any(part != parts[0] for part in parts)
