"""Texts as a source of samples, and what a model gets to see of them: tokens, padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Source, by_length, sha256
from distill_cli.data.spec import Spec
from distill_cli.data.tokens import FILE, SPECIAL, VOCABULARY, Shipped, Text, Tokenizer, Tokens
from distill_cli.runs import store

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"  # as the models of transformers call them
SHORT = 16  # tokens of a text whose cost is measured, beside one as long as texts may be
KEPT = 1000  # texts; the tokens of fewer are made as quickly as what is kept of them is checked


@dataclass(frozen=True)
class TextSpec(Spec):
    """Texts, or pairs of them, as a tokenizer cuts them.

    Args:
        max_length: tokens of a sample at most; what is beyond them is cut off. pair: whether a sample is two texts.
    """

    tokenizer: Tokenizer
    max_length: int
    pair: bool = False
    kind, unit = "texts", "texts"

    def words(self) -> str:
        return f"up to {self.max_length} tokens of {self.tokenizer.size:,}"

    def example(self, number: int, device: torch.device | None = None) -> Inputs:
        return self._drawn(number, min(8, self.max_length), device)

    def _drawn(self, number: int, length: int, device: torch.device | None) -> Inputs:
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(self.tokenizer.size, (number, length), generator=draw).to(device)
        return self._named(ids, torch.ones_like(ids), torch.zeros_like(ids))

    def single(self, device: torch.device) -> dict[str, Inputs]:
        lengths = sorted({min(SHORT, self.max_length), self.max_length})
        return {f"{length} tokens": self._drawn(1, length, device) for length in lengths}

    def arguments(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.size, "pad_token_id": self.tokenizer.pad, "max_length": self.max_length}

    def of(self, net: nn.Module) -> TextSpec:
        """The same texts as the tokens of a network that brings its own tokenizer.

        Raises:
            ConfigError: they may be longer than it has positions, or have numbers beyond its table.
        """
        tokenizer, longest = getattr(net, "tokenizer", None), getattr(net, "max_length", None)
        if longest is not None and self.max_length > longest:
            raise ConfigError(
                f"dataset.max_length={self.max_length}: the model has {longest} positions",
                f"dataset.max_length={longest}",
            )
        size, table = (tokenizer or self.tokenizer).size, getattr(net, "table", None)
        if table is not None and size > table:
            raise ConfigError(
                f"the tokenizer numbers {size:,} tokens, but the model's table has {table:,}",
                "give it the tokenizer it was trained with, or a table as large: vocab_size=null",
            )
        return self if tokenizer is None else replace(self, tokenizer=tokenizer)

    def fed(self, own: Spec) -> Spec:
        """Its own: the data are then cut into tokens for it."""
        return own

    def reads(self, source: Source) -> Source:
        return replace(source, spec=self) if isinstance(source, Texts) else source

    def reading(self) -> dict[str, Any]:
        return {"max_length": self.max_length}

    def inputs(self, raw: Inputs) -> Inputs:
        return raw

    def present(self, inputs: Inputs) -> Tensor:
        assert not isinstance(inputs, Tensor)
        return inputs[MASK].bool()

    def shown(self, raw: Inputs) -> dict[str, str]:
        assert not isinstance(raw, Tensor)
        return {"text": self.tokenizer.decode(raw[IDS][0].tolist())}

    def check(self, other: Spec | Mapping[str, Any]) -> None:
        if not isinstance(other, Mapping) and not (isinstance(other, TextSpec) and other.pair == self.pair):
            kind = "pairs of texts" if self.pair else "texts"
            raise CheckpointError(f"the model takes {kind}, the data are {other.kind}")

    def as_card(self) -> dict[str, Any]:
        return {
            "_target_": f"{__name__}.TextSpec",
            "max_length": self.max_length,
            "pair": self.pair,
            "tokenizer": {"file": FILE, "pad": self.tokenizer.pad, "sha256": self.tokenizer.digest},
        }

    def shipped(self, classes: Sequence[str]) -> Shipped:
        """This spec as a folder of transformers tells it, of a model with these classes."""
        names, pad = dict(enumerate(classes)), self.tokenizer.pad
        config = {"id2label": names, "label2id": {name: number for number, name in names.items()}, "pad_token_id": pad}
        return Shipped(self.tokenizer, {"pad_token": self.tokenizer.token(pad)}, config)

    def told(self) -> str:
        return f"token ids by tokenizer.json, at most {self.max_length}, padded with {self.tokenizer.pad}"

    def write(self, folder: Path) -> None:
        """Write what the card names."""
        (folder / FILE).write_text(self.tokenizer.json, encoding="utf-8")

    @classmethod
    def read(cls, stored: Mapping[str, Any], folder: Path) -> TextSpec:
        """The spec that `as_card` and `write` left.

        Raises:
            CheckpointError: the tokenizer is missing, or is another.
        """
        path = folder / FILE
        try:
            tokenizer = Tokenizer(path.read_text(encoding="utf-8"), int(stored["tokenizer"]["pad"]))
            spec = cls(tokenizer, int(stored["max_length"]), bool(stored["pair"]))
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} holds no {FILE}, the tokenizer of its model") from error
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}: its card's description of the input is damaged") from error
        if tokenizer.digest != stored["tokenizer"].get("sha256"):
            raise CheckpointError(f"{path} is not the tokenizer that its model was trained with")
        return spec

    def _named(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Inputs:
        named = {IDS: ids, MASK: mask}
        return {**named, KINDS: kinds} if self.pair else named


def made_from(texts: Sequence[Text], home: Path | None) -> Tokenizer:
    """A tokenizer of the words of some texts, from the folder in which it is kept where they are many."""

    def made() -> dict[str, np.ndarray]:
        json = Tokenizer.made_from(" ".join(text) for text in texts).json
        return {"json": np.frombuffer(json.encode(), np.uint8)[None]}

    if home is None or len(texts) < KEPT:
        kept = made()
    else:
        ingredients = {"words of": _digest(texts), "tokens": VOCABULARY, "code": f"tokenizers {version('tokenizers')}"}
        kept = _arrays(home, ingredients, len(texts), "making a tokenizer from", made)
    return Tokenizer(kept["json"].tobytes().decode(), SPECIAL.index("[PAD]"))


def _digest(texts: Sequence[Text]) -> str:
    return sha256(repr(text).encode() for text in texts)


def _arrays(
    home: Path, ingredients: Mapping[str, Any], number: int, doing: str, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What is kept of so many texts, made now if it is not there."""
    words = store.Words(f"{doing} {number:,} texts", "what is kept of texts", "free some")
    about = {"teacher": "", "dataset": "texts", "split": f"{number:,} texts", "precision": "int32"}
    return store.arrays(home, ingredients, about, None, lambda: [make()], words)


