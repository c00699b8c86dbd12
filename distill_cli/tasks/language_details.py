"""What a run's page shows of a language model beyond its summary: how far teacher and student are apart by place and by how often
a token is in train, and the texts in which they part most; measures nothing that the summary holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        """A sample as the page shows it: each token that was asked for with what is known of it, and those before them without."""
        raw = split.source.read([row])
        assert not isinstance(raw, Tensor)
        before = {int(at): values for at, values in zip(place, columns[:, 1:].tolist(), strict=True)}
        shown = _in_order(raw[IDS][0].tolist(), raw[SEGMENTS][0].tolist(), split.targets[row].tolist(), before)
        middle = max((at for at, (_, values) in enumerate(shown) if values), key=lambda at: shown[at][1][0])
        first = max(0, min(middle - WINDOW // 2, len(shown) - WINDOW))
        words = self.data.input.tokenizer  # type: ignore[attr-defined]

        def named(token: int) -> str:
            return pieces(words, [token])[0] or self.data.classes[token]

        def known(values: list[float]) -> list[Any]:
            return [values[0], *([named(int(one)), math.exp(log)] for log, one in (values[1:3], values[3:5]))]

        texts = pieces(words, [token for token, _ in shown])
        return {
            "index": row,
            "kl": mean,
            "rows": len(place),
            "cut": [first > 0, first + WINDOW < len(shown)],
            "tokens": [
                [texts[at], shown[at][1] and known(shown[at][1])]
                for at in range(first, min(first + WINDOW, len(shown)))
            ],
        }


def _in_order(
    ids: list[int], segments: list[int], targets: list[int], before: Mapping[int, list[float]]
) -> list[tuple[int, Any]]:
    """The tokens of a block, each with what is known of it where it was asked for: what ends a document is no token of the block,
    and what follows the last one neither.

    Args:
        before: what is known of the target of each place.
    """
    shown, own = list[tuple[int, Any]](), sum(segment > 0 for segment in segments)
    for at in range(own + 1):
        follows = 0 < at < own and segments[at] == segments[at - 1] and ids[at] == targets[at - 1]
        if at - 1 in before and not follows:
            shown.append((targets[at - 1], before[at - 1]))
        if at < own:
            shown.append((ids[at], before.get(at - 1) if follows else None))
    return shown


def _grouped(kl: Tensor, by: Tensor, groups: list[tuple[int, int]]) -> list[list[float]]:
    """[first, last, mean, half its 95 % interval, how many] of the groups that have rows."""
    made = []
    for first, last in groups:
        inside = kl[(first <= by) & (by <= last)]
        if len(inside):
            half = 1.96 * float(inside.std()) / len(inside) ** 0.5 if len(inside) > 1 else 0.0
            made.append([first, last, float(inside.mean()), half, len(inside)])
    return made
