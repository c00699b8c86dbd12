"""The beginnings of a language model's samples, and a batch of what a model itself writes behind them; drawing is in writing.py."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from distill_cli.base import runtime, ui
from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import Predict
from distill_cli.data import IGNORED, UNKNOWN, Batch, Split
from distill_cli.data.blocks import IDS, SEGMENTS, Blocks, LanguageSpec
from distill_cli.data.vocabulary import Vocabulary
from distill_cli.models import Classifier, inference
from distill_cli.models.features import Output
from distill_cli.models.writing import Drawing, write
from distill_cli.tasks.answers import OfSamples
from distill_cli.tasks.rows import Rows
from distill_cli.tasks.watchers import Facts

READ = 32  # tokens of a document that are its beginning, where it has no prompt


def beginnings(batch: Batch, number: int = READ) -> Iterator[list[Tensor]]:
    """For each sample of a batch, the beginnings of its documents, or of the parts of them that it holds, each (B,) int64.

    That is the prompt, where more than one token is not asked for before the first that is, else the first `number` tokens.
    """
    assert not isinstance(batch.inputs, Tensor)
    ids, segments = batch.inputs[IDS], batch.inputs[SEGMENTS]
    asked = batch.targets[:, : ids.shape[1]] != IGNORED
    for row in range(len(batch)):
        found = []
        for segment in range(1, int(segments[row].max()) + 1):
            own = segments[row] == segment
            if (wanted := asked[row][own]).any():
                before = int(wanted.int().argmax())
                found.append(ids[row][own][: before + 1 if before else number])
        yield found


class Continuing:
    """Makes batches of what a model writes behind the beginnings of others; see `Task.continuing`."""

    def __init__(self, spec: LanguageSpec) -> None:
        self.spec = spec

    def __call__(self, model: Classifier, batch: Batch, seed: int) -> Batch:
        """A batch of as many texts: behind the beginning of one document of each sample, drawn, what the model writes up to the
        token that ends a text, or to a block's length. Each token that it wrote is a row.
        """
        length, draw = self.spec.length, torch.Generator().manual_seed(seed)
        chosen = [
            those[int(torch.randint(len(those), (), generator=draw))]
            for those in beginnings(batch, min(READ, length // 2))
        ]
        rooms = [length + 1 - len(text) for text in chosen]  # a text's last token is asked for and never read
        seeds = [runtime.seed_of("text", seed, row) for row in range(len(chosen))]
        written = write(model, chosen, rooms, seeds, self.spec.tokenizer.end)
        texts = [torch.cat(parts) for parts in zip(chosen, written, strict=True)]
        inputs = self.spec.alone([text[:-1] for text in texts])
        targets = torch.full_like(inputs[IDS], IGNORED)
        for row, (start, text) in enumerate(zip(chosen, texts, strict=True)):
            targets[row, len(start) - 1 : len(text) - 1] = UNKNOWN
        return Batch(inputs, targets, batch.index, made=True)


def behind(words: Vocabulary, start: Tensor, made: Tensor) -> tuple[str, str, bool]:
    """A beginning and what was written behind it as texts, and whether its end was written.

    They are decoded together: a letter may be of tokens of both, and some tokenizers leave out the space that a text begins with.
    """
    ended = len(made) > 0 and bool(made[-1] == words.end)
    before, whole = (words.decode(ids.tolist()) for ids in (start, torch.cat([start, made[: len(made) - ended]])))
    shared = os.path.commonprefix([before, whole])  # noqa: RUF071 - letter by letter is what is meant
    return shared, whole[len(shared) :], ended


class Written:
    """How likely each text is, a token, and what a language model writes behind its prompt or, where it has none, behind all of
    it; see `watchers.Replies`.

    Args:
        rows: of a batch, see `Task.rows`. how: `max_tokens`, `temperature` and `seed` are read.
    """

    head = ("tokens", "nll", "perplexity", "continuation")
    columns = ("tokens", "nll", "perplexity", "error", "continuation", "ended")

    def __init__(self, spec: LanguageSpec, rows: Callable[[Output, Batch], Rows], how: Predict) -> None:
        self.spec, self.rows, self.how = spec, rows, how
        self.keys = ("max_tokens", "temperature", *(["seed"] if how.temperature else []))
        self.number = self.tokens = 0
        self.nll, self.told = 0.0, False

    def of(self, model: Classifier, split: Split, size: int) -> Iterator[tuple[int, Facts]]:
        blocks = split.source
        assert isinstance(blocks, Blocks)
        answers, documents = OfSamples("tokens", self.spec.tokenizer.size, both=False), blocks.corpus.documents
        for batch, output in inference.outputs(model, split, size):
            answers.update(self.rows(output, batch))
        sums, text_of = np.zeros((len(documents.start), 2)), blocks.texts
        for block, (count, nll) in answers.table():
            sums[text_of[block]] += count, count * nll
        starts = self._starts(model, blocks)
        for first in range(0, len(starts), size):
            some = starts[first : first + size]
            for place, (start, made) in enumerate(zip(some, self._written(model, some), strict=True), first):
                _, text, ended = behind(self.spec.tokenizer, start, made)
                count, nll = sums[place].tolist()
                yield place, self._facts(int(count), nll, text, ended)

    def _starts(self, model: Classifier, blocks: Blocks) -> list[Tensor]:
        """What is read of each text before it is gone on with: no more than leaves the model positions for that."""
        positions, tokens = getattr(model.net, "max_length", None), self.how.max_tokens
        room = None if positions is None else positions + 1 - tokens  # the last token is never read
        if room is not None and room < 1:
            raise ConfigError(f"max_tokens={tokens}: the student has {positions} positions", f"max_tokens={positions}")
        starts = []
        for begin, end, prompt in zip(*blocks.corpus.documents, strict=True):
            ids = blocks.corpus.ids[begin : begin + prompt if prompt else end].astype(np.int64)
            if room is not None and len(ids) > room and tokens and not self.told:
                ui.warn(f"a text has {len(ids):,} tokens, and the student {positions:,} positions: of such a text the last "
                        f"{room:,} tokens are read before it is gone on with")  # fmt: skip
                self.told = True
            read = torch.from_numpy(ids[-room:] if room else ids)
            starts.append(read if len(read) else torch.tensor([self.spec.tokenizer.end]))
        return starts

    def _written(self, model: Classifier, starts: Sequence[Tensor]) -> list[Tensor]:
        """What the model writes behind some beginnings; each text has random numbers of its own, by its place among all."""
        if not self.how.max_tokens:
            return [start[:0] for start in starts]
        seeds = [runtime.seed_of("predict", self.how.seed, self.number + place) for place in range(len(starts))]
        rooms, how = [self.how.max_tokens] * len(starts), Drawing(self.how.temperature)
        return [made.cpu() for made in write(model, starts, rooms, seeds, self.spec.tokenizer.end, how)]

    def _facts(self, tokens: int, nll: float, text: str, ended: bool) -> Facts:
        self.number, self.tokens, self.nll = self.number + 1, self.tokens + tokens, self.nll + nll
        mean = nll / tokens if tokens else None
        score = {"tokens": tokens, "nll": mean, "perplexity": None if mean is None else _perplexity(mean)}
        return {**score, "continuation": text, "ended": ended}

    def cells(self, facts: Facts) -> Facts:
        return {name: "" if value is None else value for name, value in facts.items()}

    def shown(self, facts: Facts) -> list[str]:
        scores = ["-", "-"] if facts["nll"] is None else [f"{facts['nll']:.4f}", f"{facts['perplexity']:.4g}"]
        return [str(facts["tokens"]), *scores, facts["continuation"]]

    def total(self) -> tuple[Sequence[str], list[list[str]]]:
        mean = self.nll / max(1, self.tokens)
        return ["texts", "tokens", "nll", "perplexity"], [
            [f"{self.number:,}", f"{self.tokens:,}", f"{mean:.4f}", f"{_perplexity(mean):.4g}"]
        ]


def _perplexity(nll: float) -> float:
    return math.exp(min(nll, 700.0))