@dataclass(frozen=True)
class Texts(Source):
    """Texts, whose tokens are made when the first of them is read.

    Args:
        texts: of each sample one text, or two. names: what to call each in a message. bucket: so many batches of an epoch are
            sorted by length together; 0: none. home: a folder in which tokens are kept for other runs.
    """

    texts: Sequence[Text]
    names: Sequence[str]
    spec: TextSpec
    bucket: int = 0
    home: Path | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Texts:
        return replace(self, texts=[self.texts[row] for row in rows], names=[self.names[row] for row in rows])

    def digest(self) -> str:
        return _digest(self.texts)

    def name_of(self, row: int) -> str:
        return self.names[row]

    def columns(self, row: int) -> dict[str, str]:
        text = self.texts[row]
        return {"text": text[0]} if len(text) == 1 else {"text_1": text[0], "text_2": text[1]}

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens of all texts, from the folder in which they are kept where they are many."""
        spec = self.spec
        if self.home is None or len(self) < KEPT:
            return spec.tokenizer.encode(self.texts, spec.max_length)
        ingredients = {
            "texts": self.digest(),
            "tokenizer": spec.tokenizer.digest,
            "max_length": spec.max_length,
            "code": f"tokenizers {version('tokenizers')}",
        }

        def made() -> dict[str, np.ndarray]:
            tokens = spec.tokenizer.encode(self.texts, spec.max_length)
            return {"starts": tokens.starts, "ids": tokens.ids, "kinds": tokens.kinds, "cut": np.array([tokens.cut])}

        kept = _arrays(self.home, ingredients, len(self), "making tokens of", made)
        return Tokens(kept["ids"], kept["kinds"], kept["starts"], int(kept["cut"][0]))

    @cached_property
    def lengths(self) -> Tensor:
        """How many tokens each sample has, (N,) int64."""
        return torch.from_numpy(np.diff(self.tokens.starts))

    def read(self, rows: Sequence[int]) -> Inputs:
        ids, kinds, starts, _ = self.tokens
        first, lengths = starts[list(rows)], self.lengths[list(rows)].numpy()
        place = np.arange(lengths.max())
        mask = place < lengths[:, None]
        where = np.where(mask, first[:, None] + place, 0)
        padded = np.where(mask, ids[where], self.spec.tokenizer.pad).astype(np.int64)
        made = (
            torch.from_numpy(values)
            for values in (padded, mask.astype(np.int64), (kinds[where] * mask).astype(np.int64))
        )
        return self.spec._named(*made)

    def arranged(self, order: Tensor, batch_size: int, draw: torch.Generator | None = None) -> Tensor:
        return by_length(order, self.lengths, batch_size, self.bucket, draw) if self.bucket else order
