"""Objectives on feature maps, layer by layer: hints, attention maps and variational information.

Those that fuse layers are in review.py, those that relate samples in relations.py and contrastive.py.
Adapters are trained and checkpointed with the student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.data import Data
from distill_cli.models.features import Shape
from distill_cli.objectives.checks import on_features, require
from distill_cli.objectives.layers import OnFeatures, Paths, deepest_maps, stages_in_pairs
from distill_cli.tasks.rows import Rows, Signal


def hint(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of feature maps (N, C, H, W), summed over pairs of them; the student's are regressed already.

    Romero et al., 2015 (FitNets), arXiv 1412.6550, equation 3, with a mean in place of half the sum.
    """
    layers = on_features(student_features, teacher_features, alike=True)
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in layers]).sum()


def attention(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Sum over layers of mean (Q_s - Q_t)^2, Q (N, H W) the channel mean of f^2, each row divided by its L2 norm.

    The f are maps (N, C, H, W) in pairs; channels may differ, and where sizes do the larger map is average-pooled to the
    smaller. Zagoruyko & Komodakis, 2017 (AT), arXiv 1612.03928, equation 2 with p = 2, squared and averaged as in their code.
    """
    total = []
    for features in on_features(student_features, teacher_features, maps=True):
        q_s, q_t = (F.normalize(each.square().mean(1).flatten(1), dim=1) for each in same_size(*features))
        total.append(F.mse_loss(q_s, q_t))
    return torch.stack(total).sum()


def vid(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], variances: Sequence[Tensor] | None = None
) -> Tensor:
    """Mean of ((mu - f_t)^2 / v + log v) / 2, summed over layers: the teacher's features as normal around a guess.

    Ahn et al., 2019 (VID), arXiv 1904.05835, equation 5; the variance is one a channel.

    Args:
        student_features: mu(f_s), (N, C, ...), of its pair's shape. teacher_features: (N, C, ...).
        variances: v > 0, (C,), for each pair; None: 5, at which training starts.
    """
    total = []
    layers = on_features(student_features, teacher_features, alike=True)
    if variances is None:
        variances = [mu.new_full((mu.shape[1],), 5.0) for mu, _ in layers]
    if [v.shape for v in variances] != [mu.shape[1:2] for mu, _ in layers]:
        raise ValueError(f"variances should be one (C,) for each layer, got {[tuple(v.shape) for v in variances]}")
    for (mu, theirs), v in zip(layers, variances, strict=True):
        v = v.reshape(-1, *[1] * (mu.dim() - 2))
        total.append(((mu - theirs).square() / v + v.log()).mean() / 2)
    return torch.stack(total).sum()


def same_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (N, C, H, W), the larger one average-pooled to the smaller."""
    if ours.shape[2:] == theirs.shape[2:]:
        return ours, theirs
    height, width = (min(a, b) for a, b in zip(ours.shape[2:], theirs.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(ours, (height, width)), F.adaptive_avg_pool2d(theirs, (height, width))


class Hint(OnFeatures):
    """MSE(r(f_s), f_t) with r a 1x1 convolution and batch normalisation; the larger map is average-pooled to the smaller.

    Args:
        weight: the papers' sums are large and this mean is small, hence 100.
        student_layer, teacher_layer: module paths, or auto: the student's deepest feature map, and the teacher's
            deepest one of the nearest size.
    """

    formula = "‖r(f_s)-f_t‖²/n"
    source = "Romero et al., 2015, arXiv 1412.6550"
    choose = staticmethod(deepest_maps)

    def __init__(
        self, weight: float = 100.0, warmup: float = 0.0, student_layer: str = "auto", teacher_layer: str = "auto"
    ) -> None:
        super().__init__(weight, warmup, student_layer, teacher_layer)

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        (_, ours, *_), (_, theirs, *_) = layers[0]
        self.regressor = nn.Sequential(nn.Conv2d(ours, theirs, 1, bias=False), nn.BatchNorm2d(theirs))

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        (ours,), (theirs,) = self.taken(student, teacher)
        ours, theirs = same_size(ours, theirs)
        return hint([self.regressor(ours)], [theirs])


class Attention(OnFeatures):
    """Where in the picture each layer is active; nothing is added to train. See `attention`.

    Args:
        student_layers, teacher_layers: module paths in pairs, or auto: the ends of stages of like size.
    """

    formula = "Σ‖Q_s-Q_t‖²/n"
    source = "Zagoruyko & Komodakis, 2017, arXiv 1612.03928"
    function = staticmethod(attention)
    choose = staticmethod(stages_in_pairs)
    setting = "layers"

    def __init__(
        self, weight: float = 1e3, warmup: float = 0.0, student_layers: Paths = "auto", teacher_layers: Paths = "auto"
    ) -> None:
        super().__init__(weight, warmup, student_layers, teacher_layers)


class VID(OnFeatures):
    """The teacher's features as normal around mu(f_s), with a variance v = softplus(c) + 1e-5 learnt a channel. See `vid`.

    mu is a 1x1 convolution, batch normalisation, ReLU and a 1x1 convolution; the larger map is average-pooled to the smaller.

    Args:
        student_layers, teacher_layers: module paths in pairs, or auto: the ends of stages of like size.
        variance: v at the start.
    """

    formula = "[(μ(f_s)-f_t)²/v+log v]/2"
    source = "Ahn et al., 2019, arXiv 1904.05835"
    choose = staticmethod(stages_in_pairs)
    setting = "layers"
    smallest = 1e-5

    def __init__(
        self,
        weight: float = 1.0,
        warmup: float = 0.0,
        student_layers: Paths = "auto",
        teacher_layers: Paths = "auto",
        variance: float = 5.0,
    ) -> None:
        super().__init__(weight, warmup, student_layers, teacher_layers)
        self.variance = require("variance", variance, gt=self.smallest)

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        start = self.variance - self.smallest
        c = start + math.log(-math.expm1(-start))  # softplus's inverse
        self.mu = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 1))
            for (_, a, *_), (_, b, *_) in layers
        )
        self.c = nn.ParameterList(torch.full((theirs[1],), c) for _, theirs in layers)

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        maps = [same_size(ours, theirs) for ours, theirs in zip(*self.taken(student, teacher), strict=True)]
        means = [mu(ours) for mu, (ours, _) in zip(self.mu, maps, strict=True)]
        return vid(means, [theirs for _, theirs in maps], [F.softplus(c) + self.smallest for c in self.c])
