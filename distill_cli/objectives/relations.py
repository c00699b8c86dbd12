"""Objectives on how a batch's samples lie to each other; student and teacher may differ in all but the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.objectives.checks import on_features, require
from distill_cli.objectives.layers import OnFeatures, classifiers_inputs, deepest_maps_or_inputs


def similarity(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Sum over layers of |G_s - G_t|^2 / N^2, G (N, N) the Gram matrix of flattened features, each row divided by its L2 norm.

    The norm is Frobenius'. Features (N, ...) come in pairs; all but N may differ. The value depends on how batches are cut.
    Tung & Mori, 2019 (SP), arXiv 1907.09682, equations 1-4.
    """
    total = []
    for features in on_features(student_features, teacher_features):
        ours, theirs = (F.normalize(rows @ rows.T, dim=1) for rows in (each.flatten(1) for each in features))
        total.append((ours - theirs).square().mean())
    return torch.stack(total).sum()


def rkd(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Tensor:
    """distance_weight * l(d_s, d_t) + angle_weight * l(a_s, a_t), l the smooth L1 loss, averaged; summed over layers.

    d (N, N) are the distances of all pairs over the mean of those that are not 0; a (N, N, N) are the cosines of the angles
    that two samples make at a third, 0 where samples coincide. The value depends on how batches are cut.
    Park et al., 2019 (RKD), arXiv 1904.05068, equations 3-8; the means are over all pairs and triplets.

    Args:
        student_features, teacher_features: embeddings (N, D), in pairs; D may differ. Maps (N, C, H, W) are averaged over
            space, tokens (N, L, D) over L.
    """
    total = []
    for features in on_features(student_features, teacher_features):
        (d_s, a_s), (d_t, a_t) = (_relations(embedded(each)) for each in features)
        total.append(distance_weight * F.smooth_l1_loss(d_s, d_t) + angle_weight * F.smooth_l1_loss(a_s, a_t))
    return torch.stack(total).sum()


def _relations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`rkd`'s d and a of embeddings (N, D). A root's gradient at 0 does not exist, so none is taken there."""
    difference = rows[None] - rows[:, None]
    square = difference.square().sum(2)
    apart = square > 0
    distance = torch.where(apart, square, 1).sqrt()
    unit = difference / distance[..., None]
    distance = torch.where(apart, distance, 0)
    mean = distance.sum() / apart.sum().clamp(min=1)
    return distance / torch.where(apart.any(), mean, 1), unit @ unit.mT


def embedded(features: Tensor) -> Tensor:
    """(N, D) as it is; maps (N, C, H, W) averaged over space, tokens (N, L, D) over L."""
    if features.dim() == 3:
        return features.mean(1)
    return features.flatten(2).mean(2) if features.dim() > 2 else features


class Similarity(OnFeatures):
    """Which samples of a batch excite the same features; nothing is added to train. See `similarity`.

    Args:
        student_layer, teacher_layer: module paths, or auto: the deepest feature map; of a model that has none, what its
            classifier is given.
    """

    formula = "‖G_s-G_t‖²/N²"
    source = "Tung & Mori, 2019, arXiv 1907.09682"
    compares = True
    function = staticmethod(similarity)
    choose = staticmethod(deepest_maps_or_inputs)

    def __init__(
        self, weight: float = 3000.0, warmup: float = 0.0, student_layer: str = "auto", teacher_layer: str = "auto"
    ) -> None:
        super().__init__(weight, warmup, student_layer, teacher_layer)


class RKD(OnFeatures):
    """Distances and angles between a batch's embeddings; nothing is added to train. See `rkd`.

    Args:
        student_layer, teacher_layer: module paths, or auto: what the classifier is given, averaged over space.
        distance_weight, angle_weight: weights of the two parts.
    """

    formula = "[a·ℓ(d_s,d_t)+b·ℓ(∠_s,∠_t)]"
    source = "Park et al., 2019, arXiv 1904.05068"
    compares = True
    function = staticmethod(rkd)
    choose = staticmethod(classifiers_inputs)

    def __init__(
        self,
        weight: float = 1.0,
        warmup: float = 0.0,
        student_layer: str = "auto",
        teacher_layer: str = "auto",
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(weight, warmup, student_layer, teacher_layer)
        self.constants["distance_weight"] = require("distance_weight", distance_weight, ge=0)
        self.constants["angle_weight"] = require("angle_weight", angle_weight, ge=0)
