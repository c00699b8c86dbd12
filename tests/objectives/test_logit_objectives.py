"""Proves every objective on logits against its formula in plain loops, its limits and symmetries, and at hostile sizes.

How the loss weighs the objectives against the labels is in test_objectives.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.config import building, places, schema
from distill_cli.objectives import Objective
from distill_cli.objectives.correlation import dist, lskd, mlld
from distill_cli.objectives.decoupled import dkd, nkd
from distill_cli.objectives.logits import ce, kd, logit_mse, logit_sse
from distill_cli.objectives.loss import NOBODY
from distill_cli.objectives.softened import annealed, hard, jsd, reverse_kl, skewed_kl, virtual
from distill_cli.tasks.rows import Dense, Rows

Table = list[list[float]]

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    f.__name__: f
    for f in (
        ce,
        kd,
        logit_mse,
        logit_sse,
        dkd,
        nkd,
        dist,
        lskd,
        mlld,
        hard,
        reverse_kl,
        jsd,
        skewed_kl,
        annealed,
        virtual,
    )
}
EVERY = pytest.mark.parametrize("name", FUNCTIONS)


def draw(n: int = 6, k: int = 5, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's logits in float64, and labels."""
    source = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(n, k, generator=source, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(k, (n,), generator=source)


def value(name: str, student: Tensor, teacher: Tensor, labels: Tensor, T: float = 3.0, **constants: Any) -> Tensor:
    function = FUNCTIONS[name]
    return function(student_logits=student, teacher_logits=teacher, labels=labels, temperature=T, **constants)


def gradient(name: str, student: Tensor, teacher: Tensor, labels: Tensor, T: float = 3.0, **constants: Any) -> Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(value(name, student, teacher, labels, T, **constants), student)[0]


# The formulas once more, in loops over Python's own numbers.


def soft(row: list[float], T: float = 1.0) -> list[float]:
    powers = [math.exp(z / T) for z in row]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def correlation(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = mean(a), mean(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def without(row: list[float], y: int) -> list[float]:
    return row[:y] + row[y + 1 :]


def kd_by_loops(s: Table, t: Table, y: list[int], T: float) -> float:
    return mean([T * T * kl(soft(b, T), soft(a, T)) for a, b in zip(s, t, strict=True)])


def dkd_by_loops(s: Table, t: Table, y: list[int], T: float, alpha: float = 1.0, beta: float = 8.0) -> float:
    found = []
    for a, b, label in zip(s, t, y, strict=True):
        p_s, p_t = soft(a, T)[label], soft(b, T)[label]
        target = kl([p_t, 1 - p_t], [p_s, 1 - p_s])
        others = kl(soft(without(b, label), T), soft(without(a, label), T))
        found.append(T * T * (alpha * target + beta * others))
    return mean(found)


def nkd_by_loops(s: Table, t: Table, y: list[int], T: float, gamma: float = 1.5, heat: float = 1.0) -> float:
    found = []
    for a, b, label in zip(s, t, y, strict=True):
        target = -soft(b)[label] * math.log(soft(a)[label])
        others = zip(soft(without(b, label), heat), soft(without(a, label), heat), strict=True)
        found.append(target - gamma * heat**2 * sum(q * math.log(p) for q, p in others))
    return mean(found)


def dist_by_loops(s: Table, t: Table, y: list[int], T: float, beta: float = 2.0, gamma: float = 2.0) -> float:
    p_s, p_t = [soft(row, T) for row in s], [soft(row, T) for row in t]
    rows = mean([correlation(a, b) for a, b in zip(p_s, p_t, strict=True)])
    columns = mean([correlation([r[k] for r in p_s], [r[k] for r in p_t]) for k in range(len(s[0]))])
    return T * T * (beta * (1 - rows) + gamma * (1 - columns))


def lskd_by_loops(s: Table, t: Table, y: list[int], T: float) -> float:
    def standard(row: list[float]) -> list[float]:
        deviation = math.sqrt(sum((z - mean(row)) ** 2 for z in row) / (len(row) - 1))
        return [(z - mean(row)) / (deviation + 1e-7) for z in row]

    return kd_by_loops([standard(row) for row in s], [standard(row) for row in t], y, T)


def mlld_by_loops(
    s: Table, t: Table, y: list[int], T: float, temperatures: tuple[float, ...] = (2, 3, 4, 5, 6)
) -> float:
    def distance(a: Table, b: Table) -> float:
        """Squared Frobenius norm of a a' - b b'."""
        size, depth = range(len(a)), range(len(a[0]))
        gap = [sum(a[i][k] * a[j][k] - b[i][k] * b[j][k] for k in depth) for i in size for j in size]
        return sum(g * g for g in gap)

    total = 0.0
    for own in temperatures:
        p_s, p_t = [soft(row, own) for row in s], [soft(row, own) for row in t]
        columns_s, columns_t = ([list(column) for column in zip(*p, strict=True)] for p in (p_s, p_t))
        total += kd_by_loops(s, t, y, own) + distance(p_s, p_t) / len(s) + distance(columns_s, columns_t) / len(s[0])
    return total


def jsd_by_loops(s: Table, t: Table, y: list[int], T: float, beta: float = 0.5) -> float:
    found = []
    for a, b in zip(s, t, strict=True):
        p_s, p_t = soft(a, T), soft(b, T)
        mixed = [beta * q + (1 - beta) * p for p, q in zip(p_s, p_t, strict=True)]
        found.append(T * T * (beta * kl(p_t, mixed) + (1 - beta) * kl(p_s, mixed)))
    return mean(found)


def skewed_by_loops(s: Table, t: Table, y: list[int], T: float, skew: float = 0.1) -> float:
    found = []
    for a, b in zip(s, t, strict=True):
        p_s, p_t = soft(a, T), soft(b, T)
        found.append(T * T * kl(p_t, [skew * q + (1 - skew) * p for p, q in zip(p_s, p_t, strict=True)]))
    return mean(found)


def squares(s: Table, t: Table, phi: float = 1.0) -> list[float]:
    return [sum((p - phi * q) ** 2 for p, q in zip(a, b, strict=True)) for a, b in zip(s, t, strict=True)]


def virtual_by_loops(s: Table, t: Table, y: list[int], T: float, correct: float = 0.95) -> float:
    found = []
    for a, label in zip(s, y, strict=True):
        design = [correct if k == label else (1 - correct) / (len(a) - 1) for k in range(len(a))]
        found.append(T * T * kl(soft([math.log(p) for p in design], T), soft(a, T)))
    return mean(found)


BY_LOOPS: dict[str, Callable[..., float]] = {
    "ce": lambda s, t, y, T: mean([-math.log(soft(a)[label]) for a, label in zip(s, y, strict=True)]),
    "kd": kd_by_loops,
    "logit_mse": lambda s, t, y, T: mean(squares(s, t)),
    "logit_sse": lambda s, t, y, T: sum(squares(s, t)),
    "dkd": dkd_by_loops,
    "nkd": nkd_by_loops,
    "dist": dist_by_loops,
    "lskd": lskd_by_loops,
    "mlld": mlld_by_loops,
    "hard": lambda s, t, y, T: mean([-math.log(soft(a)[b.index(max(b))]) for a, b in zip(s, t, strict=True)]),
    "reverse_kl": lambda s, t, y, T: kd_by_loops(t, s, y, T),
    "jsd": jsd_by_loops,
    "skewed_kl": skewed_by_loops,
    "annealed": lambda s, t, y, T: mean(squares(s, t, 1 - (T - 1) / 10)),
    "virtual": virtual_by_loops,
}


@EVERY
@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [3, 7])
def test_each_is_its_formula(name: str, T: float, k: int) -> None:
    student, teacher, labels = draw(k=k, seed=k)
    expected = BY_LOOPS[name](student.tolist(), teacher.tolist(), labels.tolist(), T)
    assert value(name, student, teacher, labels, T).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("name", "constants", "in_loops"),
    [
        ("dkd", {"alpha": 0.5, "beta": 2.0}, {"alpha": 0.5, "beta": 2.0}),
        ("nkd", {"gamma": 2.5, "nontarget_temperature": 3.0}, {"gamma": 2.5, "heat": 3.0}),
        ("dist", {"beta": 1.0, "gamma": 3.0}, {"beta": 1.0, "gamma": 3.0}),
        ("mlld", {"temperatures": (1.5, 8.0)}, {"temperatures": (1.5, 8.0)}),
        ("jsd", {"beta": 0.2}, {"beta": 0.2}),
        ("skewed_kl", {"skew": 0.4}, {"skew": 0.4}),
        ("virtual", {"correct": 0.7}, {"correct": 0.7}),
    ],
)
def test_constants_go_where_the_formula_has_them(
    name: str, constants: dict[str, Any], in_loops: dict[str, Any]
) -> None:
    student, teacher, labels = draw()
    expected = BY_LOOPS[name](student.tolist(), teacher.tolist(), labels.tolist(), 2.0, **in_loops)
    assert value(name, student, teacher, labels, 2.0, **constants).item() == pytest.approx(expected, rel=1e-10)


@EVERY
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    student, teacher, labels = draw(n=3, k=4, scale=1.0)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: value(name, z, teacher, labels, 2.0), (student,))


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_dkd_with_each_samples_own_weight_is_kd(T: float) -> None:
    student, teacher, labels = draw(n=5)
    for ours, theirs, label in zip(student.split(1), teacher.split(1), labels.split(1), strict=True):
        others = 1 - soft(theirs[0].tolist(), T)[int(label)]
        found = dkd(ours, theirs, label, T, alpha=1.0, beta=others).item()
        assert found == pytest.approx(kd_by_loops(ours.tolist(), theirs.tolist(), [], T), rel=1e-10)


