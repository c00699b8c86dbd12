"""Names for files and folders, short, portable and the same for the same input; a size in words; keys of nested mappings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def slug(text: str, limit: int = 150) -> str:
    """Keep [A-Za-z0-9._-] of `text`; where other characters are lost, eight hex digits tell it from other texts."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-.")
    if len(clean) <= limit and clean == str(text):
        return clean
    return f"{clean[: limit - 9] or 'x'}-{hashlib.sha256(str(text).encode()).hexdigest()[:8]}"


def overrides_slug(overrides: Sequence[str], keys: Sequence[str] | None = None) -> str:
    """A sweep job's folder name from its overrides: T=1, alpha=0.5 -> T-1_alpha-0.5.

    Args:
        keys: the keys that differ between jobs; None: all overrides, in the order typed.
    """
    chosen = overrides if keys is None else sorted(among(overrides, keys))
    return slug("_".join(slug(text.replace("=", "-", 1), 1000) for text in chosen) or "default")


def among(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The overrides that set one of `keys`."""
    return [text for text in overrides if text.partition("=")[0] in keys]


def fingerprint(ingredients: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON-able value: equal values, equal digits, in any key order."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def size(number: float) -> str:
    """Bytes in a unit that leaves few digits: 713 B, 51.8 KiB, 2.1 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:,.0f} B" if unit == "B" else f"{number:,.1f} {unit}"


def flat(values: Mapping[str, Any], joint: str = ".", before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested mappings, after its keys with `joint` between them."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, joint, f"{before}{key}{joint}")
        else:
            yield f"{before}{key}", value
