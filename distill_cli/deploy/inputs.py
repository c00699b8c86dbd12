"""What `input=` names, as entries to be answered: pictures or texts, by what the student takes. Nothing is answered here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill_cli.base import files, ui
from distill_cli.base.errors import ConfigError, DataError
from distill_cli.data import UNKNOWN, PictureSpec, Spec, Split
from distill_cli.data.attempted import Attempted
from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.encoded import Loose
from distill_cli.data.language import typed
from distill_cli.data.layout import Layout, listed
from distill_cli.data.picture_files import Pictures
from distill_cli.data.tables import ENDINGS, Row, attempts, objects
from distill_cli.data.texts import Texts, TextSpec
from distill_cli.data.tokens import Text

STDIN = "-"
NAMES = (("text",), ("text_1", "text_2"))  # what the parts of a sample are called: of a text, of a pair
LINES = ".txt"  # a file of texts, one a line
BUCKET = 64  # batches of texts that are read and sorted by length together, where the data do not say


class Entry(NamedTuple):
    """An input.

    Attributes:
        told: what a row of the output says of it, by column; the same columns for all.
        content: what is read: a path, or a text. fault: why it cannot be, else empty.
    """

    told: dict[str, str]
    content: Any = None
    fault: str = ""


class Named(NamedTuple):
    """What `input=` names: the entries, how many there are where that is known, and how some of them become samples."""

    entries: Iterable[Entry]
    number: int | None
    split: Callable[[Sequence[Any]], Split]


def named(given: str, spec: Spec, dataset: Mapping[str, Any]) -> Named:
    """The inputs that a user's text names, for a student of this spec.

    Args:
        dataset: the settings of the data that it was trained on: their columns are those of a table, where they are as many.

    Raises:
        ConfigError: the student takes neither pictures nor texts. DataError: there is nothing to read.
    """
    reader: _Pictures | _Texts
    if isinstance(spec, PictureSpec):
        reader = _Pictures(spec)
    elif isinstance(spec, TextSpec):
        columns = dataset.get("text") or ()
        columns = [columns] if isinstance(columns, str) else columns
        names = NAMES[spec.pair]
        parts = dict(zip(names, columns if len(columns) == len(names) else names, strict=True))
        reader = _Texts(parts, partial(_of_texts, spec, dataset.get("bucket", BUCKET)))
    elif isinstance(spec, LanguageSpec):
        prompt = {"prompt": dataset["prompt"]} if dataset.get("prompt") else {}
        reader = _Texts({**prompt, "text": dataset.get("text") or "text"}, partial(typed, spec), free=True)
    else:
        raise ConfigError(f"distill predict reads pictures and texts, and the student takes {spec.kind}")
    if given == STDIN:
        return Named(reader.lines(line.rstrip("\n") for line in sys.stdin), None, reader.split)
    entries = reader.named(given)
    if not entries:
        raise DataError(f"input={given}: it holds no inputs")
    return Named(entries, len(entries), reader.split)


@dataclass(frozen=True)
class _Pictures:
    """Files of pictures."""

    spec: PictureSpec

    def named(self, given: str) -> list[Entry]:
        """A picture, all below a folder, or those that a table's column `path` names."""
        path = files.place(given, "input")
        if path.is_dir():
            layout = Layout({})
            paths, _ = layout.pictures(path)
            if layout.left_out:
                ui.say(f"input: not read: {listed(layout.left_out)}")
            return [self._entry(str(one), one) for one in paths]
        if not path.is_file():
            raise DataError(f"input={given}: there is no such file or folder", "input=- reads paths from stdin")
        if path.suffix.lower() in ENDINGS:
            return [self._row(row, where, path.parent) for where, row in attempts(path)]
        return [self._entry(given, path)]

    def lines(self, lines: Iterator[str]) -> Iterator[Entry]:
        """A path a line."""
        return (self._at(line) for line in lines if line)

    def split(self, contents: Sequence[Path]) -> Split:
        spec = self.spec
        source = Attempted(Pictures(Loose(tuple(contents)), spec.channels, spec.size, spec.range), spec.stored(1) * 0)
        return Split(source, torch.full((len(contents),), UNKNOWN), spec)

    def _row(self, row: Row | DataError, where: str, folder: Path) -> Entry:
        """A row of a table, whose paths are relative to it or else to the current directory."""
        if isinstance(row, DataError):
            return self._entry("", fault=row.message)
        named = row.get("path")
        if not named:
            missing = "has no path" if "path" in row else f"has no column 'path'; columns: {', '.join(row)}"
            return self._entry("", fault=f"{where} {missing}")
        return self._at(str(named), folder)

    def _at(self, text: str, folder: Path = Path()) -> Entry:
        """The file that a text names, beside others in a folder or from the current one."""
        try:
            path = files.place(text, "input")
        except ConfigError as error:
            return self._entry(text, fault=error.message)
        beside = folder / path
        return self._entry(text, beside if beside.exists() else path)

    def _entry(self, told: str, path: Path | None = None, fault: str = "") -> Entry:
        return Entry({"path": told}, path, fault)


