"""The keys that can be typed, kept in the user's cache until a conf folder changes; config/keys.py composes them anew."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from distill_cli import __version__
from distill_cli.config.shipped import PACKAGE, conf_folder

Keys = dict[str, list[str]]  # a key as it is typed, and the values it can have if these are few


class Index:
    """What can be typed with the YAML in --config-dir, ./conf, $DISTILL_CONF and the shipped folder."""

    def __init__(self, config_dir: str | None) -> None:
        self._config_dir = config_dir
        users = [folder for folder in (config_dir, "conf", os.environ.get("DISTILL_CONF")) if folder]
        folders = [str(Path(folder).expanduser().absolute()) for folder in users]
        read = [*folders, conf_folder(), f"{PACKAGE}/config"]
        self._state = [__version__, folders, *(file for folder in read for file in _files(folder))]
        self._name = f"keys-{zlib.crc32(os.fsencode(chr(0).join(folders))):08x}.json"

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """What `config.keys.everything` returned; `free`, the keys that may be set anew for a run that goes on; `starts`."""
        for folder in _caches():
            with contextlib.suppress(OSError, ValueError):
                content = json.loads((folder / self._name).read_bytes())
                if isinstance(content, dict) and content.pop("state", None) == self._state:
                    return content
        from distill_cli.config import keys, schema

        content = {**keys.everything(self._config_dir), "free": sorted(schema.free()), "starts": {}}
        self._write(content)
        return content

    def start(self, command: str, root: str, experiment: str) -> dict[str, Keys]:
        """See `config.keys.start`."""
        name, starts = "/".join((command, root, experiment)), self.content["starts"]
        if name not in starts:
            from distill_cli.config import keys

            starts[name] = keys.start(command, root, self._config_dir, experiment)
            self._write(self.content)
        return cast(dict[str, Keys], starts[name])

    def _write(self, content: dict[str, Any]) -> None:
        """Write the content to the first folder that takes it; where none does, it is composed at every Tab."""
        from distill_cli.base import files

        for folder in _caches():
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                files.write(folder / self._name, json.dumps({"state": self._state, **content}))
                return


def _files(folder: str, depth: int = 3) -> Iterator[list[Any]]:
    """Every YAML and Python file in a folder, with what changes when it is written."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if depth and entry.is_dir():
            yield from _files(entry.path, depth - 1)
        elif entry.name.endswith((".yaml", ".py")) and entry.is_file():
            yield [entry.path, entry.stat().st_mtime_ns, entry.stat().st_size]


def _caches() -> Iterator[Path]:
    """Folders of the user's own, the usual one first. Everybody may write beside the second, so its owner is looked at."""
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "distill")
    folder = Path(tempfile.gettempdir(), f"distill-{os.getuid()}")
    if not os.path.lexists(folder) or (folder.lstat().st_uid == os.getuid() and not folder.is_symlink()):
        yield folder
