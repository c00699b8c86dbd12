"""Objectives on how answers relate: up to scale and shift (lskd, dist), or sample to sample and class to class (mlld)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.objectives.base import LogitObjective
from distill_cli.objectives.checks import on_both, require
from distill_cli.objectives.logits import kd


def centred(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Values minus their mean along `dim`, and the norm of that; 1 where the values are constant but for rounding.

    A norm's gradient at 0 does not exist, and dividing rounding errors by their own norm would make a signal of them.
    """
    difference = values - values.mean(dim, keepdim=True)
    square = difference.square().sum(dim, keepdim=True)
    rounding = 10 * torch.finfo(values.dtype).eps * values.detach().norm(dim=dim, keepdim=True)
    constant = square.detach().sqrt() <= rounding
    return difference, torch.where(constant, torch.ones_like(square), square).sqrt()


def standardised(logits: Tensor) -> Tensor:
    """(z - mean) / (std + 1e-7) over each row's classes, unbiased std; a constant row gives zeros."""
    difference, norm = centred(logits, dim=-1)
    return difference / (norm / max(1, logits.shape[-1] - 1) ** 0.5 + 1e-7)


def pearson(ours: Tensor, theirs: Tensor, dim: int) -> Tensor:
    """Correlation coefficients along `dim`; 0 where one side is constant."""
    (a, length_a), (b, length_b) = centred(ours, dim), centred(theirs, dim)
    return (a / length_a * (b / length_b)).sum(dim)


def lskd(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """kd on standardised logits (N, K), (z - mean) / (std + 1e-7) of each sample: their order and spacing, not their size.

    T > 0 is the paper's base temperature. Sun et al., 2024 (LSKD), arXiv 2403.01427.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    return kd(standardised(student), standardised(teacher), temperature=temperature)


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    beta: float = 2.0,
    gamma: float = 2.0,
) -> Tensor:
    """T^2 [beta (1 - mean Pearson of rows) + gamma (1 - mean Pearson of columns)] of p_s^T and p_t^T.

    Rows relate a sample's classes, columns a class's samples, so the value depends on how batches are cut. A constant
    row or column counts as uncorrelated. Huang et al., 2022 (DIST), arXiv 2205.10536.

    Args:
        student_logits, teacher_logits: (N, K). temperature: T > 0.
        beta, gamma: weights of the relation between classes and of that within a class.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    p_s, p_t = F.softmax(student / temperature, dim=-1), F.softmax(teacher / temperature, dim=-1)
    inter = 1 - pearson(p_s, p_t, dim=-1).mean()
    intra = 1 - pearson(p_s, p_t, dim=0).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def mlld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
) -> Tensor:
    """Sum over `temperatures` of T^2 KL(p_t || p_s) + |P_s P_s' - P_t P_t'|^2 / N + |P_s' P_s - P_t' P_t|^2 / K.

    P are the batch's probabilities (N, K) at T, norms are Frobenius'. The Gram matrices relate samples and classes of
    one batch, so the value depends on how batches are cut. The authors' confidence masks are left out.
    Jin et al., 2023, "Multi-Level Logit Distillation", CVPR.

    Args:
        student_logits, teacher_logits: (N, K). temperature: not used.
        temperatures: each T > 0.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    num_samples, num_classes = student.shape
    total = student.new_zeros(())
    for T in temperatures:
        ours, theirs = (F.softmax(logits / T, dim=-1) for logits in (student, teacher))
        samples = (ours @ ours.T - theirs @ theirs.T).square().sum() / num_samples
        classes = (ours.T @ ours - theirs.T @ theirs).square().sum() / num_classes
        total = total + kd(student, teacher, temperature=T) + samples + classes
    return total


class LSKD(LogitObjective):
    """Soft labels of standardised logits; see `lskd`."""

    formula = "T²·KL(teacher‖student) of standardised z"
    source = "Sun et al., 2024, arXiv 2403.01427"
    function = staticmethod(lskd)
    by_row = uses_T = True


class DIST(LogitObjective):
    """Correlations in place of a divergence; see `dist`."""

    formula = "T²·[β·(1-ρ_rows)+γ·(1-ρ_columns)]"
    source = "Huang et al., 2022, arXiv 2205.10536"
    compares = True
    function = staticmethod(dist)
    uses_T = True

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, beta: float = 2.0, gamma: float = 2.0) -> None:
        super().__init__(weight, warmup)
        self.constants = {"beta": require("beta", beta, ge=0), "gamma": require("gamma", gamma, ge=0)}


class MLLD(LogitObjective):
    """Instances, batch and classes at several temperatures of its own; the schedule's T is not used; see `mlld`."""

    formula = "Σ_T [T²·KL(teacher‖student)+‖ΔP·P'‖²/B+‖ΔP'·P‖²/K]"
    source = "Jin et al., 2023, CVPR, Multi-Level Logit Distillation"
    compares = True
    function = staticmethod(mlld)

    def __init__(
        self, weight: float = 1.0, warmup: float = 0.0, temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0)
    ) -> None:
        super().__init__(weight, warmup)
        require("the number of temperatures", len(temperatures), ge=1)
        self.constants = {"temperatures": [require("each of temperatures", T, gt=0) for T in temperatures]}
