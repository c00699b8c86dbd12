"""Objectives that part the labelled class, the target, from all others. Pure functions, each with the class that names it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.objectives.base import LogitObjective
from distill_cli.objectives.checks import on_both, require


def split(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's labelled value (N, 1), and the others (N, K - 1) in their order.

    Args:
        values: (N, K). labels: (N,).
    """
    others = torch.arange(values.shape[-1] - 1, device=values.device)
    places = others + (others >= labels[:, None]).to(others.dtype)
    return values.gather(-1, labels[:, None]), values.gather(-1, places)


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """T^2 [alpha KL(b_t || b_s) + beta KL(q_t || q_s)] at T, averaged over the batch.

    b = (p_y, 1 - p_y), and q is the softmax over the classes other than y. With alpha 1 and each sample's own
    1 - p_t(y) for beta it is kd. Zhao et al., 2022 (DKD), arXiv 2203.08679, equation 7.

    Args:
        student_logits, teacher_logits: (N, K). labels: (N,). temperature: T > 0.
        alpha, beta: weights of the target's term and of the others'.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    if student.shape[-1] == 1:
        return student.sum() * 0.0
    b_s, q_s = _decoupled(student, labels, temperature)
    b_t, q_t = _decoupled(teacher, labels, temperature)
    target_term = F.kl_div(b_s, b_t, reduction="batchmean", log_target=True)
    rest_term = F.kl_div(q_s, q_t, reduction="batchmean", log_target=True)
    return temperature**2 * (alpha * target_term + beta * rest_term)


def _decoupled(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log b (N, 2) and log q (N, K - 1) of `dkd`."""
    target, rest = split(logits / temperature, labels)
    binary = torch.cat([target, rest.logsumexp(dim=-1, keepdim=True)], dim=-1)
    return F.log_softmax(binary, dim=-1), F.log_softmax(rest, dim=-1)


def nkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    gamma: float = 1.5,
    nontarget_temperature: float = 1.0,
) -> Tensor:
    """-t_y log s_y - gamma l^2 sum over i != y of t'_i log s'_i, averaged over the batch.

    t and s are teacher's and student's probabilities at T = 1; t' and s' those over the classes other than y, softened
    at l. Yang et al., 2023 (NKD), arXiv 2303.13005.

    Args:
        student_logits, teacher_logits: (N, K). labels: (N,). temperature: not used.
        gamma: weight of the others' term.
        nontarget_temperature: l > 0, the paper's lambda.
    """
    student, teacher = on_both(student_logits, teacher_logits, labels, temperature)
    log_s, log_t = (F.log_softmax(z, dim=-1).gather(-1, labels[:, None]) for z in (student, teacher))
    target_term = -(log_t.exp() * log_s).mean()
    soft_s, soft_t = (F.log_softmax(split(z, labels)[1] / nontarget_temperature, dim=-1) for z in (student, teacher))
    rest_term = -(soft_t.exp() * soft_s).sum(dim=-1).mean()
    return target_term + gamma * nontarget_temperature**2 * rest_term


class DKD(LogitObjective):
    """The target and the other classes, each with its weight; see `dkd`.

    The paper warms it up over 20 of 240 epochs, with a beta of 2 to 8, by the pair of models.
    """

    formula = "T²·[a·KL(b_t‖b_s)+b·KL(q_t‖q_s)]"
    source = "Zhao et al., 2022, arXiv 2203.08679"
    function = staticmethod(dkd)
    by_row = uses_T = needs_labels = True

    def __init__(self, weight: float = 1.0, warmup: float = 0.0, alpha: float = 1.0, beta: float = 8.0) -> None:
        super().__init__(weight, warmup)
        self.constants = {"alpha": require("alpha", alpha, ge=0), "beta": require("beta", beta, ge=0)}


class NKD(LogitObjective):
    """The target weighed by the teacher, the other classes normalised among themselves, without T; see `nkd`."""

    formula = "[-t_y·log s_y-γλ²·Σt'·log s']"
    source = "Yang et al., 2023, arXiv 2303.13005"
    function = staticmethod(nkd)
    by_row = needs_labels = True

    def __init__(
        self, weight: float = 1.0, warmup: float = 0.0, gamma: float = 1.5, nontarget_temperature: float = 1.0
    ) -> None:
        super().__init__(weight, warmup)
        heat = require("nontarget_temperature", nontarget_temperature, gt=0)
        self.constants = {"gamma": require("gamma", gamma, ge=0), "nontarget_temperature": heat}
