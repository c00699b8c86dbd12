"""Objectives on logits: pure functions of (N, K) tensors, each with its thin class. Loss arithmetic is fp32 or wider."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distill_cli.objectives.base import Objective
from distill_cli.tasks.rows import Rows, Signal, wide


def ce(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of the student at T = 1 and the labels, averaged over the batch: -mean_n log p_s(y).

    Args:
        student_logits: (N, K). labels: (N,). teacher_logits, temperature: not looked at.
        label_smoothing: share of the label's mass spread over all classes (Szegedy et al., 2016, arXiv 1512.00567).
    """
    return F.cross_entropy(wide(student_logits), labels, label_smoothing=label_smoothing)


def kd(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """T^2 KL(p_t^T || p_s^T), summed over classes, averaged over the batch.

    T^2 keeps the gradient's magnitude as T changes. Hinton et al., 2015, arXiv 1503.02531, section 2.

    Args:
        student_logits, teacher_logits: (N, K).
        temperature: T > 0.
    """
    student = F.log_softmax(wide(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(wide(teacher_logits) / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def logit_mse(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Squared L2 distance of the logits, averaged over the batch: mean_n sum_k (z_s - z_t)^2.

    Ba & Caruana, 2014, arXiv 1312.6184, equation 1; Kim et al., 2021, arXiv 2105.08919.

    Args:
        student_logits, teacher_logits: (N, K).
    """
    return (wide(student_logits) - wide(teacher_logits)).square().sum(dim=1).mean()


def logit_sse(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Squared logit differences summed over classes and batch: sum_n sum_k (z_t - z_s)^2.

    Args:
        student_logits, teacher_logits: (N, K).
    """
    return (wide(teacher_logits) - wide(student_logits)).square().sum()


class CE(Objective):
    """Labels only: the label term is the whole loss and the teacher is not asked. There is nothing to weigh it against."""

    formula = "CE"
    labels_only = True
    needs_teacher = False
    alpha_weighted = False

    def __init__(self) -> None:
        super().__init__()


class KD(Objective):
    """Soft labels at temperature T; see `kd`."""

    formula = "T²·KL(teacher‖student)"
    source = "Hinton et al., 2015, arXiv 1503.02531"
    by_row = True
    uses_T = True

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        return kd(student.logits(), teacher.logits(), temperature=temperature)


class LogitMSE(Objective):
    """Logits themselves, no softening; see `logit_mse`."""

    formula = "‖z_s-z_t‖²"
    source = "Ba & Caruana, 2014, arXiv 1312.6184"
    by_row = True

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        return logit_mse(student.logits(), teacher.logits())


class LogitSSE(Objective):
    """CE + weight * sum of squared logit differences: stands beside the whole label term; see `logit_sse`."""

    formula = "Σ(z_t-z_s)²"
    source = "the practice loop of tutorials"
    by_row = True
    alpha_weighted = False
    summed = True

    def __init__(self, weight: float = 0.1, warmup: float = 0.0) -> None:
        super().__init__(weight, warmup)

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        return logit_sse(student.logits(), teacher.logits())
