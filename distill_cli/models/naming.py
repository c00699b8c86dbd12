"""Classes by name: which answers of a network are which of the data's classes. Where a network's names come from: origin.py."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distill_cli.base.errors import ConfigError, did_you_mean

PLAIN = re.compile(r"[A-Za-z_][\w-]*|0|[1-9]\d*")  # names that need no quotes on a command line
WORDS = ("null", "true", "false", "nan", "inf")  # but these do


def order_of(theirs: Sequence[str], ours: Sequence[str]) -> tuple[list[int] | None, list[str]]:
    """Which of a network's answers is each of our classes, by name.

    Names are the same where case, spaces, hyphens and underscores aside they are; a name that then stands twice is not
    told apart, unless all are there letter by letter.

    Args:
        theirs: what the network answers, (K,). ours: the data's classes, (C,).

    Returns:
        the place of each of ours, (C,), None where the two are equal; and those of ours that are not there.
    """
    if list(theirs) == list(ours):
        return None, []
    if not set(ours) <= set(theirs) or len(set(theirs)) < len(theirs):
        theirs, ours_plain = [_plain(name) for name in theirs], [_plain(name) for name in ours]
    else:
        ours_plain = list(ours)
    often, wanted = Counter(theirs), Counter(ours_plain)
    places = {name: place for place, name in enumerate(theirs)}
    missing = [name for name, plain in zip(ours, ours_plain, strict=True) if (often[plain], wanted[plain]) != (1, 1)]
    return (None if missing else [places[name] for name in ours_plain]), missing


def answers(model: Mapping[str, Any], role: str, classes: Sequence[str]) -> tuple[int, list[int] | None]:
    """How many classes a model's network answers, and which of them are those that are asked of it; see `models.build`.

    Args:
        model: its node; a teacher's may have `classes` of its own, in the network's order. classes: those asked of it.

    Raises:
        ConfigError: some of them are not among its own.
    """
    own = (None if role == "student" else model.get("classes")) or classes
    if not isinstance(own, list | tuple):
        raise ConfigError(f"{role}.classes: should be a list of names, got {own!r}")
    own = [str(name) for name in own]
    order, missing = order_of(own, classes)
    if missing:
        guess = did_you_mean(missing[0], own)
        told = f"{role}.classes: the data's {listed(missing)} {'is' if len(missing) == 1 else 'are'} not among its {len(own)} names"
        raise ConfigError(f"{told}; {guess}".rstrip("; "), f"they are: {listed(own, 20)}")
    return len(own), order


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).casefold().split())


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def typed(key: str, names: Sequence[str]) -> str:
    """A list of names as an override that a shell and Hydra read back as they are."""
    texts = [name if PLAIN.fullmatch(name) and name.casefold() not in WORDS else f'"{name}"' for name in names]
    return shlex.quote(f"{key}=[{','.join(texts)}]")
