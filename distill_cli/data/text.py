"""Text files as a data set: which files and columns are read, labels as classes, what is left out; tokens are in texts.py."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill_cli.base import ui
from distill_cli.base.errors import ConfigError, DataError
from distill_cli.base.files import place
from distill_cli.data.assembling import Part, alone, assemble, cut, warn_of_same
from distill_cli.data.dataset import Data
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.split_files import split_files
from distill_cli.data.tables import ENDINGS, rows, value
from distill_cli.data.texts import Texts, TextSpec, made_from
from distill_cli.data.tokens import Text, Tokenizer


@dataclass(frozen=True)
class Column:
    """The texts of a file with their labels, and what to call each."""

    texts: list[Text]
    labels: list[str]
    names: list[str]

    def followed(self, more: Column) -> Column:
        """These texts, and after them more."""
        return Column(self.texts + more.texts, self.labels + more.labels, self.names + more.names)

    def take(self, rows: np.ndarray) -> Column:
        """The texts at `rows` (n,) alone, in that order."""
        return Column(*([values[row] for row in rows] for values in (self.texts, self.labels, self.names)))


@dataclass(frozen=True)
class Reading:
    """How texts are cut into tokens and splits; see the arguments of `text`."""

    tokenizer: str = "auto"
    max_length: int = 128
    bucket: int = 64
    val_fraction: float = 0.1
    split_seed: int = 0
    store: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_length", 1), ("bucket", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name}: must be at least {least}, got {value}")


def text(
    root: str,
    text: str | list[str] = "text",
    label: str = "label",
    classes: list[str] | None = None,
    tokenizer: str = "auto",
    max_length: int = 128,
    bucket: int = 64,
    empty: Literal["refuse", "skip"] = "refuse",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    store: Path | None = None,
    only: str | None = None,
    labels: bool = True,
    unlabeled: str | None = None,
    model_classes: Callable[[], Sequence[str]] = tuple,
) -> Data:
    """Texts to be classified, from a folder with train, test and perhaps val as .csv, .tsv, .jsonl or .parquet, or from one file.

    Args:
        text, label: columns; two texts are a pair. classes: their order; None: sorted. tokenizer: auto: each model's own or,
            where it has none, one made from train; else a folder with a tokenizer.json.
        empty: what to do with a row without a text. only: the one split to read; the others may be missing.
        labels: whether train has a column of labels; a row where it is empty has none. unlabeled: a file of more texts to train
            on, without labels. model_classes: gives those of a model that the data are for, where train does not tell them.

    Raises:
        DataError: a file or column is missing, a row is broken or empty, a label occurs that train does not have.
    """
    files = split_files(place(root, "dataset.root"), ENDINGS, only)
    columns = [text] if isinstance(text, str) else list(text)
    if len(columns) not in (1, 2):
        raise ConfigError(f"text: should be one column or two, got {len(columns)}")
    read = {
        name: _read(path, columns, label if labels or name != "train" else None, empty) for name, path in files.items()
    }
    notes = [f"{name}: {path.name}" for name, path in files.items() if name != "train"]
    if unlabeled and "train" in read:
        more = place(unlabeled, "dataset.unlabeled")
        if not more.is_file() or more.suffix.lower() not in ENDINGS:
            raise DataError(f"dataset.unlabeled={unlabeled}: should be a file that ends in {', '.join(ENDINGS)}")
        read["train"] = read["train"].followed(_read(more, columns, None, empty))
        notes.append(f"train also: {more.name}")
    told = _classes(read["train"].labels, label) if labels and "train" in read and only is None else ()
    named = tuple(classes or told or model_classes())
    if not named:
        raise DataError(
            f"dataset.root={root}: nothing names the classes of texts that have no labels",
            "dataset.classes=[...] does, or teacher.checkpoint of a teacher that knows its own",
        )
    how = Reading(tokenizer, max_length, bucket, val_fraction, split_seed, store)
    return assembled(read, named, how, notes, only)


def assembled(
    columns: Mapping[str, Column], classes: Sequence[str], how: Reading, notes: Sequence[str], only: str | None = None
) -> Data:
    """Texts as a data set; test and validation are cut from train where there are none. It raises as `text`.

    Args:
        notes: where validation and test come from, for people. only: the one split that is wanted.
    """
    first, notes = next(iter(columns.values())), list(notes)
    if how.tokenizer == "auto":
        tokenizer = made_from(first.texts, how.store)
    else:
        tokenizer = Tokenizer.read(place(how.tokenizer, "dataset.tokenizer"))
    spec = TextSpec(tokenizer, how.max_length, len(first.texts[0]) == 2)
    parts = {
        name: Part(
            Texts(column.texts, column.names, spec, how.bucket, how.store),
            _targets(column, classes, "train" if only is None else "the model"),
        )
        for name, column in columns.items()
    }
    if unlabelled := {name: n for name, part in parts.items() if (n := int((part.targets == UNKNOWN).sum()))}:
        notes.append("without a label: " + ", ".join(f"{number:,} of {name}" for name, number in unlabelled.items()))
    if only in parts and "train" not in parts:
        return alone(only, parts[only], classes, "; ".join(notes), spec=spec)
    if "test" not in parts:
        parts["train"], parts["test"] = cut(parts["train"], how.val_fraction, how.split_seed, classes)
        notes.append(f"test: {how.val_fraction:.0%} of all")
    if "val" not in parts:
        notes.append(f"validation: {how.val_fraction:.0%} of train")
    _overlap(parts)
    return assemble(
        parts["train"],
        parts.get("val"),
        parts["test"],
        classes,
        val_fraction=how.val_fraction,
        split_seed=how.split_seed,
        spec=spec,
        note="; ".join(notes),
    )


def _read(path: Path, columns: Sequence[str], label: str | None, empty: str) -> Column:
    """The texts of a file, and the labels where they have any."""
    column, skipped = Column([], [], []), 0
    for where, row in rows(path):
        read = [value(row, name, "dataset.text", path, where) for name in columns]
        given = value(row, label, "dataset.label", path, where) if label else None
        texts = tuple("" if one is None else str(one) for one in read)
        if not all(text.strip() for text in texts):
            if empty == "refuse":
                raise DataError(f"{path}: {where} has an empty text", "dataset.empty=skip leaves such rows out")
            skipped += 1
            continue
        column.texts.append(texts)
        column.labels.append("" if given is None else str(given).strip())
        column.names.append(where)
    if not column.texts:
        raise DataError(f"{path} holds no texts")
    if skipped:
        ui.say(f"data: {path.name}: {skipped:,} rows without a text were left out")
    return column


def _classes(labels: Sequence[str], column: str) -> tuple[str, ...]:
    """The classes that occur: numbers by their value, names by the alphabet."""
    found = set(labels) - {""}
    if all(_is_number(label) for label in found):
        if not all(label.lstrip("+-").isdigit() for label in found):
            some = ", ".join(sorted(found)[:3])
            raise DataError(
                f"the labels in column {column!r} are real numbers ({some}): to learn them would be regression",
                "distill learns classes; dataset.label names another column",
            )
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _targets(column: Column, classes: Sequence[str], whose: str) -> np.ndarray:
    """The class of each text, (N,); `whose` classes they are, for the message."""
    number = {"": UNKNOWN} | {name: place for place, name in enumerate(classes)}
    for where, name in zip(column.names, column.labels, strict=True):
        if name not in number:
            shown = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
            raise DataError(f"{where} has the label {name!r}, which {whose} does not have; classes: {shown}")
    return np.array([number[name] for name in column.labels])


def _overlap(parts: dict[str, Part]) -> None:
    """Say how many texts of test are in train too, small differences aside."""

    def plain(part: Part) -> list[str]:
        source: Any = part.source
        return [unicodedata.normalize("NFKC", " ".join(text)).casefold().strip() for text in source.texts]

    seen = set(plain(parts["train"]))
    warn_of_same(sum(text in seen for text in plain(parts["test"])), len(parts["test"]), "texts")
