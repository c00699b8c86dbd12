"""Knowledge review: a student's shallow layers learn from the teacher's with the help of its deep ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.data import Data
from distill_cli.models.features import Shape
from distill_cli.objectives.checks import on_features, require
from distill_cli.objectives.features import same_size
from distill_cli.objectives.layers import OnFeatures, Paths, stages_in_pairs
from distill_cli.tasks.rows import Rows, Signal

SCALES = (4, 2, 1)  # pixels to a side


def review(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of maps at their own size and pooled to 4, 2 and 1 pixels, summed over pairs of them.

    Maps (N, C, H, W) come in pairs of one shape, the student's fused already. Each scale weighs half the one before, 1, 1/2,
    1/4, 1/8, and the weights are divided by their sum; scales no smaller than the map are left out.
    Chen et al., 2021 (ReviewKD), arXiv 2104.09044, section 3.3, the hierarchical context loss.
    """
    total = []
    for ours, theirs in on_features(student_features, teacher_features, maps=True, alike=True):
        terms, weights = [F.mse_loss(ours, theirs)], [1.0]
        for side in SCALES:
            if side < min(ours.shape[2:]):
                terms.append(F.mse_loss(F.adaptive_avg_pool2d(ours, side), F.adaptive_avg_pool2d(theirs, side)))
                weights.append(weights[-1] / 2)
        total.append(torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum() / sum(weights))
    return torch.stack(total).sum()


class Review(OnFeatures):
    """The student's maps, fused from the deepest to the shallowest, against the teacher's. See `review`.

    Args:
        warmup: the paper's 20 of 240 epochs.
        student_layers, teacher_layers: module paths in pairs, shallow ones first, or auto: the ends of stages of like size.
        mid_channels: the most channels that maps are fused in; it is not more than the deepest map has.
    """

    formula = "HCL(ABF(f_s),f_t)"
    source = "Chen et al., 2021, arXiv 2104.09044"
    choose = staticmethod(stages_in_pairs)
    setting = "layers"

    def __init__(
        self,
        weight: float = 5.0,
        warmup: float = 0.083,
        student_layers: Paths = "auto",
        teacher_layers: Paths = "auto",
        mid_channels: int = 512,
    ) -> None:
        super().__init__(weight, warmup, student_layers, teacher_layers)
        self.mid_channels = require("mid_channels", mid_channels, ge=1)

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        channels = [(ours[1], theirs[1]) for ours, theirs in layers]
        mid, deepest = min(self.mid_channels, channels[-1][0]), len(channels) - 1
        self.fusions = nn.ModuleList(Fusion(a, mid, b, number < deepest) for number, (a, b) in enumerate(channels))

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        maps, theirs = self.taken(student, teacher)
        fused: list[Tensor] = []
        residual: Tensor | None = None
        for fusion, features in zip(reversed(self.fusions), reversed(maps), strict=True):
            residual, output = fusion(features, residual)
            fused.insert(0, output)
        sized = [same_size(a, b) for a, b in zip(fused, theirs, strict=True)]
        return review([a for a, _ in sized], [b for _, b in sized])


class Fusion(nn.Module):
    """The student's map and the fusion of the deeper ones, weighed pixel by pixel: the paper's ABF, figure 3.

    Args:
        before, mid, after: channels of the student's map, of the fusion, and of the teacher's map.
        deeper: whether there is a deeper map.
    """

    def __init__(self, before: int, mid: int, after: int, deeper: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(before, mid, 1, bias=False), nn.BatchNorm2d(mid))
        self.attend = nn.Sequential(nn.Conv2d(2 * mid, 2, 1), nn.Sigmoid()) if deeper else None
        self.leave = nn.Sequential(nn.Conv2d(mid, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))

    def forward(self, features: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, before, H, W) and (N, mid, ...) -> the residual of shallower maps (N, mid, H, W), and (N, after, H, W)."""
        mixed = self.enter(features)
        if self.attend is not None and residual is not None:
            residual = F.interpolate(residual, mixed.shape[2:], mode="nearest")
            share = self.attend(torch.cat([mixed, residual], dim=1))
            mixed = mixed * share[:, :1] + residual * share[:, 1:]
        return mixed, self.leave(mixed)
