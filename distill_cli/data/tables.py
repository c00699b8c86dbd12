"""Rows of a table in a text file, each with the line it begins on; a broken file is refused by its line."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill_cli.base.errors import ConfigError, DataError, did_you_mean

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
LARGEST = 2**31 - 1  # characters of a field


Row = dict[str, Any]  # by column


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with what to call it in a message: the file's name and the line.

    Raises:
        DataError, ConfigError: as `attempts`; DataError: a row is broken.
    """
    for where, row in attempts(path):
        if isinstance(row, DataError):
            raise row
        yield where, row


def attempts(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    """As `rows`, with an error in place of a row that is broken: a quote that is not closed, after which nothing can be read, a
    row of another length than the header, a line that is no JSON object.

    csv has a header and quotes as RFC 4180 has them; tsv has a header and no quotes, so a quotation mark is a character; jsonl
    has an object on each line.

    Raises:
        DataError: an encoding other than UTF-8. ConfigError: parquet, without the package that reads it.
    """
    read = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix.lower()]
    return read(path)


def _csv(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    return _separated(path, strict=True)


def _tsv(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    return _separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _separated(path: Path, **dialect: Any) -> Iterator[tuple[str, Row | DataError]]:
    csv.field_size_limit(LARGEST)
    reader = csv.reader(io.StringIO(_text(path), newline=""), **dialect)
    header: list[str] | None = None
    while True:
        where = f"{path.name} line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield (
                where,
                DataError(f"{path}: {where}: {error}", "a quotation mark inside a quoted text is written twice"),
            )
            return
        if fields is None:
            return
        if not fields:  # an empty line
            continue
        if header is None:
            header = [name.strip() for name in fields]
            continue
        if len(fields) != len(header):
            yield (
                where,
                DataError(
                    f"{path}: {where} has {len(fields)} columns, the header has {len(header)}",
                    "a text that holds the separator, or a line break, stands in quotes in a .csv",
                ),
            )
            continue
        yield where, dict(zip(header, fields, strict=True))


def _jsonl(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    with path.open("rb") as file:
        yield from objects((decoded(line, path, number) for number, line in enumerate(file, start=1)), path)


def objects(lines: Iterable[str], path: Path) -> Iterator[tuple[str, Row | DataError]]:
    """The JSON object in each line that is not empty, as `attempts`; `path`: what the lines come from, for messages."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            why = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
            yield where, DataError(f"{path}: line {number} is not JSON: {why}")
            continue
        told = f"{path}: line {number} is a JSON {type(row).__name__}: it needs an object for each line"
        yield where, row if isinstance(row, dict) else DataError(told)


def _parquet(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(f"{path}: needs the package pyarrow", "pip install pyarrow") from error
    number = 0
    try:
        for block in parquet.ParquetFile(path).iter_batches():
            for row in block.to_pylist():
                number += 1
                yield f"{path.name} row {number}", row
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no parquet file that can be read: {error}") from error


def value(row: Row, name: str, key: str, path: Path, where: str) -> Any:
    """A row's value in a column.

    Args:
        key: what names the column. where: what to call the row.

    Raises:
        DataError: there is no such column.
    """
    if name not in row:
        guess = did_you_mean(name, row)
        raise DataError(f"{path}: {where} has no column {name!r}; {guess}columns: {', '.join(row)}", f"{key}=COLUMN")
    return row[name]


def _text(path: Path) -> str:
    return decoded(path.read_bytes(), path)


def decoded(content: bytes, path: Path, line: int = 1) -> str:
    """A file's bytes from the beginning of a line, as text without a byte order mark.

    Raises:
        DataError: they are not UTF-8.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8 if line == 1 else b"").decode()
    except UnicodeDecodeError as error:
        raise not_utf8(path, line + content[: error.start].count(b"\n"), error) from error


def not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    """What to tell of a file that is in another encoding from some line on."""
    return DataError(
        f"{path}: line {line} is not UTF-8 ({error.reason})",
        f"iconv -f ISO-8859-1 -t UTF-8 makes it so: {path.name}",
    )
