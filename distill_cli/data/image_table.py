"""Pictures in a column of a table: parquet files, or a data set of Hugging Face that was saved to disk; read by number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import ConfigError, DataError, did_you_mean
from distill_cli.base.files import place
from distill_cli.data import Data
from distill_cli.data.encoded import Loose, Mapped, Names, OnDisk, Ranges, Readable
from distill_cli.data.listing import Listing, Reading, chosen, of_files, read
from distill_cli.data.source import sha256
from distill_cli.runs import store as kept

ENDINGS = (".parquet", ".arrow")
AT_ONCE = 256  # rows of parquet that are copied at a time


def image_table(
    root: str,
    image: str = "image",
    label: str = "label",
    size: int | str = "auto",
    range: list[float] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    memory: float = 2.0,
    reader: Literal["pil", "fast"] = "pil",
    workers: int = 0,
    store: Path | None = None,
    only: str | None = None,
    classes: list[str] | None = None,
) -> Data:
    """Tables below `root` with a column of encoded pictures, each of the part that its name or its folder tells.

    The pictures of Arrow files are read where they lie; those of parquet, which is compressed, are copied once to where what was
    read is kept. For what is not said here see `image_folder`.

    Args:
        image, label: columns: of bytes, or of structs with `bytes` as Hugging Face writes them; of names or numbers.
        classes: their names by number, or all names in order; None: those that the table tells, else those that occur.

    Raises:
        DataError: no tables, a column that is missing, a row without a picture, or a picture that cannot be read.
        ConfigError: pyarrow is not there.
    """
    how = Reading(size, range, mean, std, val_fraction, split_seed, memory, workers, store, reader)
    return read(listing(root, image, label, store, only, classes), how, only)


class Column(NamedTuple):
    """Pictures of a table: what their bytes are in, where each begins, how many it has, and the label of each."""

    file: Readable
    start: np.ndarray
    size: np.ndarray
    labels: list[str]


class _Rows:
    """What the rows of a table are called."""

    def __getitem__(self, row: int) -> str:
        return f"row {row + 1:,}"


def listing(
    root: str,
    image: str = "image",
    label: str = "label",
    store: Path | None = None,
    only: str | None = None,
    classes: list[str] | None = None,
) -> Listing:
    """The pictures that `image_table` reads; it takes the same, and raises the same."""
    folder = place(root, "dataset.root").absolute()
    origins, found, layout = chosen(folder, ENDINGS, only)
    tables = [Table(path, image, label) for paths in found.values() for path in paths]
    columns = [table.column(folder, store) for table in tables]
    counts = [len(column.start) for column in columns]
    start, size = (np.concatenate([column[place] for column in columns]) for place in (1, 2))
    file, rows = np.repeat(np.arange(len(tables)), counts), np.concatenate([np.arange(count) for count in counts])
    digest = sha256(Loose(tuple(table.path for table in tables)).marks())
    encoded = Ranges(tuple(column.file for column in columns), file, start, size, _Rows(), rows, f"{digest} {image}")
    labels = [said for column in columns for said in column.labels]
    return of_files(folder, origins, found, layout, encoded, labels, classes or tables[0].classes)


@dataclass(frozen=True)
class Table:
    """A file with a column of pictures, and one of labels."""

    path: Path
    image: str
    label: str

    @cached_property
    def _opened(self) -> tuple[Any, Any, Callable[[], Iterator[Any]]]:
        """The table's schema, the buffer that its bytes lie in as they are, if they do, and what gives its rows in blocks."""
        arrow = _library()
        try:
            if self.path.suffix == ".parquet":
                parquet = arrow.parquet.ParquetFile(self.path)
                columns = [self.image, self.label]
                return parquet.schema_arrow, None, lambda: parquet.iter_batches(AT_ONCE, columns=columns)
            whole = arrow.memory_map(str(self.path)).read_buffer()
            if whole.size > 6 and whole[:6].to_pybytes() == b"ARROW1":
                file = arrow.ipc.open_file(whole)
                return file.schema, whole, lambda: map(file.get_batch, range(file.num_record_batches))
            return arrow.ipc.open_stream(whole).schema, whole, lambda: iter(arrow.ipc.open_stream(whole))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} is no {self.path.suffix} file that can be read: {error}") from error

    @cached_property
    def classes(self) -> list[str] | None:
        """The names of the classes, where Hugging Face wrote them into the table."""
        metadata = (self._opened[0].metadata or {}).get(b"huggingface")
        features = json.loads(metadata)["info"]["features"] if metadata else {}
        return dict(features.get(self.label) or {}).get("names")

    def column(self, folder: Path, store: Path | None) -> Column:
        """Its pictures and labels, where they lie; those that are compressed are copied.

        Raises:
            DataError: a column is missing, or holds no encoded pictures.
        """
        schema, whole, batches = self._opened
        for key, name in (("image", self.image), ("label", self.label)):
            if name not in schema.names:
                guess = did_you_mean(name, schema.names)
                columns = ", ".join(schema.names)
                raise DataError(
                    f"{self.path} has no column {name!r}; {guess}columns: {columns}", f"dataset.{key}=COLUMN"
                )
        if whole is not None:
            lying = [self._lying(batch, whole) for batch in batches()]
            if lying and all(start is not None for start, _, _ in lying):
                start, size = (np.concatenate([one[place] for one in lying]) for place in (0, 1))
                return Column(OnDisk(self.path), start, size, [said for *_, labels in lying for said in labels])
        facts = sha256(Loose((self.path,)).facts())
        ingredients = {"table": facts, "columns": [self.image, self.label], "code": files.sha256(Path(__file__))}
        about = {"teacher": "", "dataset": folder.name, "split": self.path.name, "folder": str(folder)}
        words = kept.Words(f"copying the pictures of {self.path.name}", "the pictures", "free some")
        made = kept.arrays(store, ingredients, about | {"precision": "uint8"}, None, self._copied, words)
        ends, names = np.cumsum(made["size"]), Names(made["labels"], np.cumsum(made["lengths"]))
        labels = [names[row] for row in range(len(ends))]
        return Column(Mapped(self.path, made["content"]), ends - made["size"], made["size"], labels)

    def _copied(self) -> Iterator[dict[str, np.ndarray]]:
        _, _, batches = self._opened
        with ui.bar(None, f"copying {self.path.name}") as bar:
            for batch in batches():
                pictures, labels = self._bytes(batch).to_pylist(), Names.of(self._labels(batch))
                yield {
                    "content": np.frombuffer(b"".join(pictures), np.uint8),
                    "size": np.array([len(picture) for picture in pictures], np.int64),
                    "labels": labels.text,
                    "lengths": np.diff(labels.ends, prepend=0),
                }
                bar.update(len(pictures))

    def _lying(self, batch: Any, whole: Any) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
        """Where in the file each picture of a block begins, its bytes, and the labels; None: they do not lie there as they are."""
        column = self._bytes(batch)
        _, offsets, data = column.buffers()
        wide = np.int64 if "large" in str(column.type) else np.int32
        ends = np.frombuffer(offsets, wide)[column.offset : column.offset + len(column) + 1].astype(np.int64)
        start = ends[:-1] + (data.address - whole.address if data is not None else 0)
        inside = data is not None and 0 <= data.address - whole.address < whole.size
        return start if inside else None, np.diff(ends), self._labels(batch)

    def _bytes(self, batch: Any) -> Any:
        """The column of pictures as one of bytes."""
        arrow, column = _library(), batch.column(self.image)
        types = arrow.types
        if types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.field("bytes")
        if not (types.is_binary(column.type) or types.is_large_binary(column.type)):
            raise DataError(
                f"{self.path}: column {self.image!r} is {column.type}: it holds no encoded pictures; columns: "
                f"{', '.join(f'{field.name} {field.type}' for field in batch.schema)}",
                "dataset.image=COLUMN",
            )
        if column.null_count:
            raise DataError(
                f"{self.path}: rows without a picture in column {self.image!r}: {column.null_count:,} of {len(column):,}",
                "the pictures themselves must be saved, not their paths alone",
            )
        return column

    def _labels(self, batch: Any) -> list[str]:
        """The labels as text; "" where a row has none."""
        values = batch.column(self.label).to_pylist()
        if names := self.classes:
            return [names[value] if isinstance(value, int) and 0 <= value < len(names) else "" for value in values]
        return ["" if value is None else str(value) for value in values]


def _library() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "dataset=image_table needs the package pyarrow", 'pip install "distill-cli[arrow]"'
        ) from error
    return pyarrow
