"""Signals that hold few of many classes: the likeliest with the mass of the rest, or samples; teachers/keeping.py keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.tasks.parting import LOWEST, parted
from distill_cli.tasks.rows import Head, Rows, wide

COLD = (1.0, 0.75, 0.5, 0.25, 0.125)  # inverse temperatures at which the mass of the rest is kept


class Few:
    """A teacher's probabilities of some classes of each row; all other classes are one event.

    Args:
        ids: (M, E) int64, the classes. logs: (M, E), their log-probabilities at T = 1; LOWEST: a column not used.
        rest: (M, 5), the logs of the sums, over all other classes, of p^b at the inverse temperatures b of COLD; None: they have
            none of the mass. others: how many classes these are.
    """

    features: Mapping[str, Tensor]

    def __init__(
        self, ids: Tensor, logs: Tensor, rest: Tensor | None, others: int, features: Mapping[str, Tensor] | None = None
    ) -> None:
        self.ids, self.logs, self.rest, self.others, self.features = ids, logs, rest, others, features or {}

    def __len__(self) -> int:
        return len(self.ids)

    def answers(self) -> tuple[Tensor, Head | None]:
        self._refuse()

    def logits(self) -> Tensor:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            f"of the teacher's answers {self.ids.shape[1]} classes a row are kept, and all are asked for",
            "teacher.keep=hidden, or teacher.cache=off",
        )

    def numbers(self) -> tuple[Tensor, ...]:
        return (self.ids, self.logs) if self.rest is None else (self.ids, self.logs, self.rest)

    def other(self, numbers: Sequence[Tensor], features: Mapping[str, Tensor] | None = None) -> Few:
        ids, logs, *rest = (values.to(self.ids.device) for values in numbers)
        return Few(ids, logs, rest[0] if rest else None, self.others, features)

    def decided(self) -> Tensor:
        return self.ids.gather(-1, self.logs.argmax(-1, keepdim=True))[:, 0]

    @property
    def few(self) -> Tensor | None:
        return self.ids if self.others else None

    def events(self, student: Rows, T: float) -> tuple[Tensor, Tensor]:
        logits = wide(student.logits())
        if self.others:
            shared = T == 1 and student.few is self.ids
            apart = student.parted if shared else parted(logits if T == 1 else logits / T, self.ids, student.targets)
            named, rest = T * apart.named, T * apart.others
        else:
            named = logits.gather(-1, self.ids)
            rest = torch.full_like(named[:, :1], LOWEST)
        return torch.cat([named.where(self.logs > LOWEST, LOWEST), rest], -1), self._events(T)

    def _events(self, T: float) -> Tensor:
        return torch.cat([self.logs, self.rest_at(T)], -1)

    def share_of_rest(self, T: float) -> Tensor:
        """The probability, at T, of all other classes together, (M,)."""
        return (self._events(T) / T).softmax(-1)[:, -1]

    def rest_at(self, T: float) -> Tensor:
        """T times the log of the others' sum of p^(1/T), (M, 1), for T >= 1: on the polynomial in 1/T through those kept, and
        through the number of others, which it is at 1/T = 0.
        """
        if self.rest is None:
            return torch.full_like(self.logs[:, :1], LOWEST)
        at = [*COLD, 0.0]
        known = torch.cat([self.rest, torch.full_like(self.rest[:, :1], _log(self.others))], -1)
        shares = [math.prod((1 / T - b) / (a - b) for b in at if b != a) for a in at]
        factors = torch.tensor(shares, dtype=known.dtype).to(known.device, non_blocking=True)  # a GPU is not waited for
        return T * (known * factors).sum(-1, keepdim=True)

    def part(self, chunk: slice) -> Few:
        rest = None if self.rest is None else self.rest[chunk]
        return Few(self.ids[chunk], self.logs[chunk], rest, self.others, self.features)


def likeliest(logits: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits (M, C) the `number` likeliest classes, as `Few` takes them: ids, logs and rest."""
    log_p = wide(logits).log_softmax(-1)
    logs, ids = log_p.topk(number, dim=-1)
    others = log_p.scatter(-1, ids, LOWEST)
    rest = torch.stack([(others if b == 1 else others * b).logsumexp(-1) for b in COLD], -1)
    return ids, logs, rest.clamp_(min=LOWEST) if number < logits.shape[-1] else torch.full_like(rest, LOWEST)


def drawn(logits: Tensor, number: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes drawn `number` times from softmax(logits), (M, C), each with the log of its share of the draws, as `Few` takes them:
    the mean of the cross-entropy against them is that against all classes, and so is its gradient's.

    Anshumann et al., 2025, arXiv 2503.16870.
    """
    ids = torch.multinomial(wide(logits).softmax(-1).cpu(), number, replacement=True, generator=draw).to(logits.device)
    same = ids[:, :, None] == ids[:, None, :]
    repeated = same.tril(-1).any(-1)
    return ids, (same.sum(-1) / number).log().masked_fill(repeated, LOWEST)


def _log(number: int) -> float:
    return math.log(number) if number else LOWEST