def test_dkd_keeps_the_others_signal_where_the_teacher_is_certain() -> None:
    # 1 - p_t(y) is below float32's resolution of 1; its logarithm is not.
    teacher, student = torch.tensor([[40.0, 1.0, 0.0]]), torch.tensor([[60.0, 0.0, 0.0]])
    binary = dkd(student, teacher, torch.tensor([0]), 1.0, alpha=1.0, beta=0.0).item()
    rest_t, rest_s = math.log(math.e + 1) - 40, math.log(2) - 60
    expected = math.exp(rest_t) * (rest_t - rest_s) - (math.exp(rest_t) - math.exp(rest_s))
    assert binary == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("beta", "like"), [(0, "kd"), (0.0, "kd"), (1, "reverse_kl"), (1.0, "reverse_kl")])
def test_jsd_ends_in_the_pure_divergences(beta: float, like: str) -> None:
    student, teacher, labels = draw()
    pure = value(like, student, teacher, labels).item()
    assert value("jsd", student, teacher, labels, beta=beta).item() == pytest.approx(pure, rel=1e-12)
    near = 1e-6 if beta == 0 else 1 - 1e-6
    assert value("jsd", student, teacher, labels, beta=near).item() / 1e-6 == pytest.approx(pure, rel=1e-3)


