"""A language model writes: tokens drawn one after the other behind given beginnings; what becomes of the texts is not in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distill_cli.data.blocks import LanguageSpec
from distill_cli.models import Classifier, evaluating


@dataclass(frozen=True)
class Drawing:
    """How the next token is drawn.

    Args:
        temperature: 0: the likeliest token. top_k: of so many likeliest tokens; None: of all.
        top_p: of the fewest likeliest tokens that have so much of the probability together (Holtzman et al., 2020, arXiv
            1904.09751).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def draw(self, logits: Tensor, chances: Tensor) -> Tensor:
        """The next token of N texts, (N,) int64.

        Args:
            logits: (N, V). chances: above 0 and up to 1, (N,): where the token stands among all, by their probability.
        """
        if not self.temperature:
            return logits.argmax(-1)
        logits, ids = logits.float() / self.temperature, None
        if self.top_k or self.top_p < 1:
            logits, ids = logits.sort(dim=-1, descending=True, stable=True)
        mass = logits.softmax(-1).cumsum(-1)
        if ids is not None:
            last = (mass < self.top_p).sum(-1, keepdim=True).clamp(max=(self.top_k or mass.shape[-1]) - 1)
            mass = mass.minimum(mass.gather(-1, last.clamp(max=mass.shape[-1] - 1)))
        token = torch.searchsorted(mass, chances[:, None] * mass[:, -1:])
        return (token if ids is None else ids.gather(-1, token))[:, 0]


class Reader(Protocol):
    """What a network has read of N texts."""

    def begin(self, texts: Sequence[Tensor]) -> Tensor:
        """The logits (N, V) of what follows N texts, each (B,) int64."""

    def go_on(self, ids: Tensor) -> Tensor:
        """The logits of what follows once each text has one token more, (N,)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the texts alone."""


class Again:
    """Reads each text again from its beginning, as any network can."""

    def __init__(self, model: Classifier) -> None:
        self.model, self.texts = model, list[Tensor]()

    def begin(self, texts: Sequence[Tensor]) -> Tensor:
        self.texts = list(texts)
        spec, head = self.model.spec, self.model.head
        assert isinstance(spec, LanguageSpec)
        answers = self.model(spec.alone(self.texts))
        last = answers[torch.arange(len(texts)), [len(text) - 1 for text in texts]]
        return last if head is None else head(last)

    def go_on(self, ids: Tensor) -> Tensor:
        return self.begin([torch.cat([text, token]) for text, token in zip(self.texts, ids[:, None], strict=True)])

    def keep(self, rows: Tensor) -> None:
        self.texts = [self.texts[row] for row in rows.tolist()]


def write(
    model: Classifier,
    beginnings: Sequence[Tensor],
    rooms: Sequence[int],
    seeds: Sequence[int],
    end: int,
    how: Drawing = Drawing(),
) -> list[Tensor]:
    """What a model in eval mode writes behind N beginnings: the tokens of each, (K,) int64; `end` is the last one, where it came.

    Args:
        beginnings: each (B,) int64, B at least 1. rooms: how many tokens each gets at most. end: the token that ends a text.
        seeds: of each text's own random numbers, so that what it becomes does not depend on those beside it.
    """
    device = next(model.parameters()).device
    draws = [
        1 - torch.rand(room, generator=torch.Generator().manual_seed(s)) for room, s in zip(rooms, seeds, strict=True)
    ]
    chances = pad_sequence(draws, batch_first=True).to(device)
    written, alive = [list[int]() for _ in beginnings], list(range(len(beginnings)))
    with evaluating(model), torch.no_grad():
        own: Callable[[], Reader | None] = getattr(model.net, "reader", lambda: None)
        reader = own() or Again(model)
        logits = reader.begin([text.to(device) for text in beginnings])
        for place in range(max(rooms)):
            ids = how.draw(logits, chances[alive, place])
            for row, token in zip(alive, ids.tolist(), strict=True):
                written[row].append(token)
            going = [at for at, row in enumerate(alive) if written[row][-1] != end and place + 1 < rooms[row]]
            if not going:
                break
            if len(going) < len(alive):
                rows = torch.tensor(going, device=device)
                reader.keep(rows)
                ids, alive = ids[rows], [alive[at] for at in going]
            logits = reader.go_on(ids)
    return [torch.tensor(tokens, device=device) for tokens in written]
