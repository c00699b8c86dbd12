"""Objectives on what a transformer's layers give, with padding left out; those on its attention are in relating.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.base.errors import ConfigError
from distill_cli.data import Data
from distill_cli.models.features import Shape
from distill_cli.models.stack import embedded_by, evenly, layers_of
from distill_cli.objectives.checks import on_positions
from distill_cli.objectives.layers import OnFeatures, Pairs, Side
from distill_cli.tasks.rows import Rows, Signal, wide

Layers = Literal["auto", "last"] | list[list[int]]


def hidden(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    present: Tensor | None = None,
    distance: Literal["mse", "cosine"] = "mse",
) -> Tensor:
    """Mean over positions of |h_s - h_t|^2 / D, or of 1 - cos(h_s, h_t), summed over layers.

    Jiao et al., 2020 (TinyBERT), arXiv 1909.10351, equations 8 and 9; with cosine Sanh et al., 2019 (DistilBERT), arXiv
    1910.01108, section 2, and half of Sun et al., 2019 (Patient-KD), arXiv 1908.09355, equation 7.

    Args:
        student_features, teacher_features: (N, L, D) in pairs of one shape, the student's projected already.
        present: the positions that count, (N, L) bool; None: all.
    """
    total = []
    for ours, theirs in on_positions(student_features, teacher_features, present, alike=True):
        alike = distance == "cosine"
        apart = 1 - F.cosine_similarity(ours, theirs, dim=-1) if alike else (ours - theirs).square().mean(-1)
        total.append(mean_over(apart, present))
    return torch.stack(total).sum()


def mean_over(values: Tensor, counts: Tensor | None) -> Tensor:
    """Their mean, a scalar; with `counts`, bools of their shape, over those that count alone."""
    return values.mean() if counts is None else torch.where(counts, values, 0).sum() / counts.sum()


class OnLayers(OnFeatures):
    """An objective on the layers of two transformers, in pairs.

    Args:
        layers: which of the student's learns from which of the teacher's: auto, evenly spaced with the last among them; last;
            or pairs of their numbers from 0.
    """

    def __init__(self, weight: float, warmup: float, layers: Layers) -> None:
        super().__init__(weight, warmup, "auto", "auto")
        if not layers or (not isinstance(layers, str) and any(len(pair) != 2 or min(pair) < 0 for pair in layers)):
            raise ConfigError(f"layers: should be auto, last or pairs of numbers such as [[0,1],[1,3]], got {layers}")
        self.layers = layers

    def choose(self, ours: Side, theirs: Side) -> Pairs:
        student, teacher = (layers_of(s.model, s.shapes, who) for s, who in ((ours, "student"), (theirs, "teacher")))
        few = min(len(student), len(teacher))
        numbers = list(zip(evenly(few, len(student)), evenly(few, len(teacher)), strict=True))
        if not isinstance(self.layers, str):
            numbers = [(pair[0], pair[1]) for pair in self.layers]
        elif self.layers == "last":
            numbers = numbers[-1:]
        for pair in numbers:
            for number, stack, who in zip(pair, (student, teacher), ("student", "teacher"), strict=True):
                if number >= len(stack):
                    raise ConfigError(
                        f"objective.{self.name}.layers: the {who} has layers 0 to {len(stack) - 1}, not {number}"
                    )
        layers = [(student[one], teacher[other]) for one, other in numbers]
        (_, here, _), (_, there, _) = ours.shapes[layers[0][0]], theirs.shapes[layers[0][1]]
        if here != there:
            raise ConfigError(
                f"objective.{self.name}: the student has {here} positions, the teacher {there}: they do not pair"
            )
        return self.inside(ours, theirs, layers)

    def inside(self, ours: Side, theirs: Side, layers: Pairs) -> Pairs:
        """The modules to compare, of pairs of layers."""
        return layers


class Hidden(OnLayers):
    """What layers give; a linear layer brings the student's to the teacher's width where they differ. See `hidden`.

    Args:
        layers: see `OnLayers`. distance: mse or cosine. positions: all, or the first alone, which classifiers of BERT's kind read.
    """

    formula = "Σd(W·h_s,h_t)"
    source = "Jiao et al., 2020, arXiv 1909.10351"

    def __init__(
        self,
        weight: float = 1.0,
        warmup: float = 0.0,
        layers: Layers = "auto",
        distance: Literal["mse", "cosine"] = "mse",
        positions: Literal["all", "first"] = "all",
    ) -> None:
        super().__init__(weight, warmup, layers)
        self.distance, self.first = distance, positions == "first"

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        widths = [(ours[-1], theirs[-1]) for ours, theirs in layers]
        self.project = nn.ModuleList(nn.Linear(a, b) if a != b else nn.Identity() for a, b in widths)

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        given = zip(self.project, self.student_layers, strict=True)
        ours = [project(wide(student.features[path])) for project, path in given]
        theirs = [teacher.features[path] for path in self.teacher_layers]
        if self.first:
            return hidden([each[:, :1] for each in ours], [each[:, :1] for each in theirs], None, self.distance)
        return hidden(ours, theirs, student.present, self.distance)


class Embedding(Hidden):
    """What the first layer is given; a linear layer brings the student's to the teacher's width where they differ."""

    formula = "‖W·e_s-e_t‖²/n"

    def __init__(self, weight: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__(weight, warmup, [[0, 0]])

    def inside(self, ours: Side, theirs: Side, layers: Pairs) -> Pairs:
        ((first, other),) = layers
        return [(embedded_by(ours.shapes, first, "student"), embedded_by(theirs.shapes, other, "teacher"))]
