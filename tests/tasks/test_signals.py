"""Signals of few classes: their divergences are those of a coarser distribution, exact, bounded and with the right gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base.errors import ConfigError
from distill_cli.objectives.base import Objective
from distill_cli.objectives.logits import KD, kd
from distill_cli.objectives.loss import Loss
from distill_cli.objectives.softened import JSD, Hard, ReverseKL, SkewedKL
from distill_cli.tasks.rows import Dense, Rows
from distill_cli.tasks.signals import COLD, Few, drawn, likeliest
from distill_cli.teachers.keeping import Sampled, TopK

M, C, K = 12, 500, 16


def logits(seed: int, spread: float = 2.0, classes: int = C) -> Tensor:
    return spread * torch.randn(M, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def few(teacher: Tensor, number: int = K) -> Few:
    return Few(*likeliest(teacher, number), teacher.shape[1] - number)


def rows(student: Tensor) -> Rows:
    return Rows(student, torch.zeros(M, dtype=torch.int64), torch.arange(M))


def coarse_kl(student: Tensor, teacher: Tensor, T: float) -> float:
    """KL between the K likeliest classes and all others together, from the probabilities themselves."""
    p, q = (teacher / T).softmax(-1), (student / T).softmax(-1)
    top = teacher.topk(K).indices
    p, q = (torch.cat([v.gather(1, top), 1 - v.gather(1, top).sum(1, keepdim=True)], 1) for v in (p, q))
    return float((p * (p / q).log()).sum(1).mean() * T**2)


@pytest.mark.parametrize("T", [1.0, 4 / 3, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("spread", [0.1, 2.0, 5.0])
def test_kd_is_the_divergence_of_the_coarser_distributions(T: float, spread: float) -> None:
    student, teacher = logits(0), logits(1, spread)
    found = KD()(rows(student), few(teacher), T).item()
    assert found == pytest.approx(coarse_kl(student, teacher, T), rel=1e-9)
    assert 0 <= found <= kd(student, teacher, temperature=T).item()
    assert KD()(rows(teacher), few(teacher), T).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("T", [1.1, 1.5, 3.0, 5.0, 7.0, 20.0])
@pytest.mark.parametrize("spread", [0.5, 2.0, 4.0])
def test_the_mass_of_the_rest_is_known_at_any_temperature(T: float, spread: float) -> None:
    teacher = logits(1, spread, classes=20_000)
    shares = few(teacher, 64).share_of_rest(T)
    exact = 1 - (teacher / T).softmax(-1).gather(1, teacher.topk(64).indices).sum(1)
    assert (shares - exact).abs().max() < 5e-3


@pytest.mark.parametrize("objective", [KD(), ReverseKL(), JSD(), SkewedKL(), Hard()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("T", [1.0, 3.0])
def test_with_all_classes_kept_each_objective_is_as_with_all_logits(objective: Objective, T: float) -> None:
    student, teacher = logits(0, classes=40).requires_grad_(), logits(1, classes=40)
    values = [objective(rows(student), signal, T) for signal in (few(teacher, 40), Dense(teacher))]
    slopes = [torch.autograd.grad(value, student)[0] for value in values]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)
    assert torch.allclose(*slopes, atol=1e-9)


def test_a_student_that_is_sure_gets_finite_gradients() -> None:
    """Where the named classes have all of the student's mass, 1 minus their sum would be 0 and its log infinite."""
    teacher, student = logits(1).float(), logits(1).float()
    student.scatter_(1, teacher.argmax(1, keepdim=True), 200.0).requires_grad_()
    loss = KD()(rows(student), few(teacher), 1.0)
    (slope,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(slope).all() and loss.item() == pytest.approx(kd(student, teacher).item(), rel=1e-4)
    assert loss.item() > 50  # what it finds impossible has mass


@pytest.mark.parametrize("objective", [KD(), ReverseKL(), JSD(), SkewedKL()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("size", [5, 100])
def test_labels_and_soft_labels_share_what_they_read_of_the_logits(objective: Objective, size: int) -> None:
    student, signal, targets = logits(0).requires_grad_(), few(logits(1)), torch.arange(M) % C
    targets[:3] = signal.ids[:3, 1]  # a label among the named classes, and others that are not
    loss, terms = Loss({"it": objective}, rows_at_once=size)(Rows(student, targets, torch.arange(M)), signal, 1.0, 0.7)
    apart = 0.3 * F.cross_entropy(student, targets) + 0.7 * objective(rows(student), signal, 1.0)
    assert loss.item() == pytest.approx(apart.item(), rel=1e-12)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(student, targets).item(), rel=1e-12)
    slopes = [torch.autograd.grad(value, student)[0] for value in (loss, apart)]
    assert torch.allclose(*slopes, rtol=1e-12, atol=1e-15)


def test_its_gradient_points_where_the_whole_one_does_and_a_renormalised_one_does_not() -> None:
    student, teacher = (0.5 * logits(0)).requires_grad_(), logits(1, 3.0)
    ids = teacher.topk(K).indices
    divergences = {
        "all": kd(student, teacher),
        "few": KD()(rows(student), few(teacher), 1.0),
        "renormalised": kd(student.gather(1, ids), teacher.gather(1, ids)),
    }
    slopes = {name: torch.autograd.grad(value, student)[0].flatten() for name, value in divergences.items()}
    near = {name: F.cosine_similarity(slopes["all"], slope, dim=0).item() for name, slope in slopes.items()}
    assert near["few"] > 0.95 > near["renormalised"]


def test_samples_have_the_gradient_of_all_classes_in_the_mean() -> None:
    student, teacher = logits(0, 1.0, classes=20).requires_grad_(), logits(1, 1.0, classes=20)
    whole = torch.autograd.grad(kd(student, teacher), student)[0]
    draw, slopes = torch.Generator().manual_seed(0), []
    for _ in range(2000):
        signal = Few(*drawn(teacher, 8, draw), None, 12)
        slopes.append(torch.autograd.grad(KD()(rows(student), signal, 1.0), student)[0])
    apart = torch.stack(slopes)
    assert ((apart.mean(0) - whole).abs() < 5 * apart.std(0) / 2000**0.5 + 1e-6).all()


def test_few_classes_refuse_to_be_taken_for_all() -> None:
    for ask in (few(logits(0)).logits, few(logits(0)).answers):
        with pytest.raises(ConfigError, match=r"16 classes a row are kept, and all are asked for"):
            ask()
    assert torch.equal(few(logits(0)).decided(), logits(0).argmax(-1))


@pytest.mark.parametrize("classes", [100, 49_152, 70_000])
def test_topk_comes_back_from_its_arrays(classes: int) -> None:
    teacher = logits(3, classes=classes).float()
    keeper = TopK(classes, 64)
    packed, arrays = keeper.pack(rows(teacher)), keeper.arrays(M)
    assert {name: tuple(v.shape) for name, v in packed.items()} == {name: a.shape for name, a in arrays.items()}
    assert sum(a.bytes for a in arrays.values()) == M * (276 if classes <= 2**16 else 404)
    again, ids = keeper.unpack(packed, {}), teacher.topk(64).indices
    assert isinstance(again, Few) and torch.equal(again.ids, ids)
    assert (again.logs - teacher.log_softmax(-1).gather(1, ids)).abs().max() < 0.01
    assert again.rest is not None and again.rest.shape == (M, len(COLD))
    assert torch.equal(again.part(slice(3, 5)).decided(), teacher[3:5].argmax(-1))


def test_samples_are_the_same_whenever_they_are_drawn() -> None:
    keeper, teacher = Sampled(C, 8), logits(4).float()
    one, other = (keeper.pack(rows(teacher)) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = keeper.unpack(one, {})
    assert isinstance(again, Few) and torch.allclose(again.logs.exp().sum(1), torch.ones(M), atol=2e-3)
