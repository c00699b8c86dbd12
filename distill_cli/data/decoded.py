"""What was read from a folder's picture files, kept under the outputs for the next run; how it is read is not known here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import StorageError
from distill_cli.data import picture_files
from distill_cli.runs import store

ARRAY = "pictures"
WORTH = 1000  # pictures; fewer are read as quickly as what is kept of them is found and checked


@dataclass(frozen=True)
class Decoded:
    """What the picture files below `folder` hold, decoded once by whichever run comes first, while others wait.

    It is found again by the folder, by every file's name, size and times of change, by the code that reads them and by
    the shape that is wanted; a file that changed in any way is read anew with all of its part.

    Args:
        root: where it is kept; None: nowhere.
    """

    root: Path | None
    folder: Path

    def array(
        self, part: str, paths: Sequence[Path], wanted: store.Array, read: Callable[[], Iterable[np.ndarray]]
    ) -> np.ndarray:
        """What `read` gives of the files at `paths`, block by block, as one array of the `wanted` shape.

        Where it cannot be kept it is read without, and a line says why.

        Args:
            part: which of the folder's parts this is, for people.
        """

        def blocks() -> Iterator[dict[str, np.ndarray]]:
            with ui.bar(len(paths), f"reading {part}") as bar:
                for block in read():
                    yield {ARRAY: block}
                    bar.update(len(block))

        def unkept() -> np.ndarray:
            return np.concatenate([block[ARRAY] for block in blocks()])

        if self.root is None or len(paths) < WORTH:
            return unkept()
        ingredients = {
            "folder": str(self.folder),
            "files": self._listing(paths),
            "shape": list(wanted.shape),
            "dtype": wanted.dtype,
            "code": [files.sha256(Path(picture_files.__file__)), f"pillow {version('pillow')}"],
        }
        about = {"teacher": "", "dataset": self.folder.name, "split": part, "folder": str(self.folder)}
        about["precision"] = np.dtype(wanted.dtype).name
        words = store.Words(f"reading {self.folder.name}, {part}", "the pictures", "leave them where they are")
        try:
            return store.arrays(self.root, ingredients, about, {ARRAY: wanted}, blocks, words)[ARRAY]
        except (StorageError, OSError) as error:
            ui.say(f"cache: {str(error).splitlines()[0]}; {self.folder.name}, {part}, is read without being kept")
            return unkept()

    def _listing(self, paths: Sequence[Path]) -> str:
        """SHA-256 of every file's name, size and times. The time of its last change in any way, `ctime`, cannot be set,
        so another file under the old one's name and time is not taken for it.
        """
        content = hashlib.sha256()
        for path in paths:
            stat = path.stat()
            facts = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            content.update(f"{facts}\n".encode(errors="surrogateescape"))
        return content.hexdigest()
