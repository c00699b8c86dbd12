"""Pictures in tar files as WebDataset lays them out: KEY.jpg with KEY.cls or KEY.json beside it, found by an index made once."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import DataError
from distill_cli.base.files import place
from distill_cli.data import Data
from distill_cli.data.encoded import Loose, Names, OnDisk, Ranges
from distill_cli.data.layout import SUFFIXES
from distill_cli.data.listing import Listing, Reading, chosen, of_files, read
from distill_cli.data.source import sha256
from distill_cli.runs import store as kept

END = bytes(tarfile.BLOCKSIZE)  # what stands behind the last member


def image_shards(
    root: str,
    label: str = "cls",
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
    """Tar files below `root`, each of the part that its name or its folder tells: train-0000.tar, val/0000.tar.

    Samples are found by number, in the order of the tars' paths and of the members in them: there is no shuffle buffer.
    For what is not said here see `image_folder`.

    Args:
        label: the ending of the member with a picture's class, a number or a name; json.KEY: what a .json holds there.
        classes: their names by number, or all names in order; None: the numbers or names that occur.

    Raises:
        DataError: no tars, one that is cut off, a picture without a label, or one that cannot be read.
    """
    how = Reading(size, range, mean, std, val_fraction, split_seed, memory, workers, store, reader)
    return read(listing(root, label, store, only, classes), how, only)


def listing(
    root: str, label: str = "cls", store: Path | None = None, only: str | None = None, classes: list[str] | None = None
) -> Listing:
    """The pictures that `image_shards` reads; it takes the same, and raises the same."""
    folder = place(root, "dataset.root").absolute()
    origins, found, layout = chosen(folder, [".tar"], only)
    tars = [tar for paths in found.values() for tar in paths]
    loose = Loose(tuple(tars))
    ingredients = {"tars": sha256(loose.facts()), "label": label, "code": files.sha256(Path(__file__))}
    about = {"teacher": "", "dataset": folder.name, "split": "index", "folder": str(folder), "precision": "int64"}
    words = kept.Words(f"indexing {len(tars):,} tar file(s) of {folder.name}", "the index", "free some")
    index = kept.arrays(store, ingredients, about, None, lambda: _indexed(tars, label), words)
    names, labels = (Names(index[key], np.cumsum(index[f"{key}_lengths"])) for key in ("names", "labels"))
    rows, lying = np.arange(len(index["file"])), tuple(map(OnDisk, tars))
    encoded = Ranges(
        lying, index["file"], index["start"], index["size"], names, rows, sha256([*loose.marks(), label.encode()])
    )
    return of_files(folder, origins, found, layout, encoded, [labels[row] for row in rows.tolist()], classes)


class Member(NamedTuple):
    """A file in a tar: its name, where its bytes begin, and how many there are."""

    name: str
    start: int
    size: int

    @property
    def parts(self) -> tuple[str, str]:
        """The key and the ending: what stands before and behind the first dot of its last name."""
        folder, slash, name = self.name.rpartition("/")
        key, _, ending = name.partition(".")
        return f"{folder}{slash}{key}", ending.lower()


def _indexed(tars: Sequence[Path], label: str) -> Iterator[dict[str, np.ndarray]]:
    """The columns of the index, tar by tar."""
    with ui.bar(sum(tar.stat().st_size for tar in tars), "indexing", unit="B") as bar:
        for number, tar in enumerate(tars):
            pictures = list(_pictures(tar, label))
            members, labels = zip(*pictures, strict=True) if pictures else ((), ())
            names, said = Names.of([member.name for member in members]), Names.of(labels)
            yield {
                "file": np.full(len(members), number, np.int32),
                "start": np.array([member.start for member in members], np.int64),
                "size": np.array([member.size for member in members], np.int64),
                "names": names.text,
                "names_lengths": np.diff(names.ends, prepend=0),
                "labels": said.text,
                "labels_lengths": np.diff(said.ends, prepend=0),
            }
            bar.update(tar.stat().st_size)


def _pictures(tar: Path, label: str) -> Iterator[tuple[Member, str]]:
    """The pictures of a tar with the label of each, as text."""
    ending, _, key = label.partition(".")
    try:
        with tarfile.open(tar, "r:") as archive:
            for name, group in groupby(_members(archive), lambda member: member.parts[0]):
                members = {member.parts[1]: member for member in group}
                pictures = [member for kind, member in members.items() if f".{kind}" in SUFFIXES]
                if len(pictures) != 1:
                    raise DataError(
                        f"{tar}: {name} has {len(pictures)} pictures among its members: {', '.join(members)}"
                    )
                if ending not in members:
                    raise DataError(
                        f"{tar}: {pictures[0].name} has no label: there is no {name}.{ending} beside it, but {', '.join(members)}",
                        "dataset.label=ENDING names the member that holds it, or json.KEY what a .json holds",
                    )
                yield pictures[0], _label(archive, members[ending], key, tar)
            end = archive.offset
        with tar.open("rb") as file:
            file.seek(end)
            if file.read(len(END)) != END:
                raise DataError(
                    f"{tar} is cut off, or damaged, behind its byte {end:,}", "fetch it again, or write it again"
                )
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{tar} is no whole tar file: {error}", "fetch it again; a compressed one is unpacked first"
        ) from error


def _members(archive: Any) -> Iterator[Member]:
    for member in archive:
        last = member.name.rpartition("/")[2]
        if member.isfile() and not last.startswith((".", "__")):  # hidden, or WebDataset's own
            yield Member(member.name, member.offset_data, member.size)


def _label(archive: Any, member: Member, key: str, tar: Path) -> str:
    archive.fileobj.seek(member.start)
    text = archive.fileobj.read(member.size).decode(errors="replace").strip()
    if not key:
        return str(text)
    try:
        return str(json.loads(text)[key])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{tar}: {member.name} holds no {key!r}: {text[:80]}", "dataset.label=json.KEY") from error
