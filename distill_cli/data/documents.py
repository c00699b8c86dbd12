"""Documents of a file, read piece by piece, so that a file may be larger than memory; tokens are made in corpus.py."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distill_cli.base import ui
from distill_cli.base.errors import DataError
from distill_cli.data import tables

ENDINGS = (".txt", ".jsonl", ".parquet")
ENDED = "ended"  # a column: false where a text was cut before its end, as `distill generate` writes it
PIECE = 2**20  # characters of a document that are held at a time
BREAK = re.compile(r"(?<=\S)\n(?=\S)")  # after a lone one a text is cut: it ends a token, as several together need not


class Piece(NamedTuple):
    """A document, or a part of a long one.

    Attributes:
        text: what is learnt. prompt: what is read before it and not learnt. last: whether the document ends here.
        where: what to call the document in a message. whole: whether it came to its end; a text that was cut did not.
    """

    text: str
    prompt: str
    last: bool
    where: str
    whole: bool = True


class Reading(NamedTuple):
    """How a file is read: in .jsonl and .parquet by these columns, in .txt one document up to each separator."""

    text: str = "text"
    prompt: str | None = None
    separator: str | None = None


def pieces(path: Path, how: Reading) -> Iterator[Piece]:
    """The documents of a file in order.

    Raises:
        DataError: it is not UTF-8, a row is no row, a column is missing or holds no text.
    """
    if path.suffix.lower() != ".txt":
        yield from _rows(path, how)
        return
    number, begins = 1, True
    for text, last in cut(_characters(path), how.separator):
        if begins and last and not text.strip():  # nothing between two separators
            continue
        yield Piece(text, "", last, f"{path.name}, document {number}")
        number, begins = number + last, last


def cut(parts: Iterable[str], separator: str | None) -> Iterator[tuple[str, bool]]:
    """A text that comes in parts, cut at each separator, and what is long between two of them at the ends of lines: pieces,
    and whether each is followed by a separator or the end.
    """
    waiting, safe = "", len(separator or "")
    for part in parts:
        waiting += part
        *whole, waiting = waiting.split(separator) if separator else [waiting]
        yield from ((text, True) for text in whole)
        while len(waiting) >= PIECE + safe:
            end = _end_of_line(waiting, PIECE)
            yield waiting[:end], False
            waiting = waiting[end:]
    yield waiting, True


def _end_of_line(text: str, most: int) -> int:
    """Where a text is cut: after its last lone line break among the first `most` characters, or before the last space."""
    breaks = [found.end() for found in BREAK.finditer(text, most // 2, most)]
    return breaks[-1] if breaks else max(text.rfind(" ", 1, most), 0) or most


def _characters(path: Path) -> Iterator[str]:
    decoder, line = codecs.getincrementaldecoder("utf-8-sig")(), 1
    with path.open("rb") as file:
        while content := file.read(PIECE):
            try:
                text = decoder.decode(content)
            except UnicodeDecodeError as error:
                raise tables.not_utf8(path, line + error.object[: error.start].count(b"\n"), error) from error
            line += text.count("\n")
            yield text
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise tables.not_utf8(path, line, error) from error


def _rows(path: Path, how: Reading) -> Iterator[Piece]:
    empty = short = 0
    for where, row in tables.rows(path):
        prompt = "" if how.prompt is None else _said(row, how.prompt, "dataset.prompt", path, where)
        text = _said(row, how.text, "dataset.text", path, where)
        if text.strip():
            yield Piece(text, prompt, True, where, whole=row.get(ENDED) is not False)
            short += row.get(ENDED) is False
        else:
            empty += 1
    if short:
        ui.say(f"data: {path.name}: {short:,} texts were cut ({ENDED}: false): no end is learnt behind them")
    if empty:
        ui.say(f"data: {path.name}: {empty:,} rows without a text were left out")


def _said(row: dict[str, Any], name: str, key: str, path: Path, where: str) -> str:
    said = tables.value(row, name, key, path, where)
    if not isinstance(said, str | None):
        raise DataError(f"{path}: {where} has a {type(said).__name__} in column {name!r}: it needs a text")
    text = said or ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: {where} has half a character in column {name!r} (a lone surrogate)") from error
    return text