def centred_gap(student: Tensor, teacher: Tensor) -> float:
    """Squared centred difference over twice the classes: what T^2 KL tends to as T grows."""
    gap = (student - teacher) - (student - teacher).mean(1, keepdim=True)
    return float(gap.square().sum(1).mean() / (2 * gap.shape[1]))


@pytest.mark.parametrize(("name", "share"), [("kd", 1.0), ("reverse_kl", 1.0), ("jsd", 0.25)])
def test_divergences_tend_to_the_centred_distance_as_the_temperature_grows(name: str, share: float) -> None:
    student, teacher, labels = draw()
    expected = share * centred_gap(student, teacher)
    assert value(name, student, teacher, labels, 1e5).item() == pytest.approx(expected, rel=1e-3)


def test_dkd_tends_to_its_two_distances_as_the_temperature_grows() -> None:
    student, teacher, _ = draw()
    labels = torch.zeros(6, dtype=torch.int64)
    # The target against the mean of the others: half p (1 - p) of the squared gap, p = 1/5.
    gap = (student - teacher)[:, 0] - (student - teacher)[:, 1:].mean(1)
    assert dkd(student, teacher, labels, 1e5, alpha=1.0, beta=0.0).item() == pytest.approx(
        float(0.5 * 0.2 * 0.8 * gap.square().mean()), rel=1e-3
    )
    rest = centred_gap(student[:, 1:], teacher[:, 1:])
    assert dkd(student, teacher, labels, 1e5, alpha=0.0, beta=1.0).item() == pytest.approx(rest, rel=1e-3)


