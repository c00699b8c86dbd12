"""What a run's page shows of a language model beyond its summary: how far teacher and student are apart by place and by how often
a token is in train, and the texts in which they part most; measures nothing that the summary holds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.data import IGNORED, Data, Split
from distill_cli.data.blocks import IDS, SEGMENTS
from distill_cli.data.vocabulary import pieces
from distill_cli.tasks.rows import AT_ONCE, Rows, Signal, wide

PLACES = 16  # groups of places in a block
TEXTS = 6
WINDOW = 256  # tokens of a text that are shown: those around the one where the two part most
COUNTED = 2**22  # targets of train that are counted at a time


class LanguageDetails:
    """Collects, at T = 1, a few numbers of each row, of which `compute` tells."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self._columns: list[
            Tensor
        ] = []  # (m, 6): sample, KL, and of the teacher's and the student's likeliest token its log-probability and number

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        if signal is None:
            return
        for chunk in rows.chunks(max(1, AT_ONCE // len(self.data.classes))):
            part = rows.part(chunk)
            ours, theirs = (wide(one.logits()).log_softmax(-1) for one in (part, signal.part(chunk)))
            kl = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
            likeliest = [column for log_p in (theirs, ours) for column in log_p.max(-1)]
            self._columns.append(torch.stack([one.cpu().double() for one in (part.index, kl, *likeliest)], -1))

    def compute(self, split: Split) -> dict[str, Any]:
        """A value that JSON can hold.

        places: by groups of places in a block, from 1, and counts: by groups of tokens that are so often a target in train: the
        first and the last of the group, the mean of KL(teacher || student) in nats, half its 95 % interval over rows, and how many
        rows. samples: the six whose mean KL is the largest, largest first, each with the texts that its tokens add, and what is
        known of each: None, or the KL, and the teacher's and the student's likeliest token with its probability.

        Raises:
            DataError: a sample that is read as it goes cannot be.
        """
        columns = torch.cat(self._columns)
        columns = columns[
            columns[:, 0].argsort(stable=True)
        ]  # a sample's rows came together and in order, samples as they lie
        sample, place = (split.targets != IGNORED).cpu().nonzero().T
        kl, target = columns[:, 1], split.targets.cpu()[sample, place].long()
        width = -(-split.targets.shape[1] // PLACES)
        ends = [
            (first + 1, min(first + width, split.targets.shape[1])) for first in range(0, split.targets.shape[1], width)
        ]
        often = self._counts()
        decades = [(0, 0), *((10**n, 10 ** (n + 1) - 1) for n in range(len(str(int(often.max())))))]
        means = torch.zeros(len(split)).double().index_add_(0, sample, kl)
        means /= torch.bincount(sample, minlength=len(split)).clamp(min=1)
        worst = means.argsort(descending=True, stable=True)[:TEXTS].tolist()
        return {
            "split": "test",
            "places": _grouped(kl, place + 1, ends),
            "counts": _grouped(kl, often[target], decades),
            "samples": [
                self._sample(split, row, float(means[row]), columns[sample == row], place[sample == row])
                for row in worst
            ],
        }

    def _counts(self) -> Tensor:
        """How often each token is a target in train, (V,)."""
        targets, number = self.data.train.targets, len(self.data.classes)
        at_once = max(1, COUNTED // targets.shape[1])
        parts = (part[part != IGNORED].long() for part in targets.split(at_once))
        return sum(
            (torch.bincount(part, minlength=number).cpu() for part in parts), torch.zeros(number, dtype=torch.int64)
        )

    def _sample(self, split: Split, row: int, mean: float, columns: Tensor, place: Tensor) -> dict[str, Any]:
        """A sample as the page shows it: what is known of a token stands at the place before it."""
        raw = split.source.read([row])
        assert not isinstance(raw, Tensor)
        ids = raw[IDS][raw[SEGMENTS] > 0].tolist()
        after = {int(at) + 1: values for at, values in zip(place, columns[:, 1:].tolist(), strict=True)}
        middle = max(after, key=lambda at: after[at][0])
        first = max(0, min(middle - WINDOW // 2, len(ids) - WINDOW))
        words, tokens = self.data.input.tokenizer, list[list[Any]]()  # type: ignore[attr-defined]
        texts = pieces(words, ids)

        def named(token: int) -> str:
            return pieces(words, [token])[0] or self.data.classes[token]

        for at in range(first, min(first + WINDOW, len(ids))):
            values = after.get(at)
            said = values and [
                values[0],
                *([named(int(one)), math.exp(log)] for log, one in (values[1:3], values[3:5])),
            ]
            tokens.append([texts[at], said])
        return {
            "index": row,
            "kl": mean,
            "rows": len(place),
            "cut": [first > 0, first + WINDOW < len(ids)],
            "tokens": tokens,
        }


def _grouped(kl: Tensor, by: Tensor, groups: list[tuple[int, int]]) -> list[list[float]]:
    """[first, last, mean, half its 95 % interval, how many] of the groups that have rows."""
    made = []
    for first, last in groups:
        inside = kl[(first <= by) & (by <= last)]
        if len(inside):
            half = 1.96 * float(inside.std()) / len(inside) ** 0.5 if len(inside) > 1 else 0.0
            made.append([first, last, float(inside.mean()), half, len(inside)])
    return made