@dataclass(frozen=True)
class _Texts:
    """Texts, each of one part or of two.

    Args:
        parts: the columns of a table that hold them, by what each part is called. split: makes samples of some texts.
        free: whether one part is enough.
    """

    parts: Mapping[str, str]
    split: Callable[[Sequence[Text]], Split]
    free: bool = False

    def named(self, given: str) -> list[Entry]:
        """The rows of a table, the lines of a .txt file, or what was typed itself."""
        path = Path(given) if len(given) < files.LONGEST_NAME and "\0" not in given else Path()
        ending = path.suffix.lower()
        if ending in (*ENDINGS, LINES):
            path = files.place(given, "input")
            if not path.is_file():
                raise DataError(f"input={given}: there is no such file")
            if ending == LINES:
                try:
                    return list(self._texts(path.read_text(encoding="utf-8-sig").splitlines()))
                except UnicodeDecodeError as error:
                    raise DataError(f"{path} is not UTF-8: {error.reason}") from error
            return [self._row(row, where) for where, row in attempts(path)]
        if path.name and path.exists():
            raise DataError(f"input={given}: texts are read from files that end in {', '.join((*ENDINGS, LINES))}")
        return list(self._texts([given]))

    def lines(self, lines: Iterator[str]) -> Iterator[Entry]:
        """A text a line or, where the first one begins with {, a JSON object a line."""
        first = next(lines, None)
        if first is None:
            return
        everything = (line for part in ([first], lines) for line in part)
        if first.lstrip().startswith("{"):
            yield from (self._row(row, where) for where, row in objects(everything, Path("stdin")))
        else:
            yield from self._texts(everything)

    def _texts(self, lines: Iterable[str]) -> Iterator[Entry]:
        """One text each."""
        for line in lines:
            if len(self.parts) > 1 and not self.free:
                columns = ", ".join(self.parts.values())
                raise DataError("input: the student takes pairs of texts", f"a table with the columns {columns}")
            texts = ("",) * (len(self.parts) - 1) + (line,)
            yield self._entry(texts, "" if line.strip() else "an empty text")

    def _row(self, row: Row | DataError, where: str) -> Entry:
        nothing, enough = ("",) * len(self.parts), any if self.free else all
        if isinstance(row, DataError):
            return self._entry(nothing, row.message)
        if not enough(name in row for name in self.parts.values()):
            missing = next(name for name in self.parts.values() if name not in row)
            return self._entry(nothing, f"{where} has no column {missing!r}; columns: {', '.join(row)}")
        texts = tuple("" if row.get(name) is None else str(row[name]) for name in self.parts.values())
        return self._entry(texts, "" if enough(text.strip() for text in texts) else f"{where} has an empty text")

    def _entry(self, texts: Text, fault: str = "") -> Entry:
        whole = tuple(text.encode(errors="replace").decode() for text in texts)
        fault = fault or ("" if whole == texts else "half a character (a lone surrogate)")
        return Entry(dict(zip(self.parts, whole, strict=True)), texts, fault)


def _of_texts(spec: TextSpec, bucket: int, texts: Sequence[Text]) -> Split:
    """Texts to be classified as samples."""
    source = Texts(texts, [text[0] for text in texts], spec, bucket)
    return Split(source, torch.full((len(texts),), UNKNOWN), spec)