def test_annealed_ends_at_the_logits_themselves_and_never_turns_them_round() -> None:
    student, teacher, labels = draw()
    at_one = value("annealed", student, teacher, labels, 1.0)
    assert at_one.item() == pytest.approx(logit_mse(student, teacher).item(), rel=1e-12)
    damped = value("annealed", student, teacher, labels, 4.0, max_temperature=4.0)
    assert damped.item() == pytest.approx(logit_mse(student, teacher / 4).item(), rel=1e-12)
    assert value("annealed", student, teacher, labels, 40.0).item() == pytest.approx(student.square().sum().item() / 6)


@pytest.mark.parametrize("T", [1.0, 4.0])
@pytest.mark.parametrize(
    "name", ["kd", "logit_mse", "logit_sse", "dkd", "dist", "lskd", "mlld", "reverse_kl", "jsd", "skewed_kl"]
)
def test_nothing_to_learn_from_an_equal_teacher(name: str, T: float) -> None:
    student, _, labels = draw()
    assert abs(value(name, student, student, labels, T).item()) < 1e-12
    assert gradient(name, student, student, labels, T).abs().max().item() < 1e-12


def test_virtual_teaches_nothing_to_a_student_that_answers_as_designed() -> None:
    labels = torch.tensor([0, 1, 2])
    student = (0.05 + 0.85 * torch.eye(3, dtype=torch.float64)).log()
    assert gradient("virtual", student, student, labels, 4.0, correct=0.9).abs().max().item() < 1e-12


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"logit_mse", "logit_sse", "annealed"}))
def test_a_shift_of_all_logits_does_not_matter(name: str) -> None:
    student, teacher, labels = draw()
    shifts = 10 * torch.arange(6, dtype=torch.float64)[:, None]
    expected = value(name, student, teacher, labels).item()
    assert value(name, student + shifts, teacher - 7, labels).item() == pytest.approx(expected, rel=1e-9)


def test_lskd_and_no_other_ignores_the_size_of_the_logits() -> None:
    student, teacher, labels = draw()
    same = {
        name
        for name in FUNCTIONS
        if value(name, 3 * student, teacher, labels).item()
        == pytest.approx(value(name, student, teacher, labels).item(), rel=1e-5)
    }
    assert same == {"lskd"}


@EVERY
def test_order_within_the_batch_does_not_matter(name: str) -> None:
    student, teacher, labels = draw(n=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    expected = value(name, student, teacher, labels).item()
    assert value(name, student[order], teacher[order], labels[order]).item() == pytest.approx(expected, rel=1e-12)
    # Shuffling the student alone is another pairing of pictures and answers, and must show.
    assert value(name, student[order], teacher, labels).item() != pytest.approx(expected, rel=1e-3)


@EVERY
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("k", [1, 2, 1000])
def test_any_number_of_classes_and_a_batch_of_one_give_finite_numbers(name: str, n: int, k: int) -> None:
    student, teacher, labels = draw(n, k)
    student, teacher = student.float(), teacher.float()
    found, slope = value(name, student, teacher, labels), gradient(name, student, teacher, labels)
    assert found.ndim == 0 and found.isfinite()
    assert slope.isfinite().all() and slope.shape == (n, k)


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"logit_mse", "logit_sse", "annealed"}))
def test_one_class_leaves_nothing_to_learn(name: str) -> None:
    student, teacher, labels = draw(4, 1)
    assert gradient(name, student, teacher, labels).abs().max().item() == 0
    if name != "dist":  # without variation nothing correlates
        assert abs(value(name, student, teacher, labels).item()) < 1e-15


@EVERY
def test_a_student_without_an_opinion_gets_a_sober_gradient(name: str) -> None:
    # A head that starts at zero gives constant logits, whose deviation is 0 or a rounding error.
    _, teacher, labels = draw(4, 1000)
    for flat in (torch.zeros(4, 1000), torch.full((4, 1000), 0.1)):
        slope = gradient(name, flat, teacher.float(), labels)
        assert slope.isfinite().all()
        assert slope.abs().max().item() < 100
    assert gradient(name, teacher.float(), torch.zeros(4, 1000), labels).isfinite().all()


