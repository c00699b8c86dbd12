"""Blocks of tokens as a source of samples, and what a language model gets to see of them; which documents share one: packing.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from distill_cli.base.errors import LOWER, CheckpointError, ConfigError
from distill_cli.base.names import fingerprint
from distill_cli.data.corpus import SMALL, Corpus
from distill_cli.data.inputs import Inputs
from distill_cli.data.labels import IGNORED
from distill_cli.data.packing import Layout, Places, ranges
from distill_cli.data.source import Source, by_length, sha256
from distill_cli.data.spec import Spec
from distill_cli.data.tokens import Shipped
from distill_cli.data.vocabulary import Bytes, Subwords, Vocabulary, difference
from distill_cli.runs import store

IDS, POSITIONS, SEGMENTS = "input_ids", "position_ids", "segments"
AT_ONCE = 2048  # tokens that a model answers together where nobody says
WORKED = 2**18  # tokens whose targets are worked out at a time
BUCKET = 64  # batches that are sorted by length together where samples differ in length


@dataclass(frozen=True)
class LanguageSpec(Spec):
    """Blocks of tokens.

    Args:
        length: tokens of a block at most.
    """

    tokenizer: Vocabulary
    length: int
    kind, unit = "texts", "tokens"
    lower = f"{LOWER}, a shorter dataset.length, or rows_at_once=64"

    @property
    def at_once(self) -> int:
        return max(1, AT_ONCE // self.length)

    def words(self) -> str:
        return f"{self.length} tokens of {self.tokenizer.size:,}"

    def example(self, number: int, device: torch.device | None = None) -> Inputs:
        return self._random(number, min(8, self.length), device)

    def single(self, device: torch.device) -> dict[str, Inputs]:
        return {f"{self.length:,} tokens": self._random(1, self.length, device)}

    def units(self, inputs: Inputs) -> int:
        return int(self.present(inputs).sum())

    def _random(self, number: int, length: int, device: torch.device | None) -> Inputs:
        draw, shape = torch.Generator().manual_seed(0), (number, length)
        ids = torch.randint(self.tokenizer.size, shape, generator=draw)
        inputs = {IDS: ids, POSITIONS: torch.arange(shape[1]).expand(shape), SEGMENTS: torch.ones_like(ids)}
        return {name: values.to(device) for name, values in inputs.items()}

    def alone(self, texts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The inputs of N texts, each (K,) int64 and a block of its own, filled up behind it."""
        sizes = torch.tensor([len(text) for text in texts], device=texts[0].device)
        ids = pad_sequence(list(texts), batch_first=True, padding_value=self.tokenizer.pad)
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        own = places < sizes[:, None]
        return {IDS: ids, POSITIONS: places * own, SEGMENTS: own.long()}

    def arguments(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.size, "pad_token_id": self.tokenizer.pad, "head": "tokens"}

    def of(self, net: nn.Module) -> LanguageSpec:
        """This spec, if the network reads the same tokens and has a position for each."""
        theirs, longest = getattr(net, "tokenizer", None), getattr(net, "max_length", None)
        if theirs is not None and (told := difference(theirs.tokens, self.tokenizer.tokens)):
            raise ConfigError(
                told, "dataset.tokenizer=DIR, the folder of that model; all models of a run read the same tokens"
            )
        if longest is not None and self.length > longest:
            raise ConfigError(
                f"dataset.length={self.length}: the model has {longest} positions", f"dataset.length={longest}"
            )
        return self

    def inputs(self, raw: Inputs) -> Inputs:
        return raw

    def present(self, inputs: Inputs) -> Tensor:
        assert not isinstance(inputs, Tensor)
        return inputs[SEGMENTS] > 0

    def shown(self, raw: Inputs) -> dict[str, str]:
        assert not isinstance(raw, Tensor)
        return {"text": self.tokenizer.decode(raw[IDS][raw[SEGMENTS] > 0].tolist())}

    def check(self, other: Spec | Mapping[str, Any]) -> None:
        if isinstance(other, Mapping):
            return
        if not isinstance(other, LanguageSpec):
            raise CheckpointError(
                f"the model takes tokens of a language model, the data are {other.kind} of {other.words()}"
            )
        if told := difference(self.tokenizer.tokens, other.tokenizer.tokens):
            raise CheckpointError(told)

    def as_card(self) -> dict[str, Any]:
        return {"_target_": f"{__name__}.LanguageSpec", "length": self.length, "tokenizer": self.tokenizer.digest}

    def shipped(self, classes: Sequence[str]) -> Shipped:
        """This spec as a folder of transformers tells it."""
        words = self.tokenizer
        numbers = {"bos": words.start[0] if words.start else None, "eos": words.end, "pad": words.pad}
        named = {kind: number for kind, number in numbers.items() if number is not None}
        special = {f"{kind}_token": words.tokens[number] for kind, number in named.items()}
        config = {"use_cache": True, **{f"{kind}_token_id": number for kind, number in numbers.items()}}
        return Shipped(words.tokenizer, special, config)

    def write(self, folder: Path) -> None:
        self.tokenizer.write(folder)

    @classmethod
    def read(cls, stored: Mapping[str, Any], folder: Path) -> LanguageSpec:
        """The spec that `as_card` and `write` left.

        Raises:
            CheckpointError: the tokenizer is missing, or is another.
        """
        try:
            length, digest = int(stored["length"]), stored["tokenizer"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}: its card's description of the input is damaged") from error
        tokenizer = Bytes() if digest == Bytes.digest else Subwords.read(folder)
        if tokenizer.digest != digest:
            raise CheckpointError(f"{folder} holds another tokenizer than its model was trained with")
        return cls(tokenizer, length)


