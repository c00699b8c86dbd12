"""The tokens that a language model reads and writes: bytes, or those of a tokenizer.json; how they are packed is in packing.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.data.tokens import CONFIG, FILE, Tokenizer, named


class Vocabulary(Protocol):
    """A tokenizer with a token that ends a text."""

    @property
    def size(self) -> int:
        """How many tokens there are, V."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens as strings, in the order of their numbers, (V,)."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The same as the `tokenizers` library has it."""

    @property
    def bytes_of(self) -> np.ndarray:
        """How many bytes of a text each token stands for, (V,) int64; special ones for none."""

    @property
    def start(self) -> tuple[int, ...]:
        """The tokens that begin every document; often none."""

    @property
    def end(self) -> int:
        """The token that ends a document."""

    @property
    def pad(self) -> int:
        """The token that fills up a batch."""

    @property
    def digest(self) -> str:
        """What tells it from all others."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text's tokens, (T,), as `dtype_of` has them, without those that begin and end a document."""

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as a text, without the special ones."""

    def write(self, folder: Path) -> None:
        """Write the files from which `read` makes it again."""


def pieces(words: Vocabulary, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text, (T,): a special one its name, one after which a letter is not whole nothing."""
    added, text = list[str](), ""
    for count, number in enumerate(ids, 1):
        longer = words.decode(ids[:count])
        whole = not longer.endswith("\ufffd")
        added.append(longer[len(text) :] if whole else "")
        if whole and longer == text:
            added[-1] = words.tokens[number]
        text = longer if whole else text
    return added


@dataclass(frozen=True)
class Bytes:
    """A text is its bytes in UTF-8, and one token more ends it: 257 tokens, whatever the language."""

    size, start, end, pad, digest = 257, (), 256, 256, "bytes"

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        shown = (chr(byte) if 32 < byte < 127 else f"<0x{byte:02X}>" for byte in range(256))
        return (*shown, "<end>")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Pairs that are never put together, of letters that fall back on their bytes."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        end = {"id": self.end, "content": self.tokens[self.end], "special": True}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        model = {"type": "BPE", "byte_fallback": True, "vocab": numbers, "merges": []}
        decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
        whole = {"version": "1.0", "added_tokens": [end | flags], "model": model, "decoder": decoder}
        return Tokenizer(json.dumps(whole), self.pad)

    @cached_property
    def bytes_of(self) -> np.ndarray:
        return np.array([1] * 256 + [0])

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(number for number in ids if number < 256).decode(errors="replace")

    def write(self, folder: Path) -> None:
        """Nothing: all is in this class."""


@dataclass(frozen=True)
class Subwords:
    """The tokens of a tokenizer.json."""

    tokenizer: Tokenizer
    end: int

    @classmethod
    def read(cls, folder: Path) -> Subwords:
        """The tokenizer of a model's folder.

        Raises:
            CheckpointError: there is none, it is damaged, or nothing names the token that ends a text.
        """
        tokenizer = Tokenizer.read(folder)
        end = named(folder / CONFIG, "eos_token"), named(folder / "config.json", "eos_token_id")
        number = tokenizer.tokens.index(end[0]) if end[0] in tokenizer.tokens else end[1]
        number = number[0] if isinstance(number, list) and number else number
        if not isinstance(number, int) or not 0 <= number < tokenizer.size:
            raise CheckpointError(
                f"{folder}: nothing names the token of {FILE} that ends a text", f'{CONFIG}: {{"eos_token": "TOKEN"}}'
            )
        return cls(tokenizer, number)

    @property
    def size(self) -> int:
        return self.tokenizer.size

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.tokenizer.tokens

    @property
    def pad(self) -> int:
        return self.tokenizer.pad

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.tokenizer.digest} {self.end}".encode()).hexdigest()

    @cached_property
    def start(self) -> tuple[int, ...]:
        around = self.tokenizer.plain([""], special=True)[0]
        return tuple(around[:-1] if around[-1:] == [self.end] else around)

    @cached_property
    def bytes_of(self) -> np.ndarray:
        """By the decoder's kind: of bytes each letter stands for one, otherwise letters are themselves."""
        whole = json.loads(self.tokenizer.json)
        special = {token["id"] for token in whole.get("added_tokens", ()) if token["special"]}
        added = {token["id"] for token in whole.get("added_tokens", ())}
        kinds = set(_kinds(whole.get("decoder")))

        def length(number: int, token: str) -> int:
            if number in special:
                return 0
            if number in added:
                return len(token.encode())
            if "ByteLevel" in kinds:
                return len(token)
            if len(token) == 6 and token.startswith("<0x"):  # of a byte that no other token has
                return 1
            return len(token.removeprefix("##").replace("\u2581", " ").encode())

        return np.array([length(number, token) for number, token in enumerate(self.tokens)])

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(ids, dtype_of(self)) for ids in self.tokenizer.plain(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def write(self, folder: Path) -> None:
        files.write(folder / FILE, self.tokenizer.json)
        named = {"eos_token": self.tokens[self.end], "pad_token": self.tokens[self.pad]}
        files.write(folder / CONFIG, json.dumps({**named, "tokenizer_class": "PreTrainedTokenizerFast"}) + "\n")


def dtype_of(vocabulary: Vocabulary) -> np.dtype[Any]:
    """The smallest type that holds a token's number."""
    return np.dtype("<u2" if vocabulary.size <= 2**16 else "<i4")


def chosen(name: str, model_folder: Callable[[], Path | None]) -> Vocabulary:
    """The vocabulary that dataset.tokenizer names: `bytes`, a folder with a tokenizer.json, or `auto`: that of a model's
    folder, and bytes where it has none.

    Raises:
        CheckpointError: as `Subwords.read`. ConfigError: the name can be no folder's.
    """
    if name == "auto":
        folder = model_folder()
        return Subwords.read(folder) if folder is not None and (folder / FILE).is_file() else Bytes()
    return Bytes() if name == "bytes" else Subwords.read(files.place(name, "dataset.tokenizer"))


def difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """How a model's tokens differ from the data's, in words; "" where they are the same."""
    if tuple(theirs) == tuple(ours):
        return ""
    shared = min(len(theirs), len(ours))
    number = next((number for number in range(shared) if theirs[number] != ours[number]), shared)
    own, other = (repr(names[number]) if number < len(names) else "none" for names in (theirs, ours))
    return (
        f"the model has {len(theirs):,} tokens, the data have {len(ours):,}; the first that differs is number {number}: "
        f"the model's is {own}, the data's {other}"
    )


def _kinds(part: Any) -> Iterator[str]:
    """The types of all parts inside a part of a tokenizer.json."""
    if isinstance(part, dict):
        yield str(part.get("type"))
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _kinds(inner)
