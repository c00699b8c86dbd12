"""Kin of kd: another divergence between softened answers, or another target. Functions, each with the class that names it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.objectives.base import LogitObjective
from distill_cli.objectives.checks import on_both, on_student, require
from distill_cli.objectives.logits import kd, logit_mse
from distill_cli.tasks.rows import Rows, Signal, wide


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """T^2 KL(p_s^T || p_t^T) of logits (N, K) at T > 0, summed over classes, averaged over the batch.

    It seeks the teacher's modes, not all its mass. Agarwal et al., 2024 (GKD), arXiv 2306.13649, section 2.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    return kd(teacher, student, temperature=temperature)


def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    beta: float = 0.5,
) -> Tensor:
    """T^2 [beta KL(p_t || m) + (1 - beta) KL(p_s || m)] at T, with m = beta p_t + (1 - beta) p_s; averaged over the batch.

    Logits are (N, K), T > 0, beta 0 to 1. beta 0 is T^2 KL(p_t || p_s) and beta 1 is T^2 KL(p_s || p_t): what it tends to
    there, once divided by beta or by 1 - beta. Agarwal et al., 2024 (GKD), arXiv 2306.13649, section 2.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    if beta in (0, 1):
        return (kd if beta == 0 else reverse_kl)(student, teacher, temperature=temperature)
    log_s, log_t = F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)
    mixed = _mixed(log_s, log_t, beta)
    divergence = beta * F.kl_div(mixed, log_t, reduction="batchmean", log_target=True)
    divergence = divergence + (1 - beta) * F.kl_div(mixed, log_s, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def skewed_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    skew: float = 0.1,
) -> Tensor:
    """T^2 KL(p_t || skew p_t + (1 - skew) p_s) at T, of logits (N, K), averaged over the batch; its gradient stays small where the
    student finds impossible what the teacher does not.

    T > 0, skew 0 to below 1; 0 is `kd`. Ko et al., 2024 (DistiLLM), arXiv 2402.03898, equation 3.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    if skew == 0:
        return kd(student, teacher, temperature=temperature)
    log_s, log_t = F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(_mixed(log_s, log_t, skew), log_t, reduction="batchmean", log_target=True)


def _mixed(log_s: Tensor, log_t: Tensor, share: float) -> Tensor:
    """log of share p_t + (1 - share) p_s, for a share between 0 and 1."""
    return torch.logaddexp(log_t + math.log(share), log_s + math.log1p(-share))


def hard(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Cross-entropy of the student at T = 1 and the teacher's decision, from logits (N, K), averaged over the batch.

    The temperature is not used. Touvron et al., 2021 (DeiT), arXiv 2012.12877, equation 3.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    return F.cross_entropy(student, teacher.argmax(dim=-1))


def annealed(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    max_temperature: float = 10.0,
) -> Tensor:
    """Squared L2 distance of the student's logits (N, K) and the teacher's damped ones: mean_n sum_k (z_s - phi z_t)^2.

    phi = 1 - (T - 1) / T_max grows to 1 as T falls from max_temperature, T_max, to 1; it stays 0 where T is past T_max + 1.
    Jafari et al., 2021 (Annealing-KD), arXiv 2104.07163, section 3.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    phi = max(0.0, 1 - (temperature - 1) / max_temperature)
    return logit_mse(student, phi * teacher)


def virtual(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    temperature: float = 1.0,
    correct: float = 0.95,
) -> Tensor:
    """T^2 KL(p_d^T || p_s^T), summed over classes, averaged over the batch: the teacher is made up and always right.

    Logits are (N, K), labels (N,), T > 0; teacher_logits are not used. p_d is `correct`, between 0 and 1, on the label and the
    rest spread evenly; p_d^T = softmax(log p_d / T). Yuan et al., 2020 (Tf-KD), arXiv 1909.11723, with 0.9 or more.
    """
    student = on_student(student_logits, labels, temperature)
    others = max(1, student.shape[-1] - 1)
    design = torch.full_like(student, math.log1p(-correct) - math.log(others)).detach()
    return kd(student, design.scatter(-1, labels[:, None], math.log(correct)), temperature=temperature)


class ReverseKL(LogitObjective):
    """Soft labels by the other divergence; see `reverse_kl`."""

    formula = "T²·KL(student‖teacher)"
    source = "Agarwal et al., 2024, arXiv 2306.13649"
    function = staticmethod(reverse_kl)
    by_row = uses_T = True
    reads = "few"


class JSD(LogitObjective):
    """Soft labels by a divergence between the two directions; see `jsd`."""

    formula = "T²·JSD_β(teacher‖student)"
    source = "Agarwal et al., 2024, arXiv 2306.13649"
    function = staticmethod(jsd)
    by_row = uses_T = True
    reads = "few"

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, beta: float = 0.5) -> None:
        super().__init__(weight, warmup)
        self.constants = {"beta": require("beta", beta, ge=0, le=1)}


class SkewedKL(LogitObjective):
    """Soft labels against a mixture of both; see `skewed_kl`."""

    formula = "T²·KL(teacher‖λ·teacher+(1-λ)·student)"
    source = "Ko et al., 2024, arXiv 2402.03898"
    function = staticmethod(skewed_kl)
    by_row = uses_T = True
    reads = "few"

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, skew: float = 0.1) -> None:
        super().__init__(weight, warmup)
        self.constants = {"skew": require("skew", skew, ge=0, lt=1)}


class Hard(LogitObjective):
    """The teacher's decision as a second label; see `hard`."""

    formula = "CE(z_s, argmax z_t)"
    source = "Touvron et al., 2021, arXiv 2012.12877"
    function = staticmethod(hard)
    by_row = True
    reads = "few"

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        return F.cross_entropy(wide(student.logits()), teacher.decided())


class Annealed(LogitObjective):
    """The teacher's logits, damped at first; T acts through phi alone; see `annealed`."""

    formula = "‖z_s-φ(T)·z_t‖²"
    source = "Jafari et al., 2021, arXiv 2104.07163"
    function = staticmethod(annealed)
    by_row = uses_T = True

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, max_temperature: float = 10.0) -> None:
        super().__init__(weight, warmup)
        self.constants = {"max_temperature": require("max_temperature", max_temperature, gt=0)}


class Virtual(LogitObjective):
    """A designed answer in place of a teacher's, so no teacher is asked; see `virtual`."""

    formula = "T²·KL(p_d‖student)"
    source = "Yuan et al., 2020, arXiv 1909.11723"
    function = staticmethod(virtual)
    needs_teacher = False
    by_row = uses_T = needs_labels = True

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, correct: float = 0.95) -> None:
        super().__init__(weight, warmup)
        self.constants = {"correct": require("correct", correct, gt=0, lt=1)}