@dataclass(frozen=True, eq=False)
class Blocks(Source):
    """Blocks of tokens, put together when they are read.

    Args:
        layout: what of the corpus each block holds.
        width: of a block; None: of the longest of those that are read together.
        joined: whether a block is one text, whatever documents are in it.
    """

    corpus: Corpus
    layout: Layout
    spec: LanguageSpec
    width: int | None
    joined: bool

    def __len__(self) -> int:
        return len(self.layout.first) - 1

    def take(self, rows: np.ndarray) -> Blocks:
        return replace(self, layout=self.layout.take(rows))

    def digest(self) -> str:
        laid = sha256(np.ascontiguousarray(values).data for values in self.layout[:5])
        return fingerprint([self.corpus.digest, laid, self.width, self.joined])

    @property
    def texts(self) -> np.ndarray:
        """Which document of the corpus each block begins with, (N,) int64."""
        begins = self.layout.start[self.layout.first[:-1]]
        return np.searchsorted(self.corpus.documents.start, begins, side="right") - 1

    def name_of(self, row: int) -> str:
        return self.corpus.name_at(int(self.layout.start[self.layout.first[row]]))

    @cached_property
    def lengths(self) -> Tensor:
        """How many tokens each block holds, (N,) int64."""
        ends = np.append(0, np.cumsum(self.layout.size))
        return torch.from_numpy(np.diff(ends[self.layout.first]))

    def arranged(self, order: Tensor, batch_size: int, draw: torch.Generator | None = None) -> Tensor:
        return order if self.width else by_length(order, self.lengths, batch_size, BUCKET, draw)

    def read(self, rows: Sequence[int]) -> Inputs:
        at = self._places(np.array(list(rows)))
        shape = len(rows), self.width or int(at.place.max()) + 1
        values = {
            IDS: (self.spec.tokenizer.pad, self.corpus.ids[at.source]),
            POSITIONS: (0, at.place if self.joined else at.offset),
            SEGMENTS: (0, 1 if self.joined else at.segment),
        }
        made = {name: np.full(shape, empty, np.int64) for name, (empty, _) in values.items()}
        for name, (_, filled) in values.items():
            made[name][at.row, at.place] = filled
        return {name: torch.from_numpy(each) for name, each in made.items()}

    def targets(self, home: Path | None) -> Tensor:
        """The token that follows each, (N, length) int32; IGNORED where none is asked for.

        Args:
            home: a folder in which they are kept for other runs, mapped from there, where they are many.
        """
        shape, at_once = (len(self), self.spec.length), max(1, WORKED // self.spec.length)

        def compute() -> Iterator[dict[str, np.ndarray]]:
            for begin in range(0, len(self), at_once):
                at = self._places(np.arange(begin, min(begin + at_once, len(self))))
                asked = (self.layout.low[at.window] <= at.offset) & (at.offset < self.layout.high[at.window])
                made = np.full((min(at_once, len(self) - begin), shape[1]), IGNORED, np.int32)
                made[at.row[asked], at.place[asked]] = self.corpus.ids[at.source[asked] + 1]
                yield {"targets": made}

        if not len(self):
            return torch.empty(shape, dtype=torch.int32)
        about = {"teacher": "", "dataset": "tokens", "split": f"{len(self):,} blocks", "precision": "int32"}
        words = store.Words(f"laying out {len(self):,} blocks of tokens", "the targets", "free some")
        home, wanted = home if math.prod(shape) >= SMALL else None, {"targets": store.Array(shape, "<i4")}
        return torch.from_numpy(
            store.arrays(home, {"targets": self.digest()}, about, wanted, compute, words)["targets"]
        )

    def _places(self, rows: np.ndarray) -> Places:
        """Where the tokens of some blocks go."""
        first = self.layout.first
        counts = first[rows + 1] - first[rows]  # of windows
        windows, begin = ranges(first[rows], counts), np.cumsum(counts) - counts
        size = self.layout.size[windows]
        before = np.cumsum(size) - size
        offset, window = ranges(np.zeros_like(size), size), np.repeat(np.arange(len(windows)), size)
        row = np.repeat(np.arange(len(rows)), counts)
        place = (before - before[begin][row])[window] + offset
        source = self.layout.start[windows][window] + offset
        segment = (np.arange(len(windows)) - begin[row] + 1)[window]
        return Places(row[window], place, source, offset, windows[window], segment)
