"""The beginnings of a language model's samples, and a batch of what a model itself writes behind them; drawing is in writing.py."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.data import IGNORED, UNKNOWN, Batch
from distill_cli.data.blocks import IDS, SEGMENTS, LanguageSpec
from distill_cli.models import Classifier
from distill_cli.models.writing import write

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
