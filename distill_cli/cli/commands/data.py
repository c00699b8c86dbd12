"""Pack a data set of pictures into one file, which is mapped where it is read: runs start and read faster.

usage: distill data pack dataset=NAME dataset.root=PATH out=FILE.pack [size=N] [key=value ...] [options]

  distill data pack dataset.root=photos out=photos.pack             an image folder
  distill data pack dataset.root=photos out=photos.pack size=256    shorter sides of 256 pixels at most
  distill data pack dataset.root=photos out=photos.pack workers=4   read by four processes
  distill train dataset=image_folder dataset.root=photos.pack       and train on it

Packed are all pictures of train, val and test, each as it is or resized once, with labels, classes and what is known of each
picture before it is decoded. The file is whole or not there: a killed command is typed again and starts again.
"""

from __future__ import annotations

import inspect
import time
from pathlib import Path

from distill_cli.base import files, ui
from distill_cli.base.errors import ConfigError
from distill_cli.base.names import size
from distill_cli.config import building
from distill_cli.config.schema import Pack


def run(settings: Pack) -> Path:
    """Write the pack; returns its path.

    Raises:
        ConfigError: no file to write, one that is there, or a data set whose pictures are not encoded. DataError: as its reader
            says. StorageError: no room.
    """
    if settings.out is None:
        raise ConfigError("out: where is the pack to go?", "out=photos.pack")
    path = files.place(settings.out, "out").absolute()
    if path.suffix != ".pack":
        raise ConfigError(f"out: {path} should end in .pack", f"out={path.name}.pack")
    if path.exists():
        raise ConfigError(f"out: {path} is there already", "another out=, or remove it")
    from distill_cli.data import pack  # torch takes its time to import
    from distill_cli.data.listing import Listing

    node, started = dict(settings.dataset.node), time.perf_counter()
    node["_target_"] = f"{node['_target_'].rpartition('.')[0]}.listing"
    try:
        takes = inspect.signature(building.check({"_target_": node["_target_"]}, Listing, "dataset")).parameters
    except ConfigError as error:
        raise ConfigError(
            f"dataset={settings.dataset.name}: its pictures are not encoded files, so there is nothing to pack",
            "dataset=image_folder dataset.root=FOLDER",
        ) from error
    node = {key: value for key, value in node.items() if key in takes or key == "_target_"}
    found = building.build(node, Listing, "dataset", labels=settings.dataset.labels)
    if found.layout.unread:
        (ui.say if found.layout.harmless else ui.warn)(f"not read: {found.layout.unread}")
    written = pack.write(path, found, settings.size, settings.workers)
    parts = ", ".join(f"{name} {len(labels):,}" for name, (_, labels) in found.files.items())
    told = [
        *found.layout.remarks,
        *([] if settings.size is None else [f"shorter sides of {settings.size} pixels at most"]),
    ]
    ui.show("; ".join([f"{parts}, of {len(found.classes):,} classes", *told]))
    ui.show(f"{path}: {size(written)}, in {time.perf_counter() - started:,.1f} s")
    return path
