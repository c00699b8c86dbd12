"""Proves the arithmetic of the objectives against numpy and by hand, and how the loss weighs them against the labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli import objectives
from distill_cli.base.errors import ConfigError
from distill_cli.config import schema
from distill_cli.data import UNKNOWN
from distill_cli.objectives import Loss, Objective
from distill_cli.objectives.logits import CE, KD, LogitMSE, LogitSSE, kd, logit_mse, logit_sse
from distill_cli.tasks.rows import Dense, Rows

LOGITS = "distill_cli.objectives.logits."


def pair(n: int = 6, k: int = 5, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits in float64."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(n, k, generator=draw, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def softmax64(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kd64(student: Tensor, teacher: Tensor, T: float) -> float:
    """The formula as it is printed: T^2 * sum p_t (log p_t - log p_s), averaged over the batch."""
    p_t, p_s = softmax64(teacher.double().numpy() / T), softmax64(student.double().numpy() / T)
    return float(T**2 * (p_t * (np.log(p_t) - np.log(p_s))).sum(axis=1).mean())


def rows_of(logits: Tensor, labels: Tensor) -> Rows:
    return Rows(logits, labels, torch.arange(len(labels)))


def total_of(terms: dict[str, Objective], student: Tensor, teacher: Tensor, labels: Tensor, **how: float) -> Tensor:
    T, alpha, share, smoothing = (how.get(key, value) for key, value in
                                  (("T", 3.0), ("alpha", 0.7), ("share", 1.0), ("smoothing", 0.0)))  # fmt: skip
    return Loss(terms, smoothing)(rows_of(student, labels), Dense(teacher), T, alpha, share)[0]


@pytest.mark.parametrize("T", [0.5, 1.0, 3.0, 20.0])
def test_kd_is_the_formula(T: float) -> None:
    student, teacher = pair()
    assert kd(student, teacher, temperature=T).item() == pytest.approx(kd64(student, teacher, T), rel=1e-10)


def test_kd_worked_by_hand() -> None:
    # T = 2. Teacher's logits 2 ln 3 and 0 soften to 3/4, 1/4; student's 0 and 0 to 1/2, 1/2.
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.304099 - 0.173287 = 0.130812; times T^2 = 4: 0.523248.
    # The second sample agrees with its teacher and adds 0, so the mean over the batch is 0.261624.
    teacher = torch.tensor([[2 * math.log(3), 0.0], [1.0, -1.0]], dtype=torch.float64)
    student = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
    assert kd(student, teacher, temperature=2.0).item() == pytest.approx(0.261624, abs=1e-6)


def test_kd_sums_over_classes() -> None:
    # Classes that neither model ever predicts change nothing; a mean over classes would shrink the loss.
    student, teacher = pair(k=4)
    never = torch.full((6, 96), -1e9, dtype=torch.float64)
    with_them = kd(torch.cat([student, never], 1), torch.cat([teacher, never], 1), temperature=1.0)
    assert with_them.item() == pytest.approx(kd(student, teacher, temperature=1.0).item(), rel=1e-12)


def gradient_of_kd(T: float) -> tuple[Tensor, Tensor]:
    student, teacher = pair(n=8, k=10)
    student.requires_grad_()
    kd(student, teacher, temperature=T).backward()
    assert student.grad is not None
    difference = student.detach() - teacher
    return student.grad, (difference - difference.mean(1, keepdim=True)) / (10 * 8)


def test_gradient_keeps_its_size_as_the_temperature_grows() -> None:
    sizes = [gradient_of_kd(T)[0].norm().item() for T in (1, 10, 100)]
    assert max(sizes) < 10 * min(sizes)


def test_gradient_at_high_temperature_is_the_centred_logit_difference() -> None:
    found, limit = gradient_of_kd(1e6)
    assert torch.allclose(found, limit, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_nothing_to_learn_from_an_equal_teacher(T: float) -> None:
    student, _ = pair()
    teacher = student.clone()
    student.requires_grad_()
    loss = kd(student, teacher, temperature=T)
    loss.backward()
    assert student.grad is not None
    assert abs(loss.item()) < 1e-12
    assert student.grad.abs().max().item() < 1e-12


def test_kd_ignores_a_shift_of_all_logits() -> None:
    student, teacher = pair()
    shifts = torch.arange(6, dtype=torch.float64)[:, None]
    assert kd(student + 10 * shifts, teacher - 7, temperature=3.0).item() == pytest.approx(
        kd(student, teacher, temperature=3.0).item()
    )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_with_huge_logits_stays_finite(kind: torch.dtype) -> None:
    student = torch.tensor([[3e4, -3e4, 0.0], [0.0, 200.0, -200.0]], dtype=kind, requires_grad=True)
    teacher = torch.tensor([[-3e4, 3e4, 0.0], [200.0, 0.0, -200.0]], dtype=kind)
    for term in (kd(student, teacher, temperature=1.0), logit_mse(student, teacher), logit_sse(student, teacher)):
        assert term.dtype == torch.float32
        assert term.isfinite()
    kd(student, teacher, temperature=1.0).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_half_precision_logits_are_widened_before_the_arithmetic() -> None:
    student, teacher = (logits.to(torch.bfloat16) for logits in pair(n=32, k=50))
    assert kd(student, teacher, temperature=4.0).item() == pytest.approx(kd64(student, teacher, 4.0), rel=1e-5)


def test_float64_stays_float64() -> None:
    student, teacher = pair()
    assert {f(student, teacher).dtype for f in (lambda s, t: kd(s, t, temperature=2.0), logit_mse, logit_sse)} == {
        torch.float64
    }


def test_a_thousand_classes() -> None:
    student, teacher = pair(n=4, k=1000)
    found = kd(student.float(), teacher.float(), temperature=4.0).item()
    assert found == pytest.approx(kd64(student, teacher, 4.0), rel=1e-4)


@pytest.mark.parametrize("term", [lambda s, t: kd(s, t, temperature=3.0), logit_mse, logit_sse])
def test_order_within_the_batch_does_not_matter(term) -> None:  # type: ignore[no-untyped-def]
    student, teacher = pair(n=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert term(student[order], teacher[order]).item() == pytest.approx(term(student, teacher).item(), rel=1e-12)
    # Shuffling one side alone is another pairing of pictures and answers, and must show.
    assert term(student[order], teacher).item() != pytest.approx(term(student, teacher).item(), rel=1e-3)


def test_logit_objectives_are_squared_distances() -> None:
    student, teacher = pair()
    squares = (student.numpy() - teacher.numpy()) ** 2
    assert logit_mse(student, teacher).item() == pytest.approx(squares.sum(axis=1).mean(), rel=1e-12)
    assert logit_sse(student, teacher).item() == pytest.approx(squares.sum(), rel=1e-12)


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_alpha_weighs_the_teacher_against_the_labels() -> None:
    student, teacher = (logits.float() for logits in pair())
    ce, soft = F.cross_entropy(student, LABELS).item(), kd64(student, teacher, 3.0)
    found = total_of({"kd": KD(weight=2.5)}, student, teacher, LABELS, alpha=0.7)
    assert found.item() == pytest.approx(0.3 * ce + 0.7 * 2.5 * soft, rel=1e-5)


def test_alpha_1_ignores_the_labels_and_alpha_0_the_teacher() -> None:
    student, teacher = (logits.float() for logits in pair())
    others = LABELS.roll(1)
    terms: dict[str, Objective] = {"kd": KD()}
    assert torch.equal(*(total_of(terms, student, teacher, labels, alpha=1.0) for labels in (LABELS, others)))
    assert torch.equal(*(total_of(terms, student, guide, LABELS, alpha=0.0) for guide in (teacher, -teacher)))
    assert not torch.equal(*(total_of(terms, student, teacher, labels, alpha=0.0) for labels in (LABELS, others)))
    assert not torch.equal(*(total_of(terms, student, guide, LABELS, alpha=1.0) for guide in (teacher, -teacher)))


def test_several_objectives_add_up_under_one_alpha() -> None:
    student, teacher = (logits.float() for logits in pair())
    ce, soft = F.cross_entropy(student, LABELS).item(), kd64(student, teacher, 3.0)
    terms = {"kd": KD(), "logit_mse": LogitMSE(weight=0.5)}
    expected = 0.4 * ce + 0.6 * (soft + 0.5 * logit_mse(student, teacher).item())
    assert total_of(terms, student, teacher, LABELS, alpha=0.6).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_logit_sse_stands_beside_the_whole_label_term(alpha: float) -> None:
    student, teacher = (logits.float() for logits in pair())
    expected = F.cross_entropy(student, LABELS) + 0.1 * logit_sse(student, teacher)
    found = total_of({"logit_sse": LogitSSE()}, student, teacher, LABELS, alpha=alpha)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_labels_only_is_the_cross_entropy_whatever_alpha() -> None:
    student, _ = (logits.float() for logits in pair())
    total, terms = Loss({"ce": CE()})(rows_of(student, LABELS), None, 3.0, 0.9)
    assert total.item() == pytest.approx(F.cross_entropy(student, LABELS).item())
    assert list(terms) == ["ce"]


def test_terms_are_reported_unweighted() -> None:
    student, teacher = (logits.float() for logits in pair())
    loss = Loss({"kd": KD(weight=7.0)})
    _, terms = loss(rows_of(student, LABELS), Dense(teacher), 3.0, 0.25, share=0.5)
    assert terms["kd"].item() == pytest.approx(kd64(student, teacher, 3.0), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(student, LABELS).item())


def test_the_term_of_a_sum_is_reported_as_of_the_whole_step_however_it_is_cut() -> None:
    student, teacher = (logits.float() for logits in pair())
    loss = Loss({"sse": LogitSSE()})
    whole = loss(rows_of(student, LABELS), Dense(teacher), 1.0, 0.5)[1]["sse"].item()
    halves = [
        loss(rows_of(student[cut], LABELS[cut]), Dense(teacher[cut]), 1.0, 0.5, share=0.5)[1]["sse"].item()
        for cut in (slice(0, 3), slice(3, 6))
    ]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-6)


def test_label_smoothing_spreads_the_label_term() -> None:
    student, teacher = (logits.float() for logits in pair())
    log_p = np.log(softmax64(student.double().numpy()))
    target = np.full((6, 5), 0.2 / 5) + 0.8 * np.eye(5)[LABELS.numpy()]
    found = total_of({"kd": KD()}, student, teacher, LABELS, alpha=0.0, smoothing=0.2)
    assert found.item() == pytest.approx(-(target * log_p).sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("at_once", [None, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_rows_count_by_their_class_and_those_without_a_label_nothing(at_once: int | None, smoothing: float) -> None:
    student, teacher = (logits.float() for logits in pair())
    weights, labels = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0]), LABELS.where(torch.arange(6) % 3 > 0, UNKNOWN)
    each = F.cross_entropy(student, LABELS, reduction="none", label_smoothing=smoothing)
    by_hand = sum(float(weights[label] * value) for label, value in zip(labels, each, strict=True) if label >= 0) / 6
    loss = Loss({"kd": KD()}, smoothing, at_once, weights)
    total, terms = loss(rows_of(student, labels), Dense(teacher), 3.0, 0.25)
    assert terms["ce"].item() == pytest.approx(by_hand)
    assert total.item() == pytest.approx(0.75 * by_hand + 0.25 * kd64(student, teacher, 3.0), rel=1e-5)


def test_a_step_without_a_label_learns_from_the_teacher_alone() -> None:
    student, teacher = (logits.float() for logits in pair())
    student.requires_grad_()
    rows = rows_of(student, torch.full_like(LABELS, UNKNOWN))
    total, terms = Loss({"kd": KD()}, row_weights=torch.ones(5))(rows, Dense(teacher), 3.0, 0.25)
    total.backward()
    assert terms["ce"].item() == 0.0 and student.grad is not None
    alone = torch.autograd.grad(0.25 * kd(student, teacher, temperature=3.0), student)[0]
    assert torch.allclose(student.grad, alone)


def test_without_any_labels_there_is_no_label_term() -> None:
    student, teacher = pair()
    loss = Loss({"kd": KD()}, labels=False)
    total, terms = loss(rows_of(student, torch.full_like(LABELS, UNKNOWN)), Dense(teacher), 3.0, 1.0)
    assert list(terms) == ["kd"] and total.item() == terms["kd"].item()
    assert loss.formula("3", "1", "0") == "1·T²·KL(teacher‖student),  T=3"


@pytest.mark.parametrize("term", [KD(), LogitMSE(), LogitSSE()], ids=["kd", "logit_mse", "logit_sse"])
def test_unequal_parts_of_a_batch_add_up_to_the_whole(term: Objective) -> None:
    student, teacher = pair(n=7)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    whole = total_of({"term": term}, student, teacher, labels)
    cuts = [slice(0, 3), slice(3, 5), slice(5, 7)]
    parts = sum(
        total_of({"term": term}, student[cut], teacher[cut], labels[cut], share=(cut.stop - cut.start) / 7)
        for cut in cuts
    )
    assert float(parts) == pytest.approx(whole.item(), rel=1e-6)


def test_formula_of_the_header_carries_the_numbers() -> None:
    assert Loss({"kd": KD()}).formula("3", "0.7", "0.3") == "0.3·CE + 0.7·T²·KL(teacher‖student),  T=3"
    moving = Loss({"kd": KD(2.0)}).formula("3→1", "0.7→0", "0.3→1")
    assert moving == "(0.3→1)·CE + (0.7→0)·2·T²·KL(teacher‖student),  T=3→1"
    assert Loss({"logit_sse": LogitSSE()}).formula("3", "0.7", "0.3") == "CE + 0.1·Σ(z_t-z_s)²"


def chosen(**nodes: dict[str, Any]) -> dict[str, schema.Objective]:
    """The `objective` group with these nodes, by class."""
    nodes = {name: {**node, "_target_": LOGITS + node["_target_"]} for name, node in nodes.items()}
    return {name: schema.Objective(plain=node, _target_=node["_target_"]) for name, node in nodes.items()}


def test_labels_only_beside_a_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="ce is labels only and cannot be combined with kd"):
        objectives.build(chosen(ce={"_target_": "CE"}, kd={"_target_": "KD"}))


def test_objectives_are_built_with_their_weight() -> None:
    built = objectives.build(chosen(kd={"_target_": "KD", "weight": 2}, sse={"_target_": "LogitSSE"}))
    assert (built["kd"].weight, built["sse"].weight) == (2, 0.1)
    with pytest.raises(ConfigError, match=r"did you mean objective\.kd\.weight"):
        objectives.build(chosen(kd={"_target_": "KD", "wieght": 2}))
