"""Objectives on logits (N, K): the labels' own term, soft labels, and distances of the logits themselves.

Here as beside it, an objective is a pure function and a class that names it. Loss arithmetic is fp32 or wider.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.data import UNKNOWN
from distill_cli.objectives.base import LogitObjective
from distill_cli.objectives.checks import on_both, on_student
from distill_cli.tasks.rows import Rows, Signal


def ce(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the student at T = 1 and the labels, averaged over the batch: -mean_n w_n log p_s(y).

    Args:
        student_logits: (N, K). labels: (N,). teacher_logits, temperature: not used.
        label_smoothing: share of the label's mass spread over all classes (Szegedy et al., 2016, arXiv 1512.00567).
        row_weights: (K,), w of a row by its label; of one labelled UNKNOWN w is 0. None: each row has a label and w is 1.

    Raises:
        ValueError: a shape or a label is wrong; so with all functions on logits, and where T is not above 0.
    """
    if row_weights is None:
        return F.cross_entropy(on_student(student_logits, labels, temperature), labels, label_smoothing=label_smoothing)
    known = labels != UNKNOWN
    labels = labels.where(known, 0)
    student = on_student(student_logits, labels, temperature)
    each = F.cross_entropy(student, labels, label_smoothing=label_smoothing, reduction="none")
    return (each * row_weights.to(each)[labels] * known).mean()


def kd(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """T^2 KL(p_t^T || p_s^T) of logits (N, K) at T > 0, summed over classes, averaged over the batch.

    T^2 keeps the gradient's magnitude as T changes. Hinton et al., 2015, arXiv 1503.02531, section 2.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    log_s, log_t = F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def logit_mse(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Squared L2 distance of the logits (N, K), averaged over the batch: mean_n sum_k (z_s - z_t)^2. T is not used.

    Ba & Caruana, 2014, arXiv 1312.6184, equation 1; Kim et al., 2021, arXiv 2105.08919.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    return (student - teacher).square().sum(dim=-1).mean()


def logit_sse(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Squared differences of logits (N, K), summed over classes and batch: sum_n sum_k (z_t - z_s)^2. T is not used."""
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    return (teacher - student).square().sum()


class CE(LogitObjective):
    """Labels only: the label term is the whole loss and the teacher is not asked. There is nothing to weigh it against."""

    formula = "CE"
    function = staticmethod(ce)
    labels_only = by_row = needs_labels = True
    needs_teacher = alpha_weighted = False

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        if (
            student.few is None
            or self.constants.get("label_smoothing")
            or self.constants.get("row_weights") is not None
        ):
            return super().forward(student, teacher, temperature)
        apart = student.parted  # of which soft labels at T = 1 are made too
        return (torch.cat([apart.named, apart.others], -1).logsumexp(-1) - apart.target).mean()


class KD(LogitObjective):
    """Soft labels at temperature T; see `kd`."""

    formula = "T²·KL(teacher‖student)"
    source = "Hinton et al., 2015, arXiv 1503.02531"
    function = staticmethod(kd)
    by_row = uses_T = True
    reads = "mean"


class LogitMSE(LogitObjective):
    """The logits themselves, not softened; see `logit_mse`."""

    formula = "‖z_s-z_t‖²"
    source = "Ba & Caruana, 2014, arXiv 1312.6184"
    function = staticmethod(logit_mse)
    by_row = True


class LogitSSE(LogitObjective):
    """CE + weight * sum of squared logit differences: it stands beside the whole label term; see `logit_sse`."""

    formula = "Σ(z_t-z_s)²"
    source = "the practice loop of tutorials"
    function = staticmethod(logit_sse)
    by_row = summed = True
    alpha_weighted = False

    def __init__(self, weight: float = 0.1, warmup: float = 0.0) -> None:
        super().__init__(weight, warmup)
