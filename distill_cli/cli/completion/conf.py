"""The keys a configuration would have, put together from YAML by the rules of Hydra's defaults lists; values are not worked out."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distill_cli.cli.completion import source
from distill_cli.config.shipped import conf_folder

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
SELF = ["_self_"]


class Settings:
    """What a command can be told: the groups, the keys with the groups chosen on the line, and the values they take."""

    def __init__(self, conf: Conf, command: str, root: str, typed: Sequence[str]) -> None:
        given = dict(word.split("=", 1) for word in typed if "=" in word)
        self.conf, self.shape = conf, source.shape_of(command)
        self.tree = conf.composed(root, {key: _names(value) for key, value in given.items()})
        if "ckpt" in given and "dataset" not in given:
            _merge(self.tree, {"dataset": _dataset_of(given["ckpt"])})
        fields = source.fields(self.shape)
        _merge(self.tree, {key: None for key in fields if key not in self.tree})
        for stage in _mapping(self.tree.get("schedule")).values():
            _merge(stage, {key: None for key in source.fields("Stage") if key not in stage})
        every = self.shape == "Train"  # recipes, launchers and sweepers are for training
        self.groups = [group for group in conf.groups() if every or group in fields]

    def keys(self, word: str) -> list[str]:
        """What a word may become that has no = yet. A group's name is completed to choose in it; a dot opens its keys."""
        parent, dot, typed = word.rpartition(".")
        found = [f"{group}=" for group in self.groups if group.startswith(word)]
        for key, value in _mapping(self._at(parent) if dot else self.tree).items():
            whole = f"{parent}{dot}{key}"
            hidden = whole in self.groups or (str(key).startswith("_") and not typed)  # _target_ is rarely meant
            if whole.startswith(word) and not hidden:
                found.append(f"{whole}." if _mapping(value) else f"{whole}=")
        return found

    def choices(self, key: str) -> Sequence[str]:
        """The values of a key that has few."""
        if key in self.groups:
            return self.conf.choices(key)
        if key == "teacher.fit.optimizer":
            return self.conf.choices("optimizer")
        if re.fullmatch(r"schedule\.[^.]+\.objective", key):
            return list(_mapping(self.tree.get("objective")))
        return ("true", "false") if isinstance(self._at(key), bool) else source.choices(self.shape, key)

    def _at(self, key: str) -> Any:
        node: Any = self.tree
        for part in key.split("."):
            node = _mapping(node).get(part)
        return node


class Conf:
    """The folders that are searched for YAML: --config-dir, ./conf, $DISTILL_CONF and the shipped one."""

    def __init__(self, named: str | None = None) -> None:
        self.shipped = Path(conf_folder()).resolve()
        own = [Path(folder).expanduser() for folder in (named, "conf", os.environ.get("DISTILL_CONF")) if folder]
        self.folders = [*(f.resolve() for f in own if f.is_dir() and f.resolve() != self.shipped), self.shipped]
        self.shared: Mapping[str, str] = source.constant("config/places", "SHARED_FOLDERS")

    def roots(self) -> list[str]:
        """The names --config-name can have."""
        return sorted({path.stem for folder in self.folders for path in folder.glob("*.yaml")})

    def groups(self) -> list[str]:
        """The groups there are, Hydra's own included where we have choices for them."""
        names = {path.name for path in self.shipped.iterdir() if path.is_dir()} - {"hydra", *self.shared.values()}
        hydra = {f"hydra/{path.name}" for path in self.shipped.glob("hydra/*/")}
        return sorted(names | hydra | set(self.shared))

    def choices(self, group: str) -> list[str]:
        """The names of a group's files."""
        return sorted({path.stem for place in self._places(group) for path in place.glob("*.yaml")})

    def composed(self, root: str, chosen: Mapping[str, list[str]]) -> dict[str, Any]:
        """A root file and its defaults in one, with what was chosen in their place."""
        picked = dict(chosen)
        layers = list(self._layers("", root, picked))
        for group in [group for group in picked if group.startswith("hydra/")]:  # Hydra adds these by itself
            for name in picked[group]:
                layers += self._layers(group, name, picked)
        tree: dict[str, Any] = {}
        for package, content in reversed(layers):
            for name in reversed(package.split(".") if package else []):
                content = {name: content}
            _merge(tree, content)
        return tree

    def _layers(self, group: str, name: str, picked: dict[str, list[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The package and the keys of a file and of its defaults, last ones first.

        A default further down may choose for those above it, which `picked` remembers; who chooses first is heard.
        """
        package, content = self._read(group, name)
        defaults = [_default(entry, group) for entry in content.pop("defaults", None) or []]
        for kind, place, _, names in defaults:
            if kind == "override":
                picked.setdefault(place, names)
        if SELF not in [names for *_, names in defaults]:
            defaults.append(("file", group, "", SELF))
        for kind, place, put, names in reversed(defaults):
            if names == SELF:
                yield package, content
            elif kind != "override":
                picks = picked.get(f"{place}@{put}" if put else place, names)
                for chosen in reversed(picks if kind == "group" else names):
                    for where, keys in self._layers(place, chosen, picked):
                        yield put or where, keys

    def _read(self, group: str, name: str) -> tuple[str, dict[str, Any]]:
        """The package of a group's file and what it holds, which is nothing where it cannot be read."""
        ours = not group and (self.shipped / f"{name}.yaml").is_file()  # the tool's own roots are the shipped ones
        for place in [self.shipped] if ours else self._places(group):
            path = place / f"{name}.yaml"
            if path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                found = PACKAGE.search(text)
                package = found[1] if found else "_group_"
                return {"_global_": "", "_group_": group.replace("/", ".")}.get(package, package), _parsed(text)
        return "", {}

    def _places(self, group: str) -> list[Path]:
        """Where a group's files may lie, in order of preference."""
        return [folder / name for folder in self.folders for name in (group, self.shared.get(group, group))]


def _default(entry: Any, group: str) -> tuple[str, str, str, list[str]]:
    """An entry of a defaults list in a file of `group`: its kind, the group it is about, the package where that is said, and
    the names it gives.
    """
    if isinstance(entry, Mapping):
        ((key, names),) = entry.items()
        about, _, package = str(key).partition("@")
        *words, place = about.split()
        kind = "override" if "override" in words else "group"
        return kind, posixpath.join(group, place).strip("/"), package, _names(names)
    folder, name = posixpath.split(str(entry))
    return "file", posixpath.join(group, folder).strip("/"), "", [name]


def _names(value: Any) -> list[str]:
    """The choices in a group's value, from YAML or as typed: one, a list, a sweep, or none."""
    if isinstance(value, str):
        return [name for name in re.split(r"[\[\],]", value) if name]
    return [str(name) for name in value] if isinstance(value, list) else []


def _dataset_of(checkpoint: str) -> Any:
    """The keys of the data that a run folder, or a file in it, was trained on."""
    path = Path(checkpoint).expanduser()
    for folder in (path, path.parent, path.parent.parent):
        card = folder / "model.json"
        if card.is_file():
            return _parsed(card.read_text(encoding="utf-8")).get("dataset")
    return None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return _mapping(LOADER(text).get_single_data())
    except (yaml.YAMLError, ValueError):
        return {}


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _merge(into: dict[Any, Any], new: Mapping[Any, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
