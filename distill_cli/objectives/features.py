"""Objectives on feature maps taken by hook; their adapters are trained and checkpointed with the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.data import Batch, Data
from distill_cli.models import Classifier
from distill_cli.models.features import Output, deepest_map, feature_map, shapes
from distill_cli.objectives.base import Objective, wide


def hint(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of feature maps, summed over pairs of them.

    Romero et al., 2015 (FitNets), arXiv 1412.6550, equation 3, with a mean in place of half the sum.

    Args:
        student_features, teacher_features: maps (N, C, H, W), in pairs of the same shape; the student's regressed already.
    """
    pairs = zip(student_features, teacher_features, strict=True)
    return torch.stack([F.mse_loss(wide(ours), wide(theirs)) for ours, theirs in pairs]).sum()


class Hint(Objective):
    """MSE(r(f_s), f_t) with r a 1x1 convolution and batch normalisation; the larger map is average-pooled to the smaller.

    Args:
        weight: the papers' sums are large and this mean is small, hence 100.
        student_layer, teacher_layer: module paths, or auto: the student's deepest feature map, and the teacher's
            deepest one of the nearest size.
    """

    formula = "‖r(f_s)-f_t‖²/n"
    source = "Romero et al., 2015, arXiv 1412.6550"

    def __init__(
        self, weight: float = 100.0, warmup: float = 0.0, student_layer: str = "auto", teacher_layer: str = "auto"
    ) -> None:
        super().__init__(weight, warmup)
        self.student_layer, self.teacher_layer = student_layer, teacher_layer

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        ours, theirs = shapes(student, data.input), shapes(teacher, data.input)
        if self.student_layer == "auto":
            self.student_layer = deepest_map(ours)
        source = feature_map(ours, self.student_layer, "objective.hint.student_layer")
        if self.teacher_layer == "auto":
            self.teacher_layer = deepest_map(theirs, near=source[2])
        target = feature_map(theirs, self.teacher_layer, "objective.hint.teacher_layer")
        self.regressor = nn.Sequential(nn.Conv2d(source[1], target[1], 1, bias=False), nn.BatchNorm2d(target[1]))
        sizes = [f"{path} {shape[1]}x{shape[2]}x{shape[3]}" for path, shape in
                 ((self.student_layer, source), (self.teacher_layer, target))]  # fmt: skip
        return "hint", f"student {sizes[0]} → teacher {sizes[1]}"

    @property
    def student_layers(self) -> tuple[str, ...]:
        return (self.student_layer,)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        return (self.teacher_layer,)

    def forward(self, student: Output, teacher: Output, batch: Batch, temperature: float) -> Tensor:
        ours, theirs = student.features[self.student_layer], teacher.features[self.teacher_layer]
        height, width = (min(a, b) for a, b in zip(ours.shape[2:], theirs.shape[2:], strict=True))
        ours, theirs = (F.adaptive_avg_pool2d(maps, (height, width)) for maps in (ours, theirs))
        return hint([self.regressor(wide(ours))], [theirs])
