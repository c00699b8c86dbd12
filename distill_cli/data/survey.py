"""What the pictures of a folder are like by their headers: shape, range of values, and what of it a user should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_cli.data.encoded import Encoded
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.picture_files import Headers, Range, header
from distill_cli.data.source import Source, sha256

LARGEST_AUTO_SIZE = 224
LOOKED_AT = 100_000  # pictures; of more, so many evenly spaced ones: each costs a file that is opened
FEW = 1 / 32  # of a range: a picture that uses less of it keeps fewer than eight grey levels
FAR = 1 / 10  # of a range, beyond its ends: more is cut off than noise explains


@dataclass(frozen=True)
class Surveyed(Source):
    """The headers of pictures, (n, fields) float64."""

    encoded: Encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor([header(self.encoded, row) for row in rows], dtype=torch.float64)

    def name_of(self, row: int) -> str:
        return self.encoded.name_of(row)

    def take(self, rows: np.ndarray) -> Surveyed:
        return Surveyed(self.encoded.take(rows))

    def digest(self) -> str:
        return sha256(self.encoded.marks())


def shape(headers: Headers, train: Headers, size: int | str) -> tuple[int, int]:
    """Channels (1 where every picture is grey, else 3) and side in pixels."""
    pixels = min(int(np.median(train.short)), LARGEST_AUTO_SIZE) if size == "auto" else int(size)
    return 1 if headers.grey.all() else 3, pixels


def value_range(train: Headers) -> Range | None:
    """The smallest and largest value of the greys of more than 8 bits; None where there are none."""
    if not (deep := np.isfinite(train.low)).any():
        return None
    low, high = float(train.low[deep].min()), float(train.high[deep].max())
    return low, high if high > low else low + 1


def remarks(headers: Headers, train: Headers, auto_size: bool, chosen: Range | None) -> list[str]:
    """What was chosen for the user, where these pictures leave a choice.

    Args:
        auto_size: the size is that of the pictures. chosen: the range of values, see `Pictures`.
    """
    deep, number, said = np.isfinite(headers.low), len(headers.low), []
    if auto_size and train.short.min() < train.short.max():
        said.append(f"size: median of shorter sides from {train.short.min():.0f} to {train.short.max():.0f}")
    if chosen and deep.any():
        among = f", in {deep.sum():,} of {number:,} pictures" if deep.sum() < number else ""
        said.append(f"grey values from {chosen[0]:.6g} to {chosen[1]:.6g} become 0 to 255{among}")
    elif chosen:
        said.append(f"no picture has more than 8 bits, so the range {chosen[0]:.6g} to {chosen[1]:.6g} is not used")
    if 0 < (grey := int(headers.grey.sum())) < number:
        said.append(f"{grey:,} grey among colour")
    counted = {
        "lose more than half to the square cut": headers.long > 2 * headers.short,
        "with transparency, laid on white": headers.clear > 0,
        "of several frames, of which the first is read": headers.several > 0,
    }
    return said + [f"{found.sum():,} {what}" for what, found in counted.items() if found.any()]


def doubts(headers: Headers, name_of: Callable[[int], str], chosen: Range | None) -> list[str]:
    """What may spoil the data without ending the run: a line each, with a picture as an example.

    Args:
        name_of: gives what a picture is called, by its place among the headers.
    """
    counted = {
        "have 16 bits a channel, of which the upper 8 are read": headers.halved > 0,
        "have metadata that cannot be read, and are shown as they lie": headers.odd > 0,
    }
    if chosen and np.isfinite(headers.low).any():
        (low, high), spans = chosen, headers.high - headers.low
        words, far = f"the grey values from {low:.6g} to {high:.6g}", FAR * (high - low)
        usual = ",".join(f"{np.nanmedian(ends):.6g}" for ends in (headers.low, headers.high))
        few = f"keep few grey levels, as they use little of {words}: dataset.range=[{usual}] fits most"
        counted[few] = (spans > 0) & (spans < FEW * (high - low))
        counted[f"go far beyond {words}, and are cut off there"] = (headers.low < low - far) | (
            headers.high > high + far
        )
    return [
        f"{found.sum():,} picture(s), such as {name_of(int(found.argmax()))}, {what}"
        for what, found in counted.items()
        if found.any()
    ]


def repeated(headers: Headers, encoded: Encoded, parts: Mapping[str, slice], labels: np.ndarray, cut: bool) -> str:
    """How many pictures, the same byte by byte, are in two parts or classes, or twice in the train that validation is cut
    from; "" where none is.
    """
    ends = headers.bytes.astype(np.int64) << 32 | headers.tail.astype(np.int64)
    _, group, sizes = np.unique(ends, return_inverse=True, return_counts=True)
    alike: dict[str, list[int]] = {}
    for row in np.flatnonzero(sizes[group] > 1).tolist():
        alike.setdefault(sha256([encoded.content(row).data]), []).append(row)
    part_of = np.repeat(list(parts), [part.stop - part.start for part in parts.values()])
    counts = Counter[str]()
    for rows in alike.values():
        where = part_of[rows].tolist()
        for name, other in (("test", "train"), ("test", "val"), ("val", "train")):
            if other in where:
                counts[f"of {name} in {other} too"] += where.count(name)
        counts["more than once in train, from which validation is cut"] += cut and where.count("train") > 1
        counts["in two classes"] += len(set(labels[rows]) - {UNKNOWN}) > 1
    counts = +counts  # without zeros
    return ", ".join(f"{number:,} {told}" for told, number in counts.items())