@EVERY
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_with_huge_logits_stays_finite(name: str, kind: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 200.0, -200.0]], dtype=kind)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [200.0, 0.0, -200.0]], dtype=kind)
    for T in (1.0, 4.0):
        for labels in (torch.tensor([0, 1]), torch.tensor([2, 2])):
            found = value(name, student, teacher, labels, T)
            assert found.dtype == torch.float32 and found.isfinite()
            assert gradient(name, student, teacher, labels, T).isfinite().all()


@EVERY
def test_half_precision_logits_are_widened_before_the_arithmetic(name: str) -> None:
    student, teacher, labels = draw(n=16, k=20)
    student, teacher = student.to(torch.bfloat16), teacher.to(torch.bfloat16)
    exact = value(name, student.double(), teacher.double(), labels).item()
    assert value(name, student, teacher, labels).item() == pytest.approx(exact, rel=1e-4)


@EVERY
def test_float64_stays_float64(name: str) -> None:
    assert value(name, *draw()).dtype == torch.float64


SHIPPED = sorted(FUNCTIONS.keys() - {"ce"})


def shipped(name: str, **changes: Any) -> Objective:
    """The objective of conf/objective/NAME.yaml, at T = 10."""
    node = OmegaConf.load(places.conf_dir() / "objective" / f"{name}.yaml")
    resolved = OmegaConf.to_container(OmegaConf.merge({"T": 10.0}, node), resolve=True)
    assert isinstance(resolved, dict) and list(resolved) == ["T", name]
    node = schema.of_class(schema.Objective, {**resolved[name], **changes})
    return building.build(node, Objective, f"objective.{name}")


def answer(objective: Objective, student: Tensor, teacher: Tensor, labels: Tensor, T: float) -> float:
    theirs = Dense(teacher) if objective.needs_teacher else NOBODY
    return objective(Rows(student, labels, torch.arange(len(labels))), theirs, T).item()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_objectives_are_their_functions(name: str) -> None:
    student, teacher, labels = draw()
    found = answer(shipped(name), student, teacher, labels, 2.5)
    assert found == pytest.approx(value(name, student, teacher, labels, 2.5).item(), rel=1e-12)


@pytest.mark.parametrize("name", SHIPPED)
def test_objectives_say_whether_the_temperature_and_the_teacher_matter(name: str) -> None:
    student, teacher, labels = draw()
    objective = shipped(name)
    at = [value(name, student, teacher, labels, T).item() for T in (1.5, 5.0)]
    assert objective.uses_T == (at[0] != at[1])
    assert objective.needs_teacher == (at[0] != value(name, student, -teacher, labels, 1.5).item())
    assert objective.formula and objective.source


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("jsd", {"beta": 1.5}, r"objective\.jsd: beta must be at most 1, got 1\.5"),
        ("skewed_kl", {"skew": 1.0}, r"objective\.skewed_kl: skew must be less than 1"),
        ("jsd", {"beta": -0.1}, r"objective\.jsd: beta must be at least 0"),
        ("virtual", {"correct": 1.0}, r"objective\.virtual: correct must be less than 1"),
        ("annealed", {"max_temperature": 0}, r"objective\.annealed: max_temperature must be greater than 0"),
        ("nkd", {"nontarget_temperature": 0.0}, r"objective\.nkd: nontarget_temperature must be greater than 0"),
        ("nkd", {"gamma": math.nan}, r"objective\.nkd: gamma should be a finite number"),
        ("dkd", {"beta": -8.0}, r"objective\.dkd: beta must be at least 0"),
        ("dist", {"gamma": -1.0}, r"objective\.dist: gamma must be at least 0"),
        ("mlld", {"temperatures": [2.0, 0.0]}, r"objective\.mlld: each of temperatures must be greater than 0"),
        ("mlld", {"temperatures": []}, r"objective\.mlld: the number of temperatures must be at least 1"),
        ("mlld", {"temperatures": 4.0}, r"objective\.mlld\.temperatures: should be a list, each entry a number"),
        ("dkd", {"gama": 2.0}, r"objective\.dkd\.gama: DKD takes no such key"),
    ],
)
def test_constants_out_of_range_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shipped(name, **changes)
