"""Contrastive distillation: tell the two embeddings of one sample from those of different samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.base import world
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.models.features import Shape
from distill_cli.objectives.checks import on_features, require
from distill_cli.objectives.layers import OnFeatures, classifiers_inputs
from distill_cli.objectives.relations import embedded
from distill_cli.tasks.rows import Rows, Signal, wide


def crd(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    negatives: Sequence[tuple[Tensor, Tensor]] | None = None,
    tau: float = 0.07,
) -> Tensor:
    """-log h(s_i, t_i) - sum over j of log(1 - h(s_i, t_j)), averaged over i, plus the same with s and t exchanged; summed over
    layers. h(s, t) = e^(s't/tau) / (e^(s't/tau) + N/M), s and t of length 1, N negatives of M = N + 1 samples.

    Tian et al., 2020 (CRD), arXiv 1910.10699, equations 17-19.

    Args:
        student_features, teacher_features: embeddings (N, D), in pairs of the same D; maps (N, C, H, W) are averaged over
            space, tokens (N, L, D) over L.
        negatives: for each pair, other samples' embeddings by student and teacher, (N', D); None: the others of the batch.
        tau: the temperature of h; the schedule's has no part.
    """
    layers = on_features(student_features, teacher_features)
    pairs = on_features([embedded(s) for s, _ in layers], [embedded(t) for _, t in layers], alike=True)
    if negatives is not None and len(negatives) != len(pairs):
        raise ValueError(f"negatives should be one pair for each of {len(pairs)} layers, got {len(negatives)}")
    total = []
    for place, (s, t) in enumerate(pairs):
        s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
        others, mask = (s, t), ~torch.eye(len(s), dtype=torch.bool, device=s.device)
        if negatives is not None:
            ours, theirs = others = negatives[place]
            if ours.shape != theirs.shape or ours.shape[1:] != s.shape[1:]:
                got = f"{tuple(ours.shape)} and {tuple(theirs.shape)}"
                raise ValueError(f"negatives of layer {place} should be two (N', {s.shape[1]}), got {got}")
            others = (F.normalize(wide(ours), dim=1), F.normalize(wide(theirs), dim=1))
            mask = mask.new_ones(len(s), len(ours))
        counted = mask.sum(1).to(s.dtype)
        odds = (counted.clamp(min=1) / (counted + 1)).log()
        positive = (s * t).sum(1) / tau
        for anchors, rows in ((s, others[1]), (t, others[0])):
            total.append(_told_apart(positive, anchors @ rows.T / tau, mask, odds))
    return torch.stack(total).sum()


def _told_apart(positive: Tensor, negative: Tensor, mask: Tensor, log_odds: Tensor) -> Tensor:
    """Mean over rows of -log h of the positive minus the sum of log(1 - h) of the masked negatives.

    Args:
        positive: (N,), s't/tau. negative, mask: (N, N'). log_odds: (N,), so that h = sigmoid(s't/tau - log_odds).
    """
    log_positive = F.logsigmoid(positive - log_odds)
    log_negative = torch.where(mask, F.logsigmoid(log_odds[:, None] - negative), 0)
    return -(log_positive + log_negative.sum(1)).mean()


class CRD(OnFeatures):
    """Contrast against a memory of all training samples, by their index; see `crd`.

    Linear layers map the inputs of the two classifiers to embeddings of `dim` numbers and length 1. Each model has a memory
    of one row a sample, random at first. After a step uses them, the rows of the batch's samples move:
    m <- normalised (momentum m + (1 - momentum) f). As in the authors' code, N/M of h is multiplied with Z, the mean of
    e^(s't/tau) times M, estimated once on the first batch.

    It differs from the paper and its code in two ways. Negatives are drawn once a step for the whole batch, without those
    of the anchor's class, rather than for each anchor: one matrix product in place of N gathers. And the positive is the
    other model's embedding of the same input, as a constant, rather than the older row of its memory.

    Args:
        student_layer, teacher_layer: module paths, or auto: what the classifier is given, averaged over space.
        num_negatives: drawn a step; where there are no more samples than that, all are taken.
        tau: the temperature of h; the schedule's has no part.
        momentum: share of a memory's row that stays.
        dim: size of the embeddings.
    """

    formula = "-[log h(s,t)+Σlog(1-h(s,t_j))]"
    source = "Tian et al., 2020, arXiv 1910.10699"
    compares = True
    choose = staticmethod(classifiers_inputs)
    needs_labels = True
    labels: Tensor
    student_bank: Tensor
    teacher_bank: Tensor
    log_z: Tensor

    def __init__(
        self,
        weight: float = 0.8,
        warmup: float = 0.0,
        student_layer: str = "auto",
        teacher_layer: str = "auto",
        num_negatives: int = 16384,
        tau: float = 0.07,
        momentum: float = 0.5,
        dim: int = 128,
    ) -> None:
        super().__init__(weight, warmup, student_layer, teacher_layer)
        self.num_negatives = require("num_negatives", num_negatives, ge=1)
        self.dim = require("dim", dim, ge=1)
        self.tau, self.momentum = require("tau", tau, gt=0), require("momentum", momentum, ge=0, lt=1)

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        label, text = super().connect(student, teacher, data)
        return label, f"{text}, memory of {len(data.train):,} x {self.dim}"

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        sizes = [embedded(torch.empty(shape)).shape[1] for shape in layers[0]]
        self.student_embed, self.teacher_embed = (nn.Linear(size, self.dim) for size in sizes)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, F.normalize(torch.randn(len(data.train), self.dim), dim=1))
        # Of Z / M by direction; infinite until the first batch.
        self.register_buffer("log_z", torch.full((2,), math.inf))
        self.register_buffer("labels", data.train.targets, persistent=False)

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        (ours,), (theirs,) = self.taken(student, teacher)
        s = F.normalize(self.student_embed(embedded(ours)), dim=1)
        t = F.normalize(self.teacher_embed(embedded(theirs)), dim=1)
        total, device = len(self.labels), self.labels.device
        if total <= self.num_negatives:
            drawn = torch.arange(total, device=device)
        else:  # from torch's global stream, which is seeded by the step
            drawn = torch.randint(total, (self.num_negatives,)).to(device)
        world.alike([drawn])
        mask = self.labels[drawn] != student.targets[:, None]
        scores = [s @ self.teacher_bank[drawn].T / self.tau, t @ self.student_bank[drawn].T / self.tau]
        log_z = self._log_z(scores)
        log_count = mask.sum(1).clamp(min=1).to(s.dtype).log()
        positives = ((s * t.detach()).sum(1) / self.tau, (t * s.detach()).sum(1) / self.tau)
        terms = [_told_apart(p, n, mask, log_count + z) for p, n, z in zip(positives, scores, log_z, strict=True)]
        if self.training:
            with torch.no_grad():
                for bank, rows in ((self.student_bank, s), (self.teacher_bank, t)):
                    mixed = self.momentum * bank[student.index] + (1 - self.momentum) * rows
                    bank[student.index] = F.normalize(mixed, dim=1)
                self.log_z.copy_(log_z)
        return terms[0] + terms[1]

    @torch.no_grad()
    def _log_z(self, scores: Sequence[Tensor]) -> Tensor:
        """The log of the mean of e^score by direction: the first batch's, which is this one until one is stored."""
        now = torch.stack([each.flatten().logsumexp(0) - math.log(each.numel()) for each in scores])
        return torch.where(self.log_z.isinf(), now, self.log_z)
