"""What was read from a folder's picture files, kept under the outputs for the next run; how it is read is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import StorageError
from distill_cli.data import fast, picture_files
from distill_cli.data.encoded import Encoded
from distill_cli.data.loading import BLOCK
from distill_cli.data.picture_files import Range
from distill_cli.data.source import sha256
from distill_cli.runs import store

ARRAY = "pictures"
WORTH = 1000  # pictures; fewer are read as quickly as what is kept of them is found and checked


@dataclass(frozen=True)
class Decoded:
    """What the pictures below `folder` hold, decoded once by whichever run comes first, while others wait.

    It is found again by the folder, by the facts of every picture, by the code that reads them and by the shape that is
    wanted; where one changed in any way all of its part is read anew.

    Args:
        root: where it is kept; None: nowhere. range, reader: as `Pictures` takes them.
    """

    root: Path | None
    folder: Path
    range: Range | None = None
    reader: str = "pil"

    def array(
        self, part: str, encoded: Encoded, wanted: store.Array, read: Callable[[int], Iterable[np.ndarray]]
    ) -> np.ndarray:
        """What `read` gives of some pictures after so many blocks, block by block, as one array of the `wanted` shape.

        Where it cannot be kept it is read without, and a line says why.
        """

        def blocks(there: int = 0) -> Iterator[dict[str, np.ndarray]]:
            with ui.bar(len(encoded), f"reading {part}", min(there * BLOCK, len(encoded))) as bar:
                for block in read(there):
                    yield {ARRAY: block}
                    bar.update(len(block))

        if self.root is not None and len(encoded) >= WORTH:
            ingredients = {
                "folder": str(self.folder),
                "files": sha256(encoded.facts()),
                "shape": list(wanted.shape),
                "dtype": wanted.dtype,
                "range": self.range,
                "code": [files.sha256(Path(picture_files.__file__)), f"pillow {version('pillow')}"],
            }
            if self.reader != "pil":
                by = [files.sha256(Path(fast.__file__)), f"torchvision {version('torchvision')}"]
                ingredients |= {"reader": [self.reader, *by]}
            about = {"teacher": "", "dataset": self.folder.name, "split": part, "folder": str(self.folder)}
            about["precision"] = np.dtype(wanted.dtype).name
            words = store.Words(f"reading {self.folder.name}, {part}", "the pictures", "leave them where they are")
            try:
                return store.arrays(self.root, ingredients, about, {ARRAY: wanted}, blocks, words, blocks)[ARRAY]
            except (StorageError, OSError) as error:
                ui.say(f"cache: {str(error).splitlines()[0]}; {self.folder.name}, {part}, is read without being kept")
        return np.concatenate([block[ARRAY] for block in blocks()])
