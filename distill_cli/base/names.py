"""Names for files and folders, short, portable and the same for the same input; a size in words; keys of nested mappings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def slug(text: str, limit: int = 150) -> str:
    """Return the [A-Za-z0-9._-] of `text`; where others are lost, eight hex digits tell it from other texts."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if len(clean) <= limit and clean == text:
        return clean
    return f"{clean[: limit - 9] or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def folder_name(text: str) -> str:
    """Return the text itself where every file system takes it as the name of a folder that is seen, else its slug."""
    odd = re.search(r'^[.\s]|[\x00-\x1f<>:"/\\|?*]|[.\s]$', text) or not 0 < len(text.encode()) <= 200
    return slug(text) or "unnamed" if odd else text


def overrides_slug(overrides: Sequence[str], keys: Sequence[str] | None = None) -> str:
    """Return the folder name of a sweep's run, T=1, alpha=0.5 -> T-1_alpha-0.5, from its overrides of `keys` or all."""
    chosen = overrides if keys is None else sorted(among(overrides, keys))
    return slug("_".join(slug(text.replace("=", "-", 1), 1000) for text in chosen) or "default")


def among(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the overrides that set one of `keys`."""
    return [text for text in overrides if text.partition("=")[0] in keys]


def fingerprint(ingredients: Any) -> str:
    """Return twelve hex digits of the SHA-256 of a value that JSON can hold, the same for any order of keys."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def size(number: float) -> str:
    """Return bytes in a unit that leaves few digits: 713 B, 51.8 KiB, 2.1 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:,.0f} B" if unit == "B" else f"{number:,.1f} {unit}"


def flat(values: Mapping[str, Any], joint: str = ".", before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in nested mappings, or an empty mapping, after its keys with `joint` between them."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, joint, f"{before}{key}{joint}")
        else:
            yield f"{before}{key}", value
