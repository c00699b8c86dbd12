"""What can be typed on a line as it stands: groups, the keys under the choices typed there, and their values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from distill_cli.base.names import flat
from distill_cli.cli.completion.index import Index, Keys


class Settings:
    """The groups and keys of a command whose root YAML is `root`, after the words that are typed."""

    def __init__(self, index: Index, command: str, root: str, typed: Sequence[str]) -> None:
        values = dict(word.split("=", 1) for word in typed if "=" in word)
        chosen = {key: [name for name in re.split(r"[\[\],]", value) if name] for key, value in values.items()}
        self.index, self._keys = index, Keys()
        for experiment in chosen.get("experiment") or [""]:
            start = index.start(command, root, experiment)
            self.groups = sorted(group for group in start if group)
            for group, keys in start.items():
                self._keys |= keys if group not in values else {}
        for group in self.groups:
            for name in chosen.get(group, []):
                self._keys |= index.content["choices"][group].get(name, {})
        if "ckpt" in values and "dataset" not in values:
            self._keys |= _dataset_of(Path(values["ckpt"]).expanduser())

    def keys(self, word: str) -> list[str]:
        """What a word may become that has no = yet. A group's name is completed to choose in it; a dot opens its keys."""
        start = word[: word.rfind(".") + 1]
        ends = {group: "=" for group in self.groups if group.startswith(word)}
        for key in self._keys:
            name, dot, _ = key[len(start) :].partition(".")
            hidden = name.startswith("_") and word == start  # _target_ is rarely meant
            if key.startswith(word) and start + name not in self.groups and not hidden:
                ends[start + name] = dot or ends.get(start + name, "=")
        return [f"{name}{end}" for name, end in ends.items()]

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
            dataset = json.loads((folder / "model.json").read_bytes())["dataset"]
            return {
                key: ["true", "false"] if isinstance(value, bool) else [] for key, value in flat({"dataset": dataset})
            }
    return {}
