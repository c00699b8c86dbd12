"""Which files a module is made of: its own and those beside it that it imports. Nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path


def files_of(modules: Collection[str], home: Path, rooms: Collection[Path] | None = None) -> list[Path]:
    """Every file below `home`, the folder Python finds `modules` in, that importing them may run; sorted.

    What lies elsewhere, installed packages among it, is left out.

    Args:
        modules: dotted names of modules, or of what is in them. rooms: the folders whose files count; None: all.
    """
    files: set[Path] = set()
    waiting = list(modules)
    while waiting:
        for name, file in _files(home, waiting.pop().split(".")):
            if file not in files and (rooms is None or file.parent in rooms):
                files.add(file)
                waiting += _imports(file, name)
    return sorted(files)


def _files(home: Path, parts: list[str]) -> Iterator[tuple[list[str], Path]]:
    """The packages and the module that a dotted name stands for, as far as they are files here: name in parts, file."""
    for count in range(1, len(parts) + 1):
        place = home.joinpath(*parts[:count])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield parts[:count], file


def _imports(file: Path, name: list[str]) -> Iterator[str]:
    """Dotted names that the file imports, wherever in it; `from a import b` may mean a module a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # importing it fails as well
        return
    package = name if file.stem == "__init__" else name[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else []
            base = [*near, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
