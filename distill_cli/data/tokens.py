"""Tokenizers, and texts as the numbers of their tokens; where texts come from stands in text.py."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_cli.base.errors import CheckpointError, ConfigError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads of its own would not survive a fork
FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 8000  # tokens at most of a tokenizer that is made from texts

Text = tuple[str, ...]  # a sample: one text, or a pair of them


class Shipped(NamedTuple):
    """What a folder of transformers says of the texts that its model takes.

    Attributes:
        special: tokens by what the library calls them. config: of the model, what is not of the network itself.
    """

    tokenizer: Tokenizer
    special: dict[str, str]
    config: dict[str, Any]


class Tokens(NamedTuple):
    """Texts as tokens, one text's after the other's: `ids` and `kinds` (T,), and where each text begins, (N + 1,)."""

    ids: np.ndarray
    kinds: np.ndarray
    starts: np.ndarray
    cut: int  # how many texts were longer than they may be


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer of the `tokenizers` library.

    Args:
        json: the whole of it, as that library writes it. pad: the number of the token that fills up a batch.
    """

    json: str
    pad: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that it does."""
        return hashlib.sha256(f"{self.pad} {self.json}".encode()).hexdigest()

    @cached_property
    def _made(self) -> Any:
        made = _library().Tokenizer.from_str(self.json)
        made.no_padding()
        return made

    @property
    def size(self) -> int:
        """One more than the largest number of a token."""
        return 1 + max(self._made.get_vocab(with_added_tokens=True).values())

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """All tokens in the order of their numbers; a number that no token has is called by itself."""
        names = {number: token for token, number in self._made.get_vocab(with_added_tokens=True).items()}
        return tuple(names.get(number, f"<no token {number}>") for number in range(self.size))

    def encode(self, texts: Sequence[Text], max_length: int) -> Tokens:
        """The tokens of some texts, each cut to `max_length` of them."""
        self._made.enable_truncation(max_length)
        samples = [text[0] if len(text) == 1 else text for text in texts]
        encodings = self._made.encode_batch(samples)
        ids, kinds = ([getattr(encoding, name) for encoding in encodings] for name in ("ids", "type_ids"))
        return Tokens(
            np.array(list(itertools.chain.from_iterable(ids)), np.int32),
            np.array(list(itertools.chain.from_iterable(kinds)), np.int8),
            np.cumsum([0, *map(len, ids)], dtype=np.int64),
            sum(bool(encoding.overflowing) for encoding in encodings),
        )

    def plain(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """The tokens of some texts, none cut; `special`: with those that the tokenizer sets around a text."""
        self._made.no_truncation()
        return [encoding.ids for encoding in self._made.encode_batch_fast(list(texts), add_special_tokens=special)]

    def token(self, number: int) -> str:
        """A token as the tokenizer writes it."""
        token: str = self._made.id_to_token(number)
        return token

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as a text, without the special ones."""
        text: str = self._made.decode(list(ids))
        return text

    @classmethod
    def read(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a model's folder, which holds a tokenizer.json.

        Raises:
            CheckpointError: it holds none, or one that cannot be read.
        """
        path = folder / FILE
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder.absolute()}, in which a {FILE} would be")
        if not path.is_file():
            raise CheckpointError(
                f"{folder} holds no {FILE}",
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}) writes one",
            )
        text = path.read_text(encoding="utf-8")
        try:
            made = _library().Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare exceptions
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return cls(text, _pad(made, folder))

    @classmethod
    def made_from(cls, texts: Iterable[str], size: int = VOCABULARY) -> Tokenizer:
        """Word pieces: every letter of some texts, and their commonest words, which are what a rarer word is cut into.

        The library's own trainers give another vocabulary every time; this one depends on the texts alone.
        """
        lib = _library()
        normal, cut = lib.normalizers.BertNormalizer(lowercase=True), lib.pre_tokenizers.BertPreTokenizer()
        counts = Counter(word for text in texts for word, _ in cut.pre_tokenize_str(normal.normalize_str(text)))
        letters = sorted({letter for word in counts for letter in word})
        pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
        words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
        pieces += [word for word in words if counts[word] > 1][: max(0, size - len(pieces))]
        numbers = {piece: number for number, piece in enumerate(pieces)}
        made = lib.Tokenizer(lib.models.WordPiece(numbers, unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer, made.decoder = normal, cut, lib.decoders.WordPiece()
        made.add_special_tokens(list(SPECIAL))
        ends = [(name, numbers[name]) for name in ("[CLS]", "[SEP]")]
        made.post_processor = lib.processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
        return cls(made.to_str(), numbers["[PAD]"])


def _pad(made: Any, folder: Path) -> int:
    """The number that fills up: the padding token's, else the one that ends a text; masks are by length, never by it."""
    if made.padding:
        return int(made.padding["pad_id"])
    tokens = (named(folder / CONFIG, key) for key in ("pad_token", "eos_token"))
    numbers = [made.token_to_id(token) for token in tokens if isinstance(token, str)]
    return next((int(number) for number in numbers if number is not None), 0)


def named(file: Path, key: str) -> Any:
    """What a JSON file of a model's folder says under a key: of a token its text; None where it says nothing.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8")).get(key) if file.is_file() else None
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    return value.get("content") if isinstance(value, dict) else value


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.processors
    except ImportError as error:
        raise ConfigError("texts need the package tokenizers", 'pip install "distill-cli[text]"') from error
    return tokenizers
