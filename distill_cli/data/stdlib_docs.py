"""What the running Python's own library says of itself: the data set of texts that needs no network."""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import DataError
from distill_cli.data.assembling import stratified
from distill_cli.data.dataset import Data
from distill_cli.data.text import Column, Reading, assembled

PACKAGES = 10  # classes: the packages that have most to say
WORDS = 4  # a paragraph of fewer says too little
TEST = 0.2  # a fixed fifth, whatever the split seed
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


def stdlib_docs(
    tokenizer: str = "auto",
    max_length: int = 64,
    bucket: int = 64,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    store: Path | None = None,
) -> Data:
    """First paragraphs of the docstrings of Python's own library; the class is the package that each is from.

    Args: as `text.text`.

    Raises:
        DataError: this Python has no library in source.
    """
    texts = _kept(store) if store else _paragraphs()
    counts = Counter(package for _, package in texts)
    classes = tuple(sorted(package for package, _ in counts.most_common(PACKAGES)))
    if len(classes) < 2:
        raise DataError(f"{sysconfig.get_path('stdlib')} holds no library in source", "choose another dataset")
    chosen = [(text, package) for text, package in texts if package in classes]
    whole = Column(
        [(text,) for text, _ in chosen],
        [package for _, package in chosen],
        [f"docstring {number}" for number in range(1, len(chosen) + 1)],
    )
    labels = np.array([classes.index(label) for label in whole.labels])
    test, rest = stratified(labels, TEST, seed=0)
    note = f"of Python {sys.version_info.major}.{sys.version_info.minor}; test: a fixed {TEST:.0%}"
    how = Reading(tokenizer, max_length, bucket, val_fraction, split_seed, store)
    return assembled({"train": whole.take(rest), "test": whole.take(test)}, classes, how, [note])


def _paragraphs() -> list[tuple[str, str]]:
    """Each first paragraph once, with its package."""
    root, seen = Path(sysconfig.get_path("stdlib")), dict[str, str]()
    paths = [path for path in sorted(root.glob("*/**/*.py")) if not SKIPPED & set(path.relative_to(root).parts)]
    with ui.bar(len(paths), "reading Python's library") as bar:
        for path in paths:
            for text in _docstrings(path):
                seen.setdefault(text, path.relative_to(root).parts[0])
            bar.update(1)
    return list(seen.items())


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # some files are made to be wrong
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(text.split()) >= WORDS:
                yield text


def _kept(store: Path) -> list[tuple[str, str]]:
    """The paragraphs from a folder in which they are kept: to read the whole library takes seconds."""
    folder = store / f"stdlib_docs-{'.'.join(map(str, sys.version_info[:3]))}"

    def make(place: Path) -> None:
        files.write(place / "texts.json", json.dumps(_paragraphs()))

    locks.once(folder, make, lambda: ui.say("data: another run reads Python's library; waiting for it"))
    return [(text, package) for text, package in json.loads((folder / "texts.json").read_text(encoding="utf-8"))]
