"""Files that are too large to be read whole before they are used: SHA-256 by block, checked when a block is first touched."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 2**16  # bytes: few enough that a sample read at random does not wait for its neighbours
DIGEST = 32  # bytes


class Hashing:
    """Hashes bytes by block as they are written."""

    def __init__(self) -> None:
        self._sums, self._rest = bytearray(), bytearray()

    def update(self, data: bytes | memoryview) -> None:
        self._rest += data
        whole = len(self._rest) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self._sums += hashlib.sha256(self._rest[start : start + BLOCK]).digest()
        del self._rest[:whole]

    def sums(self) -> np.ndarray:
        """The digest of each block, (blocks, 32) uint8; the last block may be shorter."""
        last = hashlib.sha256(self._rest).digest() if self._rest else b""
        return np.frombuffer(bytes(self._sums) + last, np.uint8).reshape(-1, DIGEST)


class Watched:
    """Bytes of a file, mapped; no block of them is given before it was compared with its digest.

    What was compared is shared with the processes forked from this one, so each block is read for it once.

    Args:
        begin, size: which bytes; all places are counted from `begin`. sums: as `Hashing` has them. damaged: makes the error of
            a block that is not what was written, from its number.
    """

    def __init__(
        self, path: Path, begin: int, size: int, sums: np.ndarray, damaged: Callable[[int], Exception]
    ) -> None:
        self.path, self.begin, self.size, self.sums, self.damaged = path, begin, size, sums, damaged

    @cached_property
    def content(self) -> np.ndarray:
        """All bytes, (size,) uint8, not compared with anything."""
        return np.memmap(self.path, np.uint8, "r", self.begin, (self.size,)).view(np.ndarray)

    @cached_property
    def _checked(self) -> np.ndarray:
        return np.frombuffer(mmap.mmap(-1, max(1, len(self.sums))), np.uint8)

    def check(self, start: int, stop: int) -> None:
        """Compare the blocks that some bytes lie in, unless that was done."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if not self._checked[block]:
                content = self.content[block * BLOCK : (block + 1) * BLOCK]
                if hashlib.sha256(content.data).digest() != self.sums[block].tobytes():
                    raise self.damaged(block)
                self._checked[block] = 1

    def check_rows(self, rows: np.ndarray | None, begin: int, each: int) -> None:
        """Compare the blocks of rows (n,) of `each` bytes, which begin at `begin`; None: of all."""
        if rows is None:
            self.check(0, self.size)
            return
        first, last = (begin + rows * each) // BLOCK, (begin + (rows + 1) * each - 1) // BLOCK
        for further in range(int((last - first).max(initial=-1)) + 1):
            blocks = np.minimum(first + further, last)
            for block in np.unique(blocks[self._checked[blocks] == 0]).tolist():
                self.check(block * BLOCK, block * BLOCK + 1)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Some bytes, (stop - start,) uint8."""
        self.check(start, stop)
        return self.content[start:stop]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is mapped: another process maps it anew."""
        return {key: value for key, value in vars(self).items() if key not in ("content", "_checked")}
