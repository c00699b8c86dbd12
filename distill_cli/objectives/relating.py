"""Objectives on a transformer's attention: how positions of a sample meet, padding left out.

All is computed from what the linear layers of queries, keys and values give, so any implementation of attention will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base.errors import ConfigError
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.models.features import Shape
from distill_cli.models.stack import attention_of
from distill_cli.objectives.checks import on_positions, require
from distill_cli.objectives.layers import Pairs, Side
from distill_cli.objectives.transformer import Layers, OnLayers, mean_over
from distill_cli.tasks.rows import Rows, Signal, wide

FAR = -1e9  # the score of what is not there: its share rounds to 0, and has a logarithm


def attention_map(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    present: Tensor | None = None,
    heads: tuple[int, int] = (1, 1),
    causal: bool = False,
) -> Tensor:
    """Mean of (A_s - A_t)^2 over heads and pairs of positions, summed over layers; A = Q K^T / sqrt(D / heads), no softmax.

    Where numbers of heads differ, means over heads are compared. Jiao et al., 2020 (TinyBERT), arXiv 1909.10351, equation 7.

    Args:
        student_features, teacher_features: queries and keys of each layer in turn, (N, L, D); D may differ.
        present: the positions that count, (N, L) bool; None: all. heads: of student and teacher.
        causal: whether pairs count only where the key is not after the query.
    """
    pairs = on_positions(student_features, teacher_features, present)
    if len(pairs) % 2:
        raise ValueError(f"features should be queries and keys in turn, got {len(pairs)} tensors")
    total = []
    for (q_s, q_t), (k_s, k_t) in zip(pairs[::2], pairs[1::2], strict=True):
        ours, theirs = _scores(q_s, k_s, heads[0]), _scores(q_t, k_t, heads[1])
        if heads[0] != heads[1]:
            ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
        counts = torch.ones_like(ours[:, 0], dtype=torch.bool)
        if present is not None:
            counts = present[:, :, None] & present[:, None, :]
        total.append(mean_over((ours - theirs).square().mean(1), counts.tril() if causal else counts))
    return torch.stack(total).sum()


def relation(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    present: Tensor | None = None,
    heads: int = 1,
) -> Tensor:
    """Mean over heads and positions of KL(R_t || R_s), R = softmax(x x^T / sqrt(D / heads)), summed over the pairs.

    Wang et al., 2021 (MiniLMv2), arXiv 2012.15828, equations 4 to 6.

    Args:
        student_features, teacher_features: queries, keys or values (N, L, D) in pairs; D may differ.
        present: the positions that count, (N, L) bool; None: all. heads: in how many parts each is cut, whatever heads the
            models have.
    """
    total = []
    for pair in on_positions(student_features, teacher_features, present):
        scores = [_scores(each, each, heads) for each in pair]
        if present is not None:
            scores = [each.masked_fill(~present[:, None, None, :], FAR) for each in scores]
        ours, theirs = (F.log_softmax(each, dim=-1) for each in scores)
        apart = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
        total.append(mean_over(apart.mean(1), present))
    return torch.stack(total).sum()


def _scores(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """(N, H, L, L) of queries and keys (N, L, D): their products by head, over the root of a head's width."""
    queries, keys = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (queries, keys))
    return queries @ keys.mT / math.sqrt(queries.shape[-1])


class OnAttention(OnLayers):
    """An objective on queries, keys and values of layers in pairs."""

    takes = 3  # how many of the three, from the first

    def inside(self, ours: Side, theirs: Side, layers: Pairs) -> Pairs:
        self.attention = [
            (
                attention_of(ours.model, ours.shapes, one, "student"),
                attention_of(theirs.model, theirs.shapes, other, "teacher"),
            )
            for one, other in layers
        ]
        self.widths = [
            side.shapes[path][-1] // (3 if one.together else 1)
            for both in self.attention
            for side, one in zip((ours, theirs), both, strict=True)
            for path in one.paths[: self.takes]
        ]
        return [
            pair for both in self.attention for pair in zip(*(each.paths[: self.takes] for each in both), strict=True)
        ]

    def vectors(self, features: Mapping[str, Tensor], whose: int) -> list[Tensor]:
        """Queries, keys and so on of each layer in turn, (N, L, D).

        Args:
            whose: 0 for the student's, 1 for the teacher's.
        """
        found = []
        for both in self.attention:
            one = both[whose]
            given = [wide(features[path]) for path in one.paths[: self.takes]]
            found += [each.chunk(3, -1)[place] for place, each in enumerate(given)] if one.together else given
        return found


class AttentionMap(OnAttention):
    """Attention's scores before the softmax; nothing is added to train. See `attention_map`.

    They are computed once more from queries and keys: one product of them a layer, for which eager attention is not needed.

    Args:
        layers: see `OnLayers`.
    """

    formula = "Σ‖A_s-A_t‖²/n"
    source = "Jiao et al., 2020, arXiv 1909.10351"
    takes = 2

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, layers: Layers = "auto") -> None:
        super().__init__(weight, warmup, layers)

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        label, text = super().connect(student, teacher, data)
        ours, theirs = self.heads
        means = "" if ours == theirs else f", means over {ours} and {theirs} heads"
        return label, f"{text}; queries times keys once more a layer, no eager attention needed{means}"

    @property
    def heads(self) -> tuple[int, int]:
        """Of the student's attention and the teacher's."""
        ours, theirs = self.attention[0]
        return ours.heads, theirs.heads

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        if any(each.turned for each in self.attention[0]):
            raise ConfigError(
                "objective.attention_map: a model turns its queries and keys by their positions after its linear layers, so "
                "its attention is not their product",
                "objective=relation",
            )

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        ours, theirs = self.vectors(student.features, 0), self.vectors(teacher.features, 1)
        causal = any(each.causal for each in self.attention[0])
        return attention_map(ours, theirs, student.present, self.heads, causal)


class Relation(OnAttention):
    """How queries relate to queries, keys to keys and values to values; nothing is added to train. See `relation`.

    Args:
        layers: see `OnLayers`; the paper's teachers of 24 layers teach by one a little above their middle.
        heads: of the relations, whatever heads the models have; auto: as in the paper four times the teacher's, or the most
            by which all widths can be divided too.
    """

    formula = "ΣKL(R_t‖R_s)"
    source = "Wang et al., 2021, arXiv 2012.15828"

    def __init__(
        self, weight: float = 1.0, warmup: float = 0.0, layers: Layers = "last", heads: Literal["auto"] | int = "auto"
    ) -> None:
        super().__init__(weight, warmup, layers)
        self.heads = heads if heads == "auto" else require("heads", heads, ge=1)

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        label, text = super().connect(student, teacher, data)
        return label, f"{text}; {self.heads} relation heads"

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        if self.heads == "auto":
            self.heads = math.gcd(4 * self.attention[0][1].heads, *self.widths)
        elif odd := [width for width in self.widths if width % self.heads]:
            raise ConfigError(f"objective.relation.heads: {self.heads} cannot share out a width of {odd[0]}")

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        assert isinstance(self.heads, int)
        ours, theirs = self.vectors(student.features, 0), self.vectors(teacher.features, 1)
        return relation(ours, theirs, student.present, self.heads)
