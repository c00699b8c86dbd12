"""What a command can be told on the line as it stands: groups, the keys under the choices typed there, and their values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill_cli.cli.completion.index import Index, Keys


class Settings:
    """The groups and keys of a command whose root YAML is `root`, after the words that are typed."""

    def __init__(self, index: Index, command: str, root: str, typed: Sequence[str]) -> None:
        given = dict(word.split("=", 1) for word in typed if "=" in word)
        chosen = {key: [name for name in re.split(r"[\[\],]", value) if name] for key, value in given.items()}
        self.index, self._keys = index, Keys()
        for experiment in chosen.get("experiment") or [""]:
            start = index.start(command, root, experiment)
            self.groups = sorted(group for group in start if group)
            for group, keys in start.items():
                self._keys |= keys if group not in given else {}
        for group in self.groups:
            for name in chosen.get(group, []):
                self._keys |= index.content["choices"][group].get(name, {})
        if "ckpt" in given and "dataset" not in given:
            self._keys |= _dataset_of(Path(given["ckpt"]).expanduser())

    def keys(self, word: str) -> list[str]:
        """What a word may become that has no = yet. A group's name is completed to choose in it; a dot opens its keys."""
        parent, dot, typed = word.rpartition(".")
        ends: dict[str, str] = {}
        for key in self._keys:
            if key.startswith(word):
                name, more, _ = key[len(parent + dot) :].partition(".")
                if parent + dot + name not in self.groups and (
                    typed or not name.startswith("_")
                ):  # _target_ is rarely meant
                    ends[name] = "." if more else ends.get(name, "=")
        groups = [f"{group}=" for group in self.groups if group.startswith(word)]
        return [*groups, *(f"{parent}{dot}{name}{end}" for name, end in ends.items())]

    def choices(self, key: str) -> Sequence[str]:
        """The values of a key that has few."""
        group = "optimizer" if key == "teacher.fit.optimizer" else key
        if group in self.groups:
            return sorted(self.index.content["choices"][group])
        if re.fullmatch(r"schedule\.[^.]+\.objective", key):
            return list(dict.fromkeys(name.split(".")[1] for name in self._keys if name.startswith("objective.")))
        return self._keys.get(key, ())


def _dataset_of(checkpoint: Path) -> Keys:
    """The keys of the data that a run folder, or a file in it, was trained on."""
    for folder in (checkpoint, checkpoint.parent, checkpoint.parent.parent):
        if (folder / "model.json").is_file():
            return dict(_flat("dataset", json.loads((folder / "model.json").read_bytes())["dataset"]))
    return {}


def _flat(key: str, value: Any) -> Iterator[tuple[str, list[str]]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(f"{key}.{name}", below)
    else:
        yield key, ["true", "false"] if isinstance(value, bool) else []
